"""Whose turn it is: the organisations that a job goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.flags import Flags

if TYPE_CHECKING:
    from sofinance.infra.db import Database


async def whose(database: Database) -> list[int]:
    """Return the organisations, but for those whose jobs are paused (the flag pause_jobs)."""
    async with database.untenanted() as conn:
        org_ids = [row.org_id for row in await q.orgs.list_organisation_ids(conn)]
    flags = Flags(database)
    kept = [org_id for org_id in org_ids if not await flags.is_on("pause_jobs", org_id=org_id)]
    await flags.flush()
    return kept
