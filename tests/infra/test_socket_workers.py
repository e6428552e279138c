"""WebSockets over two real processes on one database, one of which goes; and 500 of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from sofinance.infra.db import Database
from sofinance.infra.notify import tell
from sofinance.infra.sockets import GOING_AWAY, TRY_AGAIN
from sofinance.infra.sql import Row
from tests.ports import free_port
from tests.support import sign_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sofinance.config import Settings
    from tests.support import Org, Psql, User

START_TIMEOUT_S = 180
WAIT_S = 90
USERS, SOCKETS = 100, 500


class Process:
    """A `sofinance serve` of its own."""

    def __init__(self, settings: Settings) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sofinance", "serve"],
            env={
                **os.environ,
                "DATABASE_URL": settings.database_url,
                "DATABASE_PREPARED_STATEMENTS": str(settings.database_prepared_statements),
                "JWT_SECRET": settings.jwt_secret, "HOST": "127.0.0.1", "PORT": str(port),
                "LOG_LEVEL": "error",
            },
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                try:
                    async with session.get(f"{self.url}/livez") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    assert self.process.poll() is None
                await asyncio.sleep(0.1)

    def connect(
        self, session: aiohttp.ClientSession, token: str, last_id: int | None = None
    ) -> Any:
        """Return a WebSocket to be."""
        query = "" if last_id is None else f"?last_id={last_id}"
        return session.ws_connect(
            f"{self.url}/api/v1/notifications/ws{query}",
            headers={"Authorization": f"Bearer {token}"},
        )

    async def let_in(self, session: aiohttp.ClientSession, token: str) -> Any:
        """Connect, again whenever that is asked of us, as a busy machine may."""
        while True:
            ws = await self.connect(session, token)
            frame = await ws.receive(timeout=WAIT_S)
            if frame.type is aiohttp.WSMsgType.TEXT:
                assert frame.json()["type"] == "ready"
                return ws
            assert (frame.type, frame.data) == (aiohttp.WSMsgType.CLOSE, TRY_AGAIN)
            await asyncio.sleep(0.5)


@asynccontextmanager
async def processes(settings: Settings, count: int) -> AsyncIterator[list[Process]]:
    """Yield servers on the test's database."""
    started = [Process(settings) for _ in range(count)]
    try:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(process.start(session) for process in started))
        yield started
    finally:
        for process in started:
            process.process.terminate()
        for process in started:
            await asyncio.to_thread(process.process.wait)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with room for all."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


async def say(database: Database, user: User, word: str) -> None:
    """Tell a user something."""
    async with database.tenant(user.org_id) as conn:
        await tell(conn, org_id=user.org_id, user_ids=[user.id], type="message", title=word)


async def listen(
    session: aiohttp.ClientSession, places: list[Process], token: str, count: int, seen: list[str]
) -> None:
    """Listen until so many words came, elsewhere whenever the connection ends."""
    last_id, turn = 0, 0
    while len(seen) < count:
        try:
            async with places[turn % len(places)].connect(session, token, last_id) as ws:
                async for frame in ws:
                    told = frame.json().get("notification")
                    if told is not None:
                        seen.append(told["title"])
                        last_id = told["id"]
                    if len(seen) == count:
                        return
                assert ws.close_code in {GOING_AWAY, 1006, TRY_AGAIN}, ws.close_code
        except aiohttp.ClientError:
            await asyncio.sleep(0.05)
        turn += 1


async def test_over_two_processes_one_of_which_goes_nothing_is_missed_or_doubled(
    settings: Settings, org: Org, database: Database, session: aiohttp.ClientSession
) -> None:
    cashier = org.member("CASHIER")
    words = [f"{number:03}" for number in range(40)]
    async with processes(settings, 2) as (one, two):
        heard: list[list[str]] = [[] for _ in range(6)]
        listening = [
            asyncio.ensure_future(
                listen(session, [one, two] if n % 2 else [two, one], cashier.token, 40, seen)
            )
            for n, seen in enumerate(heard)
        ]
        for word in words[:20]:
            await say(database, cashier, word)
        async with asyncio.timeout(WAIT_S):
            while min(map(len, heard)) < 10:  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.05)
        one.process.terminate()
        for word in words[20:]:
            await say(database, cashier, word)
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*listening)
        assert await asyncio.to_thread(one.process.wait) == 0
    assert heard == [words] * 6


async def test_a_process_that_stops_says_1001(
    settings: Settings, org: Org, session: aiohttp.ClientSession
) -> None:
    async with (
        processes(settings, 1) as (one,),
        one.connect(session, org.admin.token) as ws,
    ):
        assert (await ws.receive_json(timeout=WAIT_S))["type"] == "ready"
        one.process.terminate()
        frame = await ws.receive(timeout=WAIT_S)
        assert (frame.type, frame.data) == (aiohttp.WSMsgType.CLOSE, 1001)


@pytest.mark.once  # that many, once; a few hear on all in test_sockets.py
async def test_five_hundred_hear_within_seconds(
    settings: Settings, org: Org, database: Database, session: aiohttp.ClientSession, psql: Psql
) -> None:
    users = [
        user_id
        for (user_id,) in psql(
            "insert into app_user (org_id, email, password_hash, first_name, last_name, role,"
            " all_branches) select %s, gen_random_uuid() || '@example.com', 'none', 'Una',"
            " 'User', 'CASHIER', true from generate_series(1, %s) returning id",
            [org.id, USERS], role="sofinance_owner", org=org,
        )
    ]  # fmt: skip
    conn: Any = await asyncpg.connect(settings.database_url, record_class=Row)
    async with conn.transaction():
        await conn.execute(
            f"select set_config('app.org_id', '{org.id}', true),"
            " set_config('app.branch_ids', 'all', true)"
        )
        tokens = [await sign_in(conn, settings, org.id, user_id) for user_id in users]
    await conn.close()
    async with processes(settings, 1) as (one,):
        opened = await asyncio.gather(
            *(one.let_in(session, tokens[n % USERS]) for n in range(SOCKETS))
        )
        began_s = time.perf_counter()
        async with database.tenant(org.id) as tx:
            await tell(tx, org_id=org.id, user_ids=users, type="message", title="all")
        told = await asyncio.gather(*(ws.receive_json(timeout=WAIT_S) for ws in opened))
        took_s = time.perf_counter() - began_s
        assert {one["notification"]["title"] for one in told} == {"all"}
        async with session.get(f"{one.url}/metrics") as answer:
            text = await answer.text()
        figures = {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in text.splitlines())
            if name in {"websocket_connections", "websocket_poll_seconds_sum",
                        "websocket_poll_seconds_count", "process_resident_memory_bytes"}
        }  # fmt: skip
        assert figures["websocket_connections"] == SOCKETS
        for ws in opened:
            await ws.close()
    poll_ms = 1000 * figures["websocket_poll_seconds_sum"] / figures["websocket_poll_seconds_count"]
    # pytest -s shows it; no assertion rests on a busy machine.
    sys.stdout.write(
        f"{SOCKETS} sockets heard within {took_s:.2f} s; a poll takes {poll_ms:.1f} ms;"
        f" {figures['process_resident_memory_bytes'] / 2**20:.0f} MB\n"
    )
