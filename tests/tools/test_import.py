"""The import of real till data: what becomes of its lines, and that posting it again is safe."""

from __future__ import annotations

import argparse
import asyncio
import uuid
from dataclasses import replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from sofinance.infra.command import SetupError
from sofinance.tools import completejourney as data
from sofinance.tools import grocer, import_completejourney
from sofinance.tools.client import Client, RefusedError
from sofinance.tools.completejourney import Product, Selection, Shelf
from sofinance.tools.progress import Progress
from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Api, Org, Psql

    MakeOrg = Callable[..., Awaitable[Org]]

CENT = Decimal("0.01")
NOON = 1_483_290_000  # 2017-01-01 17:00 UTC, noon in New York


def row(**changes: Any) -> dict[str, Any]:
    """Return a line of the data."""
    return {
        "household_id": 7, "store_id": 343, "basket_id": 4000, "product_id": 861, "quantity": 1,
        "sales_value": 1.5, "retail_disc": 0.29, "coupon_disc": 0.0, "coupon_match_disc": 0.0,
        "week": 1, "transaction_timestamp": NOON, **changes,
    }  # fmt: skip


def selection_of(*rows: dict[str, Any], basket_count_max: int | None = None) -> Selection:
    """Return the rows as a selection, of products at 2.00 that cost 1.40."""
    selection = Selection((1, 2))
    shelves = {line["product_id"]: Shelf(200, by_thousandths=False) for line in rows}
    data.add_rows(selection, rows, shelves, basket_count_max=basket_count_max)
    data.add_products(selection, shelves, {}, Decimal(30))
    return selection


# -- one line ------------------------------------------------------------------------------------


@given(
    quantity=st.integers(1, 90_000),
    sales=st.integers(0, 100_000),
    retail=st.integers(0, 20_000),
    match=st.integers(0, 1_000),
    by_thousandths=st.booleans(),
)
def test_a_line_comes_to_what_was_received_whatever_its_price(
    quantity: int, sales: int, retail: int, match: int, *, by_thousandths: bool
) -> None:
    line = data.sale_line(
        row(
            quantity=quantity, sales_value=sales / 100, retail_disc=retail / 100,
            coupon_match_disc=match / 100,
        ),
        by_thousandths=by_thousandths,
    )  # fmt: skip
    subtotal = (line.quantity * line.unit_price).quantize(CENT, ROUND_HALF_UP)
    assert subtotal - line.discount == line.received == Decimal(sales) / 100
    assert line.unit_price == line.unit_price.quantize(CENT)
    assert line.quantity == line.quantity.quantize(Decimal("0.001"))
    assert line.discount >= Decimal(retail + match) / 100


def test_the_shelf_price_is_as_the_data_sets_documentation_has_it() -> None:
    line = data.sale_line(
        row(quantity=2, sales_value=2.78, retail_disc=0.8, coupon_match_disc=0.2, coupon_disc=1.0),
        by_thousandths=False,
    )
    assert (line.unit_price, line.discount) == (Decimal("1.89"), Decimal("1.00"))


def test_a_price_that_is_no_whole_cent_is_rounded_up_and_the_rest_is_a_discount() -> None:
    line = data.sale_line(row(quantity=3, sales_value=1.0, retail_disc=0.0), by_thousandths=False)
    assert (line.unit_price, line.discount) == (Decimal("0.34"), Decimal("0.02"))


def test_fuel_is_sold_by_the_gallon() -> None:
    line = data.sale_line(
        row(quantity=8725, sales_value=20.06, retail_disc=0.08), by_thousandths=True
    )
    assert (line.quantity, line.unit_price) == (Decimal("8.725"), Decimal("2.31"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"sales_value": 0.0}, None),
        ({"quantity": 0}, "quantity is 0"),
        ({"quantity": -1}, "quantity is below 0"),
        ({"retail_disc": -0.1}, "an amount is below 0"),
        ({"store_id": None}, "a value is missing"),
    ],
)
def test_a_line_that_cannot_be_sold_has_a_reason(
    changes: dict[str, Any], reason: str | None
) -> None:
    assert data.refusal(row(**changes)) == reason


@given(st.integers(0, 10_000_000))
def test_a_float_of_dollars_is_so_many_cents(cents: int) -> None:
    assert data.cents(cents / 100) == cents


