"""Post a grocer's baskets over HTTP as its tills would: what they sell first, then the sales.

Whatever is there already is found and left alone, so that an import that was cut short, by
whatever, is completed by running it again; nothing is posted twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from sofinance.infra.command import SetupError
from sofinance.tools.client import Client, RefusedError, ensure, for_each
from sofinance.tools.completejourney import LINES_MAX, TIME_ZONE
from sofinance.tools.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date

    from sofinance.tools.completejourney import Basket, Selection

# Fixed for ever: the same basket has the same client_sale_id in every import of it.
NAMESPACE = uuid.UUID("8f0d5c1e-6a1b-5f43-9d58-0f7b8a5a2b17")
CURRENCY = "USD"
TAX_CODE = "ZERO"  # the data is without tax
REFERENCE = "completejourney week {week} store {store}"
# The data does not say how baskets were paid; every fourth pays cash.
CASH_EVERY = 4


@dataclass
class Shop:
    """The ids that the service gave to what the data calls by its own numbers."""

    branches: dict[int, int] = field(default_factory=dict)
    products: dict[int, int] = field(default_factory=dict)
    customers: dict[int, int] = field(default_factory=dict)


@dataclass
class Outcome:
    """What became of the sales that were posted."""

    posted: int = 0
    already_there: int = 0
    line_count: int = 0
    received: Decimal = Decimal(0)
    sale_ids: set[int] = field(default_factory=set)
    refused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0


def client_sale_id(basket: Basket) -> str:
    """Return the basket's own UUID."""
    return str(uuid.uuid5(NAMESPACE, basket.name))


# -- what must be there before the first sale ----------------------------------------------------


async def set_up(client: Client, selection: Selection, *, at_once: int) -> Shop:
    """Make the branches, categories, products, customers and the stock that are not there yet."""
    await check_currency(client)
    codes = {row["code"]: row["id"] for row in await client.list_all("/tax-codes")}
    if TAX_CODE not in codes:
        body = {"code": TAX_CODE, "name": "Zero rate", "rate_percent": "0"}
        codes[TAX_CODE] = (await client.post("/tax-codes", body)).data["id"]

    stores = {basket.store_id: f"Store {basket.store_id}" for basket in selection.baskets}
    households = {
        basket.household_id: f"household-{basket.household_id}@example.com"
        for basket in selection.baskets
    }
    names = {product.category for product in selection.products.values() if product.category}
    branches = await ensure(
        client, "/branches", "name",
        {name: {"name": name, "time_zone": str(TIME_ZONE)} for name in stores.values()},
        at_once=at_once,
    )  # fmt: skip
    categories = await ensure(
        client, "/categories", "name", {name: {"name": name} for name in names}, at_once=at_once
    )
    customers = await ensure(
        client, "/customers", "email",
        {email: {"name": f"Household {n}", "email": email} for n, email in households.items()},
        at_once=at_once,
    )  # fmt: skip
    products = await ensure(
        client, "/products", "sku",
        {
            product.sku: {
                "sku": product.sku, "name": product.name, "price": str(product.price),
                "cost": str(product.cost), "tax_code_id": codes[TAX_CODE],
                "category_id": categories.get(product.category or ""),
            }
            for product in selection.products.values()
        },
        at_once=at_once,
    )  # fmt: skip
    shop = Shop(
        {store: branches[name] for store, name in stores.items()},
        {product.product_id: products[product.sku] for product in selection.products.values()},
        {household: customers[email] for household, email in households.items()},
    )
    await stock_up(client, selection, shop, at_once=at_once)
    return shop


async def check_currency(client: Client) -> None:
    """Refuse an organisation whose books are not in dollars: the data's amounts are."""
    currency = (await client.get("/journal/trial-balance"))["currency"]
    if currency != CURRENCY:
        raise SetupError(
            f"The data is in {CURRENCY}; this organisation keeps its books in {currency}."
        )


async def stock_up(client: Client, selection: Selection, shop: Shop, *, at_once: int) -> None:
    """Receive the goods that the sales take and that no earlier run has received.

    A receipt is of one week and one store, and is named so. What earlier ones brought is read
    back from the books, so that neither an interruption nor a larger selection brings it twice.
    """
    needs = selection.needs()
    begins = {
        week: min(basket.sold_on for basket in selection.baskets if basket.week == week)
        for week in {week for week, _ in needs}
    }
    costs = {product.product_id: product.cost for product in selection.products.values()}
    brought = await read_receipts(client, set(begins.values()), at_once=at_once)
    bodies: list[tuple[dict[str, Any], str]] = []
    for (week, store), needed in sorted(needs.items()):
        reference = REFERENCE.format(week=week, store=store)
        before = brought.get(reference, {})
        lacking = {
            product_id: (quantity, before.get(shop.products[product_id], Decimal(0)))
            for product_id, quantity in sorted(needed.items())
            if before.get(shop.products[product_id], Decimal(0)) < quantity
        }
        for chunk in chunks(lacking, LINES_MAX):
            body = {
                "branch_id": shop.branches[store],
                "kind": "OPENING",
                "reference": reference,
                "received_on": begins[week].isoformat(),
                "lines": [
                    {
                        "product_id": shop.products[product_id],
                        "quantity": str(quantity - there),
                        "unit_cost": str(costs[product_id]),
                    }
                    for product_id, (quantity, there) in chunk
                ],
            }
            # What was there before is part of the key: the same goods may be needed once more.
            there = [str(there) for _, (_, there) in chunk]
            bodies.append((body, digest([body, there])))
    if not bodies:
        return
    with Progress("Receipts", len(bodies)) as progress:

        async def receive(item: tuple[dict[str, Any], str]) -> None:
            await client.post("/inventory/receipts", item[0], key=item[1])
            progress.step()

        await for_each(bodies, receive, at_once=at_once)


