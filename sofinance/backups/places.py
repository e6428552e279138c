"""Where backups are: a directory, or a bucket of S3; files that are whole or not there.

A place is a flat set of names; ``place / "wal"`` is another one below it. What is written is there
under its name when all of it is on disk, or in the bucket, and never replaces what is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Protocol

from sofinance.infra.command import EXIT_USAGE, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

READ_BYTES = 1 << 20
PARTIAL = ".partial"
# What a killed backup left is taken away when nobody can be writing it any more.
PARTIAL_AGE_MAX = timedelta(days=2)


class PlaceError(SetupError):
    """The place does not do what it is asked for; it may, when it is asked again."""


class MissingError(PlaceError):
    """There is nothing of this name."""

    def __init__(self, location: str) -> None:
        super().__init__(f"There is no {location}.", exit_code=EXIT_USAGE)


class ThereError(PlaceError):
    """There is something of this name already, and it is not replaced."""

    def __init__(self, location: str) -> None:
        super().__init__(f"{location} is there already, and was not replaced.")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a place."""

    name: str
    bytes: int
    changed_at: datetime


class Writer(Protocol):
    """What a file is written with."""

    def write(self, data: bytes, /) -> int:
        """Write all of the bytes."""


class Place(ABC):
    """Files by name."""

    @abstractmethod
    def __truediv__(self, name: str) -> Place:
        """Return a place below this one."""

    @abstractmethod
    def location(self, name: str = "") -> str:
        """Return where a file is, or the place itself, for people; no secret is in it."""

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Return what is there, by name; nothing when the place was never written to."""

    @abstractmethod
    def reading(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file; raises MissingError, and PlaceError also while it is read."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[Writer]:
        """Yield what a new file is written with; it is there when the block has ended well.

        Raises ThereError when there is one.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; good if there is none."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Say whether there is a file of this name."""

    @abstractmethod
    def clear(self, *, now: datetime) -> None:
        """Take away what broken-off writing left long ago."""

    def read(self, name: str) -> bytes:
        """Return a small file; raises MissingError."""
        with self.reading(name) as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a small file; raises ThereError."""
        with self.writing(name) as file:
            file.write(data)

    def sha256(self, name: str) -> str:
        """Read a file to its end; return its SHA-256 in hex."""
        digest = hashlib.sha256()
        with self.reading(name) as file:
            for chunk in read_chunks(file):
                digest.update(chunk)
        return digest.hexdigest()


class Folder(Place):
    """A directory that only its owner may read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path / name)

    def location(self, name: str = "") -> str:
        """Return the path."""
        return str(self.path / name)

    def entries(self) -> list[Entry]:
        """Return the files of the directory, without those that are being written."""
        found = []
        with self._told():
            if not self.path.is_dir():
                return []
            for path in self.path.iterdir():
                if not path.name.startswith(".") and path.is_file():
                    stat = path.stat()
                    changed_at = datetime.fromtimestamp(stat.st_mtime, UTC)
                    found.append(Entry(path.name, stat.st_size, changed_at))
        return sorted(found, key=lambda entry: entry.name)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file."""
        try:
            file = (self.path / name).open("rb")
        except FileNotFoundError:
            raise MissingError(self.location(name)) from None
        except OSError as error:
            raise PlaceError(f"Cannot read {self.path / name}: {error.strerror}.") from None
        with file:
            yield file

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Writer]:
        """Write under another name, bring it to disk, then give it its name."""
        path = self.path / name
        partial = path.with_name(f".{name}{PARTIAL}")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            self._rename(partial, path)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise PlaceError(f"Cannot write {path}: {error.strerror}.") from None
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _rename(self, partial: Path, path: Path) -> None:
        if path.exists():
            raise ThereError(str(path))
        partial.rename(path)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._told():
            (self.path / name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Say whether the file is there."""
        return (self.path / name).is_file()

    def clear(self, *, now: datetime) -> None:
        """Remove partial files that nobody has written to for days."""
        with self._told():
            for path in self.path.glob(f".*{PARTIAL}"):
                changed_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                if now - changed_at > PARTIAL_AGE_MAX:
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PlaceError(f"Cannot use {self.path} for backups: {error.strerror}.") from None


def read_chunks(file: IO[bytes] | None) -> Iterator[bytes]:
    """Yield what a file or a program's output has, in bounded pieces."""
    while file and (chunk := file.read(READ_BYTES)):
        yield chunk