def test_an_amount_of_a_part_of_a_cent_is_not_rounded_in_silence() -> None:
    with pytest.raises(ValueError, match="not a whole number of cents"):
        data.cents(1.237)


# -- baskets and products ------------------------------------------------------------------------


def test_refused_lines_are_counted_with_what_was_received_for_them() -> None:
    selection = selection_of(
        row(), row(product_id=862, quantity=0, sales_value=0.25), row(basket_id=4001, quantity=0)
    )
    assert (selection.basket_count, selection.empty_basket_count) == (2, 1)
    assert selection.refused["quantity is 0"] == data.Tally(2, Decimal("1.75"))
    assert selection.received == Decimal("1.50")
    assert selection.lines.received == selection.received + Decimal("1.75")


def test_a_basket_that_is_too_long_for_a_sale_becomes_two() -> None:
    selection = selection_of(*(row(product_id=n) for n in range(1, data.LINES_MAX + 2)))
    assert [len(basket.lines) for basket in selection.baskets] == [data.LINES_MAX, 1]
    assert len({grocer.client_sale_id(basket) for basket in selection.baskets}) == 2
    assert selection.basket_count == 1


def test_a_basket_is_sold_on_the_date_of_its_store() -> None:
    (basket,) = selection_of(row(transaction_timestamp=NOON + 10 * 3600)).baskets
    assert basket.till_at.date() == date(2017, 1, 2)
    assert basket.sold_on == date(2017, 1, 1)


def test_a_product_without_a_description_still_has_a_name() -> None:
    product = data.describe(5978656, None, Shelf(0, by_thousandths=False), Decimal(30))
    assert product == Product(5978656, "Product 5978656", None, CENT, CENT, by_thousandths=False)


def test_a_product_is_named_by_what_is_known_of_it() -> None:
    known = {
        "department": "GROCERY", "product_category": None, "product_type": "APPLE  SAUCE ",
        "brand": "Private", "package_size": "50 OZ",
    }  # fmt: skip
    product = data.describe(26190, known, Shelf(199, by_thousandths=False), Decimal(30))
    assert (product.name, product.category) == ("APPLE SAUCE, Private, 50 OZ", "GROCERY")
    assert (product.price, product.cost) == (Decimal("1.99"), Decimal("1.39"))


def test_the_typical_price_is_the_usual_one_that_was_not_nothing() -> None:
    assert data.typical_price({0: 9, 199: 3, 149: 3, 189: 1}) == 149
    assert data.typical_price({0: 9}) == 0


@pytest.mark.parametrize("text", ["0-2", "3-2", "1-54", "x", "", "1-2-3"])
def test_weeks_that_there_are_not_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        import_completejourney.week_range(text)


def test_the_files_hold_what_their_publisher_says() -> None:
    selection = data.read(weeks=(1, 1), basket_count_max=None, margin_percent=Decimal(30))
    assert selection.first_on == selection.last_on == date(2017, 1, 1)
    assert selection.lines.received == selection.received
    assert selection.basket_count == len(selection.baskets) + selection.empty_basket_count
    fuel = [product for product in selection.products.values() if product.by_thousandths]
    assert {product.name.partition(",")[0] for product in fuel} == {"GASOLINE-REG UNLEADED"}
    assert all(Decimal(1) < product.price < Decimal(4) for product in fuel)


# -- posting -------------------------------------------------------------------------------------


async def post(api: Api, org: Org, selection: Selection, **changes: Any) -> dict[str, Any]:
    """Import a selection as the command does."""
    args = argparse.Namespace(
        url=api.base_url, email="", password="", token=org.admin.token, concurrency=4, patience=5.0
    )
    for name, value in changes.items():
        setattr(args, name, value)
    return await import_completejourney.post(args, selection)


def two_stores() -> list[dict[str, Any]]:
    """Return five baskets of two stores and three households, one free and one refused."""
    return [
        row(),
        row(product_id=862, quantity=3, sales_value=1.0),
        row(basket_id=4001, store_id=367, household_id=8, transaction_timestamp=NOON + 60),
        row(basket_id=4002, household_id=9, quantity=2, transaction_timestamp=NOON + 120),
        row(basket_id=4003, sales_value=0.0, transaction_timestamp=NOON + 180),
        row(basket_id=4004, quantity=0, sales_value=0.0, transaction_timestamp=NOON + 240),
    ]


