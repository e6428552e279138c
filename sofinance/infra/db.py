"""The pool, and the transaction that every request runs in.

A transaction is opened and closed by one simple-protocol message each, so a request whose work is
one statement takes three round trips. Nothing is ever set for longer than a transaction, so a
connection goes back to the pool as it is and PgBouncer in transaction mode works.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import socket
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from sofinance import queries as q
from sofinance.infra import metrics, tracing
from sofinance.infra.command import SetupError
from sofinance.infra.pool import Pool, StaleConnectionError
from sofinance.infra.replica import Replica
from sofinance.infra.server_checks import check_server
from sofinance.infra.sql import Connection, Row

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sofinance.config import Settings

Found = TypeVar("Found")

# How long a statement waits for a row or a key that another transaction holds; less than the
# statement timeout, so that the client reads which of the two it was, and more than a migration
# waits for its locks (4 s), behind whose wait others queue.
LOCK_TIMEOUT_MS = 4_500
# How long a statement may take at the start, at least; whoever awaits it gives up soon after.
START_TIMEOUT_MS = 5_000
# Connections that are opened before the first request.
POOL_SIZE_MIN = 2
# Statements kept prepared on each connection: more than there are query names.
STATEMENT_COUNT_MAX = 1_000
CLOSE_TIMEOUT_S = 10
PING_TIMEOUT_S = 2
ROLLBACK_TIMEOUT_S = 2
# How much longer than PostgreSQL itself we wait for the end of a statement: past that the server
# or the way to it is gone.
ANSWER_SLACK_S = 5
# How often a transaction is begun, on one connection after another, before it is given up.
BEGIN_COUNT_MAX = 3
# How a connection that died while it was idle shows itself when it is used.
DEAD = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server said goodbye while nothing was asked
    OSError,
)
# What is raised when the database does not answer, or not what it was asked. A full pool, a refused
# connection and TimeoutError are OSErrors.
NO_DATABASE = (asyncpg.PostgresError, *DEAD)
# A machine that lost its power says nothing: the kernel gives a connection up when what was sent is
# not confirmed for so long, and asks after so long a silence.
UNCONFIRMED_MAX_MS = 6_000
SILENCE_S, PROBE_INTERVAL_S, PROBE_COUNT = 5, 2, 3
# Opening messages that are remembered, one per organisation, user and mode.
MESSAGE_COUNT_MAX = 4_096
# What app.branch_ids says when it is not a list.
ALL_BRANCHES = b"all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose rows a transaction sees, and under what its caller was let in.

    Without an access version nobody is asked to be let in: the service itself is at work.
    """

    org_id: int
    user_id: int | None = None
    branch_ids: frozenset[int] | None = None
    session_id: int | None = None
    api_key_id: int | None = None
    till_id: int | None = None
    access_version: int | None = None


class Mode(enum.Enum):
    """What a transaction may do."""

    WRITE = "write"
    READ = "read"  # one state per statement
    REPORT = "report"  # one state for all statements


PLAN_FOR_VALUES = f"{q.request.plan_for_values.literal()};\n{q.request.plan_with_scans.literal()}"
BEGIN = {
    Mode.WRITE: q.request.begin_write.literal(),
    Mode.READ: f"{q.request.begin_read.literal()};\n{PLAN_FOR_VALUES}",
    Mode.REPORT: f"{q.request.begin_report.literal()};\n{PLAN_FOR_VALUES}",
}
COMMIT = q.request.commit_work.literal()
ROLLBACK = q.request.roll_back.literal()


@functools.lru_cache(MESSAGE_COUNT_MAX)
def opening(mode: Mode, scope: Scope, statement_timeout_ms: int) -> str:
    """Return the message that begins a transaction for one organisation."""
    branch_ids = ALL_BRANCHES
    if scope.branch_ids is not None:
        branch_ids = f"{{{','.join(map(str, sorted(scope.branch_ids)))}}}".encode()
    message = q.request.set_tenant.literal(
        org_id=scope.org_id,
        user_id=scope.user_id,
        branch_ids=branch_ids,
        statement_timeout_ms=statement_timeout_ms,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
    )
    message = f"{BEGIN[mode]};\n{message}"
    if scope.till_id is not None:
        message = f"{message};\n{q.request.set_till.literal(till_id=scope.till_id)}"
    if scope.access_version is None:
        return message
    admit = q.request.admit.literal(
        user_id=scope.user_id,
        session_id=scope.session_id,
        api_key_id=scope.api_key_id,
        access_version=scope.access_version,
    )
    return f"{message};\n{admit}"


class NotCommittedError(RuntimeError):
    """A COMMIT answered ROLLBACK: somebody swallowed the error of a statement before it."""


