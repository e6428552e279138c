"""What is kept for how long, and what a person may ask of the data about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from sofinance import queries as q
from sofinance.infra import audit
from sofinance.infra.db import Mode
from sofinance.infra.fields import Id, LowerEmail, Money, Timestamp
from sofinance.infra.http import Call, Routes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sofinance.infra.sql import Connection

routes = Routes()

# Rows that one transaction deletes, and one call of an endpoint: some milliseconds, in which it
# holds up nobody. The jobs go on until nothing is left.
BATCH = 1_000
REQUEST_BATCH = 20


class Kept(NamedTuple):
    """What is forgotten once it was kept long enough: how, and which setting says the days.

    Without a setting the rows themselves say when they are over.
    """

    forget: Callable[..., Awaitable[int]]
    days: str = ""


async def forget_events(conn: Connection, /, *, org_id: int, keep_days: int, limit: int) -> int:
    """Forget events of the transaction's organisation, which is `org_id`."""
    del org_id
    return await q.outbox.forget_events(conn, keep_days=keep_days, limit=limit)


# By the name that the count has in an answer. What grows with every request is forgotten hourly, by
# the job `forget-expired`; the rest every night, by `retention`.
HOURLY = {
    "idempotency_keys": Kept(q.jobs.forget_expired_keys),
    "sessions": Kept(q.jobs.forget_sessions, "retention_session_days"),
    "signed_url_uses": Kept(q.attachments.forget_signed_url_uses),
    "notifications": Kept(q.notifications.forget_notifications, "retention_notification_days"),
    "portal_links": Kept(q.portal.forget_links),
}
DAILY = {
    "mails": Kept(q.mail.forget_mails, "retention_mail_days"),
    "events": Kept(forget_events, "retention_event_days"),
}
KEPT = HOURLY | DAILY
# Rows of each kind in a bundle; `is_complete` says whether that was all.
BUNDLE_COUNT_MAX = 5_000


class Deleted(Schema):
    """How many rows were forgotten."""

    deleted = fields.Int(required=True)


class Counts(Schema):
    """What was forgotten, and of how many persons."""

    idempotency_keys_deleted = fields.Int(required=True)
    sessions_deleted = fields.Int(required=True)
    signed_url_uses_deleted = fields.Int(required=True)
    notifications_deleted = fields.Int(required=True)
    portal_links_deleted = fields.Int(required=True)
    mails_deleted = fields.Int(required=True)
    events_deleted = fields.Int(required=True)
    requests_processed = fields.Int(required=True)
    requests_waiting = fields.Int(required=True)
    attachments_deleted = fields.Int(required=True)
    mails_emptied = fields.Int(required=True)


class Subject(Schema):
    """The customer whom it is about, by number or by address."""

    customer_id = Id(load_default=None, allow_none=True)
    email = LowerEmail(load_default=None, allow_none=True, validate=validate.Length(max=254))

    @validates_schema
    def name_one(self, data: dict[str, Any], **_: Any) -> None:
        """Demand one of the two."""
        if (data.get("customer_id") is None) == (data.get("email") is None):
            raise ValidationError("Give customer_id or email, one of them.", "customer_id")


class NewDeletionRequest(Subject):
    """Whose data is to be deleted, and how that was asked for."""

    reason = fields.Str(required=True, validate=validate.Length(1, 500))


class DeletionRequest(Schema):
    """A request to be forgotten; it is done once nothing is owed any more."""

    request_id = Id(required=True, attribute="id")
    customer_id = Id(required=True)
    status = fields.Str(required=True)
    requested_at = Timestamp(required=True)


class SubjectSale(Schema):
    id = Id(required=True)
    sold_on = fields.Date(required=True)
    currency = fields.Str(required=True)
    total = Money(required=True)
    notes = fields.Str(required=True, allow_none=True)


class SubjectPayment(Schema):
    id = Id(required=True)
    sale_id = Id(required=True)
    currency = fields.Str(required=True)
    amount = Money(required=True)
    method = fields.Str(required=True)
    reference = fields.Str(required=True, allow_none=True)