async def test_what_was_received_is_what_the_ledger_says(api: Api, org: Org) -> None:
    result = await post(api, org, selection_of(*two_stores()))
    assert result["equal"]
    assert result["received_per_data"] == result["received_per_ledger"] == Decimal("5.50")
    assert result["data"] == {"baskets": 5, "lines": 6, "received": Decimal("5.50")}
    assert result["sales"]["baskets"] == 4
    assert result["baskets_without_a_sale_line"] == 1
    assert result["refused_lines"]["quantity is 0"]["lines"] == 1
    assert result["trial_balance"]["is_balanced"]


async def test_money_on_a_refused_line_is_accounted_for(api: Api, org: Org) -> None:
    result = await post(api, org, selection_of(row(), row(quantity=0, sales_value=0.25)))
    assert result["equal"]
    assert result["received_on_refused_lines"] == Decimal("0.25")
    assert result["received_per_data"] == result["received_per_ledger"] + Decimal("0.25")


async def test_again_when_keys_have_expired_nothing_is_posted_twice(
    api: Api, org: Org, psql: Psql
) -> None:
    first = await post(api, org, selection_of(*two_stores()))
    psql("delete from idempotency_key", org=org)
    again = await post(api, org, selection_of(*two_stores()))
    assert again["sales"]["already_there"] == again["sales"]["baskets"] == 4
    assert again["equal"]
    assert again["trial_balance"]["lines"] == first["trial_balance"]["lines"]


async def test_a_larger_selection_brings_only_the_goods_that_are_lacking(
    api: Api, org: Org
) -> None:
    await post(api, org, selection_of(*two_stores(), basket_count_max=2))
    result = await post(api, org, selection_of(*two_stores()))
    assert result["sales"]["already_there"] == 2
    assert result["equal"]
    balances = {line["account_code"]: line for line in result["trial_balance"]["lines"]}
    assert balances["1200"]["debit_balance"] == balances["1200"]["credit_balance"] == "0.00"
    # And the smaller one again: the other sales of the day are not its own.
    smaller = await post(api, org, selection_of(*two_stores(), basket_count_max=2))
    assert smaller["equal"]
    assert smaller["received_per_ledger"] == Decimal("4.00")


async def test_imports_that_are_cut_short_anywhere_end_the_same(api: Api, new_org: MakeOrg) -> None:
    rows = [
        row(basket_id=n, store_id=n % 5, household_id=n % 7, product_id=n % 11,
            transaction_timestamp=NOON + n)
        for n in range(1, 61)
    ]  # fmt: skip
    whole = await post(api, await new_org(), selection_of(*rows))
    org = await new_org()
    for cut_after_s in (0.05, 0.1, 0.15, 0.2, 0.25):
        running = asyncio.create_task(post(api, org, selection_of(*rows)))
        await asyncio.wait([running], timeout=cut_after_s)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    completed = await post(api, org, selection_of(*rows))
    assert completed["equal"]
    sums = ("debit_balance", "credit_balance", "account_code")
    assert [[line[name] for name in sums] for line in completed["trial_balance"]["lines"]] == [
        [line[name] for name in sums] for line in whole["trial_balance"]["lines"]
    ]


async def test_a_sale_that_the_service_refuses_is_named_and_fails_the_import(
    api: Api, org: Org
) -> None:
    selection = selection_of(*two_stores())
    await post(api, org, selection)
    periods = (await api.get("/periods", org)).data["items"]
    await api.post(f"/periods/{periods[0]['id']}/close", org)
    late = selection_of(*two_stores(), row(basket_id=4005, transaction_timestamp=NOON + 300))
    with pytest.raises(RefusedError, match="period"):
        await post(api, org, late)
    # With the goods there, it is the sale that is refused.
    client = Client(api.base_url, token=org.admin.token)
    async with client:
        shop = await grocer.set_up(client, selection, at_once=2)
        outcome = await grocer.post_sales(client, late, shop, at_once=2)
    assert outcome.already_there == 4
    ((code, (said,)),) = outcome.refused.items()
    assert code in said
    assert "basket 4005" in said


async def test_books_that_are_not_in_dollars_are_refused(api: Api, new_org: MakeOrg) -> None:
    org = await new_org(base_currency="KES")
    with pytest.raises(SetupError, match="keeps its books in KES"):
        await post(api, org, selection_of(row()))


