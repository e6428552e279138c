"""Ours posting two-line entries, a client in a process of its own, as the rival's clients are.

``python -m bench.entries`` with a job as JSON on stdin prints how many it posted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import uvloop

from sofinance import queries as q
from sofinance.infra.db import COMMIT, Mode, opening
from sofinance.infra.sql import Row

STATEMENT_TIMEOUT_MS = 5_000


async def post(job: dict[str, Any]) -> int:
    """Post entries for a while: begin and tenant, the entry, commit."""
    conn: Any = await asyncpg.connect(job["url"], record_class=Row)
    begin = opening(Mode.WRITE, job["org_id"], job["user_id"], STATEMENT_TIMEOUT_MS)
    amount, nothing = Decimal("12.34"), Decimal(0)

    async def entry() -> None:
        await conn.execute(begin)
        await q.journal.post_entry(
            conn,
            org_id=job["org_id"],
            user_id=job["user_id"],
            posted_on=datetime.now(UTC).date(),
            memo=None,
            reference_type=None,
            reference_id=None,
            account_ids=job["account_ids"],
            debits=[amount, nothing],
            credits=[nothing, amount],
            descriptions=None,
        )
        await conn.execute(COMMIT)

    try:
        await entry()  # connects and prepares
        until_s, count = time.perf_counter() + job["seconds"], 0
        while time.perf_counter() < until_s:
            await entry()
            count += 1
        return count
    finally:
        await conn.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps({"count": runner.run(post(json.load(sys.stdin)))}))
