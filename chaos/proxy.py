"""Proxies that lose what passes through them: one knows PostgreSQL's protocol, one only bytes."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

READ_BYTES = 65_536
HEAD_BYTES, LENGTH_BYTES = 5, 4
QUERY, SYNC, READY = b"Q", b"S", b"Z"
# Passed on at once: a password, and a flush, after which a client reads on before its sync.
ALONE = (b"p", b"H")


class Fate(enum.Enum):
    """What becomes of a message to the database, and of its answer."""

    PASS = enum.auto()
    CUT_BEFORE = enum.auto()  # it never arrives
    CUT_AFTER = enum.auto()  # it is done, and nobody is told
    REFUSE = enum.auto()  # it never arrives; a serialization failure is answered in its place


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + LENGTH_BYTES).to_bytes(LENGTH_BYTES) + body


# What PostgreSQL answers then, and that the transaction is to be rolled back.
NOT_SERIALIZED = _message(
    b"E", b"SERROR\0VERROR\0C40001\0Mcould not serialize access (made up)\0\0"
) + _message(READY, b"E")


class Link:
    """A client's connection to the database, by way of the proxy."""

    def __init__(self, client_port: int) -> None:
        self.client_port = client_port
        self.fate = Fate.PASS
        self.is_done: Callable[[], Awaitable[None]] | None = None


def is_commit(turn: bytes) -> bool:
    """Say whether a message to the database ends with COMMIT."""
    return turn.rstrip(b"\0; \n").endswith(b"commit")


class DatabaseProxy:
    """Between the application and PostgreSQL, message by message.

    `judge` is asked about every message that expects an answer (a query, or all up to a sync),
    before it is passed on. With CUT_AFTER the answer is awaited, `link.is_done` is awaited if it
    is set, and then both ends are cut.
    """

    def __init__(self, port: int, judge: Callable[[Link, bytes], Awaitable[Fate]]) -> None:
        self._target, self._judge = port, judge
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _connected(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        link = Link(to_client.get_extra_info("peername")[1])
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            to_client.close()
            return
        await _both(
            self._forth(link, client, to_server, to_client), self._back(link, server, to_client),
            to_client, to_server,
        )  # fmt: skip

    async def _forth(
        self,
        link: Link,
        client: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        to_client: asyncio.StreamWriter,
    ) -> None:
        length = await client.readexactly(LENGTH_BYTES)  # the first message has no type
        rest = await client.readexactly(int.from_bytes(length) - LENGTH_BYTES)
        to_server.write(length + rest)
        turn = b""
        while True:
            head = await client.readexactly(HEAD_BYTES)
            body = await client.readexactly(int.from_bytes(head[1:]) - LENGTH_BYTES)
            turn += head + body
            if head[:1] in (QUERY, SYNC):
                link.fate = await self._judge(link, turn)
                if link.fate is Fate.CUT_BEFORE:
                    return
                if link.fate is Fate.REFUSE:
                    to_client.write(NOT_SERIALIZED)
                    turn = b""
                    continue
            elif head[:1] not in ALONE:
                continue
            to_server.write(turn)
            await to_server.drain()
            turn = b""

    async def _back(
        self, link: Link, server: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        while True:
            head = await server.readexactly(HEAD_BYTES)
            body = await server.readexactly(int.from_bytes(head[1:]) - LENGTH_BYTES)
            if link.fate is not Fate.CUT_AFTER:
                to_client.write(head + body)
                if head[:1] == READY:
                    await to_client.drain()
            elif head[:1] == READY:
                if link.is_done is not None:
                    await link.is_done()
                return


class Loss(enum.Enum):
    """What becomes of an HTTP answer, or of the request before it."""

    NONE = enum.auto()
    REQUEST = enum.auto()  # half of it arrives
    ANSWER = enum.auto()  # it is given, and lost whole
    HALF = enum.auto()  # it is cut in the middle


class HttpProxy:
    """Between clients and the service, by bytes: `draw` says what becomes of each exchange."""

    def __init__(self, port: int, draw: Callable[[], Loss]) -> None:
        self._target, self._draw = port, draw
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _connected(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            to_client.close()
            return
        fate = [Loss.NONE]

        async def forth() -> None:
            while request := await client.read(READ_BYTES):
                fate[0] = self._draw()
                if fate[0] is Loss.REQUEST:
                    to_server.write(request[: len(request) // 2])
                    await to_server.drain()
                    return
                to_server.write(request)
                await to_server.drain()

        async def back() -> None:
            while answer := await server.read(READ_BYTES):
                if fate[0] is Loss.HALF:
                    to_client.write(answer[: len(answer) // 2])
                    await to_client.drain()
                if fate[0] is not Loss.NONE:
                    return
                to_client.write(answer)
                await to_client.drain()

        await _both(forth(), back(), to_client, to_server)


async def _both(forth: Awaitable[None], back: Awaitable[None], *ends: asyncio.StreamWriter) -> None:
    """Run both directions till one ends, then cut everything."""
    tasks = [asyncio.ensure_future(forth), asyncio.ensure_future(back)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for end in ends:
            end.transport.abort()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
