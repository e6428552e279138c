"""Card payments at Stripe: the page to pay on, and what Stripe tells of it, once."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestServer

from tests.api.conftest import open_shop
from tests.stripe_server import KEY, OLD_SECRET, SECRET, StripeServer, event, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


@pytest.fixture
async def card_api(api_with: MakeApi, stripe: StripeServer) -> Api:
    return await api_with(
        stripe_secret_key=KEY, stripe_webhook_secret=SECRET,
        stripe_webhook_secret_previous=OLD_SECRET, stripe_api_url=stripe.url,
        stripe_success_url="http://127.0.0.1/paid", stripe_cancel_url="http://127.0.0.1/back",
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
