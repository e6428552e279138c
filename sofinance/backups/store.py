"""The directory of backups: a dump, its manifest and the checksum of both, each whole or not there.

``pg_<database>_<UTC stamp>.dump`` (``.dump.enc``: encrypted) is what pg_dump wrote; beside
it ``.json`` says what is in it, and ``.sha256``, which `sha256sum -c` reads, comes last: without it
a backup is not finished.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sofinance.backups import sealed
from sofinance.infra.command import EXIT_FAILED, EXIT_USAGE, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMAT = 1
READ_BYTES = 1 << 20
NAME = re.compile(r"pg_(?P<database>.+)_(?P<stamp>\d{8}T\d{6}Z)\.dump(?:\.enc)?")
STAMP = "%Y%m%dT%H%M%SZ"
PARTIAL = ".partial"
# What a killed backup left is taken away when nobody can be writing it any more.
PARTIAL_AGE_MAX = timedelta(days=2)


class BackupError(SetupError):
    """A backup that is not what it must be: nothing is restored from it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=EXIT_FAILED)


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished backup: its file, and what its manifest says."""

    path: Path
    manifest: dict[str, Any]

    @property
    def taken_at(self) -> datetime:
        """When its state was the database's."""
        return datetime.fromisoformat(self.manifest["taken_at"])

    @property
    def is_sealed(self) -> bool:
        """Whether it is encrypted."""
        return bool(self.manifest["is_encrypted"])

    def contents(self, keys: Sequence[bytes]) -> dict[str, Any]:
        """Return the figures of what is in it; they are encrypted with it."""
        found = self.manifest["contents"]
        if isinstance(found, str):
            stream = io.BytesIO(base64.b64decode(found))
            with _told(self.path):
                text = b"".join(sealed.unseal(stream, keys))
            found = json.loads(text)
            if found["dump_sha256"] != self.manifest["sha256"]:
                raise BackupError(f"{self.path.name}: the manifest is another backup's.")
        figures: dict[str, Any] = found
        return figures

    def chunks(self, keys: Sequence[bytes]) -> Iterator[bytes]:
        """Yield the dump, decrypted."""
        with self.path.open("rb") as file, _told(self.path):
            if self.is_sealed:
                yield from sealed.unseal(file, keys)
            else:
                yield from read_chunks(file)

    def check(self) -> None:
        """Compare dump and manifest with their checksums; raises BackupError."""
        for path, expected in _sums(self.path).items():
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise BackupError(f"{path.name} cannot be read: {error.strerror}.") from None
            if digest != expected:
                raise BackupError(
                    f"{path.name} is damaged: its SHA-256 is not the one in "
                    f"{sum_path(self.path).name}."
                )
        if self.path not in _sums(self.path):
            raise BackupError(f"{sum_path(self.path).name} does not speak of {self.path.name}.")


def open_backup(path: Path) -> Backup:
    """Return the backup of a file, its checksums compared; raises BackupError."""
    if not path.exists():
        raise SetupError(f"There is no {path}.", exit_code=EXIT_USAGE)
    backup = load(path)
    backup.check()
    return backup


def find(folder: Path, word: str, database: str = "") -> Path:
    """Return the file that a person means by ``latest``, a name, a stamp or a path."""
    if word == "latest":
        all_ = listing(folder, database)
        if not all_:
            raise SetupError(f"There is no finished backup in {folder}.", exit_code=EXIT_USAGE)
        return all_[-1].path
    if Path(word).exists():
        return Path(word).absolute()
    minute = re.fullmatch(r"backup-(\d{8})-(\d{4})", word)
    named = [
        backup.path for backup in listing(folder, database)
        if word in {backup.path.name, backup.path.name.partition(".")[0]}
        or backup.path.name.partition(".")[0].endswith(f"_{word}")
        or (minute and f"_{minute[1]}T{minute[2]}" in backup.path.name)
    ]  # fmt: skip
    if len(named) != 1:
        what = "There is no" if not named else "There is more than one"
        raise SetupError(f"{what} backup {word} in {folder}.", exit_code=EXIT_USAGE)
    return named[0]


def listing(folder: Path, database: str = "") -> list[Backup]:
    """Return the finished backups of a directory, the oldest first."""
    found = []
    for path in folder.glob("pg_*.dump*") if folder.is_dir() else ():
        named = NAME.fullmatch(path.name)
        if named and database in {"", named["database"]} and sum_path(path).exists():
            with contextlib.suppress(BackupError):  # `verify` tells; here it would hide the others
                found.append(load(path))
    return sorted(found, key=lambda backup: (backup.taken_at, backup.path.name))


