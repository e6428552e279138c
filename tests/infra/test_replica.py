"""A standby answers reports, misses nothing that was committed, and is never missed itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sofinance.app import MACHINE
from sofinance.infra import metrics
from sofinance.infra.db import Database
from tests.api.conftest import Shop, open_shop
from tests.conftest import programs
from tests.standby import Standby
from tests.support import role_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

LAG_MAX_S = 1
LAG_OF_A_BUSY_MACHINE_S = 20
SEEN_S = 60  # till the look that each application takes every second has seen what is so
# No patience with queries that are in the way of replay.
IMPATIENT = {"hot_standby_feedback": "off", "max_standby_streaming_delay": "0"}
REPORTS = (
    "/journal/trial-balance", "/sales", "/sales/summary", "/sales/today/summary",
    "/sales/ar/summary", "/sales/ar/aging", "/journal/entries", "/inventory/stock-levels",
    "/inventory/receipts", "/audit/logs",
)  # fmt: skip


@pytest.fixture(scope="module")
def _standby() -> Iterator[Standby]:
    folder = Path(tempfile.mkdtemp(prefix="sofinance-tests-"))
    folder.chmod(0o711)
    primary = role_url(os.environ["TEST_SERVER"], "superuser", "postgres")
    standby = Standby(
        primary, folder / "data", name=f"reports_{os.getpid()}", programs=programs(),
        options=IMPATIENT,
    )  # fmt: skip
    standby.start()
    yield standby
    standby.stop()
    standby.forget()
    shutil.rmtree(folder)


@pytest.fixture
def standby(_standby: Standby, dsn: str) -> Standby:
    """A standby of the run's server, which has the test's database."""
    _standby.catch_up()
    return _standby


@pytest.fixture
def changes(standby: Standby, dsn: str) -> dict[str, Any]:
    """The settings that have reports read there."""
    url = standby.url("sofinance_app", dsn.rpartition("/")[2])
    return {"database_replica_url": url, "database_replica_lag_max_s": LAG_OF_A_BUSY_MACHINE_S}


@pytest.fixture
async def shop(api_with: MakeApi, changes: dict[str, Any], org: Org) -> Shop:
    """A shop whose reports the standby answers."""
    return await open_shop(await api_with(**changes), org)


def answered() -> int:
    """Return how many reports the standby has answered in this process."""
    return int(metrics.REPLICA_REPORTS._value.get())  # noqa: SLF001 - nothing public tells


def fell_back(reason: str) -> int:
    """Return how many the primary answered for it, for a reason."""
    return int(metrics.REPLICA_FALLBACKS.labels(reason)._value.get())  # noqa: SLF001


async def until(what: str, count: Callable[[], int], shop: Shop) -> None:
    """Ask for a report until a counter has moved."""
    before = count()
    async with asyncio.timeout(SEEN_S):
        while count() == before:
            assert (await shop.api.get("/journal/trial-balance", shop.org)).status == 200, what
            await asyncio.sleep(0.05)


async def test_the_standby_answers_every_report(shop: Shop) -> None:
    await shop.sell(paid="11.00")
    before = answered()
    for path in REPORTS:
        assert (await shop.api.get(path, shop.org)).status == 200, path
    assert answered() == before + len(REPORTS)
    assert (await shop.api.get("/products", shop.org)).status == 200
    assert answered() == before + len(REPORTS), "only reports"


async def test_who_writes_through_one_worker_reads_it_through_another(
    shop: Shop, api_with: MakeApi, changes: dict[str, Any]
) -> None:
    other = await api_with(**changes)
    before = answered()
    for count in range(1, 31):
        assert (await shop.sell(paid="11.00")).status == 201
        seen = (await other.get("/sales", shop.org)).data["pagination"]["total"]
        assert seen == count
    assert answered() > before


async def test_a_report_waits_for_a_standby_that_is_just_behind(
    shop: Shop, standby: Standby
) -> None:
    standby.pause()
    await shop.sell(paid="11.00")
    waited_s, before = metrics.REPLICA_WAITS._value.get(), answered()  # noqa: SLF001
    asked = asyncio.create_task(shop.api.get("/sales", shop.org))
    await asyncio.sleep(0.2)
    assert not asked.done()
    standby.resume()
    assert (await asked).data["pagination"]["total"] == 1
    assert answered() == before + 1
    assert metrics.REPLICA_WAITS._value.get() > waited_s + 0.1  # noqa: SLF001


async def test_a_standby_that_lags_is_not_asked_until_it_has_caught_up(
    api_with: MakeApi, org: Org, changes: dict[str, Any], standby: Standby
) -> None:
    impatient = {**changes, "database_replica_lag_max_s": LAG_MAX_S}
    shop = await open_shop(await api_with(**impatient), org)
    replica = shop.api.app[MACHINE].db.replica
    assert replica is not None
    standby.pause()
    try:
        await shop.sell(paid="11.00")
        lagged, before = fell_back("lag"), answered()
        assert (await shop.api.get("/sales", shop.org)).data["pagination"]["total"] == 1
        assert (answered(), fell_back("lag")) == (before, lagged + 1)
        started_s = asyncio.get_running_loop().time()
        for _ in range(10):
            assert (await shop.api.get("/sales", shop.org)).data["pagination"]["total"] == 1
        assert asyncio.get_running_loop().time() - started_s < 9 * LAG_MAX_S, "they waited"
        assert (answered(), fell_back("lag")) == (before, lagged + 11)
        async with asyncio.timeout(SEEN_S):
            while replica.lag_s <= LAG_MAX_S:  # noqa: ASYNC110 - nothing tells when it looks
                await asyncio.sleep(0.05)
    finally:
        standby.resume()
    await until("it is asked again", answered, shop)
    assert replica.lag_s < LAG_MAX_S


async def test_a_standby_that_is_gone_costs_nothing_and_comes_back(
    shop: Shop, standby: Standby
) -> None:
    standby.stop()
    try:
        away = fell_back("unreachable")
        for _ in range(20):
            assert (await shop.api.get("/journal/trial-balance", shop.org)).status == 200
        assert fell_back("unreachable") == away + 20
    finally:
        standby.start()
    await until("it is asked again", answered, shop)


async def test_the_service_starts_without_its_standby(
    api_with: MakeApi, org: Org, changes: dict[str, Any], standby: Standby
) -> None:
    standby.stop()
    try:
        shop = await open_shop(await api_with(**changes), org)
        assert (await shop.api.get("/journal/trial-balance", org)).status == 200
    finally:
        standby.start()
    await until("it is asked", answered, shop)


async def test_whoever_lost_their_session_has_lost_it_on_the_standby_too(
    shop: Shop, psql: Psql
) -> None:
    manager = shop.org.member("MANAGER")
    assert (await shop.api.get("/sales", manager)).status == 200
    statement = "update user_session set revoked_at = now(), revoked_why = 'administrator'"
    psql(statement, org=shop.org, role="sofinance_owner")
    refused = await shop.api.get("/sales", manager)
    assert refused.refused == (401, "unauthorized")


async def test_what_replay_breaks_off_the_primary_answers(shop: Shop, psql: Psql) -> None:
    await shop.sell(paid="11.00")
    broken = fell_back("conflict")
    over = asyncio.Event()

    async def ask() -> set[int]:
        statuses = set()
        while not over.is_set():
            statuses.add((await shop.api.get("/journal/trial-balance", shop.org)).status)
        return statuses

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    async with asyncio.timeout(30):
        while fell_back("conflict") == broken:
            # Replay takes the same lock, and throws out who reads the table.
            await asyncio.to_thread(
                psql, "lock table journal_line in access exclusive mode", role="sofinance_owner"
            )
            await asyncio.sleep(0.01)
    over.set()
    assert {status for task in asking for status in await task} == {200}


async def test_a_primary_is_not_taken_for_its_standby(
    api_with: MakeApi, org: Org, dsn: str, changes: dict[str, Any]
) -> None:
    shop = await open_shop(await api_with(**changes | {"database_replica_url": dsn}), org)
    before, unfit = answered(), fell_back("unfit")
    assert (await shop.api.get("/journal/trial-balance", org)).status == 200
    assert (answered(), fell_back("unfit")) == (before, unfit + 1)


async def test_the_run_reads_reports_where_it_was_told(api: Api, org: Org) -> None:
    shop, before = await open_shop(api, org), answered()
    assert (await api.get("/sales", shop.org)).status == 200
    assert answered() - before == ("TEST_STANDBY" in os.environ)


async def test_an_export_reads_from_the_standby(
    settings: Settings, shop: Shop, changes: dict[str, Any], standby: Standby
) -> None:
    await shop.sell(paid="11.00")
    url = changes["database_replica_url"]
    for replica, on_standby in ((url, True), (settings.database_url, False)):
        database = Database(replace(settings, **changes | {"database_replica_url": replica}))
        await database.open()
        async with database.report(shop.org.id) as conn:
            assert await conn.fetchval("select pg_is_in_recovery()") is on_standby
            assert await conn.fetchval("select count(*) from sale") == 1
        await database.close()
