"""Back to a point in time: a copy of the server's files, and the log of all that was written since.

PostgreSQL hands each segment of its write-ahead log to scripts/archive_wal.sh, and keeps it until
that has brought it to disk. A base backup and the segments since are replayed up to any moment
after it, in a data directory of the kind that `sofinance dev --data` serves.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from sofinance import __version__
from sofinance.backups import programs, sealed, store
from sofinance.backups.take import connected
from sofinance.infra import embedded
from sofinance.infra.command import SetupError
from sofinance.infra.times import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sofinance.backups.take import Keys

BASES = "base"
BASE = re.compile(r"base_(?P<stamp>\d{8}T\d{6}Z)\.tar\.gz(?:\.enc)?")
# 24 hexadecimal digits, a timeline's history, or the note of where a base backup began.
SEGMENT = re.compile(r"[0-9A-F]{24}(\.[0-9A-F]{8}\.backup|\.partial)?|[0-9A-F]{8}\.history")
TIMELINE_DIGITS = 8
# A segment that is older than every base backup is of no use; clocks may differ a little.
MARGIN = timedelta(hours=1)
RECOVERY_TIMEOUT_S = 3_600
REPLAY = "# To replay it; goes when that is done.\n"
ONLY_HERE = "local all all trust\n"
WITH_PASSWORDS = """\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


def take_base(
    url: str, folder: Path, *, keys: Keys, pg_bin: str, told: Callable[[str], None]
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
    ending = ".enc" if key else ""
    path = _made(folder / BASES) / f"base_{taken_at:{store.STAMP}}.tar.gz{ending}"
    command = [
        chosen["pg_basebackup"], "--pgdata=-", "--format=tar", "--wal-method=fetch", "--gzip",
        "--checkpoint=fast", "--no-password",
    ]  # fmt: skip
    digest, size = hashlib.sha256(), 0
    told("copying the server's files")
    env = programs.environment(url)
    with store.written(path) as file, programs.running("pg_basebackup", command, env) as process:
        chunks = store.read_chunks(process.stdout)
        for chunk in sealed.seal(chunks, key) if key else chunks:
            digest.update(chunk)
            size += file.write(chunk)
    manifest = {
        "release": __version__, "taken_at": iso(taken_at), "finished_at": iso(datetime.now(UTC)),
        "server_version": version, "server_major": major, "database": modes[1],
        "is_encrypted": key is not None, "bytes": size, "migrations": [], "contents": {},
        "seconds": round(time.monotonic() - began, 3),
    }  # fmt: skip
    return store.finish(path, digest.hexdigest(), manifest, key)


def base_paths(folder: Path) -> list[Path]:
    """Return the files of the base backups, finished or not."""
    there = (folder / BASES).glob("base_*") if (folder / BASES).is_dir() else ()
    return sorted(path for path in there if BASE.fullmatch(path.name))


def bases(folder: Path) -> list[store.Backup]:
    """Return the finished base backups, the oldest first."""
    paths = [path for path in base_paths(folder) if store.sum_path(path).exists()]
    return sorted(map(store.load, paths), key=lambda backup: backup.taken_at)


def read_base(backup: store.Backup, keys: Keys) -> None:
    """Read a base backup to its end: checksums, decryption, archive; raises BackupError."""
    backup.check()
    stream = _Stream(backup.chunks(keys.all))
    try:
        with tarfile.open(fileobj=io.BufferedReader(stream), mode="r|gz") as tar:
            names = {member.name for member in tar}
    except (tarfile.TarError, EOFError, OSError) as error:
        raise store.BackupError(f"{backup.path.name} is no archive: {error}.") from None
    if not {"backup_label", "PG_VERSION", "backup_manifest"} <= names:
        raise store.BackupError(f"{backup.path.name} is no copy of a server's files.")


def prune(folder: Path, segments: Path, keep_days: int, *, now: datetime) -> list[str]:
    """Remove base backups that are too old, but the newest, and the log from before the oldest."""
    all_, gone = bases(folder), []
    for backup in all_[:-1]:
        if now - backup.taken_at > timedelta(days=keep_days):
            store.remove(backup)
            gone.append(backup.path.name)
    kept = bases(folder)
    if kept and segments.is_dir():
        oldest_s = (kept[0].taken_at - MARGIN).timestamp()
        for path in segments.iterdir():
            is_segment = SEGMENT.fullmatch(path.name) and not path.name.endswith(".history")
            if is_segment and path.stat().st_mtime < oldest_s:
                path.unlink()
                gone.append(path.name)
    return gone


def base_for(folder: Path, at: datetime | None) -> store.Backup:
    """Return the latest base backup that was finished by a moment."""
    found = [
        backup for backup in bases(folder)
        if at is None or datetime.fromisoformat(backup.manifest["finished_at"]) <= at
    ]  # fmt: skip
    if not found:
        when = f" from before {iso(at)}" if at else ""
        raise SetupError(f"There is no base backup{when} in {folder / BASES}.")
    return found[-1]


class Recovery(embedded.Server):
    """A server whose data directory is made from a base backup and the log since."""

    def __init__(
        self, data: Path, base: store.Backup, segments: Path, keys: Keys, at: datetime | None,
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
        label = (partial / "backup_label").read_text("utf-8")
        first = re.search(r"START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)", label)
        if first is None:
            raise store.BackupError(f"{self._base.path.name} has no start in its log.")
        self._lay_out(partial, first[1])
        if self.account.run_as():
            for path in (partial, *partial.rglob("*")):
                os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)
        partial.rename(self.pgdata)

    def _lay_out(self, pgdata: Path, first: str) -> None:
        """Write the log, and how to replay it."""
        log = pgdata / "replayed"
        log.mkdir(0o700)
        for path in self._segments.glob("*"):
            is_later = path.name[TIMELINE_DIGITS:] >= first[TIMELINE_DIGITS:]
            if SEGMENT.fullmatch(path.name) and (is_later or path.name.endswith(".history")):
                shutil.copyfile(path, log / path.name)
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


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"Cannot use {folder} for backups: {error.strerror}.") from None
    return folder


def _row(conn: psycopg.Connection[Any], query: str) -> Any:
    return conn.execute(query.encode()).fetchone()
