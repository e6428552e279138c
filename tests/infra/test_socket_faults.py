"""The WebSocket when the database goes, and when more come than may."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from yarl import URL

from sofinance.infra import hub, lobby
from tests.infra.test_sockets import PATH, closed, connected, database, heard, say, titles, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import pytest

    from sofinance.config import Settings
    from sofinance.infra.db import Database
    from tests.support import Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

__all__ = ["database"]  # a fixture

READY_IN_TRANSACTION = b"Z\0\0\0\5T"
TEXT = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
GOODBYE = b"E" + (len(TEXT) + 4).to_bytes(4) + TEXT


class Farewell:
    """What is between the application and PostgreSQL, and says goodbye in its name.

    It says so in the middle of a transaction and does not hang up yet, as a server that is told to
    stop while nothing was asked.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.is_saying = False
        self.said_count = 0

    async def connected(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        """Pass on what both say."""
        server, to_server = await asyncio.open_connection(self._host, self._port)

        async def forth() -> None:
            while chunk := await client.read(65_536):
                to_server.write(chunk)

        async def back() -> None:
            while chunk := await server.read(65_536):
                if self.is_saying and chunk.endswith(READY_IN_TRANSACTION):
                    self.said_count += 1
                    chunk += GOODBYE
                to_client.write(chunk)

        tasks = [asyncio.ensure_future(forth()), asyncio.ensure_future(back())]
        try:
            with suppress(OSError):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            to_client.transport.abort()
            to_server.transport.abort()


@asynccontextmanager
async def farewell(settings: Settings) -> AsyncIterator[tuple[Farewell, str]]:
    """Yield what is between, and the URL that leads through it."""
    there = urlsplit(settings.database_url)
    between = Farewell(there.hostname or "", there.port or 0)
    server = await asyncio.start_server(between.connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    netloc = there.netloc.rpartition("@")[0] + f"@127.0.0.1:{port}"
    yield between, there._replace(netloc=netloc).geturl()
    server.close()  # without a wait: the application goes later


async def test_a_database_that_says_goodbye_does_not_end_the_news(
    api_with: MakeApi,
    org: Org,
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "POLL_S", 0.05)
    async with farewell(settings) as (between, url):
        api = await api_with(database_url=url)
        async with connected(api, org.admin) as ws:
            await heard(ws)
            between.is_saying = True
            await until(lambda: between.said_count >= 3)
            between.is_saying = False
            await say(database, org.admin, "still")
            assert await titles(ws, 1) == ["still"]


async def unadmitted(api: Api) -> float:
    """Return how many have not been let in, as the metrics tell it."""
    text = (await api.get("/metrics", prefix="")).text
    (told,) = re.findall(r"^websocket_unadmitted ([0-9.]+)$", text, re.MULTILINE)
    return float(told)


async def test_an_address_has_a_few_that_do_not_say_who_they_are(
    api: Api, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobby, "SILENT_PER_ADDRESS_MAX", 2)
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(api)) for _ in range(2)]
        assert await unadmitted(api) == 2
        async with connected(api) as one_more:
            code, why = await closed(one_more)
        assert (code, why) == (4429, "too many of your address have not said who they are")
        # Who sent a token along has nothing to say, and who says it makes room.
        async with connected(api, org.admin) as ws:
            assert (await heard(ws))["type"] == "ready"
        await silent[0].send_json({"type": "auth", "token": org.admin.token})
        assert (await heard(silent[0]))["type"] == "ready"
        assert await unadmitted(api) == 1
        third = await stack.enter_async_context(connected(api))
        await third.send_json({"type": "auth", "token": "no token"})
        assert (await closed(third))[0] == 4401
    await until_gone(api)


async def test_a_process_has_so_many_who_wait_to_be_let_in(
    api: Api, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobby, "COUNT_MAX", 1)
    async with connected(api) as silent:
        assert await unadmitted(api) == 1
        async with connected(api, org.admin) as ws:
            assert await closed(ws) == (1013, "too many wait to be let in: try again")
        await silent.close()
    await until_gone(api)
    async with connected(api, org.admin) as ws:
        assert (await heard(ws))["type"] == "ready"


async def test_who_has_no_place_and_does_not_go_is_cut_off(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lobby, "COUNT_MAX", 0)
    monkeypatch.setattr(hub, "CLOSE_TIMEOUT_S", 120)
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(api.base_url).port)
    writer.write(
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    async with asyncio.timeout(60):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionResetError):
            frame = await reader.read()  # to the end of it, which we do not say
            assert frame[:1] == b"\x88"
            assert int.from_bytes(frame[2:4]) == 1013
    writer.close()


async def until_gone(api: Api) -> None:
    """Wait till nobody waits to be let in."""
    async with asyncio.timeout(60):
        while await unadmitted(api):  # noqa: ASYNC110 - the other side's doing
            await asyncio.sleep(0.05)