async def read_receipts(
    client: Client, days: set[date], *, at_once: int
) -> dict[str, dict[int, Decimal]]:
    """Return what has been received, by reference and product id, from the days' entries."""
    ids: list[int] = []
    prefix = REFERENCE.partition("{")[0]
    for day in sorted(days):
        entries = await client.list_all(
            "/journal/entries", entry_type="GOODS_RECEIPT", start_date=day, end_date=day
        )
        ids += [
            entry["goods_receipt_id"]
            for entry in entries
            if (entry["memo"] or "").startswith(prefix)
        ]
    brought: dict[str, dict[int, Decimal]] = defaultdict(lambda: defaultdict(Decimal))

    async def read(receipt_id: int) -> None:
        receipt = await client.get(f"/inventory/receipts/{receipt_id}")
        shelf = brought[receipt["reference"]]
        for line in receipt["lines"]:
            shelf[line["product_id"]] += Decimal(line["quantity"])

    await for_each(ids, read, at_once=at_once)
    return brought


# -- the sales -----------------------------------------------------------------------------------


def sale_body(basket: Basket, shop: Shop) -> dict[str, Any]:
    """Return the sale as a till would post it, paid whole."""
    received = basket.received
    method = "CASH" if basket.basket_id % CASH_EVERY == 0 else "CARD"
    return {
        "branch_id": shop.branches[basket.store_id],
        "customer_id": shop.customers[basket.household_id],
        "client_sale_id": client_sale_id(basket),
        "sold_on": basket.sold_on.isoformat(),
        "till_at": basket.till_at.isoformat(),
        "items": [
            {
                "product_id": shop.products[line.product_id],
                "quantity": str(line.quantity),
                "unit_price": str(line.unit_price),
                "discount": str(line.discount),
            }
            for line in basket.lines
        ],
        "payments": [{"amount": str(received), "method": method}] if received else [],
    }


async def post_sales(client: Client, selection: Selection, shop: Shop, *, at_once: int) -> Outcome:
    """Post the sales in the order of time, several at once but one at a time for each store."""
    outcome = Outcome()
    with Progress("Sales", len(selection.baskets)) as progress:

        async def post(basket: Basket) -> None:
            await post_sale(client, basket, shop, outcome)
            progress.step()

        await for_each_in_turn(selection.baskets, post, at_once=at_once)
        outcome.seconds = progress.elapsed_s
    return outcome


async def post_sale(client: Client, basket: Basket, shop: Shop, outcome: Outcome) -> None:
    """Post one sale and count what became of it."""
    body = sale_body(basket, shop)
    try:
        reply = await client.post("/sales", body, key=body["client_sale_id"])
    except RefusedError as refused:
        if refused.code != "sale_client_sale_taken":
            outcome.refused[refused.code].append(f"basket {basket.name}: {refused}")
            return
        # Posted by an earlier run, whose Idempotency-Key has expired since.
        outcome.already_there += 1
        outcome.sale_ids.add(int(refused.details["sale_id"]))
    else:
        if Decimal(reply.data["total"]) != basket.received:
            outcome.refused["another_total"].append(
                f"basket {basket.name}: {basket.received} was received, and the sale comes to "
                f"{reply.data['total']}"
            )
        outcome.posted += not reply.replayed
        outcome.already_there += reply.replayed
        outcome.sale_ids.add(int(reply.data["id"]))
    outcome.line_count += len(basket.lines)
    outcome.received += basket.received


async def for_each_in_turn(baskets: list[Basket], work: Any, *, at_once: int) -> None:
    """Work through the baskets, earliest first, never two of one store at once.

    A till sells one basket after the other; two at once would only wait for each other's number.
    """
    lines: dict[int, Iterator[tuple[Any, int, Basket]]] = {}
    waiting: asyncio.PriorityQueue[tuple[Any, int, Basket]] = asyncio.PriorityQueue()
    by_store: dict[int, list[tuple[Any, int, Basket]]] = defaultdict(list)
    for number, basket in enumerate(baskets):
        by_store[basket.store_id].append((basket.till_at, number, basket))
    for store, its in by_store.items():
        lines[store] = iter(its)
        waiting.put_nowait(next(lines[store]))

    async def take() -> None:
        while True:
            basket = (await waiting.get())[2]
            await work(basket)
            following = next(lines[basket.store_id], None)
            if following is not None:
                waiting.put_nowait(following)
            waiting.task_done()

    workers = [asyncio.create_task(take()) for _ in range(at_once)]
    everything = asyncio.create_task(waiting.join())
    try:
        done, _ = await asyncio.wait([everything, *workers], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (everything, *workers):
            task.cancel()
        await asyncio.gather(everything, *workers, return_exceptions=True)


# -- small things --------------------------------------------------------------------------------


def chunks(items: Mapping[int, Any], size: int) -> Iterator[list[tuple[int, Any]]]:
    """Yield the items in lists of at most so many."""
    left = iter(items.items())
    while chunk := list(islice(left, size)):
        yield chunk


def digest(what: Any) -> str:
    """Return a key that is the same for the same thing."""
    return hashlib.sha256(orjson.dumps(what)).hexdigest()
