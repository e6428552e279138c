"""Apply the migrations: one at a time, each together with its mark, or not at all.

A migration waits for its locks no longer than a request waits for a row, gives way, and tries
again: nobody who sells meanwhile is refused.

yoyo reads the files, orders them and keeps the books of what was applied; three things it does
otherwise are done here. Its mark is a transaction of its own, so a crash between the two would
leave a migration applied and unmarked: here both commit together. Its lock is a row, which a
killed process leaves behind: here it is an advisory lock, which dies with its session. And it
passes over a migration that it cannot read: here that is an error.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import yoyo.migrations
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri
from yoyo.exceptions import BadMigration, MigrationConflict
from yoyo.migrations import default_migration_table

from sofinance.infra.command import SetupError
from sofinance.infra.sql import SQL_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIGRATIONS = SQL_DIR / "migrations"
VERSION_MIN = 15
LOCK_KEY = 5_067_214_903_817_155  # any number, the same for all who migrate
LOCK_WAIT_S = 120
LOCK_POLL_S = 0.1
LOCK_TIMEOUT_S = 4  # how long a posting may be made to wait for a function that is replaced
TRY_COUNT_MAX = 20
TRY_PAUSE_S = 2  # in which those who queued behind us go on
GAVE_WAY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
CONNECT_TIMEOUT_S = 10
# yoyo logs every statement; the commands tell which migrations were applied.
logging.getLogger("yoyo").setLevel(logging.WARNING)
THERE = """
select to_regclass('_yoyo_migration'), has_table_privilege(to_regclass('_yoyo_log'), 'select')
"""
APPLIED_ALONE = "select migration_id, null from _yoyo_migration order by migration_id"
DONE = {"apply": "applied", "rollback": "rolled back"}
# Its checksum is noted beside the last time that a migration was applied.
APPLIED = """
select
    applied.migration_id,
    (
        select log.comment from _yoyo_log as log
        where log.migration_id = applied.migration_id and log.operation = 'apply'
        order by log.created_at_utc desc limit 1
    )
from _yoyo_migration as applied
order by applied.applied_at_utc, applied.migration_id
"""
# What PostgreSQL takes in no transaction, and many statements in one message are one.
ONE_BY_ONE = re.compile(r"^-- transactional: *false|\bconcurrently\b", re.MULTILINE | re.IGNORECASE)
BOOKKEEPING = ("_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock")


def _statements(text: str, split: Any = yoyo.migrations.sqlparse.split) -> list[str]:
    """Return what is sent to PostgreSQL together: all of a file, unless it must be one by one."""
    return split(text) if ONE_BY_ONE.search(text) else [text]


# yoyo looks for the end of each statement, in every file and its way back, before it knows which
# of them are pending: that took longer than PostgreSQL takes to run them all.
yoyo.migrations.sqlparse = SimpleNamespace(split=_statements)


@dataclass(frozen=True, slots=True)
class Status:
    """What a database has and lacks, by migration id, in order."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    unknown: tuple[str, ...]  # applied by a newer release than this one
    changed: tuple[str, ...]  # applied, and their files say something else by now


def apply(owner_url: str) -> tuple[str, ...]:
    """Apply what is pending and re-apply the ``post-apply`` files; return the ids applied.

    Safe to run twice at once: the second waits for the first, then finds nothing to do.
    """
    with _backend(owner_url) as backend, _alone(backend):
        migrations = _read()
        done: list[str] = []
        for migration in _ordered(backend, migrations):
            _run(backend, migration, "apply")
            done.append(migration.id)
        _refresh(backend, migrations.post_apply)
        _hand_over(backend)
        return tuple(done)


def rollback(owner_url: str, *, count: int | None = None) -> tuple[str, ...]:
    """Take back the last ``count`` migrations (all, if None); return their ids."""
    with _backend(owner_url) as backend, _alone(backend):
        undone = list(backend.to_rollback(_read()))[:count]
        for migration in undone:
            _run(backend, migration, "rollback")
        return tuple(migration.id for migration in undone)


def status(owner_url: str) -> Status:
    """Compare the migrations of this release with those of the database; changes nothing.

    sofinance_app is told all but whether one was changed since: it does not read checksums.
    """
    ours = known()
    with _connected(owner_url) as conn:
        there = conn.execute(THERE).fetchone()
        rows: list[tuple[str, str | None]] = []
        if there and there[0] is not None:
            rows = conn.execute(APPLIED if there[1] else APPLIED_ALONE).fetchall()
    applied = tuple(name for name, _ in rows)
    return Status(
        applied,
        tuple(i for i in ours if i not in applied),
        tuple(i for i in applied if i not in ours),
        tuple(i for i, noted in rows if noted and i in ours and noted != checksum(i)),
    )


def checksum(migration_id: str) -> str:
    """Return what is noted of a migration's file when it is applied."""
    return f"sha256:{sha256((MIGRATIONS / f'{migration_id}.sql').read_bytes()).hexdigest()}"


def known() -> tuple[str, ...]:
    """Return the migrations of this release, in order."""
    return tuple(migration.id for migration in _read())


def make_roles(superuser_url: str) -> None:
    """Make the roles that a server lacks, by the first migration; it marks nothing as applied."""
    with _connected(superuser_url) as conn:
        try:
            with conn.transaction():
                conn.execute((MIGRATIONS / "0001_roles.sql").read_bytes())
        except psycopg.Error as error:
            raise SetupError(_failure("The roles", "made", error)) from error


def _read() -> Any:
    if not MIGRATIONS.is_dir():
        raise SetupError(f"There are no migrations in {MIGRATIONS}: the installation is broken.")
    try:
        return read_migrations(str(MIGRATIONS))
    except MigrationConflict as error:
        raise SetupError(f"Two migrations have one name: {error}.") from None


