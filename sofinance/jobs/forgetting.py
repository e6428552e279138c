"""What is kept for a while and then forgotten: answers to idempotency keys, sessions that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance.api.retention import BATCH, EXPIRED
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from collections.abc import Callable

    from sofinance.infra.db import Database


async def forget_expired(
    database: Database, tell: Callable[[int, int], None] = lambda _org_id, _count: None
) -> dict[str, int]:
    """Forget what has expired in every organisation; returns how many rows by table.

    Any number may do this at once; each takes other rows. `tell` hears of each batch: the
    organisation and its number of rows.
    """
    org_ids = await whose(database)
    gone = dict.fromkeys(EXPIRED, 0)
    for org_id in org_ids:
        for name, forget in EXPIRED.items():
            count = BATCH
            while count == BATCH:
                async with database.tenant(org_id) as conn:
                    count = await forget(conn, org_id=org_id, limit=BATCH)
                gone[name] += count
                tell(org_id, count)
    return gone


async def forget_everywhere(database: Database) -> str:
    """Forget what has expired, as a job."""
    gone = await forget_expired(database)
    return ", ".join(f"{count} {name}" for name, count in gone.items())
