"""Card payments at Stripe: a page to pay an open sale on, and what Stripe tells of it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Id, Money, PageQuery, Timestamp
from sofinance.infra.http import Call, Routes, paged
from sofinance.rules import card_payments

routes = Routes()

# The longest that Stripe keeps a page is a day.
LIFE_MINUTES = 23 * 60
STATUSES = ["processing", "succeeded", "ignored", "error", "settled"]


class Checkout(Schema):
    """A page at Stripe on which the customer pays."""

    id = Id(required=True)
    sale_id = Id(required=True)
    currency = fields.Str(required=True)
    amount = Money(required=True)
    url = fields.Str(required=True)
    expires_at = Timestamp(required=True)


class Portal(Schema):
    """A page at Stripe on which a customer sees their cards and receipts, for minutes."""

    url = fields.Str(required=True)


class Taken(Schema):
    """What came of an event: processed is whether it was done now."""

    processed = fields.Bool(required=True)
    outcome = fields.Str(required=True)


class EventQuery(PageQuery):
    """Which events."""

    status = fields.Str(load_default=None, validate=validate.OneOf(STATUSES))


class Event(Schema):
    """What Stripe told of a checkout; a payment that its sale refuses has the status error."""

    id = fields.Str(required=True)
    type = fields.Str(required=True)
    status = fields.Str(required=True, validate=validate.OneOf(STATUSES))
    checkout_id = Id(required=True)
    sale_id = Id(required=True)
    payment_ref = fields.Str(required=True, allow_none=True)
    currency = fields.Str(required=True, allow_none=True)
    amount = Money(required=True, allow_none=True)
    last_error = fields.Str(
        required=True, allow_none=True, metadata={"description": "The rule that refuses it."}
    )
    note = fields.Str(required=True, allow_none=True)
    attempt_count = fields.Int(required=True)
    received_at = Timestamp(required=True)
    processed_at = Timestamp(required=True, allow_none=True)


class Settlement(Schema):
    """How somebody dealt with a payment: paid back at Stripe, say."""

    note = fields.Str(required=True, validate=validate.Length(1, 500))


async def begin(call: Call) -> Any:
    """Begin the checkout of the path's sale, or find the one that is under way."""
    async with call.transaction() as conn:
        begun = await q.billing.begin_checkout(
            conn,
            org_id=call.org_id,
            user_id=call.user_id,
            sale_id=call.path["id"],
            life_minutes=LIFE_MINUTES,
        )
        call.stripe.demand(
            call.org_id, call.settings.stripe_success_url, call.settings.stripe_cancel_url
        )
        await audit.write(
            call, conn, org_id=call.org_id, user_id=call.user_id,
            session_id=call.principal.session_id, action="billing.start_checkout",
            entity="sales", entity_id=begun.sale_id,
            after={"checkout_id": begun.id, "currency": begun.currency, "amount": begun.amount},
        )  # fmt: skip
        payer = await q.billing.find_payer(conn, org_id=call.org_id, sale_id=begun.sale_id)
    if begun.status == "open":
        return begun
    form, key = asked(call, begun), str(begun.token)
    if payer is not None:
        form, key = {**form, "customer": payer.stripe_ref}, f"{key}-{payer.stripe_ref}"
    made = await call.stripe.post("/v1/checkout/sessions", form, key=key)
    async with call.transaction() as conn:
        await q.billing.open_checkout(
            conn, org_id=call.org_id, id=begun.id, session_id=made["id"], url=made["url"]
        )
    return {**begun, "session_id": made["id"], "url": made["url"]}


def asked(call: Call, begun: Any) -> dict[str, str]:
    """Write what Stripe is asked for: one card payment of what is open."""
    units = card_payments.to_stripe(begun.amount, begun.currency)
    if units is None:
        raise ApiError(
            "stripe_amount_unpayable", "Stripe cannot take this amount in this currency.",
            status=422, amount=str(begun.amount), currency=begun.currency,
        )  # fmt: skip
    return {
        "mode": "payment",
        "payment_method_types[0]": "card",
        "client_reference_id": f"{call.org_id}-{begun.id}",
        "metadata[org_id]": str(call.org_id),
        "metadata[checkout]": str(begun.token),
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": begun.currency.lower(),
        "line_items[0][price_data][unit_amount]": str(units),
        "line_items[0][price_data][product_data][name]": f"Receipt {begun.receipt}",
        "expires_at": str(int(begun.expires_at.timestamp())),
        "success_url": call.settings.stripe_success_url,
        "cancel_url": call.settings.stripe_cancel_url,
    }