def _ordered(backend: Any, migrations: Any) -> list[Any]:
    try:
        return list(backend.to_apply(migrations))
    except BadMigration as error:
        raise SetupError(f"A migration cannot be read: {error}.") from None


def _run(backend: Any, migration: Any, direction: str) -> None:
    """Apply or roll back one migration, and mark it, in one transaction."""
    try:
        migration.load()
        # `create index concurrently` cannot be in a transaction: then the mark follows, and
        # nothing is tried twice, for what was begun may be half there.
        if migration.use_transactions:
            _patiently(lambda: _step(backend, migration, direction, backend.transaction()))
        else:
            _step(backend, migration, direction, contextlib.nullcontext())
    except psycopg.Error as error:
        raise SetupError(_failure(f"Migration {migration.id}", DONE[direction], error)) from error


def _step(backend: Any, migration: Any, direction: str, together: Any) -> None:
    # yoyo prints what a select in a migration returns; stdout belongs to `--json`.
    with contextlib.redirect_stdout(sys.stderr), together:
        migration.process_steps(backend, direction)
        # The migration's own `set local role` ends here, not at commit.
        backend.execute("reset role")
        if direction == "apply":
            backend.mark_one(migration, log=False)
        else:
            backend.unmark_one(migration, log=False)
        backend.log_migration(migration, direction)
        if direction == "apply":
            backend.connection.execute(
                "update _yoyo_log set comment = %s where migration_id = %s and comment is null",
                [checksum(migration.id), migration.id],
            )


def _refresh(backend: Any, files: list[Any]) -> None:
    """Run every ``post-apply`` file again, all in one transaction, as one message each."""
    name = "post-apply"

    def run() -> None:
        nonlocal name
        with backend.transaction():
            backend.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_S}s'")
            for file in files:
                name = file.id
                backend.connection.execute(Path(file.path).read_text("utf-8"))
                backend.execute("reset role")

    try:
        _patiently(run)
    except psycopg.Error as error:
        raise SetupError(_failure(name, DONE["apply"], error)) from error


def _patiently(work: Callable[[], None]) -> None:
    """Do something whole, again if it had to give way to others' locks."""
    for tried_count in itertools.count(1):
        try:
            return work()
        except GAVE_WAY:
            if tried_count == TRY_COUNT_MAX:
                raise
            time.sleep(TRY_PAUSE_S)
    return None


def _hand_over(backend: Any) -> None:
    """Give yoyo's tables to the schema's owner; the application and backups read them."""
    mine = backend.connection.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace"
        " and relname = any (%s) and relowner <> 'sofinance_owner'::regrole",
        [list(BOOKKEEPING)],
    ).fetchall()
    if mine:
        with backend.transaction():
            for (table,) in mine:
                backend.execute(f"alter table {table} owner to sofinance_owner")
            backend.execute("grant select on _yoyo_migration to sofinance_app")
    unread = backend.connection.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace"
        " and relname = any (%s) and not has_table_privilege('sofinance_backup', oid, 'select')",
        [list(BOOKKEEPING)],
    ).fetchall()
    if unread:
        with backend.transaction():
            for (table,) in unread:
                backend.execute(f"grant select on {table} to sofinance_backup")


@contextlib.contextmanager
def _backend(owner_url: str) -> Iterator[Any]:
    """Yield yoyo's backend on one connection that has the tables it keeps its books in."""
    with _connected(owner_url):  # says what is wrong with the URL, the server or the version
        backend = PostgresqlPsycopgBackend(
            parse_uri(owner_url.replace("postgresql:", "postgresql+psycopg:", 1)),
            default_migration_table,
        )
    with backend:
        yield backend


@contextlib.contextmanager
def _alone(backend: Any) -> Iterator[None]:
    """Hold the lock that lets one process migrate at a time.

    Polled, not waited for: a statement that waits holds a snapshot, and the other's
    `create index concurrently` would wait for that snapshot in turn.
    """
    until = time.monotonic() + LOCK_WAIT_S
    while not backend.execute(f"select pg_try_advisory_lock({LOCK_KEY})").fetchone()[0]:
        if time.monotonic() > until:
            raise SetupError(f"Another process has been migrating for {LOCK_WAIT_S} s; try later.")
        time.sleep(LOCK_POLL_S)
    try:
        if "yoyo_lock" not in backend.list_tables():
            # Its own method would swallow a refusal.
            backend.execute(backend.format_sql(backend.create_lock_table_sql))
        backend.break_lock()  # of a yoyo that was killed: who holds the lock above is alone
        backend.ensure_internal_schema_updated()
    except psycopg.Error as error:
        raise SetupError(
            _failure("The tables that migrations are noted in", "made", error)
        ) from error
    yield  # the lock ends with the connection


@contextlib.contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection to a server that is new enough, or say why there is none."""
    try:
        conn = psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
    except psycopg.Error as error:
        why = str(error).strip().splitlines()[-1].rstrip(".")
        raise SetupError(f"The database does not answer: {why}.") from None
    with conn:
        version = conn.info.server_version // 10_000
        if version < VERSION_MIN:
            raise SetupError(f"This is PostgreSQL {version}; {VERSION_MIN} or newer is needed.")
        yield conn


def _failure(what: str, done: str, error: psycopg.Error) -> str:
    why = (error.diag.message_primary or str(error)).strip().rstrip(".")
    where = f" [{error.diag.context.splitlines()[0]}]" if error.diag.context else ""
    hint = (
        " Use the URL of a superuser, or of the role that owns the schema."
        if isinstance(error, psycopg.errors.InsufficientPrivilege)
        else ""
    )
    return f"{what} could not be {done}: {why}{where} (SQLSTATE {error.sqlstate}).{hint}"
