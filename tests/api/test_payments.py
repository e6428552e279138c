"""Later payments, voids, and what is owed."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.api.conftest import Shop
    from tests.support import Answer


async def pay(shop: Shop, sale_id: int, amount: str, **changes: object) -> Answer:
    body = {"amount": amount, **changes}
    return await shop.api.post(f"/sales/{sale_id}/payments", shop.org, body)


async def test_a_sale_is_paid_in_parts(shop: Shop) -> None:
    customer_id = await shop.customer()
    sale = (await shop.sell(shop.item(0, "9"), customer_id=customer_id, paid="9.00")).data
    assert (sale["payment_type"], sale["outstanding_amount"]) == ("PARTIAL", "90.00")
    assert (await shop.balances())["1100"] == "90.00"

    paid = (await pay(shop, sale["id"], "40.00", method="BANK_TRANSFER", reference="T1")).data
    assert (paid["paid_amount"], paid["outstanding_amount"]) == ("49.00", "50.00")
    assert paid["payment_type"] == "PARTIAL"
    assert (await pay(shop, sale["id"], "50.00")).data["payment_type"] == "FULL"
    balances = await shop.balances()
    assert (balances["1000"], balances["1010"]) == ("59.00", "40.00")
    assert "1100" not in balances

    listed = (await shop.api.get(f"/sales/{sale['id']}/payments?limit=2", shop.org)).data
    assert [p["amount"] for p in listed["items"]] == ["9.00", "40.00"]
    assert listed["sale_totals"] == {
        "sale_total": "99.00", "paid_total": "99.00", "outstanding_total": "0.00",
    }  # fmt: skip
    rest = await shop.api.get(
        f"/sales/{sale['id']}/payments?cursor={listed['next_cursor']}", shop.org
    )
    assert [p["amount"] for p in rest.data["items"]] == ["50.00"]
    assert rest.data["next_cursor"] is None


async def test_more_than_is_owed_is_refused(shop: Shop) -> None:
    customer_id = await shop.customer()
    sale = (await shop.sell(customer_id=customer_id)).data
    answer = await pay(shop, sale["id"], "11.01")
    assert answer.refused == (422, "payment_within_total")
    assert answer.details == {"outstanding": "11.00", "amount": "11.01"}
    assert (await pay(shop, sale["id"], "11.00")).status == 201
    assert (await pay(shop, sale["id"], "0.01")).refused == (422, "payment_within_total")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"amount": "0"}, (422, "invalid_request")),
        ({"amount": "-1"}, (422, "invalid_request")),
        ({"amount": "1.001"}, (422, "payment_in_minor_units")),
        ({"currency": "EUR"}, (409, "payment_sale_known")),
        ({"account_id": 10**15}, (409, "payment_account_known")),
    ],
)
async def test_a_payment_that_breaks_a_rule_is_refused(
    shop: Shop, changes: dict[str, object], refused: tuple[int, str]
) -> None:
    sale = (await shop.sell(customer_id=await shop.customer())).data
    body = {"amount": "1.00", **changes}
    answer = await shop.api.post(f"/sales/{sale['id']}/payments", shop.org, body)
    assert answer.refused == refused
    assert (await shop.api.get(f"/sales/{sale['id']}", shop.org)).data["paid_amount"] == "0.00"


async def test_a_payment_goes_to_an_account_that_takes_payments(shop: Shop) -> None:
    sale = (await shop.sell(customer_id=await shop.customer())).data
    accounts = (await shop.api.get("/accounts?size=100", shop.org)).data["items"]
    by_role = {account["role"]: account["id"] for account in accounts}
    answer = await pay(shop, sale["id"], "1.00", account_id=by_role["inventory"])
    assert answer.refused == (409, "payment_account_known")
    assert (await pay(shop, sale["id"], "1.00", account_id=by_role["bank"])).status == 201
    assert (await shop.balances())["1010"] == "1.00"


async def test_a_payment_of_no_sale_is_not_found(shop: Shop) -> None:
    assert (await pay(shop, 10**15, "1.00")).refused == (404, "not_found")


async def test_twenty_payments_at_once_pay_a_sale_exactly(shop: Shop) -> None:
    customer_id = await shop.customer()
    items = [shop.item(2, unit_price="90.91")]
    sale = (await shop.sell(*items, customer_id=customer_id)).data
    assert sale["total"] == "100.00"
    answers = await asyncio.gather(*(pay(shop, sale["id"], "10.00") for _ in range(20)))
    assert Counter(answer.status for answer in answers) == {201: 10, 422: 10}
    assert {answer.code for answer in answers if answer.status == 422} == {"payment_within_total"}
    paid = (await shop.api.get(f"/sales/{sale['id']}", shop.org)).data
    assert (paid["paid_amount"], paid["payment_type"], len(paid["payments"])) == (
        "100.00", "FULL", 10,
    )  # fmt: skip


async def test_twenty_payments_with_one_key_are_one(shop: Shop) -> None:
    sale = (await shop.sell(customer_id=await shop.customer())).data
    path = f"/sales/{sale['id']}/payments"
    answers = await asyncio.gather(
        *(shop.api.post(path, shop.org, {"amount": "1.00"}, key="p") for _ in range(20))
    )
    assert len({answer.data["payment_id"] for answer in answers}) == 1
    assert (await shop.api.get(f"/sales/{sale['id']}", shop.org)).data["paid_amount"] == "1.00"


async def test_a_void_takes_everything_back(shop: Shop) -> None:
    before = await shop.balances()
    customer_id = await shop.customer()
    sale = (
        await shop.sell(shop.item(0, "3"), shop.item(1), customer_id=customer_id, paid="5.00")
    ).data
    assert (await pay(shop, sale["id"], "4.00", method="CARD")).status == 201
    path = f"/sales/{sale['id']}/void"
    voided = (await shop.api.post(path, shop.org, {"reason": "wrong customer"})).data
    assert voided["sale_id"] == sale["id"]
    assert await shop.balances() == before
    assert (await shop.stock(0), await shop.stock(1)) == (("100", "600.00"), ("100", "250.00"))
    after = (await shop.api.get(f"/sales/{sale['id']}", shop.org)).data
    assert (after["status"], after["outstanding_amount"]) == ("VOIDED", "0.00")
    balance = (await shop.api.get(f"/customers/{customer_id}/balance", shop.org)).data
    assert balance["balance"] == "0.00"

    assert (await shop.api.post(path, shop.org, {"reason": "again"})).refused == (
        409, "sale_void_pk",
    )  # fmt: skip
    assert (await pay(shop, sale["id"], "1.00")).refused == (422, "payment_sale_not_void")


async def test_a_cashier_may_not_void(shop: Shop) -> None:
    sale = (await shop.sell(paid="11.00")).data
    answer = await shop.api.post(
        f"/sales/{sale['id']}/void", shop.org.member("CASHIER"), {"reason": "mine"}
    )
    assert answer.refused == (403, "forbidden")


async def test_twenty_voids_at_once_are_one(shop: Shop) -> None:
    sale = (await shop.sell(paid="11.00")).data
    path = f"/sales/{sale['id']}/void"
    answers = await asyncio.gather(
        *(shop.api.post(path, shop.org, {"reason": "race"}) for _ in range(20))
    )
    assert Counter(answer.status for answer in answers) == {200: 1, 409: 19}
    assert await shop.stock() == ("100", "600.00")


async def test_payments_and_a_void_at_once_end_on_one_side(shop: Shop) -> None:
    before = await shop.balances()
    sale = (await shop.sell(shop.item(2), customer_id=await shop.customer())).data
    answers = await asyncio.gather(
        *(pay(shop, sale["id"], "1.00") for _ in range(10)),
        shop.api.post(f"/sales/{sale['id']}/void", shop.org, {"reason": "race"}),
        *(pay(shop, sale["id"], "1.00") for _ in range(10)),
    )
    assert answers[10].status == 200
    refused = {answer.refused for answer in answers if answer.status not in {200, 201}}
    assert refused <= {(422, "payment_sale_not_void")}
    assert await shop.balances() == before


async def test_receivables_are_the_ledgers(shop: Shop) -> None:
    customer_id = await shop.customer()
    await shop.sell(shop.item(0, "2"), customer_id=customer_id)
    sale = (await shop.sell(customer_id=customer_id, paid="1.00")).data
    await pay(shop, sale["id"], "2.00")
    summary = (await shop.api.get("/sales/ar/summary", shop.org)).data
    assert summary == {
        "currency": "USD", "receivables_count": 2, "outstanding_total": "30.00",
        "paid_total": "2.00",
    }  # fmt: skip
    assert (await shop.balances())["1100"] == "30.00"
    own = (await shop.api.get(f"/customers/{customer_id}/ar/summary", shop.org)).data
    assert (own["receivables_count"], own["outstanding_total"]) == (2, "30.00")


async def test_receivables_age(shop: Shop) -> None:
    customer_id = await shop.customer()
    today = datetime.now(UTC).date()
    for days in (10, 45, 75, 120):
        answer = await shop.sell(
            customer_id=customer_id, sold_on=(today - timedelta(days=days)).isoformat()
        )
        assert answer.status == 201
    ageing = (await shop.api.get("/sales/ar/aging", shop.org)).data
    found = [(b["from_days"], b["to_days"], b["outstanding"]) for b in ageing["buckets"]]
    assert found == [(0, 30, "11.00"), (31, 60, "11.00"), (61, 90, "11.00"), (91, None, "11.00")]
    assert (await shop.api.get("/sales/ar/aging?bucket_days=60,30", shop.org)).refused == (
        422, "invalid_request",
    )  # fmt: skip


async def test_who_may_not_owe_may_not(shop: Shop) -> None:
    blacklisted = await shop.customer(status="BLACKLISTED")
    answer = await shop.sell(customer_id=blacklisted)
    assert answer.refused == (409, "customer_credit_limit")
    assert answer.details["customer_status"] == "BLACKLISTED"
    assert (await shop.sell(customer_id=blacklisted, paid="11.00")).status == 201
    none = await shop.customer(credit_limit="10.99")
    assert (await shop.sell(customer_id=none)).refused == (409, "customer_credit_limit")


async def test_a_sale_on_credit_may_make_its_customer(shop: Shop) -> None:
    sale = (await shop.sell(customer_name="Nuur", customer_phone="0611234567")).data
    assert sale["customer_name"] == "Nuur"
    customer = (await shop.api.get(f"/customers/{sale['customer_id']}", shop.org)).data
    assert (customer["phone"], customer["credit_limit"]) == ("0611234567", "1000.00")
    both = await shop.sell(customer_name="Nuur", customer_id=sale["customer_id"])
    assert both.refused == (422, "invalid_request")
