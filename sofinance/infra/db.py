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
from typing import TYPE_CHECKING, Any

import asyncpg

from sofinance import queries as q
from sofinance.infra.sql import Connection, Row

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sofinance.config import Settings

SERVER_VERSION_MIN = 15
# How long a statement waits for a row or a key that another transaction holds; less than the
# statement timeout, so that the client reads which of the two it was.
LOCK_TIMEOUT_MS = 3_000
# Connections that are kept even when nobody calls.
POOL_SIZE_MIN = 2
# Statements kept prepared on each connection: more than there are query names.
STATEMENT_COUNT_MAX = 1_000
CLOSE_TIMEOUT_S = 10
PING_TIMEOUT_S = 2
# Opening messages that are remembered, one per organisation, user and mode.
MESSAGE_COUNT_MAX = 4_096


class Mode(enum.Enum):
    """What a transaction may do."""

    WRITE = "write"
    READ = "read"  # one state per statement
    REPORT = "report"  # one state for all statements


PLAN_FOR_VALUES = q.request.plan_for_values.literal()
BEGIN = {
    Mode.WRITE: q.request.begin_write.literal(),
    Mode.READ: f"{q.request.begin_read.literal()};\n{PLAN_FOR_VALUES}",
    Mode.REPORT: f"{q.request.begin_report.literal()};\n{PLAN_FOR_VALUES}",
}
COMMIT = q.request.commit_work.literal()
ROLLBACK = q.request.roll_back.literal()


@functools.lru_cache(MESSAGE_COUNT_MAX)
def opening(mode: Mode, org_id: int, user_id: int | None, statement_timeout_ms: int) -> str:
    """Return the message that begins a transaction for one organisation."""
    tenant = q.request.set_tenant.literal(
        org_id=org_id,
        user_id=user_id,
        statement_timeout_ms=statement_timeout_ms,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
    )
    return f"{BEGIN[mode]};\n{tenant}"


class NotCommittedError(RuntimeError):
    """A COMMIT answered ROLLBACK: somebody swallowed the error of a statement before it."""


class Database:
    """The pool of one process, and the ways to a transaction."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: Any = None
        self.statement_timeout_ms = settings.database_statement_timeout_ms

    async def open(self) -> None:
        """Connect; raises what asyncpg raises when the server is not there or is not usable."""
        self._pool = await asyncpg.create_pool(
            self._settings.database_url,
            min_size=min(POOL_SIZE_MIN, self._settings.database_pool_size),
            max_size=self._settings.database_pool_size,
            record_class=Row,
            init=_check_server,
            reset=_keep,
            max_queries=1_000_000,
            max_inactive_connection_lifetime=0,
            statement_cache_size=STATEMENT_COUNT_MAX,
            max_cached_statement_lifetime=0,
            timeout=self._settings.database_acquire_timeout_s,
            server_settings={"application_name": "sofinance"},
        )

    async def close(self) -> None:
        """Let what runs finish, for a bounded time, then close every connection."""
        if self._pool is None:
            return
        try:
            await asyncio.wait_for(self._pool.close(), CLOSE_TIMEOUT_S)
        except TimeoutError:
            self._pool.terminate()

    @property
    def size(self) -> int:
        """The connections that are open."""
        return 0 if self._pool is None else int(self._pool.get_size())

    @property
    def size_max(self) -> int:
        """The connections that may be open."""
        return self._settings.database_pool_size

    @property
    def in_use(self) -> int:
        """The connections that somebody works with right now."""
        return 0 if self._pool is None else int(self._pool.get_size() - self._pool.get_idle_size())

    def acquire(self) -> Any:
        """Borrow a connection; raises TimeoutError when none is free in time."""
        return self._pool.acquire(timeout=self._settings.database_acquire_timeout_s)

    async def ping(self) -> None:
        """Ask the database for a sign of life; raises TimeoutError after PING_TIMEOUT_S."""
        async with asyncio.timeout(PING_TIMEOUT_S):
            async with self.acquire() as conn:
                await q.request.ping(conn)

    @contextlib.asynccontextmanager
    async def tenant(
        self, org_id: int, *, user_id: int | None = None, mode: Mode = Mode.WRITE
    ) -> AsyncGenerator[Connection]:
        """Run a transaction that sees the rows of one organisation; it commits at the end."""
        message = opening(mode, org_id, user_id, self.statement_timeout_ms)
        async with self._transaction(message) as conn:
            yield conn

    @contextlib.asynccontextmanager
    async def untenanted(self, *, mode: Mode = Mode.READ) -> AsyncGenerator[Connection]:
        """Run a transaction that sees no organisation's rows; it commits at the end.

        For the few functions that look across organisations (sign-in by e-mail) and for tables
        that belong to none: a tenant table errors in it.
        """
        limits = q.request.set_limits.literal(
            statement_timeout_ms=self.statement_timeout_ms, lock_timeout_ms=LOCK_TIMEOUT_MS
        )
        async with self._transaction(f"{BEGIN[mode]};\n{limits}") as conn:
            yield conn

    @contextlib.asynccontextmanager
    async def _transaction(self, message: str) -> AsyncGenerator[Connection]:
        async with self.acquire() as conn:
            try:
                await conn.execute(message)
                yield conn
                await commit(conn, COMMIT)
            finally:
                await abandon(conn)


async def commit(conn: Connection, message: str) -> None:
    """Send the message that ends with COMMIT; deferred rules raise here."""
    tag = await conn.execute(message)
    if tag != "COMMIT":
        raise NotCommittedError(tag)


async def abandon(conn: Any) -> None:
    """Undo a transaction that is still open; nothing to do, and no round trip, after a COMMIT."""
    if not conn.is_closed() and conn.is_in_transaction():
        try:
            await conn.execute(ROLLBACK)
        except (asyncpg.InterfaceError, asyncpg.PostgresError, OSError):
            # The connection is of no use any more: the server undoes its work, the pool drops it.
            conn.terminate()


async def _check_server(conn: Any) -> None:
    """Refuse a server on which this service would not be safe."""
    settings = conn.get_settings()
    if settings.standard_conforming_strings != "on":
        raise RuntimeError(
            "standard_conforming_strings is off for this database or role; it must be on."
        )
    major = conn.get_server_version().major
    if major < SERVER_VERSION_MIN:
        raise RuntimeError(
            f"The database is PostgreSQL {major}; SOFinance needs {SERVER_VERSION_MIN} or newer."
        )


async def _keep(_conn: Any) -> None:
    """Give a connection back as it is: nothing was set for longer than a transaction."""
