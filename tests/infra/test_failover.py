"""A standby takes the primary's place under load: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import psycopg
import pytest

from sofinance.infra import db, embedded, metrics, migrate
from tests import ports
from tests.api.conftest import Shop, open_shop
from tests.conftest import UNSAFE_BUT_FAST, programs
from tests.standby import Relay, Standby, ask, both, kill
from tests.support import ROLE_PASSWORD, role_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.support import Answer, Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

WRITERS = 8
SMALL = {**UNSAFE_BUT_FAST, "max_connections": "60", "shared_buffers": "32MB"}
PATIENCE_S = 240


@dataclass
class Pair:
    """A primary, its synchronous standby, and the name under which the primary is known."""

    primary: embedded.Server
    standby: Standby
    relay: Relay

    def fail_over(self) -> None:
        """Lose the primary and put the standby in its place."""
        kill(self.primary)
        self.replace()

    def replace(self) -> None:
        """Put the standby in the place of the primary, which is dead."""
        self.relay.cut()
        self.standby.promote()
        self.relay.point_at(self.standby.port)


@pytest.fixture(scope="module")
def _mould() -> Iterator[Path]:
    """The files of a migrated server that was stopped: copies of them are quick to have."""
    top = Path(tempfile.mkdtemp(prefix="sofinance-tests-"))
    top.chmod(0o711)
    server = embedded.Server(top / "data", programs=programs(), options=SMALL)
    try:
        server.start()
        url = server.url("postgres")
        migrate.apply(url)
        with psycopg.connect(url, autocommit=True) as conn:
            for role in embedded.ROLES:
                conn.execute(f"alter role {role} password '{ROLE_PASSWORD}'")
    finally:
        server.stop()
    yield server.data
    shutil.rmtree(top)


@pytest.fixture
def pair(_mould: Path) -> Iterator[Pair]:
    """A migrated primary of the test's own and its standby."""
    top = Path(tempfile.mkdtemp(prefix="sofinance-tests-"))
    top.chmod(0o711)
    primary = embedded.Server(top / "primary", programs=programs(), options=SMALL)
    subprocess.run(["cp", "--archive", str(_mould), str(primary.data)], check=True)
    endings = [primary.stop]
    try:
        ports.settle(primary.data)
        primary.start()
        standby = Standby(primary.url("postgres"), top / "standby", programs=programs())
        endings.insert(0, standby.stop)
        standby.start()
        standby.make_synchronous()
        relay = Relay(primary.port)
        endings.insert(0, relay.close)
        yield Pair(primary, standby, relay)
    finally:
        for ending in endings:
            ending()
        shutil.rmtree(top)


@pytest.fixture
def superuser_dsn(pair: Pair) -> str:
    """The service of these tests is on that server."""
    return pair.primary.url("postgres")


async def insist(shop: Shop, key: str, met: Counter[int | str]) -> Answer:
    """Send a sale until it is acknowledged, as a till does, always under the same key."""
    while True:
        try:
            answer = await shop.sell(paid="11.00", key=key)
        except aiohttp.ClientConnectionError:
            met["broken"] += 1
            continue
        met[answer.status] += 1
        if answer.status == 201:
            return answer
        assert answer.status == 503 or answer.refused[1] == "idempotency_key_in_use", answer.text
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) >= 1
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", ["name", "hosts"])
async def test_a_promoted_standby_has_every_acknowledged_sale_once(
    api_with: MakeApi, org: Org, pair: Pair, dsn: str, way: str
) -> None:
    named = pair.relay.through(dsn)
    url = named if way == "name" else both(dsn, pair.standby.port)
    shop = await open_shop(await api_with(database_url=url), org, quantity="100000")
    met: Counter[int | str] = Counter()
    acknowledged: dict[str, int] = {}
    wanted = sys.maxsize

    async def write() -> None:
        while len(acknowledged) < wanted:
            key = uuid.uuid4().hex
            acknowledged[key] = (await insist(shop, key, met)).data["id"]

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as writers:
        for _ in range(WRITERS):
            writers.create_task(write())
        while len(acknowledged) < 2 * WRITERS:  # noqa: ASYNC110 - they are under way
            await asyncio.sleep(0.05)
        await asyncio.to_thread(pair.fail_over)
        wanted = len(acknowledged) + 20  # it goes on by itself
    assert met[503] > 0, "nobody noticed"
    assert set(met) <= {201, 409, 503, "broken"}

    # On the server that is the primary now.
    new = role_url(pair.standby.url("postgres"), "superuser")
    assert ask(new, "select count(*) from sale") == len(acknowledged)
    stored = f"select array_agg(id) from sale where org_id = {org.id}"
    assert set(ask(new, stored)) == set(acknowledged.values())
    left = 100_000 - len(acknowledged)
    assert await shop.stock() == (str(left), f"{left * 6}.00")
    await shop.balances()  # which balance


