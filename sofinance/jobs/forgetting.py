"""Forgetting what was kept long enough, in every organisation, some rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance.api.retention import BATCH, HOURLY, forget_some
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sofinance.api.retention import Kept
    from sofinance.infra.db import Database


async def forget_expired(
    database: Database,
    tell: Callable[[int, int], None] = lambda _org_id, _count: None,
    kinds: Mapping[str, Kept] = HOURLY,
) -> dict[str, int]:
    """Forget what has expired in every organisation; returns how many rows by kind.

    Any number may do this at once; each takes other rows. `tell` hears of each batch: the
    organisation and its number of rows.
    """
    gone = dict.fromkeys(kinds, 0)
    for org_id in await whose(database):
        for name, kept in kinds.items():
            count = BATCH
            while count == BATCH:
                async with database.tenant(org_id) as conn:
                    counts = await forget_some(conn, database.settings, org_id, {name: kept})
                count = counts[name]
                gone[name] += count
                tell(org_id, count)
    return gone


def told(gone: Mapping[str, int]) -> str:
    """Return counts by kind as they are told."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in gone.items())


async def forget_everywhere(database: Database) -> str:
    """Forget what has expired, as a job."""
    return told(await forget_expired(database))
