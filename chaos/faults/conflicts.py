"""11: deadlocks and serialization failures, made on purpose; 12: a report that never ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

import psycopg

from bench.world import open_shop
from chaos.proxy import DatabaseProxy, Fate, is_commit
from chaos.writers import LATER, NO_ANSWER, PREFIX

if TYPE_CHECKING:
    from chaos.proxy import Link
    from chaos.stage import Stage

SECONDS = 8.0
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
# Its wait for a deadlock is longer than the service's: so the service is the one that gives way.
RIVAL_PATIENCE = "set deadlock_timeout = '20s'"
HOLD_S = 0.1
RUNAWAYS = 6
ROWS = 400_000
STATEMENT_TIMEOUT_MS = 500
FAILING_SHARE = 0.1
HOT_PRODUCTS = 4


async def deadlock(stage: Stage, *, seconds: float = SECONDS) -> str:
    """Lock stock in the wrong order beside the tills; each deadlock is tried again inside."""
    del stage.shop.product_ids[HOT_PRODUCTS:]
    await stage.gunicorn()
    stage.begin()
    await stage.heal()
    with stage.postgres.superuser() as conn:
        before = conn.execute(DEADLOCKS).fetchone()
    until_s = time.monotonic() + seconds
    await asyncio.gather(*(asyncio.to_thread(_rival, stage, until_s, n) for n in range(2)))
    await stage.heal()
    with stage.postgres.superuser() as conn:
        conn.execute("select pg_stat_force_next_flush()")
        after = conn.execute(DEADLOCKS).fetchone()
    count = (after or [0])[0] - (before or [0])[0]
    stage.demand("there was no deadlock", holds=count > 0)
    return f"a rival locks stock in the wrong order for {seconds:.0f} s: {count} deadlocks"


def _rival(stage: Stage, until_s: float, number: int) -> None:
    """Lock two products of a branch, the later one first, over and over."""
    shop = stage.shop
    with stage.postgres.superuser() as conn:
        conn.execute(RIVAL_PATIENCE)
        while time.monotonic() < until_s:
            pair = sorted(stage.chance.sample(shop.product_ids, 2), reverse=True)
            try:
                with conn.transaction():
                    for product_id in pair:
                        conn.execute(
                            "select from stock where org_id = %s and branch_id = %s"
                            " and product_id = %s for update",
                            [shop.org_id, shop.branch_ids[number % 2], product_id],
                        )
                        time.sleep(HOLD_S)
            except psycopg.errors.DeadlockDetected:
                continue


async def serialize(stage: Stage, *, seconds: float = SECONDS) -> str:
    """Answer some commits with a serialization failure: they are tried again inside."""
    failed: Counter[Fate] = Counter()

    async def judge(_: Link, turn: bytes) -> Fate:
        if is_commit(turn) and stage.chance.random() < FAILING_SHARE:
            failed[Fate.REFUSE] += 1
            return Fate.REFUSE
        return Fate.PASS

    async with DatabaseProxy(stage.postgres.port, judge) as database:
        await stage.gunicorn(DATABASE_URL=stage.postgres.url(port=database.port))
        stage.begin()
        await stage.heal()
        await asyncio.sleep(seconds)
        await stage.settle()
    await stage.gunicorn()
    stage.crowd.urls = stage.crowd.urls[-1:]
    count, later = failed[Fate.REFUSE], stage.crowd.codes.get("try_again", 0)
    stage.demand("no commit failed", holds=count > 0)
    stage.demand(f"{later} of {count} were told", holds=later <= count * FAILING_SHARE)
    return f"{count} commits answered with a serialization failure: {later} clients were told 503"


async def runaway(stage: Stage, *, seconds: float = SECONDS) -> str:
    """Let another tenant search without end; its statements are cut, the tills sell on."""
    conn = await stage.connect()
    other = await open_shop(conn, f"runaway-{time.time_ns()}", 1, branches=1, tills=1)
    with stage.postgres.superuser() as admin:
        admin.execute(
            "insert into customer (org_id, name, customer_type, currency, credit_limit, status)"
            " select %s, 'Customer ' || n || repeat('x', 150), 'INDIVIDUAL', 'EUR', 0, 'ACTIVE'"
            " from generate_series(1, %s) as n",
            [other.org_id, ROWS],
        )
    await stage.gunicorn(DATABASE_STATEMENT_TIMEOUT_MS=str(STATEMENT_TIMEOUT_MS))
    stage.begin()
    await stage.heal()
    told: Counter[int] = Counter()
    began_s = time.monotonic()
    token = stage.token(other)
    await asyncio.gather(*(_search(stage, token, told, began_s + seconds) for _ in range(RUNAWAYS)))
    sold = stage.crowd.done_between(began_s, time.monotonic())
    await stage.heal()
    stage.demand(f"it told {dict(told)}", holds=set(told) <= {200, *LATER} and told[503] > 0)
    stage.demand("the tills sold nothing", holds=sold > seconds)
    stage.demand(f"the tills noticed: {stage.crowd.codes}", holds=set(stage.crowd.codes) == {""})
    return (
        f"{RUNAWAYS} endless searches of another tenant for {seconds:.0f} s: {told[503]} cut, "
        f"{sold} orders beside them"
    )


async def _search(stage: Stage, token: str, told: Counter[int], until_s: float) -> None:
    url = f"{stage.crowd.urls[0]}{PREFIX}/customers?search=x%25y%25x%25z"
    while time.monotonic() < until_s:
        try:
            async with stage.crowd.session.get(
                url, headers={"Authorization": f"Bearer {token}"}
            ) as answer:
                await answer.read()
                told[answer.status] += 1
        except NO_ANSWER:
            told[0] += 1
