"""One connection to Redis that all requests of a process share, and a deadline for each of them.

Why not redis-py's client: it lends a connection to each call, which then pays for its own write,
its own read and its own timeout: 90 us of a worker's time each, with eight at once. On one
connection what is asked in the same moment is written and read together: 16 us. redis-py still
knows the URLs, TLS, sign-in and the protocol; only the taking of turns is ours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from sofinance.infra import tracing

if TYPE_CHECKING:
    from collections.abc import Callable

# Questions that may wait for their answers at once; whoever comes after is answered by nobody.
WAITING_COUNT_MAX = 512
# A deadline may pass while the loop was busy and the answer is there, unread: one more look.
GRACE_S = 0.002


class LineBrokenError(ConnectionError):
    """Redis did not answer, or not in time; what was asked may have been done or not."""


class RedisLine:
    """A connection; it breaks at the first answer that is late, and then for good."""

    def __init__(self, connection: Any, *, timeout_s: float) -> None:
        self._connection, self._timeout_s = connection, timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._suspect: asyncio.Future[Any] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.broken_by = ""
        self.broken = asyncio.Event()
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def connect(cls, url: str, *, timeout_s: float) -> RedisLine:
        """Connect; raises RedisError or OSError. The caller bounds the time this takes."""
        pool = ConnectionPool.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0))
        connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]
        # By itself redis-py (from 8) hangs up after five seconds in which nobody asked anything.
        connection.socket_timeout = None
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return cls(connection, timeout_s=timeout_s)

    async def ask(self, *command: str | bytes | int) -> Any:
        """Send a command and return its answer; one that Redis refuses raises ResponseError.

        Raises LineBrokenError after `timeout_s`, together with everybody else who waits.
        """
        if self.broken_by:
            raise LineBrokenError(self.broken_by)
        if len(self._waiting) >= WAITING_COUNT_MAX:
            raise LineBrokenError("too many wait already")
        # The loop's own clock has milliseconds.
        started_s = perf_counter()
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((answer, self._loop.time() + self._timeout_s))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)
        try:
            # Written before anything is awaited, so answers come in the order of `_waiting`.
            await self._connection.send_packed_command(
                self._connection.pack_command(*command), check_health=False
            )
        except (RedisError, OSError) as error:
            self.cut(f"cannot write: {error}")
        reply = await answer
        if tracing.RECORDER.is_on:
            tracing.note(
                f"redis {command[0]!s}",
                perf_counter() - started_s,
                has_failed=isinstance(reply, Exception),
                attributes={"db.system.name": "redis"},
            )
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def close(self) -> None:
        """Hang up; whoever still waits is told."""
        self.cut("closed")
        if self._closing is not None:
            await self._closing

    async def _listen(self) -> None:
        while True:
            reply: Any
            try:
                reply = await self._connection.read_response()
            except ResponseError as error:
                reply = error
            except (RedisError, OSError) as error:
                self.cut(f"cannot read: {error}")
                return
            if not self._waiting:
                self.cut("an answer that nobody asked for")
                return
            answer, _ = self._waiting.popleft()
            if not answer.done():  # who asked may have been cancelled
                answer.set_result(reply)

    def _look(self) -> None:
        """See whether who waits longest has waited too long."""
        self._timer = None
        if not self._waiting:
            return
        oldest, deadline_s = self._waiting[0]
        left_s = deadline_s - self._loop.time()
        if left_s <= 0:
            if oldest is self._suspect:
                self.cut("late")
                return
            self._suspect, left_s = oldest, GRACE_S
        self._timer = self._loop.call_later(left_s, self._look)

    def cut(self, why: str) -> None:
        """Break it, for a reason; whoever waits is told at once."""
        if self.broken_by:
            return
        self.broken_by = why
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            answer, _ = self._waiting.popleft()
            if not answer.done():
                # A result, not an exception: nobody may be left to retrieve it.
                answer.set_result(LineBrokenError(why))
        if self._listener is not asyncio.current_task():
            self._listener.cancel()
        self._closing = asyncio.create_task(self._connection.disconnect(nowait=True))
        self.broken.set()


class RedisLink:
    """Keeps a line to Redis, in the background: no request ever waits for a connection.

    The circuit is open while `line` is None. Redis is then tried every few seconds, with what
    `greet` asks, which must be answered as fast as any request's question.
    """

    # Tried again so soon after a line broke because the other end hung up.
    RETRY_SOON_S = 0.1
    RETRY_S = 2.0
    CONNECT_TIMEOUT_S = 1.0

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        greet: Callable[[RedisLine], Any],
        tell: Callable[[str | None], None],
    ) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._greet, self._tell = greet, tell
        self._keeper: asyncio.Task[None] | None = None
        self._line: RedisLine | None = None

    @property
    def line(self) -> RedisLine | None:
        """The line that works; None while the circuit is open."""
        line = self._line
        return None if line is None or line.broken_by else line

    async def open(self) -> None:
        """Try to connect, for a bounded time, and keep trying; returns with or without a line."""
        why = await self._try()
        self._tell(why or None)
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Hang up and stop trying."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._line is not None:
            line, self._line = self._line, None
            await line.close()

    async def _keep(self) -> None:
        while True:
            wait_s = self.RETRY_S
            if self._line is not None:
                line = self._line
                await line.broken.wait()
                self._line = None
                self._tell(line.broken_by)
                if line.broken_by.startswith("cannot"):
                    wait_s = self.RETRY_SOON_S
            await asyncio.sleep(wait_s)
            if not await self._try():
                self._tell(None)

    async def _try(self) -> str:
        """Connect; returns why it did not work, or nothing."""
        line: RedisLine | None = None
        try:
            async with asyncio.timeout(self.CONNECT_TIMEOUT_S):
                line = await RedisLine.connect(self._url, timeout_s=self._timeout_s)
                await self._greet(line)
            self._line = line
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            return str(error) or type(error).__name__
        finally:
            if line is not None and self._line is not line:
                await line.close()
        return ""