def unfinished(folder: Path) -> list[Path]:
    """Return dumps without checksum or with a manifest that cannot be read."""
    good = {backup.path for backup in listing(folder)}
    dumps = {path for path in folder.glob("pg_*.dump*") if NAME.fullmatch(path.name)}
    return sorted(dumps - good)


def prune(folder: Path, database: str, keep_days: int, *, now: datetime) -> list[str]:
    """Remove backups of a database that are too old; return the names of those that went.

    The newest whose checksum holds stays, however old it is.
    """
    backups = listing(folder, database)
    newest = next((backup for backup in reversed(backups) if _is_whole(backup)), None)
    gone = []
    for backup in backups:
        if backup == newest or newest is None or now - backup.taken_at <= timedelta(days=keep_days):
            continue
        remove(backup)
        gone.append(backup.path.name)
    for path in folder.glob(f".*{PARTIAL}"):
        changed_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        if now - changed_at > PARTIAL_AGE_MAX:
            path.unlink(missing_ok=True)
    return gone


def remove(backup: Backup) -> None:
    """Remove a backup; the checksum first: what a crash leaves is unfinished, and not damaged."""
    for path in (sum_path(backup.path), manifest_path(backup.path), backup.path):
        path.unlink(missing_ok=True)


def new_path(folder: Path, database: str, taken_at: datetime, *, is_sealed: bool) -> Path:
    """Return where a new backup goes; raises SetupError when one is there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"Cannot use {folder} for backups: {error.strerror}.") from None
    word = re.sub(r"[^A-Za-z0-9_.-]", "-", database)
    path = folder / f"pg_{word}_{taken_at:{STAMP}}.dump{'.enc' if is_sealed else ''}"
    if path.exists():
        raise SetupError(f"{path.name} is there already; try again in a second.")
    return path


def sum_path(path: Path) -> Path:
    """Return where a dump's checksums are."""
    return path.with_name(path.name + ".sha256")


def manifest_path(path: Path) -> Path:
    """Return where a dump's manifest is."""
    return path.with_name(path.name + ".json")


@contextlib.contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that only its owner may read, there under its name when it is on disk."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SetupError(f"Cannot write {path}: {error.strerror}.") from None
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def finish(path: Path, dump_sha256: str, manifest: dict[str, Any], key: bytes | None) -> Backup:
    """Write manifest and checksums of a dump that is written; it counts from now on."""
    manifest = {"format": FORMAT, **manifest, "sha256": dump_sha256}
    if key is not None:
        text = json.dumps({**manifest["contents"], "dump_sha256": dump_sha256}).encode()
        encrypted = b"".join(sealed.seal([text], key))
        manifest["contents"] = base64.b64encode(encrypted).decode()
    document = (json.dumps(manifest, indent=2) + "\n").encode()
    with written(manifest_path(path)) as file:
        file.write(document)
    sums = {path.name: dump_sha256, manifest_path(path).name: hashlib.sha256(document).hexdigest()}
    with written(sum_path(path)) as file:
        file.write("".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode())
    return Backup(path, manifest)


def load(path: Path) -> Backup:
    """Return the backup of a file, by its manifest alone; raises BackupError."""
    try:
        manifest = json.loads(manifest_path(path).read_bytes())
        if manifest["format"] > FORMAT:
            raise BackupError(f"{path.name} was made by a newer release than this one.")
        backup = Backup(path, manifest)
        _ = backup.taken_at, backup.is_sealed, manifest["sha256"], manifest["migrations"]
    except OSError as error:
        name = manifest_path(path).name
        raise BackupError(f"{name} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise BackupError(f"{manifest_path(path).name} is damaged.") from None
    return backup


def _sums(path: Path) -> dict[Path, str]:
    """Return the checksums by the files that they are of."""
    try:
        lines = sum_path(path).read_text("utf-8").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        return {path.with_name(name.strip().lstrip("*")): digest for digest, name in pairs}
    except (OSError, ValueError):
        raise BackupError(f"{path.name} has no {sum_path(path).name} that can be read.") from None


def _is_whole(backup: Backup) -> bool:
    with contextlib.suppress(BackupError):
        backup.check()
        return True
    return False


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sealed.SealedError as error:
        raise BackupError(f"{path.name} cannot be decrypted: {error}.") from None


def read_chunks(file: IO[bytes] | None) -> Iterator[bytes]:
    """Yield what a file or a program's output has, in bounded pieces."""
    while file and (chunk := file.read(READ_BYTES)):
        yield chunk
