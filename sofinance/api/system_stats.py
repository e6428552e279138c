"""How much there is: of an organisation, and for the operator of the server."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from sofinance import queries as q
from sofinance.infra.administration import is_operator
from sofinance.infra.fields import Timestamp
from sofinance.infra.http import Call, Routes

routes = Routes()
# Counted no further: what an organisation has grows without end, an answer's time does not.
COUNT_MAX = 10_000


class Counts(Schema):
    """How many there are of each; `count_max` stands for so many or more."""

    users = fields.Int(required=True)
    branches = fields.Int(required=True)
    tills = fields.Int(required=True)
    products = fields.Int(required=True)
    customers = fields.Int(required=True)
    sales = fields.Int(required=True)
    journal_entries = fields.Int(required=True)
    webhooks = fields.Int(required=True)
    attachments = fields.Int(required=True)
    attachment_bytes = fields.Int(required=True)


class ServerStats(Schema):
    """What the operator wants to know at a glance; each has an endpoint that tells more."""

    database_size_bytes = fields.Int(required=True)
    workers = fields.Int(required=True)
    jobs = fields.Int(required=True)
    jobs_paused = fields.Int(required=True)
    jobs_failing = fields.Int(required=True)
    backups = fields.Int(required=True)
    last_backup_at = Timestamp(required=True, allow_none=True)
    last_verified_at = Timestamp(required=True, allow_none=True)


class Stats(Schema):
    """How much there is; `server` is null for whoever does not run it."""

    counts = fields.Nested(Counts, required=True)
    count_max = fields.Int(required=True)
    server = fields.Nested(ServerStats, required=True, allow_none=True)


@routes.endpoint(
    "GET", "/system/stats", permission="system:manage", org_wide=True, admin=True, limit="report",
    returns=Stats(),
)  # fmt: skip
async def get_stats(call: Call) -> Any:
    """Count what your organisation has; the operator also sees how the server is."""
    counts = await q.system_stats.count_rows(call.conn, org_id=call.org_id, count_max=COUNT_MAX)
    server = await of_server(call) if is_operator(call) else None
    return {"counts": counts, "count_max": COUNT_MAX, "server": server}


async def of_server(call: Call) -> dict[str, Any]:
    """Return how the server is: its database, its workers, jobs and backups."""
    server = await q.system.get_server(call.conn)
    backups = await q.system.get_backup_stats(call.conn)
    jobs = await q.jobs.list_jobs(call.conn)
    ttl_s = call.settings.job_heartbeat_ttl_seconds
    heartbeat = await q.jobs.get_heartbeat(call.conn, ttl_s=ttl_s)
    return {
        "database_size_bytes": server.size_bytes,
        "workers": heartbeat.runner_count,
        "jobs": len(jobs),
        "jobs_paused": sum(job.is_paused for job in jobs),
        "jobs_failing": sum(job.consecutive_failures > 0 for job in jobs),
        "backups": backups.successful,
        "last_backup_at": backups.last_backup_at,
        "last_verified_at": backups.last_verified_at,
    }
