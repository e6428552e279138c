"""What the nightly verification found wrong, and who took it on."""

from __future__ import annotations

from typing import Any

import orjson
from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.administration import is_operator
from sofinance.infra.fields import Id, Timestamp
from sofinance.infra.http import Call, Routes

routes = Routes()

EVENT_COUNT_MAX = 500


class EventQuery(Schema):
    open = fields.Bool(
        load_default=None, allow_none=True, metadata={"description": "Only those open, or not."}
    )
    limit = fields.Int(load_default=100, validate=validate.Range(1, EVENT_COUNT_MAX))


class Acknowledgement(Schema):
    note = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=500))


class IntegrityEvent(Schema):
    """Something that does not prove, from the first time it was seen to the first it was not."""

    id = Id(required=True)
    organisation_id = Id(
        required=True, allow_none=True,
        metadata={"description": "Null where it is the server's own: a guard."},
    )  # fmt: skip
    check = fields.Str(required=True)
    severity = fields.Str(required=True, validate=validate.OneOf(["WARNING", "ERROR"]))
    broken_count = fields.Int(required=True)
    first_broken = fields.Dict(required=True, allow_none=True)
    first_seen_at = Timestamp(required=True)
    last_seen_at = Timestamp(required=True)
    seen_count = fields.Int(required=True)
    resolved_at = Timestamp(required=True, allow_none=True)
    acknowledged_at = Timestamp(required=True, allow_none=True)
    acknowledged_by = Id(required=True, allow_none=True)
    note = fields.Str(required=True, allow_none=True)


def shown(event: Any) -> dict[str, Any]:
    """Return an event as it is answered."""
    first = event.first_broken
    return {
        **event,
        "check": event.check_name,
        "first_broken": None if first is None else orjson.loads(first),
    }


@routes.endpoint(
    "GET", "/admin/integrity-events", permission="system:manage", org_wide=True, admin=True,
    query=EventQuery(), returns=IntegrityEvent(many=True),
)  # fmt: skip
async def list_integrity_events(call: Call) -> Any:
    """List what was found wrong with your books, latest first; the operator sees guards, too."""
    events = await q.integrity_events.list_integrity_events(
        call.conn,
        of_server=is_operator(call),
        is_open=call.query["open"],
        limit=call.query["limit"],
    )
    return [shown(event) for event in events]


@routes.endpoint(
    "POST", "/admin/integrity-events/{id}/acknowledge", permission="system:manage", org_wide=True,
    admin=True, body=Acknowledgement(), returns=IntegrityEvent(),
)  # fmt: skip
async def acknowledge_integrity_event(call: Call) -> Any:
    """Take an event on, for others to see; it stays open until it is found no more."""
    return shown(
        await q.integrity_events.acknowledge_integrity_event(
            call.conn,
            id=call.path["id"],
            of_server=is_operator(call),
            user_id=call.user_id,
            note=call.body["note"],
        )
    )
