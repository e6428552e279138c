"""Sales: one transaction that posts its own books."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from tests.api.conftest import Shop
    from tests.conftest import MakeOrg
    from tests.support import Api, Org, Psql


async def test_a_sale_posts_its_own_books(shop: Shop, psql: Psql) -> None:
    before = await shop.balances()
    answer = await shop.sell(
        shop.item(0, "2"), shop.item(1, "1.5", discount="0.49"), paid="29.70", key="basket-1"
    )
    assert answer.status == 201
    sale = answer.data
    assert answer.headers["Location"] == f"/api/v1/sales/{sale['id']}"

    # 20.00 + round(7.485) = 27.49, less 0.49; tax of 10 % on 20.00 and on 7.00.
    amounts = [sale[name] for name in ("subtotal", "discount", "tax", "total", "paid_amount")]
    assert amounts == ["27.49", "0.49", "2.70", "29.70", "29.70"]
    assert (sale["payment_type"], sale["outstanding_amount"]) == ("FULL", "0.00")
    assert sale["receipt_number"] == "Till 1-000001"

    # Cost: 2 x 6.00 + 1.5 x 2.50.
    after = await shop.balances()
    changed = {
        code: str(Decimal(after.get(code, "0")) - Decimal(before.get(code, "0")))
        for code in sorted(after.keys() | before.keys())
        if after.get(code) != before.get(code)
    }
    assert changed == {
        "1000": "29.70",
        "1200": "-15.75",
        "2100": "-2.70",
        "4000": "-27.49",
        "4100": "0.49",
        "5000": "15.75",
    }
    assert await shop.stock(0) == ("98", "588.00")
    assert await shop.stock(1) == ("98.5", "246.25")

    entry = (await shop.api.get(f"/journal/entries/{sale['entry_id']}", shop.org)).data
    assert (entry["kind"], entry["sale_id"]) == ("SALE", sale["id"])
    written = psql(
        "select action, entity_id, after ->> 'total' from audit_log where entity_id = %s"
        " and entity_type = 'sales'",
        [sale["id"]],
        org=shop.org,
    )
    assert written == [("sales.post_sale", sale["id"], "29.70")]
    assert psql("select status from idempotency_key", org=shop.org) == [(201,)]


async def test_a_sale_reads_back_with_its_lines_and_payments(shop: Shop) -> None:
    posted = (
        await shop.sell(
            shop.item(0, "3"),
            payments=[
                {"amount": "30.00", "method": "CARD", "reference": "slip 7"},
                {"amount": "3"},
            ],
        )
    ).data
    sale = (await shop.api.get(f"/sales/{posted['id']}", shop.org)).data
    assert {name: sale[name] for name in posted} == posted
    (line,) = sale["items"]
    assert (line["quantity"], line["unit_price"], line["tax"], line["total"]) == (
        "3", "10.00", "3.00", "33.00",
    )  # fmt: skip
    payments = [(p["method"], p["amount"], p["paid_after"]) for p in sale["payments"]]
    assert payments == [("CARD", "30.00", "30.00"), ("CASH", "3.00", "33.00")]
    balances = await shop.balances()
    assert (balances["1000"], balances["1020"]) == ("3.00", "30.00")


async def test_a_receipt_has_a_stable_number_and_says_who_sold(shop: Shop) -> None:
    sale = (await shop.sell(paid="11.00")).data
    path = f"/sales/{sale['id']}/receipt"
    first, second = await shop.api.get(path, shop.org), await shop.api.get(path, shop.org)
    assert first.data == second.data
    assert first.data["receipt_number"] == sale["receipt_number"]
    assert first.data["company_info"]["branch_name"] == "Main Street"
    assert first.data["sale"]["items"][0]["product_name"] == "Product 1"


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"items": []}, (422, "invalid_request")),
        ({"items": [{}] * 50_000}, (422, "invalid_request")),
        ({"items": [{"product_id": 1, "quantity": "0"}]}, (422, "invalid_request")),
        ({"items": [{"product_id": 1, "quantity": "-1"}]}, (422, "invalid_request")),
        ({"items": [{"product_id": 1, "quantity": 1.5}]}, (422, "invalid_request")),
        ({"surprise": 1}, (422, "invalid_request")),
        ({"discount": "1000000"}, (422, "sale_discount_within_subtotal")),
        ({"payments": [{"amount": "11.01"}]}, (422, "payment_within_total")),
        ({"discount": "0.001"}, (422, "sale_in_minor_units")),
        ({"payments": []}, (422, "sale_credit_has_customer")),
        ({"payments": [{"amount": "11", "method": "GOLD"}]}, (422, "invalid_request")),
        ({"payments": [{"amount": "11", "currency": "EUR"}]}, (409, "payment_sale_known")),
        ({"customer_id": 10**15}, (409, "sale_customer_known")),
        ({"till_id": 10**15}, (409, "sale_till_known")),
        ({"branch_id": 10**15}, (409, "sale_till_known")),
    ],
)
async def test_a_sale_that_breaks_a_rule_is_refused_and_leaves_nothing(
    shop: Shop, changes: dict[str, object], refused: tuple[int, str]
) -> None:
    body = shop.sale(paid="11.00", **changes)
    answer = await shop.api.post("/sales", shop.org, body)
    assert answer.refused == refused
    assert (await shop.api.get("/sales", shop.org)).data["pagination"]["total"] == 0
    assert await shop.stock() == ("100", "600.00")


async def test_a_line_discount_above_the_line_is_refused(shop: Shop) -> None:
    answer = await shop.sell(shop.item(0, discount="10.01"), shop.item(2), paid="1.00")
    assert answer.status == 422
    assert answer.code in {"sale_line_discount_within_subtotal", "sale_credit_has_customer"}


async def test_a_discount_is_shared_without_losing_a_cent(shop: Shop) -> None:
    sale = (
        await shop.sell(
            shop.item(0), shop.item(1), shop.item(0), shop.item(1, "0.333"), discount="1.00",
            customer_id=await shop.customer(),
        )
    ).data  # fmt: skip
    lines = (await shop.api.get(f"/sales/{sale['id']}", shop.org)).data["items"]
    assert sum(Decimal(line["sale_discount"]) for line in lines) == Decimal("1.00")
    assert sale["discount"] == "1.00"
    assert sum(Decimal(line["total"]) for line in lines) == Decimal(sale["total"])


async def test_prices_that_include_tax_contain_it(api: Api, new_org: MakeOrg) -> None:
    org = await new_org(prices_include_tax=True, standard_tax_percent=Decimal(20))
    shop = await open_shop(api, org)
    sale = (await shop.sell(shop.item(0, discount="1.00"), paid="9.00")).data
    assert (sale["subtotal"], sale["tax"], sale["total"]) == ("10.00", "1.50", "9.00")
    balances = await shop.balances()
    assert (balances["4000"], balances["4100"], balances["2100"]) == ("-8.50", "1.00", "-1.50")


@pytest.mark.parametrize(
    ("currency", "price", "tax", "total"),
    [("JPY", "333", "33", "366"), ("KWD", "3.335", "0.334", "3.669")],
)
async def test_amounts_have_the_decimals_of_their_currency(
    api: Api, new_org: MakeOrg, currency: str, price: str, tax: str, total: str
) -> None:
    org = await new_org(base_currency=currency)
    shop = await open_shop(api, org) if currency == "KWD" else None
    if shop is None:
        refused = await api.post(
            "/products", org, {"sku": "A", "name": "A", "cost": "1.5", "price": "2"}
        )
        assert refused.refused == (422, "product_price_in_minor_units")
        branch = (await api.post("/branches", org, {"name": "Ginza"})).data
    else:
        branch = {"id": shop.branch_id}
    product = (
        await api.post("/products", org, {"sku": "A", "name": "A", "cost": "1", "price": price})
    ).data
    receipt = {
        "branch_id": branch["id"],
        "lines": [{"product_id": product["id"], "quantity": "3", "unit_cost": "1.3333"}],
    }
    assert (await api.post("/inventory/receipts", org, receipt)).status == 201
    sale = {
        "branch_id": branch["id"],
        "items": [{"product_id": product["id"], "quantity": "1"}],
        "payments": [{"amount": total}],
    }
    posted = (await api.post("/sales", org, sale)).data
    assert (posted["tax"], posted["total"], posted["outstanding_amount"]) == (
        tax, total, "0" if currency == "JPY" else "0.000",
    )  # fmt: skip


async def test_a_cashier_may_not_ask_another_price_and_a_manager_may(shop: Shop) -> None:
    cashier, manager = shop.org.member("CASHIER"), shop.org.member("MANAGER")
    cheap = shop.item(0, unit_price="0.01")
    refused = await shop.sell(cheap, paid="0.01", who=cashier)
    assert refused.refused == (403, "sale_line_price_override_allowed")
    assert refused.details["product_ids"] == [shop.product_ids[0]]
    assert (await shop.sell(shop.item(0, unit_price="10.00"), paid="11.00", who=cashier)).data

    sale = (await shop.sell(cheap, paid="0.01", who=manager)).data
    (line,) = (await shop.api.get(f"/sales/{sale['id']}", shop.org)).data["items"]
    assert (line["list_price"], line["unit_price"]) == ("10.00", "0.01")


async def test_a_cashier_may_not_choose_the_business_date(shop: Shop) -> None:
    body = shop.sale(paid="11.00", sold_on="2026-01-31")
    assert (await shop.api.post("/sales", shop.org.member("CASHIER"), body)).refused == (
        403, "forbidden",
    )  # fmt: skip
    sale = (await shop.api.post("/sales", shop.org.member("MANAGER"), body)).data
    assert sale["sold_on"] == "2026-01-31"
    entry = (await shop.api.get(f"/journal/entries/{sale['entry_id']}", shop.org)).data
    assert entry["date"] == "2026-01-31"


async def test_stock_is_the_branchs_own(shop: Shop) -> None:
    other = (await shop.api.post("/branches", shop.org, {"name": "Side Street"})).data
    answer = await shop.sell(paid="11.00", branch_id=other["id"])
    assert answer.refused == (409, "stock_not_negative")
    assert answer.details["lines"] == [
        {"product_id": shop.product_ids[0], "available": "0", "required": "1"}
    ]


async def test_a_product_listed_twice_is_added_up(shop: Shop) -> None:
    answer = await shop.sell(shop.item(0, "60"), shop.item(0, "60"), paid="1320.00")
    assert answer.refused == (409, "stock_not_negative")
    assert answer.details["lines"][0]["required"] == "120"
    assert (await shop.sell(shop.item(0, "60"), shop.item(0, "40"), paid="1100.00")).data
    assert await shop.stock() == ("0", "0.00")


async def test_an_inactive_product_is_not_sold(shop: Shop) -> None:
    product = {"sku": "P1", "name": "Product 1", "price": "10", "cost": "6", "is_active": False}
    path = f"/products/{shop.product_ids[0]}"
    assert (await shop.api.put(path, shop.org, product)).data["is_active"] is False
    answer = await shop.sell(paid="11.00")
    assert answer.refused == (409, "sale_line_product_known")


async def test_the_last_unit_takes_what_value_is_left(shop: Shop) -> None:
    receipt = {
        "branch_id": shop.branch_id,
        "lines": [{"product_id": shop.product_ids[0], "quantity": "1", "unit_cost": "0.05"}],
    }
    assert (await shop.api.post("/inventory/receipts", shop.org, receipt)).status == 201
    for quantity in ("33", "33.5", "34.5"):
        total = str(Decimal(quantity) * 11)
        assert (await shop.sell(shop.item(0, quantity), paid=total)).data
    assert await shop.stock() == ("0", "0.00")
    assert (await shop.balances())["1200"] == "7250.00"


async def test_a_sale_changes_nothing_when_a_rate_changes_later(shop: Shop) -> None:
    sale = (await shop.sell(paid="11.00")).data
    codes = (await shop.api.get("/tax-codes", shop.org)).data["items"]
    (code,) = [code for code in codes if code["code"] == "STD"]
    change = {"code": "STD", "name": "Standard rate", "rate_percent": "25"}
    assert (await shop.api.put(f"/tax-codes/{code['id']}", shop.org, change)).status == 200
    (line,) = (await shop.api.get(f"/sales/{sale['id']}", shop.org)).data["items"]
    assert (line["tax_rate_percent"], line["tax"]) == ("10", "1.00")
    assert (await shop.sell(paid="12.50")).data["tax"] == "2.50"


# -- races -------------------------------------------------------------------------------------


async def test_twenty_posts_with_one_key_are_one_sale_and_nineteen_replays(shop: Shop) -> None:
    answers = await asyncio.gather(*(shop.sell(paid="11.00", key="same") for _ in range(20)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.data["id"] for answer in answers}) == 1
    replays = Counter(answer.headers.get("Idempotent-Replayed") for answer in answers)
    assert replays == {None: 1, "true": 19}
    assert len({answer.text for answer in answers}) == 1
    assert await shop.stock() == ("99", "594.00")


async def test_the_same_key_with_another_body_is_refused(shop: Shop) -> None:
    assert (await shop.sell(paid="11.00", key="k")).status == 201
    answer = await shop.sell(shop.item(0, "2"), paid="22.00", key="k")
    assert answer.refused == (422, "idempotency_key_reused")


async def test_a_refused_sale_leaves_its_key_free(shop: Shop) -> None:
    assert (await shop.sell(paid="99.00", key="k")).refused == (422, "payment_within_total")
    assert (await shop.sell(paid="11.00", key="k")).status == 201


async def test_twenty_posts_of_one_client_sale_are_one_sale(shop: Shop) -> None:
    client_sale_id = str(uuid.uuid4())
    answers = await asyncio.gather(
        *(shop.sell(paid="11.00", client_sale_id=client_sale_id) for _ in range(20))
    )
    refusals = [answer.refused for answer in answers if answer.status != 201]
    assert refusals == [(409, "sale_client_sale_taken")] * 19


async def test_fifty_sales_of_the_last_ten_units_sell_exactly_ten(api: Api, org: Org) -> None:
    shop = await open_shop(api, org, quantity="10")
    answers = await asyncio.gather(*(shop.sell(paid="11.00") for _ in range(50)))
    assert Counter(answer.status for answer in answers) == {201: 10, 409: 40}
    assert {answer.code for answer in answers if answer.status == 409} == {"stock_not_negative"}
    assert await shop.stock() == ("0", "0.00")
    receipts = sorted(answer.data["receipt_no"] for answer in answers if answer.status == 201)
    assert receipts == list(range(1, 11))


async def test_thirty_credit_sales_at_once_stay_within_the_limit(shop: Shop) -> None:
    customer_id = await shop.customer(credit_limit="55.00")
    answers = await asyncio.gather(*(shop.sell(customer_id=customer_id) for _ in range(30)))
    refused = [answer.refused for answer in answers if answer.status != 201]
    assert refused == [(409, "customer_credit_limit")] * 25
    balance = (await shop.api.get(f"/customers/{customer_id}/balance", shop.org)).data
    assert (balance["balance"], balance["available_credit"]) == ("55.00", "0.00")


async def test_baskets_in_opposite_orders_do_not_deadlock(shop: Shop) -> None:
    there, back = [shop.item(n) for n in (0, 1, 2)], [shop.item(n) for n in (2, 1, 0)]
    tills = [
        (await shop.api.post(f"/branches/{shop.branch_id}/tills", shop.org, {"name": f"T{n}"})).data
        for n in range(4)
    ]
    answers = await asyncio.gather(
        *(
            shop.sell(*(there if n % 2 else back), paid="126.49", till_id=tills[n % 4]["id"])
            for n in range(40)
        )
    )
    assert {answer.status for answer in answers} == {201}
    assert (await shop.stock(2))[0] == "60"


# -- lists and figures -------------------------------------------------------------------------


async def test_lists_filter_and_page(shop: Shop) -> None:
    customer_id = await shop.customer()
    await shop.sell(paid="11.00")
    unpaid = (await shop.sell(customer_id=customer_id)).data
    partial = (await shop.sell(customer_id=customer_id, paid="1.00")).data
    voided = (await shop.sell(paid="11.00")).data
    await shop.api.post(f"/sales/{voided['id']}/void", shop.org, {"reason": "test"})

    async def ids(query: str) -> list[int]:
        answer = await shop.api.get(f"/sales?{query}", shop.org)
        return [sale["id"] for sale in answer.data["items"]]

    assert await ids("payment_type=UNPAID") == [unpaid["id"]]
    assert await ids("payment_type=PARTIAL") == [partial["id"]]
    assert await ids(f"customer_id={customer_id}") == [partial["id"], unpaid["id"]]
    assert len(await ids("")) == 3
    assert len(await ids("include_voided=true")) == 4
    assert await ids("size=1&page=2") == [unpaid["id"]]
    assert await ids("end_date=2001-01-01") == []
    for bad in ("size=101", "page=0", "size=x", "payment_type=X", "start_date=yesterday"):
        assert (await shop.api.get(f"/sales?{bad}", shop.org)).refused == (422, "invalid_request")


async def test_todays_figures_are_the_days_sales(shop: Shop) -> None:
    empty = (await shop.api.get("/sales/today/summary", shop.org)).data
    assert (empty["total_sales"], empty["total_revenue"]) == (0, "0.00")
    await shop.sell(shop.item(0, "2", discount="1.00"), paid="20.90")
    await shop.sell(shop.item(2), paid="110.00")
    today = (await shop.api.get(f"/sales/today/summary?branch_id={shop.branch_id}", shop.org)).data
    assert (today["total_sales"], today["total_revenue"]) == (2, "130.90")
    assert (today["total_discount"], today["average_sale_value"]) == ("1.00", "65.45")
    top = [(each["product_name"], each["amount"]) for each in today["top_selling_products"]]
    assert top == [("Product 3", "110.00"), ("Product 1", "20.90")]
    summary = (await shop.api.get("/sales/summary?range_days=1", shop.org)).data
    assert (summary["sales_count"], summary["gross_sales_total"]) == (2, "130.90")
