"""15: a drill restores the books while tills write; 16: the schema changes under them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from typing import TYPE_CHECKING

import psycopg

from chaos.processes import ROOT, python
from sofinance.infra import embedded
from sofinance.infra import migrate as migrations

if TYPE_CHECKING:
    from chaos.stage import Stage

DRILL_TIMEOUT_S = 180
TRIES_MAX = 50
# A bound on the wait for a lock, as migrations have: whoever waits for it holds up all others.
LOCK_TIMEOUT = "set lock_timeout = '1s'"
PAUSE_S_MAX = 4.0
STEPS = (
    "alter table sale add column chaos text",
    "alter table sale add constraint sale_chaos_not_long check (length(chaos) <= 10) not valid",
    "alter table sale validate constraint sale_chaos_not_long",
    "create index concurrently sale_by_chaos on sale (org_id, chaos)",
    "drop index concurrently sale_by_chaos",
    "alter table sale drop constraint sale_chaos_not_long",
    "alter table sale drop column chaos",
)


async def drill(stage: Stage) -> str:
    """Back up under writers, restore elsewhere, compare every hash; point in time, too."""
    await stage.gunicorn()
    stage.begin()
    await stage.heal()
    done = await asyncio.to_thread(_drill, stage)
    stage.demand(f"the drill failed: {done.stderr[-500:]}", holds=done.returncode == 0)
    await stage.heal()
    if done.returncode != 0:
        return "a drill under load"
    report = json.loads(done.stdout)
    stage.figures["drill"] = report
    stage.demand("it is not the same", holds=bool(report["ok"]))
    stage.demand(f"somebody noticed: {stage.crowd.codes}", holds=set(stage.crowd.codes) == {""})
    return "`sofinance drill` under load: every row's hash equal after the restore"


def _drill(stage: Stage) -> subprocess.CompletedProcess[str]:
    settings = stage.environment(
        BACKUP_URL=stage.postgres.url("sofinance_backup"), BACKUP_DIR=str(stage.folder / "backups"),
        PG_BIN=str(stage.postgres.server.programs),
    )  # fmt: skip
    return subprocess.run(
        [*python("sofinance"), "drill", "--json"], cwd=ROOT, env=settings, capture_output=True,
        text=True, check=False, timeout=DRILL_TIMEOUT_S,
    )  # fmt: skip


async def migrate(stage: Stage) -> str:
    """Change the busiest table step by step, and run two migrations at once; nobody is refused."""
    await stage.gunicorn()
    stage.begin()
    await stage.heal()
    began_s = time.monotonic()
    url = stage.postgres.server.url(embedded.SUPERUSER)
    tries = 0
    for step in STEPS:
        tries += await asyncio.to_thread(_step, stage, step)
        await stage.heal()
    await asyncio.gather(*(asyncio.to_thread(migrations.apply, url) for _ in range(2)))
    await stage.heal()
    longest_s = max(stage.crowd.durations_since(began_s))
    stage.figures["longest s"] = round(longest_s, 2)
    stage.demand(f"an order took {longest_s:.1f} s", holds=longest_s < PAUSE_S_MAX)
    stage.demand(f"somebody noticed: {stage.crowd.codes}", holds=set(stage.crowd.codes) == {""})
    return (
        f"{len(STEPS)} changes of the table of sales in {tries} tries, and all migrations twice at "
        f"once; the slowest order took {longest_s:.1f} s"
    )


def _step(stage: Stage, statement: str) -> int:
    """Run one step, again when it cannot have its lock in time; returns how often it tried."""
    for count in range(1, TRIES_MAX + 1):
        with stage.postgres.superuser() as conn:
            conn.execute(LOCK_TIMEOUT)
            try:
                conn.execute(statement)
            except psycopg.errors.LockNotAvailable:
                time.sleep(stage.chance.uniform(0.05, 0.2))
            else:
                return count
    stage.demand(f"it never got its lock: {statement}", holds=False)
    return TRIES_MAX
