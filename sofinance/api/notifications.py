"""Notifications: what each user is told, read over REST or heard over a WebSocket."""

from __future__ import annotations

from typing import Any

import orjson
from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.fields import CursorQuery, Id, Timestamp, cursor_page
from sofinance.infra.guard import make_secret, write_opaque
from sofinance.infra.http import Call, Routes, Upgrade
from sofinance.infra.hub import TICKET
from sofinance.infra.notify import tell
from sofinance.infra.sessions import current

routes = Routes()

TICKET_LIFE_S = 30
TOLD_COUNT_MAX = 100
DATA_COUNT_MAX = 50


class NotificationQuery(CursorQuery):
    """Which notifications."""

    unread_only = fields.Bool(load_default=False)


class Notification(Schema):
    """What the caller is told; the id counts the caller's own."""

    id = Id(required=True)
    type = fields.Str(required=True, metadata={"description": "low_stock, message and others."})
    title = fields.Str(required=True)
    message = fields.Str(required=True)
    data = fields.Dict(keys=fields.Str(), required=True)
    sent_by = Id(required=True, allow_none=True)
    created_at = Timestamp(required=True)
    read_at = Timestamp(required=True, allow_none=True)


class Notifications(Schema):
    """A page, the latest first."""

    items = fields.List(fields.Nested(Notification), required=True)
    next_cursor = Id(required=True, allow_none=True)
    unread_count = fields.Int(required=True)


class UnreadCount(Schema):
    unread_count = fields.Int(required=True)


class MarkedCount(Schema):
    marked_count = fields.Int(required=True)


class SentCount(Schema):
    sent_count = fields.Int(required=True)


class NewNotification(Schema):
    """What to tell whom."""

    user_ids = fields.List(Id(), required=True, validate=validate.Length(1, TOLD_COUNT_MAX))
    title = fields.Str(required=True, validate=validate.Length(1, 200))
    message = fields.Str(load_default="", validate=validate.Length(max=2_000))
    type = fields.Str(load_default="message", validate=validate.Regexp(r"^[a-z][a-z0-9_]{1,39}\Z"))
    data = fields.Dict(
        keys=fields.Str(validate=validate.Length(1, 100)), load_default=dict,
        validate=validate.Length(max=DATA_COUNT_MAX),
    )  # fmt: skip


class SocketQuery(Schema):
    """How a WebSocket begins."""

    ticket = fields.Str(load_default=None, validate=validate.Length(1, 200))
    token = fields.Str(
        load_default=None, metadata={"description": "Refused (4401): URLs end in logs."}
    )
    last_id = fields.Int(
        load_default=None, validate=validate.Range(0, 2**63 - 1),
        metadata={"description": "The latest notification that you have: what came since, first."},
    )  # fmt: skip


class Ticket(Schema):
    """Opens one WebSocket: ?ticket=..."""

    ticket = fields.Str(required=True)
    expires_in = fields.Int(required=True, metadata={"description": "Seconds."})


@routes.endpoint(
    "GET", "/notifications", any_user=True, query=NotificationQuery(), returns=Notifications()
)
async def list_notifications(call: Call) -> Any:
    """List what you were told, the latest first."""
    limit = call.query["limit"]
    rows = await q.notifications.list_notifications(
        call.conn, before_id=call.query["cursor"], unread_only=call.query["unread_only"],
        limit=limit + 1, **own(call),
    )  # fmt: skip
    page = cursor_page(rows, limit, "id")
    return {
        **page,
        "items": [shown(row) for row in page["items"]],
        "unread_count": await q.notifications.count_unread(call.conn, **own(call)),
    }


@routes.endpoint("GET", "/notifications/unread/count", any_user=True, returns=UnreadCount())
async def count_unread(call: Call) -> Any:
    """Count what you have not read."""
    return {"unread_count": await q.notifications.count_unread(call.conn, **own(call))}


@routes.endpoint(
    "GET", "/notifications/ws", public=True, query=SocketQuery(), status=101,
    refuses=(403, 426, 503),
)  # fmt: skip
async def open_socket(call: Call) -> Any:
    """Hear what you are told, as it happens, over a WebSocket: docs/notifications.md.

    The access token comes as `Authorization: Bearer`, as the subprotocol `bearer.<token>` beside
    `sofinance.v1`, or in the first message; a browser may get a `ticket` instead. Closed with 4401
    without a good one.
    """
    return Upgrade(ticket=call.query["ticket"], last_id=call.query["last_id"])


@routes.endpoint("POST", "/notifications/ws-ticket", any_user=True, returns=Ticket(), status=201,
                 idempotent=False, refuses=(403,))  # fmt: skip
async def issue_ticket(call: Call) -> Any:
    """Get a ticket that opens one WebSocket in your session within half a minute.

    403 `session_required` for an API key, which can send itself as a header.
    """
    secret, token_hash = make_secret()
    session_id = current(call)
    await q.notifications.issue_ticket(
        call.conn, org_id=call.org_id, session_id=session_id, token_hash=token_hash,
        life_s=TICKET_LIFE_S,
    )  # fmt: skip
    call.audit(entity_id=session_id)
    return {
        "ticket": write_opaque(TICKET, call.org_id, session_id, secret),
        "expires_in": TICKET_LIFE_S,
    }


@routes.endpoint(
    "POST", "/notifications/send", permission="notifications:send", org_wide=True,
    body=NewNotification(), returns=SentCount(),
)  # fmt: skip
async def send(call: Call) -> Any:
    """Tell users of your organisation something; 409 when one of them is nobody."""
    return {
        "sent_count": await tell(call.conn, org_id=call.org_id, sent_by=call.user_id, **call.body)
    }


@routes.endpoint("PUT", "/notifications/mark-all-read", any_user=True, returns=MarkedCount())
async def mark_all_read(call: Call) -> Any:
    """Mark all that you were told as read."""
    return {"marked_count": await q.notifications.mark_all_read(call.conn, **own(call))}


@routes.endpoint("GET", "/notifications/{id}", any_user=True, returns=Notification())
async def get_notification(call: Call) -> Any:
    """Get one of your notifications."""
    return shown(await q.notifications.get_notification(call.conn, id=call.path["id"], **own(call)))


@routes.endpoint("PUT", "/notifications/{id}/read", any_user=True, returns=Notification())
async def mark_read(call: Call) -> Any:
    """Mark one of your notifications as read; again changes nothing."""
    return shown(await q.notifications.mark_read(call.conn, id=call.path["id"], **own(call)))


@routes.endpoint("DELETE", "/notifications/{id}", any_user=True)
async def delete_notification(call: Call) -> None:
    """Delete one of your notifications."""
    call.before(
        shown(await q.notifications.delete_notification(call.conn, id=call.path["id"], **own(call)))
    )


def own(call: Call) -> dict[str, int]:
    """Return whose notifications these are: the caller's."""
    return {"org_id": call.org_id, "user_id": call.user_id}


def shown(row: Any) -> dict[str, Any]:
    """Return a row with its data as an object."""
    return {**row, "data": orjson.loads(row.data)}
