"""Where files are kept that are no rows: a local directory, or a bucket that speaks S3.

An object is written once under a key that nobody had before, whole or not at all, and is never
changed. Keys look like ``org/7/attachments/4f...``; nothing in them can lead out of the store.
Whoever calls this does so outside of database transactions: it may wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import heapq
import os
import re
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sofinance.config_rules import storage_at_odds
from sofinance.infra.errors import ApiError
from sofinance.infra.settings_reader import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterator

    from sofinance.config import Settings

KEY = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
KEY_LENGTH_MAX = 500
CHUNK_BYTES = 1 << 16
LIST_COUNT_MAX = 1_000
PARTIAL = ".partial"
PROBE_KEY = "probe"


class StorageError(OSError):
    """The store does not answer, or refuses; nothing was written."""


class ObjectMissingError(Exception):
    """There is no object of this key."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was written."""

    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """An object of a list."""

    key: str
    size_bytes: int
    changed_at: datetime


class Reading(ABC):
    """An object that is open for reading: iterate over it, and close it in any case."""

    size_bytes: int

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield its bytes; raises StorageError when they break off."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of it; may be called again."""


class Storage(ABC):
    """A store of objects. Every method raises StorageError when the store is of no use."""

    name: str

    @abstractmethod
    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str = "application/octet-stream",
    ) -> Stored:
        """Write an object from a stream, whole or not at all, holding a few MiB of it at most.

        What the stream raises comes through, and nothing is kept then.
        """

    @abstractmethod
    async def read(self, key: str) -> Reading:
        """Open an object; raises ObjectMissingError."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""

    @abstractmethod
    async def list_objects(
        self, prefix: str = "", *, after: str = "", limit: int = LIST_COUNT_MAX
    ) -> list[Found]:
        """Return objects whose keys begin like this, by key, from behind `after` on."""

    @abstractmethod
    async def probe(self) -> None:
        """Ask for a sign of life."""

    async def aclose(self) -> None:
        """Let go of all connections."""
        return


def checked(key: str) -> str:
    """Return a key; a ValueError says that it is none, or that it would lead somewhere else."""
    parts = key.split("/")
    if len(key) > KEY_LENGTH_MAX or not KEY.fullmatch(key) or any(p in {".", ".."} for p in parts):
        raise ValueError("this is no key of an object")
    return key


def open_storage(settings: Settings) -> Storage:
    """Return the store of the settings; SettingsError when they do not suffice."""
    if problems := [*storage_at_odds(functools.partial(getattr, settings))]:
        raise SettingsError(problems)
    if settings.storage_backend == "local":
        return LocalStorage(Path(settings.storage_dir))
    # Only who keeps files in a bucket has the library for it.
    from sofinance.infra.storage_s3 import S3Storage, target_of  # noqa: PLC0415

    return S3Storage(target_of(settings))


def unavailable(retry_after_s: int = 1) -> ApiError:
    """Say that files cannot be kept or fetched right now; everything else goes on."""
    return ApiError(
        "storage_unavailable",
        "The file store does not answer right now. Nothing was kept; send it again later.",
        status=503,
        headers={"Retry-After": str(retry_after_s)},
    )


# -- a local directory -----------------------------------------------------------------------------


class LocalStorage(Storage):
    """A directory of this machine; several workers may share it, several machines may not."""

    name = "local"

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    async def put(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str = "application/octet-stream",  # noqa: ARG002 - a file has none
    ) -> Stored:
        """Write a file beside its place, to the disk, and move it there."""
        path = self._path(key)
        partial = self._root / PARTIAL / uuid.uuid4().hex
        size_bytes, digest = 0, hashlib.sha256()
        with _told():
            file = await asyncio.to_thread(_create, partial)
        try:
            with file:
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    digest.update(chunk)
                    with _told():
                        await asyncio.to_thread(file.write, chunk)
                with _told():
                    await asyncio.to_thread(_sync, file)
            with _told():
                await asyncio.to_thread(self._place, partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return Stored(size_bytes, digest.digest())

    async def read(self, key: str) -> Reading:
        """Open a file."""
        path = self._path(key)
        with _told():
            try:
                file = await asyncio.to_thread(_open, path)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise ObjectMissingError(key) from None
        return _LocalReading(file)

    async def delete(self, key: str) -> None:
        """Remove a file; empty directories stay, so that no other write loses its own."""
        path = self._path(key)
        with _told():
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def list_objects(
        self, prefix: str = "", *, after: str = "", limit: int = LIST_COUNT_MAX
    ) -> list[Found]:
        """List files, by going through all of the directory: it is for small stores."""
        with _told():
            return await asyncio.to_thread(self._list, prefix, after, limit)

    async def probe(self) -> None:
        """Write and remove an empty file: a directory that can only be read is of no use."""
        path = self._root / PARTIAL / f"{PROBE_KEY}-{uuid.uuid4().hex}"
        with _told():
            await asyncio.to_thread(_try_out, path)

    def _path(self, key: str) -> Path:
        path = self._root / checked(key)
        if key.partition("/")[0] == PARTIAL:
            raise ValueError("this is no key of an object")
        # Whatever links somebody made in there: nothing outside is touched.
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise ValueError("this key leads out of the store")
        return path

    def _place(self, partial: Path, path: Path) -> None:
        _make_private(path.parent)
        partial.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _list(self, prefix: str, after: str, limit: int) -> list[Found]:
        keys = (key for key in self._keys() if key.startswith(prefix) and key > after)
        found = []
        for key in heapq.nsmallest(limit, keys):
            with contextlib.suppress(FileNotFoundError):  # somebody was faster
                stat = (self._root / key).stat()
                changed_at = datetime.fromtimestamp(stat.st_mtime, UTC)
                found.append(Found(key, stat.st_size, changed_at))
        return found

    def _keys(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self._root):
            where = Path(folder)
            if where == self._root and PARTIAL in folders:
                folders.remove(PARTIAL)
            for name in names:
                yield (where / name).relative_to(self._root).as_posix()


class _LocalReading(Reading):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size_bytes = os.fstat(file.fileno()).st_size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told():
            while chunk := await asyncio.to_thread(self._file.read, CHUNK_BYTES):
                yield chunk

    async def aclose(self) -> None:
        self._file.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell of what the file system refuses as of any other store."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(error.errno, f"the directory of files: {error.strerror}") from error


def _make_private(folder: Path) -> None:
    # mkdir(parents=True) would give those above it the rights of anybody's.
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _create(path: Path) -> IO[bytes]:
    _make_private(path.parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _try_out(path: Path) -> None:
    _create(path).close()
    path.unlink()


def _open(path: Path) -> IO[bytes]:
    # Opened without following a link, so that none leads out.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
