"""Health, metrics and what this service is."""

from __future__ import annotations

import platform
from typing import Any

from aiohttp import web
from marshmallow import Schema, fields

from sofinance import __version__
from sofinance import queries as q
from sofinance.infra import errors, health, metrics, settings_shown, told
from sofinance.infra.administration import demand_operator
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Timestamp
from sofinance.infra.guard import unauthorized
from sofinance.infra.http import Call, Routes

routes = Routes()

OPENMETRICS = "application/openmetrics-text"
# No longer than a new key waits before it signs.
KEYS_AGE_MAX_S = 60


class Health(Schema):
    status = fields.String(required=True, metadata={"enum": ["healthy", "degraded", "unhealthy"]})
    version = fields.String(required=True)
    timestamp = Timestamp(required=True)
    checks = fields.Dict(
        keys=fields.String(),
        values=fields.String(metadata={"enum": ["healthy", "unhealthy", "timeout"]}),
        required=True,
    )


class DatabaseCounts(Schema):
    name = fields.String(required=True)
    server_version = fields.String(required=True)
    size_bytes = fields.Integer(required=True)
    connection_count = fields.Integer(required=True)
    commit_count = fields.Integer(required=True)
    rollback_count = fields.Integer(required=True)
    block_hit_count = fields.Integer(required=True)
    block_read_count = fields.Integer(required=True)
    deadlock_count = fields.Integer(required=True)
    temp_bytes = fields.Integer(required=True)
    counted_since = Timestamp(required=True, allow_none=True)


class PoolState(Schema):
    """The connections of the worker that answers."""

    size = fields.Integer(required=True)
    open = fields.Integer(required=True)
    in_use = fields.Integer(required=True)
    waiting = fields.Integer(required=True)


class DatabaseStats(Schema):
    """What the server counts of the database, and this worker's connections to it."""

    database = fields.Nested(DatabaseCounts, required=True)
    pool = fields.Nested(PoolState, required=True)


class Build(Schema):
    """What exactly runs here."""

    version = fields.String(required=True)
    commit = fields.String(required=True, allow_none=True)
    python = fields.String(required=True)
    migration = fields.String(required=True, metadata={"description": "The newest it knows."})


class ShownSetting(Schema):
    """A setting, as text; `[secret]` stands for a secret that is set."""

    name = fields.String(required=True)
    value = fields.String(required=True)
    is_default = fields.Boolean(required=True)


class Configuration(Schema):
    """What this service runs with."""

    settings = fields.List(fields.Nested(ShownSetting), required=True)


class Info(Schema):
    name = fields.String(required=True)
    version = fields.String(required=True)
    environment = fields.String(required=True)
    now = Timestamp(required=True)


def report(call: Call, checks: dict[str, str]) -> dict[str, Any]:
    """Return the state of health; raises unhealthy (503) when what is needed fails.

    What is not needed to post a sale (Redis, the file store) makes it degraded: 200.
    """
    failed = {name for name, check in checks.items() if check != health.HEALTHY}
    healthy = failed <= health.WARNINGS
    state = {
        "status": "unhealthy" if not healthy else "degraded" if failed else "healthy",
        "version": __version__,
        "timestamp": call.now,
        "checks": checks,
    }
    if not healthy:
        refusal = ApiError(
            "unhealthy",
            "This service cannot do its work right now.",
            status=503,
            headers={"Retry-After": str(errors.RETRY_AFTER_S)},
        )
        refusal.details.update(state)
        raise refusal
    return state


@routes.endpoint("GET", "/health", public=True, prefix=False, returns=Health())
async def get_health(call: Call) -> Any:
    """Say whether the service and what it depends on work."""
    return report(call, await health.check(call, with_storage=True))


@routes.endpoint("GET", "/health/ready", public=True, prefix=False, returns=Health())
@routes.endpoint("GET", "/readyz", public=True, prefix=False, returns=Health())
async def get_readiness(call: Call) -> Any:
    """Say whether requests should be sent here.

    Not without a database, not before its migrations, not while shutting down.
    """
    checks = await health.check(call)
    if call.draining:
        checks["shutdown"] = "unhealthy"
    return report(call, checks)


@routes.endpoint("GET", "/health/live", public=True, prefix=False, returns=Health())
@routes.endpoint("GET", "/healthz", public=True, prefix=False, returns=Health())
@routes.endpoint("GET", "/livez", public=True, prefix=False, returns=Health())
@routes.endpoint("GET", "/ping", public=True, prefix=False, returns=Health())
async def get_liveness(call: Call) -> Any:
    """Say that the process runs; depends on nothing else."""
    return report(call, {})


@routes.endpoint("GET", "/metrics", public=True, prefix=False, status=200, refuses=(401, 404))
@routes.endpoint("GET", "/v1/metrics", public=True, prefix=False, status=200, refuses=(401, 404))
async def get_metrics(call: Call) -> Any:
    """Return the metrics as Prometheus reads them; METRICS_TOKEN protects them.

    With `Accept: application/openmetrics-text` they have exemplars: the trace of a request.
    """
    settings = call.settings
    if not settings.metrics_enabled:
        raise errors.not_found()
    if not metrics.may_read(settings.metrics_token, call.authorization):
        raise unauthorized("The metrics need their own token: Authorization: Bearer ...")
    is_open = OPENMETRICS in call.accept
    body, content_type = metrics.render(await told.read(call), is_open=is_open)
    return web.Response(body=body, headers={"Content-Type": content_type, "Vary": "Accept"})


@routes.endpoint(
    "GET", "/.well-known/jwks.json", public=True, prefix=False, status=200,
    media_type="application/json",
)  # fmt: skip
async def get_keys(call: Call) -> Any:
    """Return the public keys that access tokens can be verified with (RFC 7517)."""
    return web.json_response(
        call.guard.keys.jwks(), headers={"Cache-Control": f"public, max-age={KEYS_AGE_MAX_S}"}
    )


@routes.endpoint(
    "GET", "/debug/database-stats", permission="system:manage", admin=True, prefix=False,
    returns=DatabaseStats(),
)  # fmt: skip
async def get_database_stats(call: Call) -> Any:
    """Get what the database server counts, and the state of this worker's pool."""
    demand_operator(call)
    pool = call.db.pool
    return {
        "database": await q.request.get_database_stats(call.conn),
        "pool": {
            "size": call.db.size_max,
            "open": pool.open_count,
            "in_use": pool.in_use_count,
            "waiting": pool.waiting_count,
        },
    }


@routes.endpoint(
    "GET", "/debug/version", permission="system:manage", admin=True, prefix=False, returns=Build()
)
async def get_build(call: Call) -> Any:
    """Get what exactly runs here: version, commit, Python, newest migration."""
    demand_operator(call)
    return {
        "version": __version__,
        "commit": call.settings.git_commit or None,
        "python": platform.python_version(),
        "migration": health.known_migrations()[-1],
    }


@routes.endpoint(
    "GET", "/admin/config", permission="system:manage", admin=True, returns=Configuration()
)
async def get_config(call: Call) -> Any:
    """Get the settings that this service runs with, by the names of their variables.

    Secrets are not shown, only that they are set. `sofinance config show --origin` says on the
    machine itself where each comes from.
    """
    demand_operator(call)
    return {"settings": settings_shown.rows(call.settings)}


@routes.endpoint("GET", "/info", public=True, returns=Info())
async def get_info(call: Call) -> Any:
    """Say what answers here."""
    return {
        "name": "SOFinance",
        "version": __version__,
        "environment": call.settings.environment,
        "now": call.now,
    }
