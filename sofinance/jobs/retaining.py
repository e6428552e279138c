"""Applying the retention of every organisation, each batch in a transaction of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.api.retention import BATCH, REQUEST_BATCH, process_requests
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from sofinance.infra.db import Database


async def apply_everywhere(database: Database) -> str:
    """Forget old mail and those who asked for it; tells counts only."""
    org_ids = await whose(database)
    mails = persons = waiting = 0
    for org_id in org_ids:
        mails += await forget_mails(database, org_id)
        done = REQUEST_BATCH
        left = 0
        while done == REQUEST_BATCH:
            async with database.tenant(org_id) as conn:
                counts = await process_requests(conn, org_id)
            done, left = counts["requests_processed"], counts["requests_waiting"]
            persons += done
        waiting += left
    return f"forgot {mails} mails and {persons} persons; {waiting} requests wait"


async def forget_mails(database: Database, org_id: int) -> int:
    """Forget the mail of an organisation that is older than it is kept."""
    total, gone = 0, BATCH
    while gone == BATCH:
        async with database.tenant(org_id) as conn:
            gone = await q.mail.forget_mails(
                conn, org_id=org_id, keep_days=database.settings.retention_mail_days, limit=BATCH
            )
        total += gone
    return total
