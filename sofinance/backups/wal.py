"""PostgreSQL's log in a place: each segment once, compressed, encrypted like dumps, read back.

`sofinance backup archive-wal` and `restore-wal` are PostgreSQL's archive_command and
restore_command; what scripts/archive_wal.sh keeps, compressed and as it is, is read as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sofinance.backups import sealed, store
from sofinance.backups.places import MissingError, PlaceError, ThereError, read_chunks
from sofinance.infra.command import EXIT_FAILED, EXIT_USAGE, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from sofinance.backups.places import Place
    from sofinance.backups.take import Keys

# 24 hexadecimal digits, a timeline's history, or the note of where a base backup began.
SEGMENT = re.compile(r"[0-9A-F]{24}(?:\.[0-9A-F]{8}\.backup|\.partial)?|[0-9A-F]{8}\.history")
KEPT = re.compile(rf"(?P<segment>{SEGMENT.pattern})(?P<form>|\.gz|\.gz\.enc)")
TIMELINE_DIGITS = 8
# The fast one: a segment that was cut short by archive_timeout is mostly zeros.
COMPRESSION = 1
GZIP = 16 + zlib.MAX_WBITS
# What restore_command ends with when it is not known whether there is such a segment: past 125
# PostgreSQL gives up, where a 1 would tell it that the log is at its end.
EXIT_UNKNOWN = 200


@dataclass(frozen=True, slots=True)
class Kept:
    """A segment that is kept."""

    segment: str
    name: str
    archived_at: datetime

    @property
    def position(self) -> str:
        """Where in the log it is, whatever its timeline; a history is of no position."""
        return "" if self.segment.endswith(".history") else self.segment[TIMELINE_DIGITS:]


def archive(place: Place, path: Path, keys: Keys) -> str:
    """Keep a segment, and return where; the same again is good, another one is refused.

    Answers when it is there and was read back, so that PostgreSQL may let go of it.
    """
    if not SEGMENT.fullmatch(path.name):
        raise SetupError(f"{path.name} is no segment of PostgreSQL's log.", exit_code=EXIT_USAGE)
    ours = _sha256(_read(path))
    found = _find(place, path.name)
    if found is None:
        found = path.name + (".gz.enc" if keys.current else ".gz")
        chunks: Iterable[bytes] = _compressed(_read(path))
        if keys.current:
            chunks = sealed.seal(chunks, keys.current)
        # Somebody else may have kept it a moment ago: what is there is compared below.
        with contextlib.suppress(ThereError), place.writing(found) as file:
            for chunk in chunks:
                file.write(chunk)
    if _sha256(reading(place, found, keys.all)) != ours:
        raise SetupError(
            f"{place.location(found)} is there already, and is another one.", exit_code=EXIT_FAILED
        )
    return place.location(found)


def fetch(place: Place, segment: str, path: Path, keys: Keys) -> None:
    """Bring a segment back, whole or not at all; MissingError when it was never kept."""
    found = _find(place, segment)
    if found is None:
        raise MissingError(place.location(segment))
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            for chunk in reading(place, found, keys.all):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        raise PlaceError(f"Cannot write {path}: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)


def kept(place: Place) -> list[Kept]:
    """Return all segments of a place."""
    found = ((KEPT.fullmatch(entry.name), entry) for entry in place.entries())
    return [Kept(named["segment"], e.name, e.changed_at) for named, e in found if named]


def reading(place: Place, name: str, keys: Sequence[bytes]) -> Iterator[bytes]:
    """Yield a segment as PostgreSQL wrote it; raises BackupError when it is damaged."""
    with place.reading(name) as file:
        if not name.endswith((".gz", ".enc")):
            yield from read_chunks(file)
            return
        stored = sealed.unseal(file, keys) if name.endswith(".enc") else read_chunks(file)
        inflating = zlib.decompressobj(GZIP)
        try:
            for chunk in stored:
                yield inflating.decompress(chunk)
        except (zlib.error, sealed.SealedError) as error:
            raise store.BackupError(f"{name} cannot be read: {error}.") from None
        if not inflating.eof:
            raise store.BackupError(f"{name} is damaged: its end is missing.")


def _find(place: Place, segment: str) -> str | None:
    """Return the name that a segment is kept under, in whichever form."""
    return next((n for form in (".gz.enc", ".gz", "") if place.has(n := segment + form)), None)


def _compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    deflating = zlib.compressobj(COMPRESSION, wbits=GZIP)
    for chunk in chunks:
        yield deflating.compress(chunk)
    yield deflating.flush()


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from read_chunks(file)
    except OSError as error:
        raise SetupError(f"Cannot read {path}: {error.strerror}.") from None


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