class SubjectFile(Schema):
    id = Id(required=True)
    filename = fields.Str(required=True)
    content_type = fields.Str(required=True)
    size_bytes = fields.Int(required=True)
    sha256 = fields.Str(required=True)
    created_at = Timestamp(required=True)


class SubjectMail(Schema):
    id = Id(required=True)
    kind = fields.Str(required=True)
    subject = fields.Str(required=True)
    body = fields.Str(required=True)
    status = fields.Str(required=True)
    created_at = Timestamp(required=True)
    sent_at = Timestamp(required=True, allow_none=True)


class SubjectPortalLink(Schema):
    id = Id(required=True)
    issued_at = Timestamp(required=True)
    used_at = Timestamp(required=True, allow_none=True)
    session_ended_at = Timestamp(required=True, allow_none=True)


class SubjectCustomer(Schema):
    id = Id(required=True)
    name = fields.Str(required=True)
    email = fields.Str(required=True, allow_none=True)
    phone = fields.Str(required=True, allow_none=True)
    address = fields.Str(required=True, allow_none=True)
    customer_type = fields.Str(required=True)
    currency = fields.Str(required=True)
    credit_limit = Money(required=True)
    status = fields.Str(required=True)
    notes = fields.Str(required=True, allow_none=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class Bundle(Schema):
    """All that is kept about a customer."""

    customer = fields.Nested(SubjectCustomer, required=True)
    sales = fields.List(fields.Nested(SubjectSale), required=True)
    payments = fields.List(fields.Nested(SubjectPayment), required=True)
    attachments = fields.List(fields.Nested(SubjectFile), required=True)
    mails = fields.List(fields.Nested(SubjectMail), required=True)
    portal_links = fields.List(fields.Nested(SubjectPortalLink), required=True)
    is_complete = fields.Bool(required=True)


@routes.endpoint(
    "POST", "/admin/cleanup", permission="system:manage", org_wide=True, admin=True,
    returns=Deleted(), status=202, entity="retention",
)  # fmt: skip
@routes.endpoint(
    "POST", "/v1/admin/cleanup", permission="system:manage", org_wide=True, admin=True,
    prefix=False, returns=Deleted(), status=202, entity="retention",
)  # fmt: skip
async def clean_up(call: Call) -> Any:
    """Forget what has expired, a thousand of each at most.

    Idempotency keys, sessions, links, notifications; the job `forget-expired` does it hourly.
    """
    gone = await forget_some(call.conn, call.settings, call.org_id, HOURLY)
    return {"deleted": sum(gone.values())}


@routes.endpoint(
    "POST", "/admin/retention/cleanup", permission="system:manage", org_wide=True, admin=True,
    returns=Counts(), entity="retention",
)  # fmt: skip
@routes.endpoint(
    "POST", "/v1/admin/retention/cleanup", permission="system:manage", org_wide=True, admin=True,
    prefix=False, returns=Counts(), entity="retention",
)  # fmt: skip
async def apply_retention(call: Call) -> Any:
    """Forget what was kept long enough, and the persons who asked for it; some at a time.

    A thousand of each kind at most, by RETENTION_SESSION_DAYS, RETENTION_NOTIFICATION_DAYS,
    RETENTION_MAIL_DAYS and RETENTION_EVENT_DAYS. Who still owes something waits until it is paid.
    """
    gone = await forget_some(call.conn, call.settings, call.org_id, KEPT)
    counts = {f"{name}_deleted": count for name, count in gone.items()}
    return counts | await process_requests(call.conn, call.org_id)


@routes.endpoint(
    "POST", "/admin/data/export", permission="system:manage", org_wide=True, admin=True,
    in_read_only=True, own_transactions=True, body=Subject(), returns=Bundle(), idempotent=False,
    limit="report",
)  # fmt: skip
async def export_subject(call: Call) -> Any:
    """Return all that is kept about a customer; 404 when there is none. Audited, with counts."""
    async with call.transaction(mode=Mode.REPORT) as conn:
        bundle = await gather(conn, call.org_id, call.body)
    counts = {kind: len(rows) for kind, rows in bundle.items() if isinstance(rows, list)}
    async with call.transaction() as conn:
        await audit.write(
            call, conn, org_id=call.org_id, user_id=call.user_id,
            session_id=call.principal.session_id, action="retention.export_subject",
            entity="customers", entity_id=bundle["customer"].id, after=counts,
            severity=audit.WARNING,
        )  # fmt: skip
    return bundle


@routes.endpoint(
    "POST", "/admin/data-deletion/requests", permission="system:manage", org_wide=True,
    admin=True, body=NewDeletionRequest(), returns=DeletionRequest(), status=201,
    entity="data_deletion_request", refuses=(404,),
)  # fmt: skip
async def request_deletion(call: Call) -> Any:
    """Write down that a customer asks to be forgotten; it is done with the next retention.

    Name, address, phone, notes, files and the text of mails go; what was bought and paid stays, and
    so do all sums. 409 `data_deletion_request_open_once` while one is open.
    """
    subject = await find_subject(call.conn, call.org_id, call.body)
    made = await q.retention.create_deletion_request(
        call.conn, org_id=call.org_id, customer_id=subject.id, reason=call.body["reason"],
        requested_by=call.user_id,
    )  # fmt: skip
    return {**dict(made.items()), "status": "pending"}


async def forget_some(
    conn: Connection, settings: Any, org_id: int, kinds: Mapping[str, Kept]
) -> dict[str, int]:
    """Forget at most BATCH rows of each kind of an organisation; returns how many by kind."""
    gone = {}
    for name, kept in kinds.items():
        days = {"keep_days": getattr(settings, kept.days)} if kept.days else {}
        gone[name] = await kept.forget(conn, org_id=org_id, limit=BATCH, **days)
    return gone


async def find_subject(conn: Connection, org_id: int, asked: dict[str, Any]) -> Any:
    """Return the customer of whom somebody asks, else 404."""
    return await q.retention.get_subject(
        conn, org_id=org_id, customer_id=asked["customer_id"], email=asked["email"]
    )


async def gather(conn: Connection, org_id: int, asked: dict[str, Any]) -> dict[str, Any]:
    """Return all that is kept about a customer."""
    customer = await find_subject(conn, org_id, asked)
    which = {"org_id": org_id, "limit": BUNDLE_COUNT_MAX}
    rows: dict[str, list[Any]] = {
        "sales": [*await q.retention.list_subject_sales(conn, customer_id=customer.id, **which)],
        "payments": [
            *await q.retention.list_subject_payments(conn, customer_id=customer.id, **which)
        ],
        "attachments": [
            *await q.attachments.list_attachments(
                conn, entity="customer", entity_id=customer.id, offset=0, **which
            )
        ],
        "mails": []
        if customer.email is None
        else [*await q.retention.list_subject_mails(conn, email=customer.email, **which)],
        "portal_links": [
            *await q.portal.list_links(conn, customer_id=customer.id, offset=0, **which)
        ],
    }
    is_complete = all(len(found) < BUNDLE_COUNT_MAX for found in rows.values())
    return {"customer": customer, **rows, "is_complete": is_complete}


async def process_requests(conn: Connection, org_id: int) -> dict[str, int]:
    """Forget some of those who asked for it, in the caller's transaction; returns counts."""
    due = await q.retention.claim_deletion_requests(conn, org_id=org_id, limit=REQUEST_BATCH)
    attachments = mails = 0
    for request in due:
        of_customer = {"org_id": org_id, "customer_id": request.customer_id}
        removed = await q.retention.delete_attachments(conn, **of_customer)
        emptied = await q.retention.empty_mails(conn, **of_customer)
        await q.retention.forget_block(conn, **of_customer)
        await q.retention.anonymise_customer(conn, **of_customer)
        await q.retention.finish_deletion_request(
            conn, org_id=org_id, id=request.id, attachments_deleted=removed, mails_emptied=emptied
        )
        attachments, mails = attachments + removed, mails + emptied
    return {
        "requests_processed": len(due),
        "requests_waiting": await q.retention.count_waiting_requests(conn, org_id=org_id),
        "attachments_deleted": attachments,
        "mails_emptied": mails,
    }
