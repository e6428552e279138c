"""The trial balance: snapshots and the tail since, against the sum of all lines."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measure import Effort, Result, median
from bench.world import TAX_PERCENT, set_tenant
from sofinance import queries as q
from sofinance.infra.sql import load

if TYPE_CHECKING:
    from bench.world import World

SIZES = (100_000, 1_000_000)
LARGE_SIZES = (*SIZES, 5_000_000, 10_000_000)
GOAL_SIZE, GOAL_RATIO, GROWTH_MAX = 5_000_000, 30, 1.5
# Lines since the last roll-up: five minutes of a busy retailer.
TAIL_LINE_COUNT = 2_000
# Entries that one transaction of the filling writes.
CHUNK_ENTRY_COUNT = 500_000
SQL: Any = load(Path(__file__).parent / "sql" / "balances.sql")


def trial_balance(world: World, effort: Effort) -> list[Result]:
    """Compare the two ways at growing numbers of lines, each in an organisation of its own."""
    sizes = [effort.sized(size, least=4_000) for size in (LARGE_SIZES if effort.large else SIZES)]
    seen = {size: asyncio.run(_compare(world, size, effort.rounds)) for size in sizes}
    results = []
    for size in sizes:
        summed_ms, ours_ms = seen[size]
        results.append(
            Result(
                f"trial balance at {size:,} lines: sum of lines against snapshot and tail",
                summed_ms / ours_ms,
                goal=GOAL_RATIO if size >= GOAL_SIZE else None,
                figures={"sum ms": summed_ms, "ours ms": ours_ms, "tail lines": TAIL_LINE_COUNT},
            )
        )
    results.append(
        Result(
            f"trial balance: cost at {sizes[-1]:,} lines against {sizes[0]:,}",
            seen[sizes[-1]][1] / seen[sizes[0]][1], goal=GROWTH_MAX, at_most=True,
        )
    )  # fmt: skip
    return results


async def _compare(world: World, size: int, rounds: int) -> tuple[float, float]:
    """Return the milliseconds of the sum and of our query, at so many lines."""
    org_id, user_id, account_ids = await _fill(world, size)
    today = datetime.now(UTC).date()
    conn = await world.connect()
    try:
        summed: list[float] = []
        ours: list[float] = []
        for number in range(rounds + 1):
            async with conn.transaction(readonly=True):
                await set_tenant(conn, org_id, user_id)
                await q.request.plan_for_values(conn)
                for query, times in (
                    (SQL["summed_balance"], summed), (q.journal.trial_balance, ours),
                ):  # fmt: skip
                    began_s = time.perf_counter()
                    rows = await query(conn, org_id=org_id, as_of=today)
                    if number:  # the first one warms up
                        times.append((time.perf_counter() - began_s) * 1000)
                    if len(rows) < len(account_ids):
                        raise RuntimeError("accounts are missing from the trial balance")
        return median(summed), median(ours)
    finally:
        await conn.close()


async def _fill(world: World, size: int) -> tuple[int, int, list[int]]:
    """Make an organisation with so many lines over a year, rolled up but for the tail."""
    conn = await world.connect()
    try:
        made = await q.orgs.create_organisation(
            conn, name=f"Books {size}", base_currency="EUR", time_zone="UTC",
            prices_include_tax=False, standard_tax_percent=TAX_PERCENT,
            default_credit_limit=Decimal(0), admin_email=f"{uuid.uuid4().hex}@example.com",
            admin_password_hash="nobody signs in",  # noqa: S106 - not a hash, so nobody can
            admin_first_name="Bench", admin_last_name="Mark",
        )  # fmt: skip
        org_id, user_id = made.org_id, made.admin_id
        first_on = datetime.now(UTC).date() - timedelta(days=366)
        async with conn.transaction():
            await set_tenant(conn, org_id, user_id)
            period_id = await conn.fetchval("select open_period($1, $2)", org_id, first_on)
            accounts = await q.accounts.list_accounts(
                conn, org_id=org_id, type=None, search=None, is_active=True, limit=100, offset=0
            )
        account_ids = [account.id for account in accounts]
        entry_count = (size - TAIL_LINE_COUNT) // 2
        for at in range(0, entry_count, CHUNK_ENTRY_COUNT):
            count = min(CHUNK_ENTRY_COUNT, entry_count - at)
            _write(world, org_id, user_id, period_id, account_ids, count)
        async with conn.transaction():
            await set_tenant(conn, org_id, user_id)
            await q.journal.mark_roll_up(conn)
        async with conn.transaction():
            await set_tenant(conn, org_id, user_id)
            await q.journal.roll_up_balances(conn)
        _write(world, org_id, user_id, period_id, account_ids, TAIL_LINE_COUNT // 2)
    finally:
        await conn.close()
    with world.superuser() as owner:
        owner.execute("vacuum analyze")
    return org_id, user_id, account_ids


def _write(
    world: World, org_id: int, user_id: int, period_id: int, account_ids: list[int], count: int
) -> None:
    """Write entries past the triggers, as a restore does: they are to be read, not posted."""
    values = {
        "org_id": org_id, "user_id": user_id, "period_id": period_id, "currency": "EUR",
        "account_ids": account_ids, "entry_count": count,
        "first_on": datetime.now(UTC).date() - timedelta(days=365),
    }  # fmt: skip
    with world.superuser() as conn, conn.transaction():
        conn.execute("set local session_replication_role = replica")
        (before,) = conn.execute("select coalesce(max(id), 0) from journal_entry").fetchone() or (
            0,
        )
        for name in ("fill_entries", "fill_lines"):
            query = SQL[name]
            text = query.text.strip().rstrip(";").replace("%", "%%")
            for param in sorted(query.params, key=len, reverse=True):
                text = text.replace(f":{param}", f"%({param})s")
            conn.execute(text, {**values, "after_id": before})
