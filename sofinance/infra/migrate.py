"""Apply the migrations: one at a time, each together with its mark, or not at all.

yoyo reads the files, orders them and keeps the books of what was applied; three things it does
otherwise are done here. Its mark is a transaction of its own, so a crash between the two would
leave a migration applied and unmarked: here both commit together. Its lock is a row, which a
killed process leaves behind: here it is an advisory lock, which dies with its session. And it
passes over a migration that it cannot read: here that is an error.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri
from yoyo.exceptions import BadMigration, MigrationConflict
from yoyo.migrations import default_migration_table

from sofinance.infra.command import SetupError
from sofinance.infra.sql import SQL_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator

MIGRATIONS = SQL_DIR / "migrations"
VERSION_MIN = 15
LOCK_KEY = 5_067_214_903_817_155  # any number, the same for all who migrate
LOCK_WAIT_S = 120
LOCK_POLL_S = 0.1
LOCK_TIMEOUT_S = 4  # how long a posting may be made to wait for a function that is replaced
CONNECT_TIMEOUT_S = 10
# yoyo logs every statement; the commands tell which migrations were applied.
logging.getLogger("yoyo").setLevel(logging.WARNING)
DONE = {"apply": "applied", "rollback": "rolled back"}
BOOKKEEPING = ("_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock")


@dataclass(frozen=True, slots=True)
class Status:
    """What a database has and lacks, by migration id, in order."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    unknown: tuple[str, ...]  # applied by a newer release than this one


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
    """Compare the migrations of this release with those of the database; changes nothing."""
    ours = known()
    with _connected(owner_url) as conn:
        there = conn.execute("select to_regclass('_yoyo_migration')").fetchone()
        rows = (
            conn.execute("select migration_id from _yoyo_migration order by applied_at_utc, 1")
            if there and there[0] is not None
            else ()
        )
        applied = tuple(row[0] for row in rows)
    return Status(
        applied,
        tuple(i for i in ours if i not in applied),
        tuple(i for i in applied if i not in ours),
    )


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
        # yoyo prints what a select in a migration returns; stdout belongs to `--json`.
        with contextlib.redirect_stdout(sys.stderr):
            migration.load()
            # `create index concurrently` cannot be in a transaction: then the mark follows.
            together = (
                backend.transaction() if migration.use_transactions else contextlib.nullcontext()
            )
            with together:
                migration.process_steps(backend, direction)
                # The migration's own `set local role` ends here, not at commit.
                backend.execute("reset role")
                if direction == "apply":
                    backend.mark_one(migration, log=False)
                else:
                    backend.unmark_one(migration, log=False)
                backend.log_migration(migration, direction)
    except psycopg.Error as error:
        raise SetupError(_failure(f"Migration {migration.id}", DONE[direction], error)) from error


def _refresh(backend: Any, files: list[Any]) -> None:
    """Run every ``post-apply`` file again, all in one transaction, as one message each."""
    name = "post-apply"
    try:
        with backend.transaction():
            backend.execute(f"set local lock_timeout = '{LOCK_TIMEOUT_S}s'")
            for file in files:
                name = file.id
                backend.connection.execute(Path(file.path).read_text("utf-8"))
                backend.execute("reset role")
    except psycopg.Error as error:
        raise SetupError(_failure(name, DONE["apply"], error)) from error


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
