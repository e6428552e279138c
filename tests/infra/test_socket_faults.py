"""The WebSocket when the database goes, and when more come than may."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sofinance.infra import hub
from tests.infra.test_sockets import connected, database, heard, say, titles, until

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
