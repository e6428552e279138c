"""Back to a point in time: a copy of the server's files, and the log of all that was written since.

PostgreSQL hands each segment of its write-ahead log to an archive_command (wal.py), and keeps it
until that has brought it to its place. A base backup and the segments since are replayed up to any
moment after it, in a data directory of the kind that `sofinance dev --data` serves.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
import time
import zlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from sofinance import __version__
from sofinance.backups import programs, sealed, store, wal
from sofinance.backups.places import read_chunks
from sofinance.backups.take import connected
from sofinance.infra import embedded
from sofinance.infra.command import SetupError
from sofinance.infra.times import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sofinance.backups.places import Place
    from sofinance.backups.take import Keys

BASES = "base"
BASE = re.compile(r"base_(?P<stamp>\d{8}T\d{6}Z)\.tar\.gz(?:\.enc)?")
# A segment that is older than every base backup is of no use; clocks may differ a little.
MARGIN = timedelta(hours=1)
RECOVERY_TIMEOUT_S = 3_600
FIRST_SEGMENT = re.compile(rb"START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)")
# The first file of an archive is backup_label, of some hundred bytes.
LABEL_WITHIN_BYTES = 16_384
NOT_REACHED = "recovery ended before configured recovery target was reached"  # PostgreSQL's words
REPLAY = "# To replay it; goes when that is done.\n"
ONLY_HERE = "local all all trust\n"
WITH_PASSWORDS = """\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


def take_base(
    url: str, place: Place, *, keys: Keys, pg_bin: str, told: Callable[[str], None]
) -> store.Backup:
    """Copy the server's files while it runs; the role needs REPLICATION."""
    began, key = time.monotonic(), keys.current
    with connected(url) as conn:
        may = _row(conn, "select rolsuper or rolreplication, rolname from pg_roles"
                         " where rolname = current_user")  # fmt: skip
        if not may[0]:
            raise SetupError(
                f"The role {may[1]} may not copy the server's files: as a superuser, `alter role "
                f"{may[1]} replication`."
            )
        modes = _row(conn, "select current_setting('archive_mode'), current_database()")
        if modes[0] == "off":
            raise SetupError(
                "The server archives nothing: set archive_mode = on and archive_command = "
                "'scripts/archive_wal.sh %p %f DIR' (docs/backup.md)."
            )
        major = conn.info.server_version // 10_000
        version = conn.info.parameter_status("server_version")
    chosen, taken_at = programs.fitting(major, pg_bin), datetime.now(UTC)
    at = place / BASES
    name = f"base_{taken_at:{store.STAMP}}.tar.gz{'.enc' if key else ''}"
    command = [
        chosen["pg_basebackup"], "--pgdata=-", "--format=tar", "--wal-method=fetch", "--gzip",
        "--checkpoint=fast", "--no-password",
    ]  # fmt: skip
    digest, size, label = hashlib.sha256(), 0, _Label()
    told("copying the server's files")
    env = programs.environment(url)
    with at.writing(name) as file, programs.running("pg_basebackup", command, env) as process:
        chunks = label.seen(read_chunks(process.stdout))
        for chunk in sealed.seal(chunks, key) if key else chunks:
            digest.update(chunk)
            size += file.write(chunk)
    manifest = {
        "release": __version__, "taken_at": iso(taken_at), "finished_at": iso(datetime.now(UTC)),
        "server_version": version, "server_major": major, "database": modes[1],
        "is_encrypted": key is not None, "bytes": size, "migrations": [], "contents": {},
        "first_segment": label.first_segment,
        "seconds": round(time.monotonic() - began, 3),
    }  # fmt: skip
    backup = store.finish(at, name, digest.hexdigest(), manifest, key)
    told("reading it back")
    read_base(backup, keys)
    return backup


def base_names(place: Place) -> list[str]:
    """Return the names of the base backups, finished or not."""
    return [e.name for e in (place / BASES).entries() if BASE.fullmatch(e.name)]


def bases(place: Place) -> list[store.Backup]:
    """Return the finished base backups, the oldest first."""
    return store.listing(place / BASES, form=BASE)


