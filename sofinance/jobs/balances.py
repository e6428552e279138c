"""The daily snapshots that reports start from: rolled up while postings go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from sofinance import queries as q
from sofinance.infra.command import STATEMENT_TIMEOUT_MS, SetupError
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from sofinance.infra.db import Database

# Marking waits until no posting is under way, and postings that come meanwhile queue behind it: so
# it waits for moments only, and comes back.
MARK_LOCK_TIMEOUT_MS = 200
MARK_TRIES_MAX = 25
MARK_PAUSE_S = 0.2


async def roll_up(database: Database, org_id: int) -> int:
    """Add what was posted since the last time to the snapshots, in two transactions.

    Returns the entry up to which they reach.
    """
    await mark(database, org_id)
    async with database.tenant(org_id) as conn:
        return await q.journal.roll_up_balances(conn)


async def roll_up_all(database: Database) -> str:
    """Roll up every organisation."""
    org_ids = await whose(database)
    for org_id in org_ids:
        await roll_up(database, org_id)
    return f"rolled up {len(org_ids)} organisations"


async def mark(database: Database, org_id: int) -> None:
    """Note, in a transaction of its own, up to which entry nothing is under way."""
    for _ in range(MARK_TRIES_MAX):
        try:
            async with database.tenant(org_id) as conn:
                await q.request.set_limits(
                    conn,
                    statement_timeout_ms=STATEMENT_TIMEOUT_MS,
                    lock_timeout_ms=MARK_LOCK_TIMEOUT_MS,
                )
                await q.journal.mark_roll_up(conn)
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(MARK_PAUSE_S)
        else:
            return
    raise SetupError(
        f"Organisation {org_id} has a posting under way that does not end; nothing was changed. "
        "Try again later."
    )
