"""Dead letters that are sent again by themselves, with care."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.targets import split
from sofinance.jobs.courier import audit
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from sofinance.infra.db import Database

# What is replayed by itself, and how often. Source: spec, operations.md 3.5.
PER_ORGANISATION_MAX = 5
REPLAY_COUNT_MAX = 2
MIN_AGE_MINUTES = 60
COOLDOWN_MINUTES = 120
# Beside those of the schedule: each replay is one attempt.
EXTRA_ATTEMPTS_MAX = 7
# An endpoint that failed so often in a row is not asked to take old messages as well.
FAILURES_MAX = 3
CIRCUITS_MAX = 10_000


async def replay_some(database: Database) -> str:
    """Send dead letters of the named organisations again, each with one attempt."""
    named = {int(part) for part in split(database.settings.export_replay_org_ids)}
    if not named:
        return "EXPORT_REPLAY_ORG_IDS names no organisation"
    org_ids = [org_id for org_id in await whose(database) if org_id in named]
    scheduled = len(split(database.settings.export_retry_delays_s))
    async with database.untenanted() as conn:
        circuits = await q.outbox.list_circuits(conn, limit=CIRCUITS_MAX)
    failing = {row.endpoint_id for row in circuits if row.failures >= FAILURES_MAX}
    total: Counter[str] = Counter()
    for org_id in org_ids:
        async with database.tenant(org_id) as conn:
            rows = await q.deliveries.list_for_replay(
                conn,
                org_id=org_id,
                replay_count_max=REPLAY_COUNT_MAX,
                attempts_max=scheduled + EXTRA_ATTEMPTS_MAX,
                min_age_minutes=MIN_AGE_MINUTES,
                cooldown_minutes=COOLDOWN_MINUTES,
                limit=PER_ORGANISATION_MAX,
            )
            ids = [row.id for row in rows if row.endpoint_id not in failing]
            total["spared"] += len(rows) - len(ids)
            if ids:
                total["replayed"] += await q.deliveries.replay_deliveries(
                    conn, ids=ids, user_id=None, attempts=scheduled - 1
                )
                for delivery_id in ids:
                    await audit(conn, org_id, "webhooks.auto_replay", delivery_id, "INFO")
    return f"replayed {total['replayed']}, spared {total['spared']} at endpoints that fail"
