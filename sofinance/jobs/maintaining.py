"""Care of the database in its window: vacuum and statistics of all tables, bloated indexes rebuilt.

As a role that may: the owner of the tables (OWNER_URL). Nothing here stops anybody from selling:
plain VACUUM and REINDEX CONCURRENTLY. What was done is known to PostgreSQL itself (the time of the
last vacuum, the size of an index), so whoever is broken off goes on where they were.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from sofinance import queries as q
from sofinance.infra.command import SetupError
from sofinance.infra.sql import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sofinance.config import Settings
    from sofinance.infra.db import Database

log = logging.getLogger(__name__)

# The first Sunday of a month, from two to three (UTC).
SUNDAY, FIRST_WEEK_DAYS = 6, 7
BEGINS_AT_HOUR, WINDOW = 2, timedelta(hours=1)
LOCK_TIMEOUT_MS = 4_000
CONNECT_TIMEOUT_S = 10
COUNT_MAX = 1_000


@dataclass(slots=True)
class Report:
    """What was done, and what was not."""

    vacuumed: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    is_complete: bool = True

    def __str__(self) -> str:
        """Tell it in a sentence."""
        told = f"vacuumed {len(self.vacuumed)} tables, rebuilt {len(self.rebuilt)} indexes"
        if self.skipped:
            told += f"; skipped, as they were in use: {', '.join(self.skipped)}"
        return told if self.is_complete else f"{told}; the window ended, the rest is for the next"


def window(now: datetime) -> tuple[datetime, datetime] | None:
    """Return the window that a moment is in, if any."""
    utc = now.astimezone(UTC)
    begins_at = utc.replace(hour=BEGINS_AT_HOUR, minute=0, second=0, microsecond=0)
    is_first_sunday = utc.weekday() == SUNDAY and utc.day <= FIRST_WEEK_DAYS
    if not is_first_sunday or not begins_at <= utc < begins_at + WINDOW:
        return None
    return begins_at, begins_at + WINDOW


def warn_if_not_owner(settings: Settings) -> None:
    """Log that nobody takes care of the tables, other than where somebody only tries it out."""
    if not settings.owner_url and settings.environment != "development":
        log.warning("tables are not maintained: OWNER_URL is not set, and only the owner may")


async def maintain_in_window(database: Database) -> str:
    """Maintain, as a job, if it is time to."""
    now = datetime.now(UTC)
    found = window(now)
    if found is None:
        return "not the first Sunday of the month from 02:00 to 03:00 UTC: nothing to do"
    warn_if_not_owner(database.settings)
    if not database.settings.owner_url:
        return "nothing was done: OWNER_URL is not set, and only the owner may"
    return str(await maintain(database.settings.owner_url, since=found[0], ends_at=found[1]))


async def maintain(owner_url: str, *, since: datetime, ends_at: datetime) -> Report:
    """Vacuum what was not since a moment, then rebuild bloated indexes, until the time is over."""
    report = Report()
    conn: Any = await connect(owner_url)
    try:
        for leftover in await q.maintenance.list_leftovers(conn, limit=COUNT_MAX):
            await run(conn, leftover, [], report, ends_at)
        for table in await q.maintenance.list_uncared_tables(conn, since=since, limit=COUNT_MAX):
            await run(conn, table, report.vacuumed, report, ends_at)
        for index in await q.maintenance.list_bloated_indexes(conn, limit=COUNT_MAX):
            await run(conn, index, report.rebuilt, report, ends_at)
    finally:
        await conn.close()
    return report


async def run(conn: Any, wanted: Any, done: list[str], report: Report, ends_at: datetime) -> None:
    """Run one command, if there is time left for any."""
    left_ms = int((ends_at - datetime.now(UTC)).total_seconds() * 1_000)
    if left_ms <= 0:
        report.is_complete = False
        return
    await q.maintenance.limit_statements(
        conn, statement_timeout_ms=str(left_ms), lock_timeout_ms=str(LOCK_TIMEOUT_MS)
    )
    try:
        await conn.execute(wanted.command, timeout=left_ms / 1_000 + CONNECT_TIMEOUT_S)
    except asyncpg.LockNotAvailableError:
        report.skipped.append(wanted.name)
    except asyncpg.QueryCanceledError:
        report.is_complete = False
    else:
        done.append(wanted.name)


async def bloat(owner_url: str) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the tables with their dead rows, and the indexes that are worth a rebuild."""
    conn: Any = await connect(owner_url)
    try:
        now = datetime.now(UTC)
        tables = await q.maintenance.list_uncared_tables(conn, since=now, limit=COUNT_MAX)
        return tables, await q.maintenance.list_bloated_indexes(conn, limit=COUNT_MAX)
    finally:
        await conn.close()


async def connect(owner_url: str) -> Any:
    """Connect as who may, SetupError as another; a pooler in transaction mode will not do."""
    conn: Any = await asyncpg.connect(
        owner_url, record_class=Row, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0,
        server_settings={"application_name": "sofinance maintenance"},
    )  # fmt: skip
    ever = datetime.now(UTC) + timedelta(days=1)
    if not await q.maintenance.list_uncared_tables(conn, since=ever, limit=1):
        await conn.close()
        raise SetupError(
            "The role of OWNER_URL owns no table there, and only the owner may care for them: "
            "name sofinance_owner or a superuser."
        )
    return conn
