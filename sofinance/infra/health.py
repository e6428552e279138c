"""What the service depends on, and whether it is there: each asked at once, for two seconds."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.db import NO_DATABASE
from sofinance.infra.sql import SQL_DIR

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sofinance.infra.http import Call

CHECK_TIMEOUT_S = 2
HEALTHY, UNHEALTHY, TIMEOUT = "healthy", "unhealthy", "timeout"
# What can be gone while every sale is still posted: it is told, and fails nothing.
WARNINGS = frozenset({"redis", "storage"})
NOT_MIGRATIONS = ("post-apply.",)


class NotReadyError(Exception):
    """The database answers, and lacks something."""


@cache
def known_migrations() -> list[str]:
    """Return the migrations of this release."""
    names = (path.name.removesuffix(".sql") for path in (SQL_DIR / "migrations").glob("*.sql"))
    return sorted(
        name
        for name in names
        if not name.startswith(NOT_MIGRATIONS) and not name.endswith(".rollback")
    )


async def check(call: Call, *, with_storage: bool = False) -> dict[str, str]:
    """Return the state of everything: healthy, unhealthy or timeout, by name.

    Readiness does not wait for the file store: sales go on without it.
    """
    checks = {"database": verdict(call.db.ping()), "migrations": verdict(check_migrations(call))}
    if call.settings.job_heartbeat_required:
        checks["jobs"] = verdict(check_jobs(call))
    if call.settings.redis_url:
        checks["redis"] = verdict(check_redis(call))
    if with_storage:
        checks["storage"] = verdict(call.storage.probe())
    return dict(zip(checks, await asyncio.gather(*checks.values()), strict=True))


async def verdict(asked: Awaitable[object]) -> str:
    """Wait for an answer, for so long and no longer; whatever is raised is no answer."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await asked
    except TimeoutError:
        return TIMEOUT
    except (*NO_DATABASE, NotReadyError):
        return UNHEALTHY
    return HEALTHY


async def check_migrations(call: Call) -> None:
    """Raise unless the database has every migration that this release knows; more is fine.

    So a release is not sent requests before its migrations, and an older one still is after them.
    """
    known = known_migrations()
    there = await call.db.glance(
        "migrations", lambda conn: q.request.count_migrations(conn, ids=known)
    )
    if there != len(known):
        raise NotReadyError


async def check_jobs(call: Call) -> None:
    """Raise unless a worker showed a sign of life lately."""
    ttl_s = call.settings.job_heartbeat_ttl_seconds
    heartbeat = await call.db.glance("jobs", lambda conn: q.jobs.get_heartbeat(conn, ttl_s=ttl_s))
    if not heartbeat.runner_count:
        raise NotReadyError


async def check_redis(call: Call) -> None:
    """Raise unless Redis does what the rate limits ask of it."""
    if not await call.limiter.probe():
        raise ConnectionError
