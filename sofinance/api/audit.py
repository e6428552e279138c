"""The audit log: who did what, how it was before and after, and from where."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import orjson
from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import errors
from sofinance.infra.audit import DENIAL, DENIAL_KEYS, WARNING
from sofinance.infra.fields import CursorQuery, Id, Timestamp, cursor_page
from sofinance.infra.http import Call, Routes
from sofinance.infra.masking import MISSING, mask

routes = Routes()

SEVERITIES = ["INFO", "WARNING", "ERROR", "CRITICAL"]
# How far one request looks back: all of it is read where nothing fits what is searched for.
SPAN_DEFAULT = timedelta(days=30)
SPAN_MAX = timedelta(days=366)
SEARCH_SPAN_MAX = timedelta(days=31)
FIRST = datetime.fromisoformat("1970-01-01T00:00:00Z")


class LogQuery(CursorQuery):
    """Which deeds: from `start` up to, not including, `end`; without them the last 30 days."""

    action = fields.Str(load_default=None, validate=validate.Length(1, 100))
    entity_type = fields.Str(load_default=None, validate=validate.Length(1, 100))
    entity_id = Id(load_default=None)
    user_id = Id(load_default=None)
    severity = fields.Str(load_default=None, validate=validate.OneOf(SEVERITIES))
    search = fields.Str(load_default=None, validate=validate.Length(3, 100))
    start = Timestamp(load_default=None)
    end = Timestamp(load_default=None)


class Log(Schema):
    """A deed. What is secret or personal in `before` and `after` says so instead of itself."""

    id = Id(required=True)
    timestamp = Timestamp(required=True, attribute="created_at")
    action = fields.Str(required=True)
    entity_type = fields.Str(required=True)
    entity_id = Id(required=True, allow_none=True)
    user_id = Id(required=True, allow_none=True)
    user_name = fields.Str(required=True, allow_none=True)
    session_id = Id(required=True, allow_none=True)
    api_key_id = Id(required=True, allow_none=True)
    before = fields.Raw(required=True, allow_none=True)
    after = fields.Raw(required=True, allow_none=True)
    request_id = fields.Str(required=True, allow_none=True)
    ip = fields.Str(required=True, allow_none=True)
    user_agent = fields.Str(required=True, allow_none=True)
    severity = fields.Str(required=True, metadata={"enum": SEVERITIES})


class Logs(Schema):
    """A page of the audit log."""

    items = fields.List(fields.Nested(Log), required=True)
    next_cursor = Id(required=True, allow_none=True)


@routes.endpoint(
    "GET", "/audit/logs", permission="audit:read", org_wide=True, admin=True, limit="report",
    query=LogQuery(), returns=Logs(), replica=True,
)  # fmt: skip
async def list_logs(call: Call) -> Any:
    """List what was done, the latest first.

    `search` looks in the action, the request's id, the address and the client's program; with it
    the span is 31 days at most, without it 366.
    """
    wanted, limit = call.query, call.query["limit"]
    start, end = span(wanted, call.now)
    rows = await q.audit.list_logs(
        call.conn,
        org_id=call.org_id,
        before_id=wanted["cursor"],
        starts_at=start,
        ends_at=end,
        limit=limit + 1,
        **{name: wanted[name] for name in FILTERS},
    )
    page = cursor_page(rows, limit, "id")
    return {**page, "items": [shown(row) for row in page["items"]]}


FILTERS = ("action", "entity_type", "entity_id", "user_id", "severity", "search")


def span(wanted: dict[str, Any], now: datetime) -> tuple[datetime, datetime]:
    """Return from when until when to look; raises invalid_request (422) for what is too long."""
    # A moment more than now: what was done in this very one belongs to it.
    end = wanted["end"] or now + timedelta(minutes=1)
    start = wanted["start"] or max(end, FIRST + SPAN_DEFAULT) - SPAN_DEFAULT
    longest = SPAN_MAX if wanted["search"] is None else SEARCH_SPAN_MAX
    if not (start < end and end - start <= longest):
        why = f"Must be after start, by {longest.days} days at most."
        raise errors.invalid_request({"end": [why]})
    return start, end


def shown(row: Any) -> dict[str, Any]:
    """Return a deed as it is shown: rows of earlier releases are masked here, if not there."""
    before = MISSING if row.before is None else orjson.loads(row.before)
    after = None if row.after is None else orjson.loads(row.after)
    is_denial = row.severity == WARNING and isinstance(after, dict) and after.keys() == DENIAL_KEYS
    kind = DENIAL if is_denial else row.entity_type
    return {
        **dict(row.items()),
        "before": None if before is MISSING else mask(before, kind=kind),
        "after": mask(after, before, kind=kind),
    }
