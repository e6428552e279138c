"""A streaming standby that answers reports, and misses nothing that was committed before.

Each report first learns how far the primary's log is on disk (one question of all reports that
begin in the same moment), and runs only on a standby that has replayed that far. So whoever wrote
something reads it, through whichever worker, and whoever lost a permission has lost it here, too.
A standby that is away, or lags, costs nothing: one look a second decides whether it is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from sofinance import queries as q
from sofinance.infra import metrics
from sofinance.infra.pool import Pool, PoolFullError, PoolTimeoutError, StaleConnectionError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sofinance.infra.sql import Connection

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1
LOOK_TIMEOUT_S = 2
# The positions of the primary that the standby has not reached yet; those of an hour, beyond which
# it is far behind anyway.
POSITION_COUNT_MAX = 3_600
# How long to wait before a standby that is not there yet is asked again; doubled each time.
PAUSE_S, PAUSE_MAX_S = 0.001, 0.02
NOT_THERE_YET, NO_STANDBY = "SF425", "SF421"
# Replay needed what a query was reading; or a deadlock with it.
CONFLICTS = frozenset({"40001", "40P01"})
# What the standby, or the way to it, is to blame for; classes are two characters. 42883: it has not
# even replayed the migration yet. 3D: nor the database.
DOWN_STATES = frozenset({"42883", "57P01", "57P02", "57P03"})
DOWN_CLASSES = frozenset({"08", "28", "3D", "53"})
BLAMED = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
COMMIT = q.request.commit_work.literal()
ROLLBACK = q.request.roll_back.literal()
BEGIN = q.request.begin_read.literal()
SERVER = "replica"


class BehindError(Exception):
    """The standby has not replayed in time what was committed when the report was asked for."""


class UnfitError(Exception):
    """The standby is none, or not one of the primary that we have now."""


class PrimaryError(Exception):
    """The primary does not say what was committed: it, or its pool, has other troubles."""


class Position(NamedTuple):
    """How far a log is, on which timeline: each promotion of a standby begins another."""

    timeline: int
    bytes: int


class Replica:
    """The pool of connections to the standby, and what is known of it."""

    def __init__(
        self, connect: Callable[[], Awaitable[Any]], pool: Pool, primary: Pool, *, lag_max_s: int
    ) -> None:
        self.pool = pool
        self._connect, self._primary, self._lag_max_s = connect, primary, lag_max_s
        # Why it is not used, as the metric says it; None while it is.
        self._unfit: str | None = "unknown"
        self._timeline = 0
        # When we learnt of what the standby lacks, and where that ends.
        self._missing: deque[tuple[float, int]] = deque(maxlen=POSITION_COUNT_MAX)
        self._eye: Any = None
        self._next: asyncio.Future[Position] | None = None
        self._asking: asyncio.Task[None] | None = None
        metrics.REPLICA_UP.labels(SERVER).set(0)
        metrics.REPLICA_LAG.labels(SERVER).set(0)

    @property
    def is_fit(self) -> bool:
        """Say whether it may be asked."""
        return self._unfit is None

    @property
    def lag_s(self) -> float:
        """For how long the standby has lacked what it lacks longest."""
        return time.monotonic() - self._missing[0][0] if self._missing else 0.0

    async def watch(self) -> None:
        """Look at the standby every second."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def close(self, timeout_s: float) -> None:
        """Close every connection."""
        if self._eye is not None:
            self._eye.terminate()
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=timeout_s)
        await self.pool.close(timeout_s)

    # -- reading from it ------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def begun(self, message: str) -> AsyncGenerator[Connection]:
        """Begin a transaction with this message, once the standby has all that was committed.

        The caller commits. What it raises beyond the block's own errors, `excuses` knows.
        """
        committed = await self._committed()
        if committed.timeline != self._timeline:
            raise UnfitError("the primary is another one")
        async with self.pool.lend() as conn:
            await self._begin(conn, committed, message)
            yield conn

    def excuses(self, error: BaseException) -> bool:
        """Say whether the primary should be asked instead, for no fault of its own; counts it."""
        reason = blame(error)
        if reason is None:
            return False
        metrics.REPLICA_FALLBACKS.labels(reason).inc()
        if reason not in ("conflict", "primary"):
            self._shut(reason)
        return True

    def count_unfit(self) -> None:
        """Count a report that the primary reads because the standby is known to be unfit."""
        metrics.REPLICA_FALLBACKS.labels(self._unfit).inc()

    async def _begin(self, conn: Any, committed: Position, message: str) -> None:
        # A transaction of its own: the snapshot of the report's must be younger than the answer.
        demand = q.request.demand_replayed.literal(position=committed.bytes)
        message = f"{BEGIN};\n{demand};\n{COMMIT};\n{message}"
        started_s, pause_s = time.monotonic(), PAUSE_S
        sent = message
        while True:
            try:
                await conn.execute(sent, timeout=LOOK_TIMEOUT_S)
            except asyncpg.PostgresError as error:
                if error.sqlstate != NOT_THERE_YET:
                    raise
            else:
                break
            if time.monotonic() - started_s > self._lag_max_s:
                if not self._missing or committed.bytes < self._missing[0][1]:
                    self._missing.appendleft((started_s, committed.bytes))  # it is known since then
                raise BehindError
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
            sent = f"{ROLLBACK};\n{message}"
        if sent is not message:
            metrics.REPLICA_WAITS.inc(time.monotonic() - started_s)

    async def _committed(self) -> Position:
        """Return up to where the primary's log is on disk, asked after this was called."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask())
        # Shielded: others wait for it, too.
        return await asyncio.shield(self._next)

    async def _ask(self) -> None:
        while self._next is not None:
            asked, self._next = self._next, None
            try:
                async with self._primary.lend() as conn:
                    found = await q.request.get_position(conn)
                asked.set_result(Position(found.timeline, found.bytes))
            except Exception as error:  # noqa: BLE001 - it is theirs who wait
                asked.set_exception(PrimaryError(f"{type(error).__name__}: {error}"))
                asked.exception()  # nobody may wait any more
        self._asking = None

    # -- whether it is fit ----------------------------------------------------------------

    async def look(self) -> None:
        """Find out whether the standby is there, is ours, and how far behind it is."""
        try:
            committed, cluster = await self._committed(), await self._cluster()
        except PrimaryError:
            return  # there is nothing to compare with, and no report is begun
        if len(self._missing) < POSITION_COUNT_MAX:
            self._missing.append((time.monotonic(), committed.bytes))
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                replayed = await self._replayed(cluster, committed.timeline)
        except UnfitError as error:
            self._shut("unfit", why=str(error))
        except (asyncpg.PostgresError, *BLAMED) as error:
            self._shut("unreachable", why=f"{type(error).__name__}: {error}")
        else:
            self._timeline = committed.timeline
            self._judge(replayed)
        metrics.REPLICA_LAG.labels(SERVER).set(self.lag_s)

    async def _replayed(self, cluster: str, timeline: int) -> int:
        """Ask the standby how far it is, on a connection that no report can be in the way of."""
        try:
            if self._eye is None or self._eye.is_closed():
                self._eye = await self._connect()
            found = await q.request.get_replay(self._eye)
        except BaseException:
            if self._eye is not None:
                self._eye.terminate()
            raise
        if not found.is_standby or found.bytes is None:
            raise UnfitError("it is no standby")
        if found.cluster != cluster:
            raise UnfitError("it is a standby of another database")
        if found.timeline != timeline:
            # It may have what the primary of now never got. Its next checkpoint tells.
            raise UnfitError("it follows another primary, or has not told yet that it does not")
        return int(found.bytes)

    async def _cluster(self) -> str:
        try:
            async with self._primary.lend() as conn:
                return await q.request.get_cluster(conn)
        except (asyncpg.PostgresError, PoolFullError, *BLAMED) as error:
            raise PrimaryError from error

    def _judge(self, replayed: int) -> None:
        while self._missing and self._missing[0][1] <= replayed:
            self._missing.popleft()
        metrics.REPLICA_UP.labels(SERVER).set(1)
        if self.lag_s > self._lag_max_s:
            self._shut("lag")
        elif self._unfit is not None:
            log.info("replica used", extra={"metadata": {"was": self._unfit}})
            self._unfit = None

    def _shut(self, reason: str, why: str = "") -> None:
        if reason != "lag":
            metrics.REPLICA_UP.labels(SERVER).set(0)
            self.pool.give_up(StaleConnectionError("the replica is away"))
        if self._unfit != reason:
            log.warning("replica not used", extra={"metadata": {"reason": reason, "why": why}})
        self._unfit = reason


def blame(error: BaseException) -> str | None:
    """Return why the primary should be asked, as the metric says it; None when it should not.

    A statement that took too long is not the standby's fault: the primary would take as long.
    Nor is it that too many want reports: the primary has sales to post.
    """
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, PrimaryError):
        return "primary"
    if isinstance(error, BehindError):
        return "lag"
    if isinstance(error, UnfitError) or state == NO_STANDBY:
        return "unfit"
    if state in CONFLICTS or isinstance(error, asyncpg.InternalClientError):
        return "conflict"  # the other one is asyncpg's when it was told so between two questions
    is_down = state in DOWN_STATES or state[:2] in DOWN_CLASSES or isinstance(error, BLAMED)
    if is_down and not isinstance(error, PoolFullError | PoolTimeoutError):
        return "unreachable"
    return None