@routes.endpoint(
    "POST", "/sales/{id}/checkout", permission="payments:write", own_transactions=True,
    idempotent=False, returns=Checkout(), refuses=(409, 422, 503), entity="sales",
)  # fmt: skip
async def start_checkout(call: Call) -> Any:
    """Give a page at Stripe on which the customer pays what is open of a sale by card.

    The same page again while it can be paid and the amount is the same. Refused by code:
    card_payments_off, stripe_refused and stripe_checkout_done (409), stripe_unavailable (503),
    payment_sale_not_void, stripe_checkout_amount_above_zero and stripe_amount_unpayable (422).
    """
    begun = await begin(call)
    if begun["is_stale"]:
        await call.stripe.post(
            f"/v1/checkout/sessions/{begun['session_id']}/expire", {},
            key=f"{begun['token']}-expire",
            refused=("stripe_checkout_done", "The customer has just paid; Stripe will tell."),
        )  # fmt: skip
        async with call.transaction() as conn:
            await q.billing.end_checkout(conn, org_id=call.org_id, id=begun["id"])
        begun = await begin(call)
    return begun


@routes.endpoint(
    "POST", "/customers/{id}/billing-portal", permission="payments:write", own_transactions=True,
    idempotent=False, returns=Portal(), refuses=(409, 503), entity="customers",
)  # fmt: skip
async def open_portal(call: Call) -> Any:
    """Give a page at Stripe on which a customer sees and changes their cards; good for minutes.

    Whoever has it is in: send it to the customer alone. Refused by code: card_payments_off and
    stripe_refused (409), stripe_unavailable (503).
    """
    whom = {"org_id": call.org_id, "customer_id": call.path["id"]}
    async with call.transaction() as conn:
        await q.customers.get_customer(conn, org_id=call.org_id, id=call.path["id"])
        call.stripe.demand(call.org_id, call.settings.stripe_portal_return_url)
        await q.billing.begin_customer(conn, **whom)
        customer = await q.billing.get_customer(conn, **whom)
        await audit.write(
            call, conn, org_id=call.org_id, user_id=call.user_id,
            session_id=call.principal.session_id, action="billing.open_portal",
            entity="customers", entity_id=call.path["id"],
        )  # fmt: skip
    stripe_ref = customer.stripe_ref
    if stripe_ref is None:
        named = {
            "metadata[org_id]": str(call.org_id),
            "metadata[customer_id]": str(call.path["id"]),
        }
        made = await call.stripe.post("/v1/customers", named, key=str(customer.token))
        stripe_ref = made["id"]
        async with call.transaction() as conn:
            await q.billing.note_customer(conn, **whom, stripe_ref=stripe_ref)
    asked_for = {"customer": stripe_ref, "return_url": call.settings.stripe_portal_return_url}
    return await call.stripe.post("/v1/billing_portal/sessions", asked_for, key=str(uuid4()))


@routes.endpoint(
    "POST", "/payments/stripe/webhook", public=True, receives=True, idempotent=False,
    returns=Taken(), refuses=(400, 429, 503),
)  # fmt: skip
async def receive_event(call: Call) -> Any:
    """Take what Stripe tells of a checkout, once, and post what was paid.

    Refused by code: stripe_signature_invalid, stripe_event_malformed and
    stripe_event_payload_differs (400), stripe_not_set_up and stripe_busy (503).
    """
    event = call.stripe.opened(call.received, call.now)
    if event is None:
        await call.limiter.admit_address(call.ip)  # who forges is nobody that may ask for ever
        raise ApiError(
            "stripe_signature_invalid", "This is not signed by Stripe, or too long ago.",
            status=400,
        )  # fmt: skip
    told = card_payments.told(event.type, event.thing)
    async with call.stripe.taking() as taken:
        taken.outcome, is_new = "ignored", False
        if told is not None and call.stripe.serves(told.org_id):
            taken.outcome = "failed"
            taken.outcome, is_new = await take(call, event, told)
    if taken.outcome == "payload_differs":
        raise ApiError(
            "stripe_event_payload_differs", "This event was told otherwise before.", status=400
        )
    return {"processed": is_new, "outcome": taken.outcome}


