"""How the jobs are that run later."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from sofinance import queries as q
from sofinance.infra.administration import demand_operator
from sofinance.infra.fields import Timestamp
from sofinance.infra.http import Call, Routes

routes = Routes()


class Job(Schema):
    """What is done regularly, and how it went."""

    name = fields.Str(required=True)
    description = fields.Str(required=True)
    every_s = fields.Int(required=True)
    is_paused = fields.Bool(required=True)
    is_requested = fields.Bool(required=True)
    is_running = fields.Bool(required=True)
    next_run_at = Timestamp(required=True)
    last_heartbeat = Timestamp(required=True, allow_none=True, attribute="last_heartbeat_at")
    last_success_at = Timestamp(required=True, allow_none=True)
    last_error = fields.Str(required=True, allow_none=True)
    last_error_at = Timestamp(required=True, allow_none=True)
    consecutive_failures = fields.Int(required=True)


@routes.endpoint(
    "GET", "/admin/jobs/status", permission="system:manage", admin=True, returns=Job(many=True)
)
@routes.endpoint(
    "GET", "/v1/admin/jobs/status", permission="system:manage", admin=True, prefix=False,
    returns=Job(many=True),
)  # fmt: skip
async def list_jobs(call: Call) -> Any:
    """List every job: when it ran, whether it went well, and when it is due."""
    demand_operator(call)
    return await q.jobs.list_jobs(call.conn)
