"""Take a backup: pg_dump of one snapshot, and the figures of the very same one."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import psycopg

from sofinance import __version__
from sofinance.backups import files, programs, store
from sofinance.backups.contents import begin_snapshot, contents, migrations
from sofinance.backups.places import PlaceError, read_chunks
from sofinance.backups.sealed import seal
from sofinance.infra.command import EXIT_USAGE, SetupError
from sofinance.infra.times import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sofinance.backups.places import Place, Writer
    from sofinance.backups.store import Backup
    from sofinance.infra.storage import Storage

CONNECT_TIMEOUT_S = 10
# Whoever holds a table so long changes its form: better no backup now than a queue behind it.
LOCK_WAIT_MS = 60_000
TOLD_EVERY_S = 1.0
LIST_ENTRY_TABLE = " TABLE DATA "


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of backups: the first encrypts, all decrypt; none: backups are not encrypted."""

    all: Sequence[bytes] = ()

    @property
    def current(self) -> bytes | None:
        """The key that encrypts."""
        return self.all[0] if self.all else None


def take(
    url: str,
    place: Place,
    *,
    keys: Keys,
    pg_bin: str = "",
    storage: Storage | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Backup:
    """Dump the database of a URL into a place; the backup has been read back.

    The files of a store are copied, too; without one they are listed only.
    """
    began = time.monotonic()
    with connected(url) as conn:
        _check_role(conn)
        server_major = conn.info.server_version // 10_000
        chosen = programs.fitting(server_major, pg_bin)
        begin_snapshot(conn)
        # What was committed when the transaction began is in it.
        snapshot, database, taken_at = _row(
            conn, "select pg_export_snapshot(), current_database(), now()"
        )
        taken_at = taken_at.astimezone(UTC)
        applied = _migrations(conn)
        name = store.new_name(place, database, taken_at, is_sealed=keys.current is not None)
        try:
            digest, size = _dump(url, snapshot, place.writing(name), chosen, keys, told)
            manifest = {
                "release": __version__,
                "database": database,
                "taken_at": iso(taken_at),
                "server_version": conn.info.parameter_status("server_version"),
                "server_major": server_major,
                "programs_major": chosen.major,
                "migrations": applied,
                "is_encrypted": keys.current is not None,
                "bytes": size,
                "contents": contents(conn, told),
            }
            manifest["rows"] = sum(each["rows"] for each in manifest["contents"]["tables"].values())
            objects = files.objects_of(conn)
            conn.execute("commit")  # nobody's old rows wait for the copies
            manifest["files"] = len(objects)
            manifest["files_are_copied"] = storage is not None
            manifest["files_lost"] = (
                [] if storage is None else files.copy(objects, storage, place, keys, url, told)
            )
            beside = files.write_inventory(place, name, objects, keys.current)
            manifest["seconds"] = round(time.monotonic() - began, 3)
            backup = store.finish(place, name, digest, manifest, keys.current, beside=beside)
            told("reading it back")
            read_back(backup, keys, chosen)
        except BaseException:
            # Without all of its three files it is no backup, and must not look like one.
            with contextlib.suppress(PlaceError):
                store.remove(place, name)
            raise
    return backup


def read_back(backup: Backup, keys: Keys, chosen: programs.Programs) -> str:
    """Read a backup to its end and return its table of contents; raises BackupError.

    Checksums, decryption, the list of what pg_dump wrote, and that no table is missing.
    """
    backup.check()
    try:
        listed = table_of_contents(backup, keys, chosen)
    except store.BackupError:
        raise
    except SetupError as error:
        raise store.BackupError(f"{backup.name} is no dump: {error.message}") from None
    figures = backup.contents(keys.all)
    dumped = sum(LIST_ENTRY_TABLE in line for line in listed.splitlines())
    if dumped != len(figures["tables"]):
        raise store.BackupError(
            f"{backup.name} has {dumped} tables, and ought to have {len(figures['tables'])}."
        )
    return listed


def table_of_contents(backup: Backup, keys: Keys, chosen: programs.Programs) -> str:
    """Return what `pg_restore --list` says of the whole dump."""
    command = [chosen["pg_restore"], "--list"]
    with tempfile.TemporaryFile() as listed:
        with programs.running(
            "pg_restore --list", command, programs.environment(""),
            stdin=programs.PIPE, stdout=listed,
        ) as process:  # fmt: skip
            feed(process, backup.chunks(keys.all))
        listed.seek(0)
        return listed.read().decode(errors="replace")


def feed(process: Any, chunks: Iterator[bytes]) -> None:
    """Write all chunks to a program; one that has read enough does not end the reading."""
    open_ = True
    for chunk in chunks:
        if open_:
            try:
                process.stdin.write(chunk)
            except BrokenPipeError:
                open_ = False


def _dump(
    url: str,
    snapshot: str,
    writing: AbstractContextManager[Writer],
    chosen: programs.Programs,
    keys: Keys,
    told: Callable[[str], None],
) -> tuple[str, int]:
    """Write the dump; return its SHA-256 and its bytes."""
    command = [
        chosen["pg_dump"], "--format=custom", "--no-password", f"--snapshot={snapshot}",
        f"--lock-wait-timeout={LOCK_WAIT_MS}",
    ]  # fmt: skip
    digest, size, told_at = hashlib.sha256(), 0, time.monotonic()
    with (
        writing as file,
        programs.running("pg_dump", command, programs.environment(url)) as process,
    ):
        chunks = read_chunks(process.stdout)
        for chunk in seal(chunks, keys.current) if keys.current else chunks:
            digest.update(chunk)
            size += file.write(chunk)
            if time.monotonic() - told_at > TOLD_EVERY_S:
                told_at = time.monotonic()
                told(f"dumping: {size / 1e6:,.1f} MB")
    return digest.hexdigest(), size


def _check_role(conn: psycopg.Connection[Any]) -> None:
    """Refuse a role from which row security would hide rows: its backup would lack them."""
    may = _row(
        conn,
        "select rolsuper or rolbypassrls, rolname from pg_roles where rolname = current_user",
    )
    if not may[0]:
        raise SetupError(
            f"The role {may[1]} does not see every organisation's rows; BACKUP_URL names "
            "sofinance_backup.",
            exit_code=EXIT_USAGE,
        )


def _migrations(conn: psycopg.Connection[Any]) -> list[str]:
    try:
        return migrations(conn)
    except psycopg.errors.UndefinedTable:
        raise SetupError("This database was not made by `sofinance migrate`.") from None
    except psycopg.errors.InsufficientPrivilege:
        raise SetupError(
            "The role may not read which migrations are applied: run `sofinance migrate` of this "
            "release first."
        ) from None


@contextlib.contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection in autocommit."""
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as conn:
        yield conn


def _row(conn: psycopg.Connection[Any], query: str) -> Any:
    return conn.execute(query.encode()).fetchone()