def read_base(backup: store.Backup, keys: Keys) -> None:
    """Read a base backup to its end: checksums, decryption, archive; raises BackupError."""
    backup.check()
    stream = _Stream(backup.chunks(keys.all))
    try:
        with tarfile.open(fileobj=io.BufferedReader(stream), mode="r|gz") as tar:
            names = {member.name for member in tar}
    except (tarfile.TarError, EOFError, OSError) as error:
        raise store.BackupError(f"{backup.name} is no archive: {error}.") from None
    if not {"backup_label", "PG_VERSION", "backup_manifest"} <= names:
        raise store.BackupError(f"{backup.name} is no copy of a server's files.")


def prune(place: Place, segments: Place, keeping: store.Keeping, *, now: datetime) -> list[str]:
    """Remove base backups that are too old, but the newest, and the log that none of them needs.

    A segment goes when it is of before the first one that any base backup needs, and was archived
    before that began: so neither a wrong clock nor another server's log takes one away.
    """
    all_, gone = bases(place), []
    kept_names = {*keeping.kept(all_, now=now), *(backup.name for backup in all_[-1:])}
    for backup in all_:
        if backup.name not in kept_names:
            store.remove(backup.place, backup.name)
            gone.append(backup.name)
    kept = [backup for backup in all_ if backup.name in kept_names]
    if kept:
        before = kept[0].taken_at - MARGIN
        needed = [backup.manifest.get("first_segment") or "" for backup in kept]
        first = min(name[wal.TIMELINE_DIGITS :] for name in needed)
        for segment in wal.kept(segments):
            is_of_before = "" < segment.position < first or not first
            if segment.position and is_of_before and segment.archived_at < before:
                segments.remove(segment.name)
                gone.append(segment.name)
    (place / BASES).clear(now=now)
    segments.clear(now=now)
    return gone


def base_for(place: Place, at: datetime | None) -> store.Backup:
    """Return the latest base backup that was finished by a moment."""
    found = [
        backup for backup in bases(place)
        if at is None or datetime.fromisoformat(backup.manifest["finished_at"]) <= at
    ]  # fmt: skip
    if not found:
        when = f" from before {iso(at)}" if at else ""
        raise SetupError(f"There is no base backup{when} in {(place / BASES).location()}.")
    return found[-1]