async def test_a_sale_sent_again_without_its_key_is_taken_even_when_its_goods_are_gone(
    api: Api, org: Org
) -> None:
    shop = await open_shop(api, org, quantity="1")
    client_sale_id = str(uuid.uuid4())
    posted = await shop.sell(client_sale_id=client_sale_id, paid="11.00", key="once")
    again = await shop.sell(client_sale_id=client_sale_id, paid="11.00")
    assert again.refused == (409, "sale_client_sale_taken")
    assert again.details == {"sale_id": posted.data["id"]}


async def test_sales_of_one_store_never_run_at_once_and_all_run_in_time(api: Api) -> None:
    del api
    rows = [row(basket_id=n, store_id=n % 3, transaction_timestamp=NOON + n) for n in range(1, 31)]
    baskets = selection_of(*rows).baskets
    running: set[int] = set()
    seen: list[Any] = []

    async def work(basket: data.Basket) -> None:
        assert basket.store_id not in running
        running.add(basket.store_id)
        await asyncio.sleep(0.001)
        running.remove(basket.store_id)
        seen.append(basket)

    await grocer.for_each_in_turn(baskets, work, at_once=8)
    assert sorted(seen, key=lambda basket: basket.till_at) == baskets


# -- the client ----------------------------------------------------------------------------------


async def serve(*answers: web.Response) -> tuple[TestServer, list[str]]:
    """Serve these answers in turn to whatever is asked; also return the keys that were sent."""
    keys: list[str] = []
    left = iter(answers)

    async def answer(request: web.Request) -> web.Response:
        keys.append(request.headers.get("Idempotency-Key", ""))
        return next(left)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    return server, keys


def answer_of(status: int, **body: Any) -> web.Response:
    """Return an answer in the envelope."""
    return web.json_response({"data": None, "error": None, **body}, status=status)


async def test_a_call_is_sent_again_with_the_same_key_until_there_is_an_answer() -> None:
    busy = {"code": "idempotency_key_in_use", "message": "Still running."}
    server, keys = await serve(
        web.Response(status=502, text="<html>"), answer_of(503, error={"code": "try_again"}),
        answer_of(409, error=busy), answer_of(201, data={"id": 7}),
    )  # fmt: skip
    async with server, Client(str(server.make_url("")), token="t") as client:
        assert (await client.post("/sales", {})).data == {"id": 7}
    assert len(keys) == 4
    assert len(set(keys)) == 1


async def test_a_token_that_has_expired_is_replaced_by_signing_in() -> None:
    server, keys = await serve(
        answer_of(401, error={"code": "unauthorized"}),
        answer_of(200, data={"access_token": "new"}),
        answer_of(200, data={"id": 1}),
    )
    async with (
        server,
        Client(str(server.make_url("")), email="a@b.example", password="p", token="t") as client,
    ):
        assert await client.get("/auth/me") == {"id": 1}
    assert len(keys) == 3


async def test_a_service_that_is_not_there_is_told_in_one_sentence() -> None:
    async with Client("http://127.0.0.1:9", token="t", patience_s=0.0) as client:
        with pytest.raises(SetupError, match=r"does not answer .* goes on where it stopped"):
            await client.get("/auth/me")


async def test_a_wrong_password_is_told_in_one_sentence(api: Api, org: Org) -> None:
    async with Client(api.base_url, email=org.admin.email, password="wrong") as client:
        with pytest.raises(RefusedError, match="401 invalid_credentials"):
            await client.get("/auth/me")


# -- what people see -----------------------------------------------------------------------------


async def test_the_result_is_told_to_people(api: Api, org: Org) -> None:
    result = await post(api, org, selection_of(*two_stores()))
    result["seconds"]["reading"] = 0.1
    result["verify"] = {"clean": None, "said": "not run"}
    told = import_completejourney.told(result)
    assert "Received per data and per ledger are equal." in told
    assert "lines refused: quantity is 0" in told
    assert "1020  Card clearing" in told
    differing = import_completejourney.told({**result, "equal": False})
    assert "DIFFER" in differing


def test_progress_is_a_line_at_its_end_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress("Sales", 3) as progress:
        progress.step(3)
    assert capsys.readouterr().err.startswith("Sales: 3 of 3,")


def test_a_product_keeps_the_datas_own_number() -> None:
    product = Product(861, "x", None, CENT, CENT, by_thousandths=False)
    assert replace(product, product_id=862).sku == "862"