@routes.endpoint(
    "POST", "/stripe/webhook", public=True, receives=True, idempotent=False, prefix=False,
    returns=Taken(), refuses=(400, 429, 503),
)  # fmt: skip
async def receive_event_at_root(call: Call) -> Any:
    """Take what Stripe tells; another address of /api/v1/payments/stripe/webhook."""
    return await receive_event(call)


async def take(call: Call, event: Any, told: card_payments.Told) -> tuple[str, bool]:
    """Write down that an event came, then do what it says; returns the outcome, and if it is new.

    In two transactions: what fails in the second one is still there to be seen, and tried again.
    """
    async with call.tenant(told.org_id) as conn:
        begun = await q.billing.begin_event(
            conn,
            org_id=told.org_id,
            event_id=event.id,
            type=event.type,
            payload_sha256=event.payload_sha256,
            token=told.token,
            payment_ref=told.payment_ref,
            currency=told.currency,
            amount=told.amount,
        )
    if begun is None:
        return "ignored", False
    if not begun.is_same:
        return "payload_differs", False
    if begun.status != "processing":
        return "duplicate", False
    async with call.tenant(told.org_id) as conn:
        settled = await q.billing.settle_event(
            conn, org_id=told.org_id, event_id=event.id, outcome=told.outcome
        )
        if settled.is_new:
            await audit.write(
                call, conn, org_id=told.org_id, action="billing.receive_event",
                entity="sales", entity_id=settled.sale_id,
                severity="WARNING" if settled.status == "error" else "INFO",
                after={
                    "event_id": event.id, "type": event.type, "status": settled.status,
                    "payment_no": settled.payment_no, "refused_by": settled.last_error,
                },
            )  # fmt: skip
    return (settled.status if settled.is_new else "duplicate"), settled.is_new


@routes.endpoint(
    "GET", "/payments/stripe/events", permission="payments:read", org_wide=True,
    query=EventQuery(), returns=paged(Event()), report=True,
)  # fmt: skip
async def list_events(call: Call) -> Any:
    """List what Stripe told, latest first; with status=error, payments that are not in the books.

    An event that stays in processing failed here: Stripe sends it again, and so does a retry.
    """
    which = {"org_id": call.org_id, "status": call.query["status"]}
    rows = await q.billing.list_events(call.conn, **which, limit=call.limit, offset=call.offset)
    return rows, await q.billing.count_events(call.conn, **which)


@routes.endpoint(
    "POST", "/payments/stripe/events/{event}/retry", permission="payments:write", org_wide=True,
    returns=Event(),
)  # fmt: skip
async def retry_event(call: Call) -> Any:
    """Try again to post a payment that its sale refused, or that failed here.

    Answers the event as it is then: succeeded, or error with the rule that refuses it.
    """
    key = {"org_id": call.org_id, "event_id": call.path["event"]}
    await q.billing.settle_event(call.conn, **key, outcome="retry")
    return await q.billing.get_event(call.conn, **key)


@routes.endpoint(
    "POST", "/payments/stripe/events/{event}/settle", permission="payments:write", org_wide=True,
    body=Settlement(), returns=Event(),
)  # fmt: skip
async def settle_event(call: Call) -> Any:
    """Note how a payment that its sale refuses was dealt with; it is not told any more.

    Refused by code: stripe_event_done_stays (409).
    """
    key = {"org_id": call.org_id, "event_id": call.path["event"]}
    await q.billing.note_settled(call.conn, **key, note=call.body["note"])
    return await q.billing.get_event(call.conn, **key)
