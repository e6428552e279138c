"""Applying the retention of every organisation, each batch in a transaction of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance.api.retention import DAILY, REQUEST_BATCH, process_requests
from sofinance.jobs.forgetting import forget_expired, told
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from sofinance.infra.db import Database


async def apply_everywhere(database: Database) -> str:
    """Forget what was kept for days, and those who asked for it; tells counts only."""
    gone = await forget_expired(database, kinds=DAILY)
    persons = waiting = 0
    for org_id in await whose(database):
        done = REQUEST_BATCH
        left = 0
        while done == REQUEST_BATCH:
            async with database.tenant(org_id) as conn:
                counts = await process_requests(conn, org_id)
            done, left = counts["requests_processed"], counts["requests_waiting"]
            persons += done
        waiting += left
    return f"forgot {told(gone)} and {persons} persons; {waiting} requests wait"
