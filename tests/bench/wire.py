"""A relay on loopback that counts what a client asks of PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The client's watchdog asks for a sign of life now and then, which is no part of any request.
PING = "/* request.ping */"
SIMPLE_QUERY, PARSE, BIND, EXECUTE = b"Q", b"P", b"B", b"E"


class Relay:
    """Passes bytes on and keeps the statements that went by, one per round trip."""

    def __init__(self, url: str) -> None:
        self.asked: list[str] = []
        self._theirs = urlsplit(url)
        self._port = 0
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The URL of the same database through here."""
        login = self._theirs.netloc.rpartition("@")[0]
        return self._theirs._replace(netloc=f"{login}@127.0.0.1:{self._port}").geturl()

    def listen(self, port: int) -> None:
        """Remember where we listen."""
        self._port = port

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin to serve a connection."""
        client = asyncio.create_task(self._pass_on(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def close(self) -> None:
        """End every connection."""
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await asyncio.open_connection(self._theirs.hostname, self._theirs.port)
        tasks = [
            asyncio.create_task(self._requests(reader, theirs[1])),
            asyncio.create_task(_answers(theirs[0], writer)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for end in (writer, theirs[1]):
                end.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read message by message: a type, a length, a body; the first ones have no type."""
        prepared: dict[bytes, str] = {}
        portal = ""
        started = False
        while True:
            kind = await reader.readexactly(1) if started else b""
            size = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(size) - 4)
            writer.write(kind + size + body)
            # A request for encryption is answered by one byte and followed by another first one.
            started = started or body[:4] == b"\x00\x03\x00\x00"
            if kind == SIMPLE_QUERY:
                self._note(body[:-1].decode())
            elif kind == PARSE:
                name, _, rest = body.partition(b"\0")
                prepared[name] = rest.partition(b"\0")[0].decode()
            elif kind == BIND:
                portal = prepared[body.split(b"\0")[1]]
            elif kind == EXECUTE:
                self._note(portal)

    def _note(self, statement: str) -> None:
        if PING not in statement:
            self.asked.append(statement)


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)


@asynccontextmanager
async def relaying(url: str) -> AsyncIterator[Relay]:
    """Yield a relay to the database."""
    relay = Relay(url)
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    relay.listen(server.sockets[0].getsockname()[1])
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
