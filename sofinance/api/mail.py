"""Mail that is reserved and delivered later: what was given up, and who gets none."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit, sealed_links
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Id, LowerEmail, PageQuery, Timestamp
from sofinance.infra.http import Call, Routes, paged
from sofinance.infra.mail import delivery
from sofinance.infra.pages import page
from sofinance.rules import reminders

if TYPE_CHECKING:
    from sofinance.infra.secretbox import SecretBox
    from sofinance.infra.sql import Connection

routes = Routes()

# Reminders that one scan of one organisation reserves; the next goes on.
REMINDER_COUNT_MAX = 500
LOW_COUNT_MAX = 5_000
MANAGER_COUNT_MAX = 100
UNSUBSCRIBE = "unsubscribe"
# A link is good for as long as somebody may look through old mail: a year.
UNSUBSCRIBE_MINUTES = 525_600
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>No more mails</title>
<form method="post"><button>Send me no more mails like this one</button></form>
</html>
"""


class Mail(Schema):
    """A mail, without its text and its address."""

    id = Id(required=True)
    kind = fields.Str(required=True)
    status = fields.Str(required=True)
    attempt_count = fields.Int(required=True)
    created_at = Timestamp(required=True)
    due_at = Timestamp(required=True)
    sent_at = Timestamp(required=True, allow_none=True)
    last_error = fields.Str(required=True, allow_none=True)


class Blocked(Schema):
    """An address that gets no mail."""

    email = LowerEmail(required=True, validate=validate.Length(max=254))


class Scanned(Schema):
    """How many mails were reserved, and how many were not."""

    sent = fields.Int(required=True)
    skipped = fields.Int(required=True)


class UnsubscribeQuery(Schema):
    """What a link has behind its address."""

    token = fields.Str(
        required=True, validate=validate.Length(1, sealed_links.TOKEN_LENGTH_MAX), load_only=True
    )


class Unsubscribed(Schema):
    """That it is done; again is as well."""

    is_unsubscribed = fields.Bool(required=True)


@routes.endpoint(
    "POST", "/admin/email-scan", permission="system:manage", org_wide=True, admin=True,
    returns=Scanned(), status=202, entity="mail",
)  # fmt: skip
@routes.endpoint(
    "POST", "/v1/admin/email-scan", permission="system:manage", org_wide=True, admin=True,
    prefix=False, returns=Scanned(), status=202, entity="mail",
)  # fmt: skip
async def scan(call: Call) -> Any:
    """Reserve reminders of overdue debts and digests of low stock; each is told once.

    `sent` counts those that are reserved now, to be delivered by the worker.
    """
    sent, skipped = await reserve(call.conn, call.settings, call.org_id)
    return {"sent": sent, "skipped": skipped}


@routes.endpoint(
    "GET", "/admin/mail/dead-letter", permission="system:manage", org_wide=True, admin=True,
    query=PageQuery(), returns=paged(Mail()),
)  # fmt: skip
async def list_dead(call: Call) -> Any:
    """List mails that were given up, the latest first."""
    rows = await q.mail.list_dead(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset
    )
    return rows, await q.mail.count_dead(call.conn, org_id=call.org_id)


@routes.endpoint(
    "POST", "/admin/mail/{id}/replay", permission="system:manage", org_wide=True, admin=True,
    returns=Mail(), status=202, entity="mail",
)  # fmt: skip
async def replay(call: Call) -> Any:
    """Try a mail again that was given up; 404 for any other."""
    return await q.mail.replay_mail(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "POST", "/admin/mail/blocks", permission="system:manage", org_wide=True, admin=True,
    body=Blocked(), returns=Blocked(), status=201, entity="mail_block",
)  # fmt: skip
async def block(call: Call) -> Any:
    """Send an address no more mail; what waits for it is skipped."""
    await q.mail.block_address(
        call.conn, org_id=call.org_id, address=call.body["email"], reason="unsubscribed"
    )
    return call.body


