"""What was changed for everybody on the server: who, what, when."""

from __future__ import annotations

from typing import Any

import orjson
from marshmallow import Schema, fields

from sofinance import queries as q
from sofinance.infra.administration import demand_operator
from sofinance.infra.fields import CursorQuery, Id, Timestamp, cursor_page
from sofinance.infra.http import Call, Routes

routes = Routes()


class OperatorAction(Schema):
    """A change of a job or of a flag for everybody, by a command, over the API or in psql."""

    id = Id(required=True)
    done_at = Timestamp(required=True)
    action = fields.Str(required=True)
    subject = fields.Str(required=True)
    before = fields.Dict(required=True, allow_none=True)
    after = fields.Dict(required=True, allow_none=True)
    who = fields.Str(required=True)
    database_role = fields.Str(required=True)
    client_address = fields.Str(required=True, allow_none=True)
    organisation_id = Id(required=True, allow_none=True)
    user_id = Id(required=True, allow_none=True)


class OperatorActions(Schema):
    """A page of them."""

    items = fields.List(fields.Nested(OperatorAction), required=True)
    next_cursor = Id(required=True, allow_none=True)


@routes.endpoint(
    "GET", "/admin/operator-actions", permission="system:manage", org_wide=True, admin=True,
    query=CursorQuery(), returns=OperatorActions(),
)  # fmt: skip
async def list_operator_actions(call: Call) -> Any:
    """List what was changed for everybody, the latest first; for the operator."""
    demand_operator(call)
    limit = call.query["limit"]
    rows = await q.operator_actions.list_operator_actions(
        call.conn, before_id=call.query["cursor"], limit=limit + 1
    )
    page = cursor_page(rows, limit, "id")
    return {**page, "items": [shown(row) for row in page["items"]]}


def shown(row: Any) -> dict[str, Any]:
    """Return an action as it is answered."""
    return {
        **row,
        "before": None if row.before is None else orjson.loads(row.before),
        "after": None if row.after is None else orjson.loads(row.after),
        "organisation_id": row.org_id,
    }
