"""One WebSocket: who it belongs to, what waits to be sent, and how it ends.

Nothing here waits for a client for ever: what is sent, what is asked and how long both may take is
bounded, so one that reads slowly costs its own socket and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import WSMsgType, web

from sofinance.infra.times import iso

if TYPE_CHECKING:
    from sofinance.infra.guard import Principal

# When the request became a WebSocket: perf_counter(), in seconds.
UPGRADED_AT_S = web.RequestKey("upgraded_at_s", float)
PING_INTERVAL_S = 25
# What a client may send: an authentication and a ping now and then.
FRAME_BYTES_MAX = 8_192
FRAMES_PER_MINUTE_MAX = 60
# What waits for a client that reads slowly, and for how long.
WAITING_COUNT_MAX = 100
SEND_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0

GOING_AWAY, POLICY, TRY_AGAIN = 1001, 1008, 1013
BAD_MESSAGE, UNAUTHORIZED, FORBIDDEN, TOO_SLOW, TOO_MANY = 4400, 4401, 4403, 4408, 4429

# What a new token is exchanged for: the caller, or None if it is not good for this socket.
Renew = Callable[["Socket", str], Awaitable["Principal | None"]]


@dataclass(eq=False)
class Socket:
    """A client that listens; `sent_id` is the latest notification that was put in its queue."""

    ws: web.WebSocketResponse
    transport: asyncio.Transport | None
    principal: Principal
    sent_id: int
    expires_at_s: float
    queue: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(WAITING_COUNT_MAX))
    closing: asyncio.Task[None] | None = None
    frames: list[float] = field(default_factory=list)

    @property
    def who(self) -> tuple[int, int]:
        """The organisation and the user."""
        return self.principal.org_id, self.principal.user_id

    def offer(self, row: Any) -> bool:
        """Put a notification in the queue, once; False when there is no room just now."""
        if row.id <= self.sent_id:
            return True
        if self.queue.full():
            return False
        self.queue.put_nowait(written("notification", **notification(row)))
        self.sent_id = row.id
        return True

    def close(self, code: int, why: str) -> None:
        """End it, without waiting for that."""
        if self.closing is None:
            self.closing = asyncio.ensure_future(end(self.ws, self.transport, code, why))

    async def run(self, renew: Renew) -> None:
        """Send what is offered and read what is sent, until either side ends it."""
        writing = asyncio.ensure_future(self._write())
        try:
            async for frame in self.ws:
                if not self._is_calm():
                    self.close(POLICY, "too many messages")
                elif frame.type is not WSMsgType.TEXT:
                    self.close(BAD_MESSAGE, "send JSON as text")
                else:
                    await self._hear(read(frame.data), renew)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            if self.closing is not None:
                await self.closing

    async def _write(self) -> None:
        while True:
            text = await self.queue.get()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self.ws.send_str(text)
            except TimeoutError:
                self.close(TOO_SLOW, "reads too slowly")
                return
            except ConnectionError:
                return  # it has gone; the reader hears of it, too

    async def _hear(self, said: Any, renew: Renew) -> None:
        token = said.get("token") if isinstance(said, dict) else None
        kind = said.get("type") if isinstance(said, dict) else None
        if kind == "ping":
            if not self.queue.full():
                self.queue.put_nowait(written("pong"))
        elif kind == "auth" and isinstance(token, str):
            principal = await renew(self, token)
            if principal is None:
                self.close(UNAUTHORIZED, "the token is not good for this connection")
            else:
                self.principal, self.expires_at_s = principal, principal.expires_at_s
        else:
            self.close(BAD_MESSAGE, "this takes auth and ping")

    def _is_calm(self) -> bool:
        now_s = time.monotonic()
        self.frames = [at_s for at_s in self.frames if now_s - at_s < 60] + [now_s]
        return len(self.frames) <= FRAMES_PER_MINUTE_MAX


async def end(
    ws: web.WebSocketResponse, transport: asyncio.Transport | None, code: int, why: str, *,
    timeout_s: float | None = None,
) -> None:  # fmt: skip
    """Say why it ends and close it; a client that does not listen is cut off."""
    # In a task of its own: where a sender was given up that waited for room, aiohttp's close is
    # cancelled by that, and the connection would stay for as long as the client likes.
    closing = asyncio.ensure_future(ws.close(code=code, message=why.encode()))
    await asyncio.wait([closing], timeout=CLOSE_TIMEOUT_S if timeout_s is None else timeout_s)
    if not closing.done():
        closing.cancel()
    elif not closing.cancelled() and closing.exception() is None:
        return
    if transport is not None:
        transport.abort()


def read(text: str) -> Any:
    """Read a message; None for one that is no JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def written(kind: str, **members: Any) -> str:
    """Write a message."""
    return orjson.dumps({"type": kind, **members}).decode()


def notification(row: Any) -> dict[str, Any]:
    """Return a notification as the API answers it, under `notification`."""
    return {
        "notification": {
            "id": row.id,
            "type": row.type,
            "title": row.title,
            "message": row.message,
            "data": orjson.loads(row.data),
            "created_at": iso(row.created_at),
            "read_at": None if row.read_at is None else iso(row.read_at),
        }
    }