@routes.endpoint(
    "POST", "/admin/mail/unblock", permission="system:manage", org_wide=True, admin=True,
    body=Blocked(), returns=Blocked(), entity="mail_block",
)  # fmt: skip
async def unblock(call: Call) -> Any:
    """Send an address mail again; 404 when it is not blocked."""
    await q.mail.unblock_address(call.conn, org_id=call.org_id, address=call.body["email"])
    return call.body


@routes.endpoint(
    "POST", "/mail/unsubscribe", public=True, query=UnsubscribeQuery(), returns=Unsubscribed(),
    idempotent=False, refuses=(400,),
)  # fmt: skip
async def unsubscribe(call: Call) -> Any:
    """Get no more reminders and digests, by the link of one: one click, no questions (RFC 8058).

    Whatever the body is. Mails that somebody asks for, such as links for a new password, still
    come. 400 `invalid_unsubscribe_token` for a link that is none.
    """
    org_id, address = proven(call)
    async with call.tenant(org_id) as conn:
        await q.mail.block_address(conn, org_id=org_id, address=address, reason="unsubscribed")
        await audit.write(call, conn, org_id=org_id, action="mail.unsubscribe", entity="mail_block")
    return {"is_unsubscribed": True}


@routes.endpoint(
    "GET", "/mail/unsubscribe", public=True, query=UnsubscribeQuery(), media_type="text/html",
    status=200, idempotent=False, refuses=(400,),
)  # fmt: skip
async def ask_to_unsubscribe(call: Call) -> Any:
    """Show a button that unsubscribes: following a link changes nothing, as mail is scanned."""
    proven(call)
    return page(PAGE)


def proven(call: Call) -> tuple[int, str]:
    """Return whose mail, and to which address, a link is about; raises if it is none of ours."""
    text = sealed_links.read(call.secret_box, call.query["token"], purpose=UNSUBSCRIBE)
    if text is None:
        raise ApiError(
            "invalid_unsubscribe_token",
            "This link is not good, or too old. The one in a newer mail is.",
            status=400,
        )
    org_id, _, address = text.partition(" ")
    return int(org_id), address


def unsubscribe_url(settings: Any, box: SecretBox, org_id: int, address: str) -> str:
    """Return the link that keeps further mails from an address; "" where none is wanted."""
    if not settings.mail_unsubscribe_url:
        return ""
    token = sealed_links.write(
        box, f"{org_id} {address}", purpose=UNSUBSCRIBE, minutes=UNSUBSCRIBE_MINUTES
    )
    return f"{settings.mail_unsubscribe_url}?token={token}"


async def reserve(conn: Connection, settings: Any, org_id: int) -> tuple[int, int]:
    """Reserve mails in the caller's transaction; returns how many, and how many it left out.

    Left out is what was told already, whose address is blocked, and all of it while there is no
    way to send mail.
    """
    found = await find(conn, settings, org_id)
    reserved = 0
    if delivery(settings) is not None:
        for reminder in found:
            reserved += await q.mail.reserve_mail(
                conn, org_id=org_id, dedupe_key=reminder.dedupe_key, kind=reminder.kind,
                recipient=reminder.recipient, subject=reminder.subject, body=reminder.body,
            )  # fmt: skip
    return reserved, len(found) - reserved


async def find(conn: Connection, settings: Any, org_id: int) -> list[reminders.Reminder]:
    """Return what is to be told today."""
    told = await q.mail.get_today(conn, org_id=org_id)
    found = []
    if settings.mail_reminder_days:
        overdue = await q.mail.list_overdue(
            conn, org_id=org_id, as_of=told.today, days=settings.mail_reminder_days,
            limit=REMINDER_COUNT_MAX,
        )  # fmt: skip
        found += [reminders.receivable(row, told.name) for row in overdue]
    if settings.mail_low_stock:
        low = await q.mail.list_low_stock(conn, org_id=org_id, limit=LOW_COUNT_MAX)
        for branch_id, rows in groupby(low, key=lambda row: row.branch_id):
            of_branch = list(rows)
            managers = await q.mail.list_branch_managers(
                conn, org_id=org_id, branch_id=branch_id, limit=MANAGER_COUNT_MAX
            )
            found += [
                reminders.low_stock(of_branch, manager, told.name, told.today)
                for manager in managers
            ]
    return found
