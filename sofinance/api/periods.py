"""Accounting periods: which dates are open for posting."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from sofinance import queries as q
from sofinance.infra.fields import Id, Timestamp
from sofinance.infra.http import Call, Routes, paged

routes = Routes()


class NewPeriod(Schema):
    """A span of dates, both ends included."""

    starts_on = fields.Date(required=True)
    ends_on = fields.Date(required=True)


class Period(Schema):
    """An accounting period."""

    id = Id(required=True)
    starts_on = fields.Date(required=True)
    ends_on = fields.Date(required=True)
    is_closed = fields.Bool(required=True)
    closed_by = Id(required=True, allow_none=True)
    closed_at = Timestamp(required=True, allow_none=True)
    created_at = Timestamp(required=True)


@routes.endpoint(
    "POST", "/periods", permission="periods:write", org_wide=True,
    body=NewPeriod(), returns=Period(), status=201,
    location="/periods/{id}",
)  # fmt: skip
async def create_period(call: Call) -> Any:
    """Create an open period; months are also opened by the first posting into them."""
    return await q.periods.create_period(call.conn, org_id=call.org_id, **call.body)


@routes.endpoint("GET", "/periods", permission="periods:read", returns=paged(Period()))
async def list_periods(call: Call) -> Any:
    """List periods, latest first."""
    rows = await q.periods.list_periods(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset
    )
    return rows, await q.periods.count_periods(call.conn, org_id=call.org_id)


@routes.endpoint("GET", "/periods/{id}", permission="periods:read", returns=Period())
async def get_period(call: Call) -> Any:
    """Get a period."""
    return await q.periods.get_period(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "POST", "/periods/{id}/close", permission="periods:write", org_wide=True, returns=Period(),
    if_match="optional",
)  # fmt: skip
async def close_period(call: Call) -> Any:
    """Close a period: waits for postings under way, then nothing can be posted into it."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.periods.get_period(call.conn, **key))
    return await q.periods.close_period(call.conn, **key, user_id=call.user_id)


@routes.endpoint(
    "POST", "/periods/{id}/reopen", permission="periods:write", admin=True, org_wide=True,
    returns=Period(), if_match="optional",
)  # fmt: skip
async def reopen_period(call: Call) -> Any:
    """Open a closed period again."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.periods.get_period(call.conn, **key))
    return await q.periods.reopen_period(call.conn, **key)
