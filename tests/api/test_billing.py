"""Card payments at Stripe: the page to pay on, and what Stripe tells of it, once."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from sofinance.infra import metrics
from tests.api.conftest import open_shop
from tests.stripe_server import (
    KEY,
    OLD_SECRET,
    SECRET,
    LocalStripe,
    StripeServer,
    event,
    signed,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.api.conftest import Shop
    from tests.conftest import MakeApi
    from tests.support import Answer, Api, Org

WEBHOOK = "/payments/stripe/webhook"


@pytest.fixture
async def stripe() -> AsyncIterator[StripeServer]:
    made = StripeServer()
    async with TestServer(made.app()) as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


@pytest.fixture(scope="module")
def local_stripe() -> Iterator[LocalStripe]:
    server = LocalStripe()
    yield server
    server.stop()


@pytest.fixture
async def card_api(api_with: MakeApi, stripe: StripeServer) -> Api:
    return await api_with(
        stripe_secret_key=KEY, stripe_webhook_secret=SECRET,
        stripe_webhook_secret_previous=OLD_SECRET, stripe_api_url=stripe.url,
        stripe_success_url="http://127.0.0.1/paid", stripe_cancel_url="http://127.0.0.1/back",
        stripe_portal_return_url="http://127.0.0.1/account", stripe_circuit_failures=3,
    )  # fmt: skip


@pytest.fixture
async def card_shop(card_api: Api, org: Org) -> Shop:
    return await open_shop(card_api, org)


async def owe(shop: Shop, quantity: str = "9") -> Any:
    """Sell on credit; returns the sale, of which 11.00 for each are open."""
    customer_id = await shop.customer()
    return (await shop.sell(shop.item(0, quantity), customer_id=customer_id)).data


async def start(shop: Shop, sale: Any) -> Answer:
    return await shop.api.post(f"/sales/{sale['id']}/checkout", shop.org)


async def tell(api: Api, body: bytes, *secrets: str, at_s: int | None = None) -> Answer:
    headers = signed(body, *(secrets or (SECRET,)), at_s=at_s)
    return await api.post(WEBHOOK, content=body, headers=headers)


def told(answer: Answer) -> tuple[bool, str]:
    return answer.data["processed"], answer.data["outcome"]


async def pay(shop: Shop, stripe: StripeServer, sale: Any) -> bytes:
    """Start a checkout and have its customer pay; returns the event that tells of it."""
    assert (await start(shop, sale)).status == 200
    return event(stripe.paid(next(reversed(stripe.sessions))))


async def payments(shop: Shop, sale: Any) -> list[tuple[str, str, str]]:
    listed = (await shop.api.get(f"/sales/{sale['id']}/payments", shop.org)).data["items"]
    return [(one["amount"], one["method"], one["reference"]) for one in listed]


async def test_a_customer_pays_what_is_open_by_card(card_shop, stripe):
    sale = await owe(card_shop)
    page = (await start(card_shop, sale)).data
    assert (page["amount"], page["currency"]) == ("99.00", "USD")
    (session,) = stripe.sessions.values()
    assert page["url"] == session["url"]
    assert (session["amount_total"], session["currency"]) == (9900, "usd")
    assert (await start(card_shop, sale)).data == page
    assert len(stripe.sessions) == 1

    body = event(stripe.paid(session["id"]))
    assert told(await tell(card_shop.api, body)) == (True, "succeeded")
    assert await payments(card_shop, sale) == [("99.00", "CARD", session["payment_intent"])]
    balances = await card_shop.balances()
    assert (balances["1020"], "1100" in balances) == ("99.00", False)

    assert told(await tell(card_shop.api, body)) == (False, "duplicate")
    again = event(session)  # Stripe may tell the same with another id
    assert told(await tell(card_shop.api, again)) == (True, "ignored")
    assert len(await payments(card_shop, sale)) == 1
    done = await start(card_shop, sale)
    assert done.refused == (422, "stripe_checkout_amount_above_zero")


async def test_the_alias_at_the_root_takes_events_as_well(card_shop, stripe):
    body = await pay(card_shop, stripe, await owe(card_shop))
    answer = await card_shop.api.post(
        "/stripe/webhook", content=body, headers=signed(body, SECRET), prefix=""
    )
    assert told(answer) == (True, "succeeded")


async def test_of_many_deliveries_at_once_one_posts(card_shop, stripe):
    sale = await owe(card_shop)
    body = await pay(card_shop, stripe, sale)
    answers = await asyncio.gather(*(tell(card_shop.api, body) for _ in range(25)))
    assert Counter(map(told, answers)) == {(True, "succeeded"): 1, (False, "duplicate"): 24}
    assert len(await payments(card_shop, sale)) == 1


async def test_many_who_start_a_checkout_get_the_same_page(card_shop, stripe):
    sale = await owe(card_shop)
    answers = await asyncio.gather(*(start(card_shop, sale) for _ in range(20)))
    assert len({answer.data["url"] for answer in answers}) == 1
    assert len(stripe.sessions) == 1


@pytest.mark.parametrize(
    ("secrets", "age_s", "is_taken"),
    [
        ((SECRET,), 290, True),
        ((OLD_SECRET,), 0, True),  # while it is replaced
        (("whsec_" + "x" * 32, SECRET), 0, True),  # Stripe's own rotation signs with both
        (("whsec_" + "x" * 32,), 0, False),
        ((SECRET,), 310, False),
        ((SECRET,), -310, False),
    ],
)
async def test_only_what_stripe_signed_lately_is_believed(
    card_shop, stripe, secrets, age_s, is_taken
):
    sale = await owe(card_shop)
    body = await pay(card_shop, stripe, sale)
    answer = await tell(card_shop.api, body, *secrets, at_s=int(time.time()) - age_s)
    if is_taken:
        assert told(answer) == (True, "succeeded")
    else:
        assert answer.refused == (400, "stripe_signature_invalid")
        assert await payments(card_shop, sale) == []


@pytest.mark.parametrize(
    "header",
    [
        "", "t=,v1=", "v1=00", "t=1", "t=x,v1=00", "t=1,v0=00", "t=" + "9" * 400 + ",v1=00",
        "t=\u0661,v1=00", "t=1," + ",".join(["v1=00"] * 50),
    ],
)  # fmt: skip
async def test_a_forged_header_is_refused(card_api, header):
    answer = await card_api.post(WEBHOOK, content=b"{}", headers={"Stripe-Signature": header})
    assert answer.refused == (400, "stripe_signature_invalid")


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b'{"type":"a","data":{"object":{}}}', b'{"id":"evt_1","type":"a"}',
     b'{"id":1,"type":"a","data":{"object":{}}}'],
)  # fmt: skip
async def test_what_is_no_event_is_refused(card_api, body):
    assert (await tell(card_api, body)).refused == (400, "stripe_event_malformed")


async def test_the_body_is_taken_byte_for_byte(card_shop, stripe):
    body = await pay(card_shop, stripe, await owe(card_shop))
    headers = signed(body, SECRET)
    changed = json.dumps(json.loads(body)).encode()
    answer = await card_shop.api.post(WEBHOOK, content=changed, headers=headers)
    assert answer.refused == (400, "stripe_signature_invalid")


async def test_a_body_that_is_too_large_is_not_read(api_with):
    api = await api_with(stripe_webhook_secret=SECRET, max_body_bytes=20_000)
    assert (await tell(api, b"x" * 20_001)).refused == (413, "payload_too_large")


async def test_the_same_event_with_another_payload_is_refused(card_shop, stripe):
    sale = await owe(card_shop)
    body = await pay(card_shop, stripe, sale)
    assert told(await tell(card_shop.api, body)) == (True, "succeeded")
    other = body.replace(b'"livemode": false', b'"livemode": true')
    assert (await tell(card_shop.api, other)).refused == (400, "stripe_event_payload_differs")
    assert len(await payments(card_shop, sale)) == 1


async def test_an_event_that_says_nothing_to_us_is_ignored(card_shop, stripe):
    sale = await owe(card_shop)
    await start(card_shop, sale)
    (session,) = stripe.sessions.values()
    for kind, change in (
        ("checkout.session.completed", {"payment_status": "unpaid"}),
        ("checkout.session.async_payment_failed", {}),
    ):
        answer = await tell(card_shop.api, event(session, kind, **change))
        assert told(answer) == (True, "ignored"), kind
    for thing in (
        {}, {"metadata": None}, {"metadata": {"org_id": "1' or 1", "checkout": "x"}},
        {"metadata": {**session["metadata"], "org_id": "999999999"}},
        {"metadata": {**session["metadata"], "checkout": "0" * 8 + "-0000" * 3 + "-" + "0" * 12}},
        {"object": "charge"},
    ):  # fmt: skip
        answer = await tell(card_shop.api, event({**session, **thing} if thing else {}))
        assert told(answer) == (False, "ignored"), thing
    assert await payments(card_shop, sale) == []


async def test_another_organisation_cannot_be_paid_with_it(card_shop, stripe, other_org):
    sale = await owe(card_shop)
    body = await pay(card_shop, stripe, sale)
    (session,) = stripe.sessions.values()
    led = event(session, metadata={**session["metadata"], "org_id": str(other_org.id)})
    assert told(await tell(card_shop.api, led)) == (False, "ignored")
    assert (await card_shop.api.post(f"/sales/{sale['id']}/checkout", other_org)).status == 404
    assert told(await tell(card_shop.api, body)) == (True, "succeeded")


async def test_what_the_sale_refuses_is_kept_and_told(card_shop, stripe):
    sale = await owe(card_shop)
    body = await pay(card_shop, stripe, sale)
    cash = await card_shop.api.post(
        f"/sales/{sale['id']}/payments", card_shop.org, {"amount": "99.00"}
    )
    assert cash.status == 201
    assert told(await tell(card_shop.api, body)) == (True, "error")
    assert told(await tell(card_shop.api, body)) == (False, "duplicate")
    assert await payments(card_shop, sale) == [("99.00", "CASH", None)]


async def test_a_void_sale_or_another_amount_is_refused_and_kept(card_shop, stripe, psql):
    sale = await owe(card_shop)
    body = await pay(card_shop, stripe, sale)
    voided = await card_shop.api.post(
        f"/sales/{sale['id']}/void", card_shop.org, {"reason": "returned"}
    )
    assert voided.status == 200
    assert told(await tell(card_shop.api, body)) == (True, "error")
    sale = await owe(card_shop)
    await pay(card_shop, stripe, sale)
    session = next(reversed(stripe.sessions.values()))
    assert told(await tell(card_shop.api, event(session, amount_total=100))) == (True, "error")
    refused = psql(
        "select last_error, amount from stripe_event order by received_at", org=card_shop.org
    )
    assert [(name, f"{amount:.2f}") for name, amount in refused] == [
        ("payment_sale_not_void", "99.00"), ("stripe_checkout_payment_matches", "1.00"),
    ]  # fmt: skip
    assert await payments(card_shop, sale) == []


async def test_a_refused_payment_is_listed_and_settled_once(card_shop, stripe):
    sale = await owe(card_shop)
    body = await pay(card_shop, stripe, sale)
    path = f"/sales/{sale['id']}/payments"
    await card_shop.api.post(path, card_shop.org, {"amount": "1.00"})
    assert told(await tell(card_shop.api, body)) == (True, "error")

    listed = (await card_shop.api.get("/payments/stripe/events?status=error", card_shop.org)).data
    (refused,) = listed["items"]
    assert (refused["sale_id"], refused["amount"]) == (sale["id"], "99.00")
    assert refused["last_error"] == "payment_within_total"
    assert refused["payment_ref"].startswith("pi_")

    at = f"/payments/stripe/events/{refused['id']}"
    still = (await card_shop.api.post(f"{at}/retry", card_shop.org)).data
    assert (still["status"], still["last_error"]) == ("error", "payment_within_total")
    note = {"note": "paid back"}
    settled = (await card_shop.api.post(f"{at}/settle", card_shop.org, note)).data
    assert (settled["status"], settled["note"]) == ("settled", "paid back")
    again = await card_shop.api.post(f"{at}/settle", card_shop.org, {"note": "kept"})
    assert again.refused == (409, "stripe_event_done_stays")
    assert told(await tell(card_shop.api, body)) == (False, "duplicate")
    listed = (await card_shop.api.get("/payments/stripe/events?status=error", card_shop.org)).data
    assert listed["items"] == []


async def test_what_was_put_right_is_posted_by_a_retry(card_shop, stripe, psql):
    sale = await owe(card_shop)
    body = await pay(card_shop, stripe, sale)
    psql(
        "update account set takes_payments = false where role = 'card_clearing'",
        org=card_shop.org, role="sofinance_owner",
    )  # fmt: skip
    assert told(await tell(card_shop.api, body)) == (True, "error")
    psql(
        "update account set takes_payments = true where role = 'card_clearing'",
        org=card_shop.org, role="sofinance_owner",
    )  # fmt: skip
    at = f"/payments/stripe/events/{json.loads(body)['id']}"
    done = (await card_shop.api.post(f"{at}/retry", card_shop.org)).data
    assert (done["status"], done["last_error"]) == ("succeeded", None)
    assert [amount for amount, _, _ in await payments(card_shop, sale)] == ["99.00"]


async def test_an_event_that_a_crash_left_is_done_when_it_comes_again(card_shop, stripe, psql):
    """Its row was committed, its payment was not: as if the process had been killed in between."""
    sale = await owe(card_shop)
    body = await pay(card_shop, stripe, sale)
    psql("alter table payment rename to payment_away", role="superuser")
    try:
        assert (await tell(card_shop.api, body)).status == 500
    finally:
        psql("alter table payment_away rename to payment", role="superuser")
    left = psql("select status, attempt_count from stripe_event", org=card_shop.org)
    assert left == [("processing", 1)]
    assert await payments(card_shop, sale) == []
    assert told(await tell(card_shop.api, body)) == (True, "succeeded")
    left = psql("select status, attempt_count from stripe_event", org=card_shop.org)
    assert left == [("succeeded", 2)]
    assert len(await payments(card_shop, sale)) == 1


async def test_a_checkout_that_a_crash_left_gets_the_same_page(card_shop, stripe, psql):
    sale = await owe(card_shop)
    first = (await start(card_shop, sale)).data
    psql(
        "update stripe_checkout set status = 'starting', session_id = null, url = null",
        org=card_shop.org, role="sofinance_owner",
    )  # fmt: skip
    assert (await start(card_shop, sale)).data == first
    assert len(stripe.sessions) == 1


async def test_when_less_is_open_the_page_is_another_one(card_shop, stripe):
    sale = await owe(card_shop)
    first = (await start(card_shop, sale)).data
    await card_shop.api.post(f"/sales/{sale['id']}/payments", card_shop.org, {"amount": "9.00"})
    second = (await start(card_shop, sale)).data
    assert (second["amount"], second["url"] != first["url"]) == ("90.00", True)
    assert [page["status"] for page in stripe.sessions.values()] == ["expired", "open"]
    old, new = stripe.sessions.values()
    assert told(await tell(card_shop.api, event(old, "checkout.session.expired"))) == (
        True, "ignored",
    )  # fmt: skip
    assert told(await tell(card_shop.api, event(stripe.paid(new["id"])))) == (True, "succeeded")
    assert (await start(card_shop, sale)).status == 422


async def test_a_page_that_was_just_paid_is_not_replaced(card_shop, stripe):
    sale = await owe(card_shop)
    await pay(card_shop, stripe, sale)
    await card_shop.api.post(f"/sales/{sale['id']}/payments", card_shop.org, {"amount": "9.00"})
    assert (await start(card_shop, sale)).refused == (409, "stripe_checkout_done")


async def test_a_page_that_expired_gives_way_to_another(card_shop, stripe):
    sale = await owe(card_shop)
    await start(card_shop, sale)
    (session,) = stripe.sessions.values()
    told_ = await tell(card_shop.api, event(session, "checkout.session.expired"))
    assert told(told_) == (True, "succeeded")
    assert (await start(card_shop, sale)).data["url"] != session["url"]


async def test_what_stripe_refuses_is_told_without_its_words(card_shop, stripe):
    customer_id = await card_shop.customer()
    sale = (await card_shop.sell(customer_id=customer_id, paid="10.60")).data
    answer = await start(card_shop, sale)
    assert answer.refused == (409, "stripe_refused")
    assert answer.details == {
        "stripe_status": 400, "stripe_code": "amount_too_small", "stripe_param": "line_items",
    }  # fmt: skip


async def test_a_stripe_that_is_down_is_left_alone(card_shop, stripe):
    sale = await owe(card_shop)
    stripe.is_down = True
    for _ in range(3):
        assert (await start(card_shop, sale)).refused == (503, "stripe_unavailable")
    asked_count = len(stripe.asked)
    left_alone = await start(card_shop, sale)
    assert left_alone.refused == (503, "stripe_unavailable")
    assert 25 <= int(left_alone.headers["Retry-After"]) <= 30
    assert len(stripe.asked) == asked_count


async def test_forgeries_do_not_close_the_webhook_and_failures_of_ours_do(card_shop, stripe, psql):
    body = await pay(card_shop, stripe, await owe(card_shop))
    for _ in range(10):
        answer = await tell(card_shop.api, body, "whsec_" + "x" * 32)
        assert answer.refused == (400, "stripe_signature_invalid")
    psql("alter table payment rename to payment_away", role="superuser")
    try:
        for _ in range(3):
            assert (await tell(card_shop.api, body)).status == 500
    finally:
        psql("alter table payment_away rename to payment", role="superuser")
    assert (await tell(card_shop.api, body)).refused == (503, "stripe_busy")


async def test_without_its_secret_no_webhook_is_taken_and_without_a_key_nothing_asked(api, org):
    assert (await tell(api, b"{}")).refused == (503, "stripe_not_set_up")
    shop = await open_shop(api, org)
    assert (await start(shop, await owe(shop))).refused == (409, "card_payments_off")


async def test_an_account_serves_the_organisations_that_it_is_for(api_with, org, stripe):
    api = await api_with(
        stripe_secret_key=KEY, stripe_webhook_secret=SECRET, stripe_api_url=stripe.url,
        stripe_success_url="http://127.0.0.1/paid", stripe_cancel_url="http://127.0.0.1/back",
        stripe_org_ids=str(org.id + 1),
    )  # fmt: skip
    shop = await open_shop(api, org)
    assert (await start(shop, await owe(shop))).refused == (409, "card_payments_off")


async def test_a_customer_sees_the_billing_portal(card_shop, stripe, local_stripe):
    stripe.behind = local_stripe.url
    customer_id = await card_shop.customer()
    path = f"/customers/{customer_id}/billing-portal"
    answers = [await card_shop.api.post(path, card_shop.org) for _ in range(2)]
    assert answers[0].data["url"] != answers[1].data["url"]
    made = [form for path, form in stripe.asked if path == "/v1/customers"]
    assert made == [
        {"metadata[org_id]": str(card_shop.org.id), "metadata[customer_id]": str(customer_id)}
    ]
    opened = [form for path, form in stripe.asked if path == "/v1/billing_portal/sessions"]
    assert {form["return_url"] for form in opened} == {"http://127.0.0.1/account"}
    sale = (await card_shop.sell(customer_id=customer_id)).data
    assert (await start(card_shop, sale)).status == 200
    assert stripe.asked[-1][1]["customer"] == opened[0]["customer"]
    nobody = await card_shop.api.post("/customers/999999999/billing-portal", card_shop.org)
    assert nobody.refused == (404, "not_found")


async def test_what_localstripe_signs_is_believed(card_api, local_stripe):
    """Somebody else's program signs as Stripe documents it; it tells of customers, not of ours."""
    hook = {"url": f"{card_api.base_url}/stripe/webhook", "secret": SECRET}
    before = count("ignored")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        async with session.post(f"{local_stripe.url}/_config/webhooks/us", json=hook) as answer:
            assert answer.status == 200
        async with session.post(f"{local_stripe.url}/v1/customers", data={}) as answer:
            assert answer.status == 200
    for _ in range(200):
        if count("ignored") > before:
            break
        await asyncio.sleep(0.1)
    assert count("ignored") == before + 1


def count(outcome: str) -> float:
    return float(metrics.STRIPE_EVENTS.labels(outcome)._value.get())  # noqa: SLF001 - no other way
