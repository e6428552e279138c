"""Receivers of webhooks: one that is good, and some that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STALL_S = 60.0
DRIP_S = 1.0
FLOOD = b"100000\r\n" + bytes(1 << 20) + b"\r\n"  # a chunk of a mebibyte
FLOOD_CHUNKS = 10_000  # ten gigabytes, for whoever reads them
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


class Receiver:
    """A good one: takes messages, after a moment, and keeps which.

    With `closes` each comes over a connection of its own, so that its name is asked for each time.
    """

    def __init__(self, *, pause_s: float = 0.0, closes: bool = False) -> None:
        self.url = ""
        # By the id of the sale, the webhook-ids that it came under, each time.
        self.sales: dict[int, list[str]] = {}
        self._pause_s, self._closes = pause_s, closes
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        said = json.loads(await request.read())
        if said["type"] == "sale.posted":
            ids = self.sales.setdefault(said["data"]["id"], [])
            ids.append(request.headers["webhook-id"])
        await asyncio.sleep(self._pause_s)
        response = web.Response()
        if self._closes:
            response.force_close()
        return response


class Villain:
    """One that speaks no good HTTP: what it does once it was asked is a function over a socket."""

    def __init__(self, act: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._act = act
        self.port = self.count = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _connected(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        with contextlib.suppress(OSError):
            await self._act(writer)
        writer.transport.abort()


async def redirect(writer: asyncio.StreamWriter, where: str) -> None:
    """Send elsewhere: to the metadata of a cloud, say."""
    writer.write(f"HTTP/1.1 307 Go\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode())
    await writer.drain()


async def flood(writer: asyncio.StreamWriter) -> None:
    """Answer without end."""
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(FLOOD_CHUNKS):
        writer.write(FLOOD)
        await writer.drain()


async def stall(_: asyncio.StreamWriter) -> None:
    """Say nothing."""
    await asyncio.sleep(STALL_S)


async def drip(writer: asyncio.StreamWriter) -> None:
    """Say it letter by letter."""
    for number in range(int(STALL_S / DRIP_S)):
        writer.write(HEAD[number : number + 1])
        await writer.drain()
        await asyncio.sleep(DRIP_S)
