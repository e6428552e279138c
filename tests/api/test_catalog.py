"""Branches, categories, products, tax codes, customers, stock: what a shop is made of."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.api.conftest import Shop
    from tests.support import Api, Org

PRODUCT = {"sku": "A", "name": "Apple", "cost": "1.00", "price": "2.00"}


async def test_a_branch_is_made_with_a_till(api: Api, org: Org) -> None:
    body = {"name": "Berbera", "address": "Port Road", "time_zone": "Africa/Mogadishu"}
    branch = (await api.post("/branches", org, body)).data
    tills = (await api.get(f"/branches/{branch['id']}/tills", org)).data["items"]
    assert [(till["id"], till["name"]) for till in tills] == [(branch["till_id"], "Till 1")]
    assert (await api.post("/branches", org, body)).refused == (409, "branch_name_taken")
    twice = {"name": "Till 1"}
    answer = await api.post(f"/branches/{branch['id']}/tills", org, twice)
    assert answer.refused == (409, "till_name_taken")
    nowhere = await api.post(f"/branches/{10**15}/tills", org, twice)
    assert nowhere.refused == (404, "not_found")
    changed = (await api.put(f"/branches/{branch['id']}", org, {"name": "Port"})).data
    assert (changed["name"], changed["time_zone"]) == ("Port", "Africa/Mogadishu")
    assert (await api.post("/branches", org, {"name": "X", "time_zone": "Mars"})).refused == (
        422, "invalid_request",
    )  # fmt: skip


async def test_twenty_products_with_one_sku_are_one(api: Api, org: Org) -> None:
    answers = await asyncio.gather(*(api.post("/products", org, PRODUCT) for _ in range(20)))
    assert Counter(answer.status for answer in answers) == {201: 1, 409: 19}
    assert {a.code for a in answers if a.status == 409} == {"product_sku_taken"}


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"price": "0.99"}, (422, "product_price_covers_cost")),
        ({"price": "2.001"}, (422, "product_price_in_minor_units")),
        ({"price": 2.5}, (422, "invalid_request")),
        ({"price": "-2"}, (422, "invalid_request")),
        ({"category_id": 10**15}, (409, "product_category_known")),
        ({"tax_code_id": 10**15}, (409, "product_tax_code_known")),
        ({"sku": ""}, (422, "invalid_request")),
        ({"org_id": 1}, (422, "invalid_request")),
    ],
)
async def test_a_product_that_breaks_a_rule_is_refused(
    api: Api, org: Org, changes: dict[str, object], refused: tuple[int, str]
) -> None:
    assert (await api.post("/products", org, {**PRODUCT, **changes})).refused == refused


async def test_products_are_found_and_changed(api: Api, org: Org) -> None:
    category = (await api.post("/categories", org, {"name": "Fruit"})).data
    product = {**PRODUCT, "category_id": category["id"], "barcode": "400"}
    made = (await api.post("/products", org, product)).data
    await api.post("/products", org, {**PRODUCT, "sku": "B", "name": "Bread"})
    for query in ("search=ppl", "search=400", f"category_id={category['id']}", "search=A&size=1"):
        found = (await api.get(f"/products?{query}", org)).data["items"]
        assert [each["sku"] for each in found] == ["A"], query
    path = f"/products/{made['id']}"
    assert (await api.put(path, org, {**product, "price": "3.00"})).data["price"] == "3.00"
    shown = (await api.get(path, org)).data
    assert (shown["category_name"], shown["tax_code"], shown["stock_quantity"]) == (
        "Fruit", "STD", "0",
    )  # fmt: skip
    assert (await api.get(f"/categories/{category['id']}", org)).data["product_count"] == 1
    assert (await api.delete(f"/categories/{category['id']}", org)).refused == (
        409, "product_category_known",
    )  # fmt: skip
    await api.put(path, org, PRODUCT)
    assert (await api.delete(f"/categories/{category['id']}", org)).status == 204
    assert (await api.get(f"/categories/{category['id']}", org)).status == 404


async def test_a_tax_code_has_a_rate_in_range(api: Api, org: Org) -> None:
    code = {"code": "LOW", "name": "Reduced", "rate_percent": "5.5"}
    made = (await api.post("/tax-codes", org, code)).data
    assert made["rate_percent"] == "5.5"
    assert (await api.post("/tax-codes", org, code)).refused == (409, "tax_code_taken")
    assert (await api.post("/tax-codes", org, {**code, "rate_percent": "101"})).status == 422


async def test_customers_are_unique_by_address_and_number(api: Api, org: Org) -> None:
    body = {"name": "Carla", "email": "Carla@Example.com", "phone": "+252 61 1234567"}
    made = (await api.post("/customers", org, body)).data
    assert (made["email"], made["credit_limit"]) == ("carla@example.com", "1000.00")
    same = await api.post("/customers", org, {**body, "phone": None})
    assert same.refused == (409, "customer_email_taken")
    same = await api.post("/customers", org, {**body, "email": None})
    assert same.refused == (409, "customer_phone_taken")
    short = await api.post("/customers", org, {"name": "D", "phone": "12345"})
    assert short.refused == (422, "customer_phone_has_ten_digits")
    path = f"/customers/{made['id']}"
    changed = (await api.put(path, org, {**body, "status": "BLACKLISTED"})).data
    assert changed["status"] == "BLACKLISTED"
    found = (await api.get("/customers?status=BLACKLISTED&search=carl", org)).data["items"]
    assert [each["id"] for each in found] == [made["id"]]


async def test_goods_come_in_at_cost(shop: Shop) -> None:
    lines = [
        {"product_id": shop.product_ids[0], "quantity": "3", "unit_cost": "6.3333"},
        {"product_id": shop.product_ids[0], "quantity": "0.5", "unit_cost": "7"},
    ]
    body = {"branch_id": shop.branch_id, "reference": "DN-1", "lines": lines}
    made = (await shop.api.post("/inventory/receipts", shop.org, body)).data
    assert (made["total"], made["line_count"], made["kind"]) == ("22.50", 2, "PURCHASE")
    assert await shop.stock() == ("103.5", "622.50")
    assert (await shop.balances())["2000"] == "-22.50"
    shown = (await shop.api.get(f"/inventory/receipts/{made['id']}", shop.org)).data
    assert [line["value"] for line in shown["lines"]] == ["19.00", "3.50"]
    listed = (await shop.api.get("/inventory/receipts?limit=1", shop.org)).data
    assert listed == {"items": [made], "next_cursor": made["id"]}
    wanted = f"branch_id={shop.branch_id}&kind=PURCHASE&cursor={made['id']}"
    earlier = (await shop.api.get(f"/inventory/receipts?{wanted}", shop.org)).data
    assert (len(earlier["items"]), earlier["next_cursor"]) == (0, None)
    path = f"/inventory/movements?branch_id={shop.branch_id}&product_id={shop.product_ids[0]}"
    moves = (await shop.api.get(path, shop.org)).data["items"]
    assert [(m["quantity"], m["value"]) for m in moves] == [("3.5", "22.50"), ("100", "600.00")]


async def test_stock_has_a_status(shop: Shop) -> None:
    await shop.sell(shop.item(0, "100"), paid="1100.00")
    await shop.sell(shop.item(1, "90"), paid="494.01")
    await shop.sell(shop.item(2, "80"), paid="8800.00")
    levels = (
        await shop.api.get(f"/inventory/stock-levels?branch_id={shop.branch_id}", shop.org)
    ).data
    assert [level["stock_status"] for level in levels["items"]] == [
        "OUT_OF_STOCK", "LOW_STOCK", "IN_STOCK",
    ]  # fmt: skip
    low = await shop.api.get("/inventory/stock-levels?low_stock_only=true", shop.org)
    assert low.data["pagination"]["total"] == 2


async def test_everything_of_another_organisation_is_not_found(shop: Shop, other_org: Org) -> None:
    sale = (await shop.sell(customer_id=await shop.customer())).data
    paths = [
        f"/sales/{sale['id']}", f"/sales/{sale['id']}/receipt", f"/sales/{sale['id']}/payments",
        f"/journal/entries/{sale['entry_id']}", f"/branches/{shop.branch_id}",
        f"/branches/{shop.branch_id}/tills", f"/products/{shop.product_ids[0]}",
        f"/customers/{sale['customer_id']}", f"/customers/{sale['customer_id']}/balance",
    ]  # fmt: skip
    for path in paths:
        assert (await shop.api.get(path, other_org)).refused == (404, "not_found"), path
    body = {"amount": "1.00"}
    assert (await shop.api.post(f"{paths[0]}/payments", other_org, body)).status == 404
    assert (await shop.api.post(f"{paths[0]}/void", other_org, {"reason": "x"})).status == 404
    assert (await shop.api.post("/sales", other_org, shop.sale(paid="11.00"))).refused == (
        409, "sale_till_known",
    )  # fmt: skip