class Database:
    """The pool of one process, and the ways to a transaction."""

    def __init__(self, settings: Settings, *, as_owner: bool = False) -> None:
        self.settings = settings
        self._as_owner = as_owner
        self.statement_timeout_ms = settings.database_statement_timeout_ms
        self.size_max = settings.database_pool_size
        self.pool = self._pool(settings.database_url)
        # One more, for a look at the database itself: a crowd that has all others is no outage.
        self.lookout = self._pool(settings.database_url, size_max=1)
        self._looking = asyncio.Lock()
        self._glances: dict[str, asyncio.Task[Any]] = {}
        self.replica: Replica | None = None
        if settings.database_replica_url:
            connect = functools.partial(self._connect, settings.database_replica_url)
            self.replica = Replica(
                connect,
                self._pool(settings.database_replica_url),
                self.pool,
                lag_max_s=settings.database_replica_lag_max_s,
            )

    def _pool(self, url: str, size_max: int | None = None) -> Pool:
        return Pool(
            functools.partial(self._connect, url),
            abandon,
            size_max=size_max or self.settings.database_pool_size,
            waiting_max=self.settings.database_pool_waiting_max,
            timeout_s=self.settings.database_acquire_timeout_s,
        )

    async def open(self) -> None:
        """Connect; raises what asyncpg raises when the server is not there or is not usable.

        The standby need not be there: it is used as soon as it is.
        """
        count = min(POOL_SIZE_MIN, self.size_max)
        for conn in [await self.pool.take() for _ in range(count)]:
            self.pool.give_back(conn)
        if self.replica is not None:
            await self.replica.look()

    async def close(self) -> None:
        """Let what runs finish, for a bounded time, then close every connection."""
        if self.replica is not None:
            await self.replica.close(CLOSE_TIMEOUT_S)
        await self.lookout.close(CLOSE_TIMEOUT_S)
        await self.pool.close(CLOSE_TIMEOUT_S)

    async def _connect(self, url: str) -> Any:
        try:
            conn = await self._connect_to(url)
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise StaleConnectionError("none of the hosts is the primary") from error
        try:
            check_server(conn, may_be_superuser=self._as_owner)
        except SetupError:
            await conn.close()
            raise
        expect_silence_to_end(conn)
        return conn

    async def _connect_to(self, url: str) -> Any:
        return await asyncpg.connect(
            url,
            record_class=Row,
            statement_cache_size=(
                STATEMENT_COUNT_MAX if self.settings.database_prepared_statements else 0
            ),
            max_cached_statement_lifetime=0,
            timeout=self.settings.database_acquire_timeout_s,
            command_timeout=self.statement_timeout_ms / 1000 + ANSWER_SLACK_S,
            server_settings={"application_name": "sofinance"},
        )

    async def ping(self) -> None:
        """Ask the database for a sign of life; raises TimeoutError after PING_TIMEOUT_S."""
        await self.glance("ping", q.request.ping)

    async def glance(self, name: str, question: Callable[[Connection], Awaitable[Found]]) -> Found:
        """Return the answer to a small question about the database, over a connection for those.

        So a crowd is not mistaken for a database that is gone. Who asks the same meanwhile shares
        the answer: however many ask, they are one. Raises TimeoutError after PING_TIMEOUT_S.
        """
        asking: asyncio.Task[Found] | None = self._glances.get(name)
        if asking is None or asking.done():
            asking = self._glances[name] = asyncio.create_task(self._ask(question))
            # Nobody may be left to hear of a failure.
            asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(asking)

    async def _ask(self, question: Callable[[Connection], Awaitable[Found]]) -> Found:
        # What they wait for one another is no wait of the pool's.
        async with asyncio.timeout(PING_TIMEOUT_S), self._looking, self.lookout.lend() as conn:
            return await question(conn)

    @contextlib.asynccontextmanager
    async def tenant(
        self, org_id: int, *, user_id: int | None = None, mode: Mode = Mode.WRITE
    ) -> AsyncGenerator[Connection]:
        """Run a transaction that sees all rows of one organisation; it commits at the end."""
        async with self.admitted(Scope(org_id=org_id, user_id=user_id), mode=mode) as conn:
            yield conn

    @contextlib.asynccontextmanager
    async def admitted(self, scope: Scope, *, mode: Mode) -> AsyncGenerator[Connection]:
        """Run a transaction of a caller, if the database still lets them in; it commits."""
        async with self._transaction(mode, self._opening(mode, scope)) as conn:
            yield conn

    @contextlib.asynccontextmanager
    async def report(self, org_id: int) -> AsyncGenerator[Connection]:
        """Run a transaction whose queries see one state of an organisation, on the standby if any.

        What breaks it off half-way is raised: an export that is half written is not begun anew.
        """
        scope = Scope(org_id=org_id)
        async with contextlib.AsyncExitStack() as stack:
            conn = None
            if self.replica is not None and self.replica.is_fit:
                begun = self.replica.begun(self._opening(Mode.REPORT, scope))
                try:
                    conn = await stack.enter_async_context(begun)
                except Exception as error:
                    if not self.replica.excuses(error):
                        raise
            if conn is None:
                conn = await stack.enter_async_context(self.admitted(scope, mode=Mode.REPORT))
            yield conn

    @contextlib.asynccontextmanager
    async def untenanted(
        self, *, mode: Mode = Mode.READ, at_start: bool = False
    ) -> AsyncGenerator[Connection]:
        """Run a transaction that sees no organisation's rows; it commits at the end.

        For the few functions that look across organisations (sign-in by e-mail) and for tables
        that belong to none: a tenant table errors in it. What is asked at the start may take
        longer than a request may: gunicorn ends altogether when a worker cannot start.
        """
        timeout_ms = self.statement_timeout_ms
        limits = q.request.set_limits.literal(
            statement_timeout_ms=max(timeout_ms, START_TIMEOUT_MS) if at_start else timeout_ms,
            lock_timeout_ms=LOCK_TIMEOUT_MS,
        )
        async with self._transaction(mode, f"{BEGIN[mode]};\n{limits}") as conn:
            yield conn

    def _opening(self, mode: Mode, scope: Scope) -> str:
        return opening(mode, scope, self.statement_timeout_ms)

    @contextlib.asynccontextmanager
    async def _transaction(self, mode: Mode, message: str) -> AsyncGenerator[Connection]:
        stack, conn = await self._begun(message)
        try:
            async with stack:
                yield conn
                await commit(conn, COMMIT)
        except asyncpg.ReadOnlySQLTransactionError as error:
            if mode is not Mode.WRITE:
                raise
            raise StaleConnectionError("the primary takes no writes") from error

    async def _begun(self, message: str) -> tuple[contextlib.AsyncExitStack, Connection]:
        """Begin a transaction, and return what ends its loan; dead connections are passed over."""
        attempt = 1
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    conn = await stack.enter_async_context(self.pool.lend())
                    await begin(conn, message)
                    return stack.pop_all(), conn
            except StaleConnectionError:
                if attempt == BEGIN_COUNT_MAX:
                    raise
            attempt += 1


