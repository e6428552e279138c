"""More clients than the database can serve: some are sent away at once, none waits in vain."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from sofinance.app import MACHINE
from sofinance.infra.pool import RETRY_AFTER_S_MAX
from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

CLIENTS, CONNECTIONS, WAITING = 300, 2, 10


async def test_a_storm_is_sent_away_and_leaves_nothing_behind(api_with: MakeApi, org: Org) -> None:
    api = await api_with(
        database_pool_size=CONNECTIONS, database_pool_waiting_max=WAITING, log_level="critical"
    )
    shop = await open_shop(api, org, quantity="1000")
    answers = await asyncio.gather(*(shop.sell(paid="11.00") for _ in range(CLIENTS)))
    met = Counter(answer.status for answer in answers)
    assert met.keys() == {201, 503}
    assert met[201] > WAITING
    for answer in answers:
        if answer.status == 503:
            assert answer.refused == (503, "try_again")
            assert 1 <= int(answer.headers["Retry-After"]) <= RETRY_AFTER_S_MAX
    pool = api.app[MACHINE].db.pool
    assert pool.waiting_count == 0
    assert pool.open_count <= CONNECTIONS
    assert (await shop.sell(paid="11.00")).status == 201
    assert (await shop.stock())[0] == str(1000 - met[201] - 1)


async def test_who_is_crowded_out_is_sent_away_before_anything_is_done(
    api_with: MakeApi, org: Org
) -> None:
    api = await api_with(database_pool_size=2, database_pool_waiting_max=0, log_level="critical")
    pool = api.app[MACHINE].db.pool
    while pool.in_use_count:  # noqa: ASYNC110 - what looks whether the database is there
        await asyncio.sleep(0.01)
    async with pool.lend(), pool.lend():
        # Not even asked who they are; probes are answered as ever.
        assert (await api.get("/products")).refused == (503, "try_again")
        assert (await api.get("/products", org)).refused == (503, "try_again")
        assert (await api.get("/livez", prefix="")).status == 200
    assert (await api.get("/products")).status == 401
    assert (await api.get("/products", org)).status == 200


@pytest.mark.empty_database  # no worker of another test's was here
async def test_a_crowd_is_not_mistaken_for_a_database_that_is_gone(
    api_with: MakeApi, org: Org
) -> None:
    api = await api_with(
        database_pool_size=2, database_pool_waiting_max=0, log_level="critical",
        job_heartbeat_required=True,
    )  # fmt: skip
    pool = api.app[MACHINE].db.pool
    while pool.in_use_count:  # noqa: ASYNC110 - what looks whether the database is there
        await asyncio.sleep(0.01)
    async with pool.lend(), pool.lend():
        assert (await api.get("/branches", org)).refused == (503, "try_again")
        probes = [api.get("/readyz", prefix="") for _ in range(20)]
        scrapes = [api.get("/metrics", prefix="") for _ in range(5)]
        probed, scraped = await asyncio.gather(asyncio.gather(*probes), asyncio.gather(*scrapes))
        assert api.app[MACHINE].db.lookout.open_count == 1
    for probe in probed:
        # No worker lives here: that is all that is amiss.
        assert probe.details["checks"] == {
            "database": "healthy", "migrations": "healthy", "jobs": "unhealthy",
        }  # fmt: skip
    for scrape in scraped:
        assert "\njob_runner_up 0.0\n" in scrape.text


async def test_a_worker_starts_however_short_the_time_for_a_request_is(api_with: MakeApi) -> None:
    api = await api_with(database_statement_timeout_ms=200)
    db = api.app[MACHINE].db
    for at_start, limit in ((False, "200ms"), (True, "5s")):
        async with db.untenanted(at_start=at_start) as conn:
            assert await conn.fetchval("show statement_timeout") == limit
