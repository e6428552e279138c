"""What may stand between an S3 server and us: each request hung, refused, cut short or changed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sofinance.backups.s3 import Access, Bucket
from tests.ports import free_port
from tests.s3_server import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.s3_server import S3Server

HEAD_END = b"\r\n\r\n"


def place(server: S3Server, prefix: str = "", *, port: int = 0, timeout_s: float = 5) -> Bucket:
    """Return a place in a server's bucket, also through another port."""
    access = Access(
        endpoint=f"http://127.0.0.1:{port or server.port}", access_key_id="tests",
        secret_access_key="tests", read_timeout_s=timeout_s,
    )  # fmt: skip
    return Bucket.at(f"s3://{BUCKET}/{prefix}", access)


@dataclass
class Faults:
    """What stands between: each request may be hung, refused, cut short or changed.

    `plan` has a word for each request to come, in order; without one it is let through.
    """

    port: int
    target: int
    plan: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, then hang up."""
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(HEAD_END)
            if b"100-continue" in head.lower():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                head = head.replace(b"Expect: 100-continue\r\n", b"")
            body = await self._body(reader, head)
            self.seen.append(head.split(b" ", 1)[0].decode())
            fault = self.plan.pop(0) if self.plan else ""
            await self._answer(writer, head, body, fault)

    async def _body(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return await reader.readexactly(int(line.partition(b":")[2]))
        return b""

    async def _answer(
        self, writer: asyncio.StreamWriter, head: bytes, body: bytes, fault: str
    ) -> None:
        if fault == "hang":
            await asyncio.sleep(60)
        if fault == "503":
            writer.write(
                b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            await writer.drain()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        back.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
        await back.drain()
        answer = await there.read()
        back.close()
        if fault == "lost":
            return
        if fault == "cut":
            answer = answer[: len(answer) - (len(answer) - answer.index(HEAD_END)) // 2]
        if fault == "wrong":
            answer = answer[:-1] + bytes([answer[-1] ^ 1])
        writer.write(answer)
        await writer.drain()


@contextlib.contextmanager
def faults(server: S3Server) -> Iterator[Faults]:
    """Stand between for as long as a block runs."""
    between, started = Faults(free_port(), server.port), threading.Event()
    loop, stopping = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        listening = await asyncio.start_server(between.serve, "127.0.0.1", between.port)
        started.set()
        await stopping.wait()
        listening.close()
        hung = asyncio.all_tasks() - {asyncio.current_task()}
        for task in hung:
            task.cancel()
        await asyncio.gather(*hung, return_exceptions=True)

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        yield between
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