async def begin(conn: Connection, message: str) -> str:
    """Send the message that begins with BEGIN; returns the last statement's command tag."""
    started_s, row_count = perf_counter(), None
    try:
        tag = await conn.execute(message)
        row_count = 0
    except TimeoutError:
        raise  # the server is there, and slow
    except DEAD as error:
        raise StaleConnectionError from error
    finally:
        if tracing.RECORDER.is_on:
            tracing.note_query("request.begin", perf_counter() - started_s, row_count)
    return tag


async def commit(conn: Any, message: str) -> None:
    """Send the message that ends with COMMIT; deferred rules raise here."""
    started_s = perf_counter()
    try:
        tag = await conn.execute(message)
    except BaseException as error:
        _measure_commit(perf_counter() - started_s, None)
        if isinstance(error, TimeoutError | asyncio.CancelledError):
            # Before asyncpg has sent its request to cancel: a commit that waits for a synchronous
            # standby would be cut short by it, and be seen although a failover loses it.
            conn.terminate()
        raise
    _measure_commit(perf_counter() - started_s, 0)
    if tag != "COMMIT":
        raise NotCommittedError(tag)


def _measure_commit(duration_s: float, row_count: int | None) -> None:
    key = q.request.commit_work.key
    metrics.observe_query(key, duration_s, row_count)
    if tracing.RECORDER.is_on:
        tracing.note_query(key, duration_s, row_count)


async def abandon(conn: Any) -> None:
    """Undo a transaction that is still open; nothing to do, and no round trip, after a COMMIT."""
    if not conn.is_closed() and conn.is_in_transaction():
        try:
            await conn.execute(ROLLBACK, timeout=ROLLBACK_TIMEOUT_S)
        except (asyncpg.PostgresError, *DEAD):
            # The connection is of no use any more: the server undoes its work, the pool drops it.
            conn.terminate()


def expect_silence_to_end(conn: Any) -> None:
    """Have the kernel close the connection when nobody is at the other end any more."""
    sock = conn._transport.get_extra_info("socket")  # noqa: SLF001 - asyncpg has no setting for it
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", SILENCE_S),
        ("TCP_KEEPINTVL", PROBE_INTERVAL_S),
        ("TCP_KEEPCNT", PROBE_COUNT),
        ("TCP_USER_TIMEOUT", UNCONFIRMED_MAX_MS),
    ):
        if hasattr(socket, name):  # macOS has not all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