async def test_a_primary_that_takes_no_writes_is_a_dead_one(
    api_with: MakeApi, org: Org, pair: Pair, dsn: str
) -> None:
    api = await api_with(database_url=pair.relay.through(dsn))
    shop = await open_shop(api, org)
    kill(pair.primary)
    pair.relay.point_at(pair.standby.port)  # which is not promoted yet
    pair.relay.cut()
    for _ in range(3):
        refused = await shop.sell(paid="11.00", key="the-same")
        assert refused.refused == (503, "unavailable")
        assert refused.headers["Retry-After"] == "1"
    # What needs no write is answered, and who signs in is told to come back.
    assert (await api.get("/products", org)).status == 200
    login = {"email": org.admin.email, "password": org.admin.password}
    assert (await api.post("/auth/login", None, login)).refused == (503, "unavailable")
    await asyncio.to_thread(pair.standby.promote)
    sold = await shop.sell(paid="11.00", key="the-same")
    assert sold.status == 201
    assert (await api.post("/auth/login", None, login)).status == 200
    assert (await api.get("/sales", org)).data["pagination"]["total"] == 1


async def test_a_commit_that_waits_for_the_standby_is_not_cut_short(
    api_with: MakeApi, org: Org, pair: Pair, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be there, and be told, although a failover loses it."""
    monkeypatch.setattr(db, "ANSWER_SLACK_S", 0)
    monkeypatch.setattr(db, "LOCK_TIMEOUT_MS", 300)
    shop = await open_shop(
        await api_with(database_url=dsn, database_statement_timeout_ms=1_000), org
    )
    pair.standby.stop()
    count = f"select count(*) from sale where org_id = {org.id}"
    first = await shop.sell(paid="11.00", key="the-same")
    assert first.refused == (503, "unavailable")
    assert ask(pair.primary.url("postgres"), count) == 0
    again = await shop.sell(paid="11.00", key="the-same")
    assert again.refused == (409, "idempotency_key_in_use")
    pair.standby.start()
    met: Counter[int | str] = Counter()
    async with asyncio.timeout(PATIENCE_S):
        answer = await insist(shop, "the-same", met)
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert ask(pair.primary.url("postgres"), count) == 1
    assert ask(pair.standby.url("postgres"), count) == 1


async def test_a_replica_that_has_more_than_the_new_primary_is_not_asked(
    api_with: MakeApi, org: Org, pair: Pair, dsn: str
) -> None:
    """It still shows what was lost; its positions are of another timeline."""
    folder = pair.primary.data.parent / "reports"
    url = pair.primary.url("postgres")
    replica = Standby(url, folder, name="reports", programs=programs())
    replica.start()
    try:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("alter system reset synchronous_standby_names")
            conn.execute("select pg_reload_conf()")
        shop = await open_shop(
            await api_with(
                database_url=pair.relay.through(dsn),
                database_replica_url=replica.url("sofinance_app"),
            ),
            org,
        )
        assert (await shop.sell(paid="11.00")).status == 201
        await asyncio.to_thread(pair.standby.catch_up)
        pair.standby.stop()
        assert (await shop.sell(paid="11.00")).status == 201  # which only the replica gets
        await asyncio.to_thread(replica.catch_up)
        answered = metrics.REPLICA_REPORTS._value.get()  # noqa: SLF001 - nothing public tells
        assert (await shop.api.get("/sales", org)).data["pagination"]["total"] == 2
        assert metrics.REPLICA_REPORTS._value.get() == answered + 1  # noqa: SLF001

        kill(pair.primary)
        await asyncio.to_thread(pair.standby.start)
        await asyncio.to_thread(pair.replace)
        for _ in range(3):
            assert (await shop.api.get("/sales", org)).data["pagination"]["total"] == 1
        assert replica.ask("select pg_is_in_recovery()") is True
        assert metrics.REPLICA_REPORTS._value.get() == answered + 1  # noqa: SLF001
        assert metrics.REPLICA_FALLBACKS.labels("unfit")._value.get() > 0  # noqa: SLF001
    finally:
        replica.stop()