class _Label:
    """Reads in passing where in the log a base backup begins."""

    def __init__(self) -> None:
        self._inflating, self._read = zlib.decompressobj(wal.GZIP), b""

    def seen(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks of a compressed archive as they are."""
        for chunk in chunks:
            if len(self._read) < LABEL_WITHIN_BYTES:
                self._read += self._inflating.decompress(chunk, LABEL_WITHIN_BYTES)
            yield chunk

    @property
    def first_segment(self) -> str | None:
        """The segment that it begins in."""
        found = FIRST_SEGMENT.search(self._read)
        return found[1].decode() if found else None


class Recovery(embedded.Server):
    """A server whose data directory is made from a base backup and the log since."""

    def __init__(
        self, data: Path, base: store.Backup, segments: Place, keys: Keys, at: datetime | None,
        pg_bin: str = "",
    ) -> None:  # fmt: skip
        """Take an empty directory and the moment to go back to; None: all that there is."""
        if data.exists() and any(data.iterdir()):
            raise SetupError(f"{data} is not empty, and nothing was done.")
        base.check()
        self._chosen = programs.fitting(base.manifest["server_major"], pg_bin)
        super().__init__(data, programs=self._chosen.folder)
        if not self._has_socket():
            raise SetupError(f"{data} is too long a name for PostgreSQL's socket.")
        self.start_timeout_s = RECOVERY_TIMEOUT_S
        self._base, self._segments, self._keys, self._at = base, segments, keys, at
        self._replayed_to: datetime | None = None

    @property
    def database(self) -> str:
        """The database that the base backup was asked for with."""
        return str(self._base.manifest["database"])

    def replayed_to(self) -> str:
        """Return when the last transaction committed that was replayed."""
        return iso(self._replayed_to) if self._replayed_to else "the base backup itself"

    def start(self) -> None:
        """Replay; SetupError where the log ends before the moment."""
        try:
            super().start()
        except SetupError as error:
            if self._at is None or NOT_REACHED not in error.message:
                raise
            raise SetupError(
                f"The log that is archived ends before {iso(self._at)}: name an earlier moment, or "
                f"`latest`. {self.data} is of no use and can be removed."
            ) from None

    def _initialise(self) -> None:
        """Unpack the base backup instead of making an empty cluster."""
        partial = self.data / "pgdata-partial"
        partial.mkdir(0o700)
        stream = _Stream(self._base.chunks(self._keys.all))
        with tarfile.open(fileobj=io.BufferedReader(stream), mode="r|gz") as tar:
            # The first Pythons 3.11 have no filters, and ignore this.
            tar.extraction_filter = getattr(tarfile, "tar_filter", None)
            tar.extractall(partial)  # noqa: S202 - filtered; and its checksum was compared
        command = [self._chosen["pg_verifybackup"], "--no-parse-wal", "--quiet", str(partial)]
        with programs.running("pg_verifybackup", command, programs.environment("")):
            pass
        label = (partial / "backup_label").read_bytes()
        first = FIRST_SEGMENT.search(label)
        if first is None:
            raise store.BackupError(f"{self._base.name} has no start in its log.")
        self._lay_out(partial, first[1].decode())
        if self.account.run_as():
            for path in (partial, *partial.rglob("*")):
                os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)
        partial.rename(self.pgdata)

    def _lay_out(self, pgdata: Path, first: str) -> None:
        """Write the log, and how to replay it."""
        log = pgdata / "replayed"
        log.mkdir(0o700)
        for segment in wal.kept(self._segments):
            if not segment.position or segment.position >= first[wal.TIMELINE_DIGITS :]:
                wal.fetch(self._segments, segment.segment, log / segment.segment, self._keys)
        target = (
            f"recovery_target_time = '{self._at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00'\n"
            if self._at
            else ""
        )
        hba = str(self.pgdata / "pg_hba.conf").replace("'", "''")
        with (pgdata / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write(
                "\n# Restored by SOFinance: its log is not that of the server it was.\n"
                f"archive_mode = off\nssl = off\nhba_file = '{hba}'\n"
                f"{REPLAY}restore_command = 'cp replayed/%f %p'\nhot_standby = off\n{target}"
                "recovery_target_action = 'promote'\n"
            )
        (pgdata / "pg_hba.conf").write_text(ONLY_HERE, "utf-8")
        (pgdata / "recovery.signal").touch()

    def _ensure_database(self) -> None:
        """Give the superuser and the roles passwords of this directory; then ask for them."""
        with psycopg.connect(
            host=str(self.pgdata), port=self.port, user=embedded.SUPERUSER, dbname=self.database,
            autocommit=True,
        ) as conn:  # fmt: skip
            # Asked before anything is written here.
            self._replayed_to = _row(conn, "select pg_last_xact_replay_timestamp()")[0]
            there = conn.execute("select rolname from pg_roles").fetchall()
            for role in {embedded.SUPERUSER, *embedded.ROLES} & {name for (name,) in there}:
                password = sql.Literal(self.secrets[role])
                conn.execute(
                    sql.SQL("alter role {} login password {}").format(
                        sql.Identifier(role), password
                    )
                )
            # Done with: the next start recovers nothing and archives nothing.
            (self.pgdata / "pg_hba.conf").write_text(WITH_PASSWORDS, "utf-8")
            conf = self.pgdata / "postgresql.conf"
            conf.write_text(conf.read_text("utf-8").partition(REPLAY)[0], "utf-8")
            conn.execute("select pg_reload_conf()")
        shutil.rmtree(self.pgdata / "replayed")


class _Stream(io.RawIOBase):
    """Chunks as a file that is read from its beginning to its end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._held = chunk
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count


def _row(conn: psycopg.Connection[Any], query: str) -> Any:
    return conn.execute(query.encode()).fetchone()
