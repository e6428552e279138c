"""Connections that requests share: the one used last is used next, and nobody waits for ever.

Why not asyncpg's own: taking one from it and giving it back makes a task each time, and each call
passes a proxy: 50 us of a sale's 340. This one lends the bare connection, and giving back is not a
coroutine, so nothing can interrupt it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg

from sofinance.infra import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


# How long somebody is told to stay away, at most.
RETRY_AFTER_S_MAX = 30
# What a connection serves in a second, until that is known.
FIRST_RATE = 20.0
# Over how long it is counted how many are served in a second; a longer time had quiet in it.
RATE_OVER_S = 0.25
RATE_OVER_S_MAX = 2.0


class PoolClosedError(ConnectionError):
    """The pool is closed, or will be as soon as everything is back."""


class PoolFullError(ConnectionError):
    """As many wait for a connection as may; nothing was done."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("Too many wait for a connection.")
        self.retry_after_s = retry_after_s


class PoolTimeoutError(TimeoutError):
    """None was free in time; nothing was done."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("No connection was free in time.")
        self.retry_after_s = retry_after_s


class StaleConnectionError(ConnectionError):
    """The connection was of no use when it was taken from the pool: nothing was done with it."""


# What says that the server is not what it was: gone, or a standby that writes nothing. Whatever
# else is connected to it is of no use either.
GONE = (StaleConnectionError, asyncpg.ReadOnlySQLTransactionError)


class Appointments:
    """When those who are sent away come back: one after the other, as fast as they are served.

    Told the same second, they would all come back in it, and be sent away once more: a process
    that refuses thousands again and again serves nobody.
    """

    def __init__(self, first_rate: float, clock: Callable[[], float] = perf_counter) -> None:
        self._rate, self._served_count, self._clock = first_rate, 0, clock
        self._since_s = self._next_s = clock()

    def count(self) -> None:
        """Note that somebody was served."""
        self._served_count += 1

    def make(self, ahead_count: int) -> int:
        """Return in how many seconds to come back, for whoever has so many before them."""
        now_s = self._clock()
        past_s = now_s - self._since_s
        if past_s >= RATE_OVER_S:
            if past_s < RATE_OVER_S_MAX:
                self._rate = max(1.0, (self._rate + self._served_count / past_s) / 2)
            self._since_s, self._served_count = now_s, 0
        first_s = now_s + ahead_count / self._rate
        self._next_s = max(self._next_s, first_s) + 1 / self._rate
        wait_s = self._next_s - now_s
        if wait_s > RETRY_AFTER_S_MAX:
            # The book is full; still not all of them at once.
            self._next_s = now_s + RETRY_AFTER_S_MAX
            wait_s = RETRY_AFTER_S_MAX * random.uniform(0.5, 1)  # noqa: S311 - no secret
        return math.ceil(wait_s)


class Pool:
    """At most so many connections, opened when they are needed and kept until the end."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        tidy: Callable[[Any], Awaitable[None]],
        *,
        size_max: int,
        waiting_max: int,
        timeout_s: float,
    ) -> None:
        self._connect, self.tidy = connect, tidy
        self._size_max, self._waiting_max, self._timeout_s = size_max, waiting_max, timeout_s
        self._idle: list[Any] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._open_count = 0
        self._is_closing = self._is_closed = False
        self._all_back = asyncio.Event()
        self._appointments = Appointments(size_max * FIRST_RATE)

    @property
    def open_count(self) -> int:
        """The connections that are open."""
        return self._open_count

    @property
    def in_use_count(self) -> int:
        """The connections that somebody works with."""
        return self._open_count - len(self._idle)

    @property
    def waiting_count(self) -> int:
        """Those who wait for a connection."""
        return len(self._waiting)

    def refuse_when_full(self) -> None:
        """Raise PoolFullError when somebody who came now would find the queue full.

        For asking before any work is done for them.
        """
        if not self._idle and self._open_count >= self._size_max:
            self._refuse_beyond_queue()

    def lend(self) -> Loan:
        """Lend a connection: ``async with pool.lend() as conn``; see `take`."""
        return Loan(self)

    async def take(self) -> Any:
        """Return a connection, which must be given back.

        Raises PoolFullError when too many wait already, TimeoutError when none is free in time,
        and whatever connecting raises.
        """
        while not self._is_closing:
            if self._idle:
                conn = self._idle.pop()
            elif self._open_count < self._size_max:
                return await self._open()
            else:
                conn = await self._wait()
            if conn is not None:
                if not conn.is_closed():
                    return conn
                self._open_count -= 1
        raise PoolClosedError("The pool is closed.")

    def give_back(self, conn: Any) -> None:
        """Take a connection back; a closed one makes room for another."""
        self._appointments.count()
        if self._is_closed:
            conn.terminate()
        if conn.is_closed():
            self._open_count -= 1
            self._pass_on(None)
        elif not self._pass_on(conn):
            self._idle.append(conn)
        if self._is_closing and not self.in_use_count:
            self._all_back.set()

    def drop_idle(self) -> None:
        """Close what nobody uses: the server behind it is gone."""
        while self._idle:
            self._open_count -= 1
            self._idle.pop().terminate()

    def give_up(self, error: Exception) -> None:
        """Let nobody wait for a server that is gone."""
        self.drop_idle()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiting.clear()

    async def close(self, timeout_s: float) -> None:
        """Wait for what is lent out, so long at most, and close everything."""
        self._is_closing = True
        while self._pass_on(None):
            pass  # everybody who waits is told that it is closed
        if self.in_use_count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_back.wait(), timeout_s)
        self._is_closed = True
        while self._idle:
            self._open_count -= 1
            await self._idle.pop().close(timeout=timeout_s)

    async def _open(self) -> Any:
        self._open_count += 1
        try:
            return await self._connect()
        except BaseException:
            self._open_count -= 1
            self._pass_on(None)
            raise

    async def _wait(self) -> Any:
        self._refuse_beyond_queue()
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        started_s = perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # It came at the very moment that we gave up: somebody else may have it.
                conn = waiter.result()
                if conn is None:
                    self._pass_on(None)
                else:
                    self.give_back(conn)
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            if isinstance(error, TimeoutError):
                metrics.POOL_TIMEOUTS.inc()
                raise PoolTimeoutError(self._appointments.make(len(self._waiting))) from None
            raise
        finally:
            metrics.POOL_WAITS.observe(perf_counter() - started_s)

    def _refuse_beyond_queue(self) -> None:
        if len(self._waiting) >= self._waiting_max:
            # Who comes last in such a crowd would wait in vain, and holds memory meanwhile.
            metrics.POOL_REFUSALS.inc()
            raise PoolFullError(self._appointments.make(len(self._waiting)))

    def _pass_on(self, conn: Any | None) -> bool:
        """Give a connection, or with None the room for one, to who waits longest."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(conn)
                return True
        return False


class Loan:
    """A connection for as long as a block runs."""

    __slots__ = ("_conn", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Any:
        self._conn = await self._pool.take()
        return self._conn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, _traceback: object
    ) -> None:
        try:
            if isinstance(error, GONE):
                self._conn.terminate()
                self._pool.drop_idle()
            elif kind is None or issubclass(kind, Exception):
                await self._pool.tidy(self._conn)
            else:
                # Cancelled: a query may still run on it.
                self._conn.terminate()
        except BaseException:
            self._conn.terminate()
            raise
        finally:
            self._pool.give_back(self._conn)
