"""A backup in a place: a dump, its manifest and the checksum of both, each whole or not there.

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
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sofinance.backups import sealed
from sofinance.backups.places import Folder, MissingError, Place, read_chunks
from sofinance.infra.command import EXIT_FAILED, EXIT_USAGE, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FORMAT = 1
NAME = re.compile(r"pg_(?P<database>.+)_(?P<stamp>\d{8}T\d{6}Z)\.dump(?:\.enc)?")
STAMP = "%Y%m%dT%H%M%SZ"
DAYS_OF_WEEK = 7


class BackupError(SetupError):
    """A backup that is not what it must be: nothing is restored from it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=EXIT_FAILED)


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished backup: where it is, and what its manifest says."""

    place: Place
    name: str
    manifest: dict[str, Any]

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return self.place.location(self.name)

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
            with _told(self.name):
                text = b"".join(sealed.unseal(stream, keys))
            found = json.loads(text)
            if found["dump_sha256"] != self.manifest["sha256"]:
                raise BackupError(f"{self.name}: the manifest is another backup's.")
        figures: dict[str, Any] = found
        return figures

    def chunks(self, keys: Sequence[bytes]) -> Iterator[bytes]:
        """Yield the dump, decrypted."""
        with self.place.reading(self.name) as file, _told(self.name):
            if self.is_sealed:
                yield from sealed.unseal(file, keys)
            else:
                yield from read_chunks(file)

    def check(self) -> None:
        """Compare dump and manifest with their checksums; raises BackupError."""
        sums = _sums(self.place, self.name)
        for name, expected in sums.items():
            try:
                digest = self.place.sha256(name)
            except MissingError as error:
                raise BackupError(error.message) from None
            if digest != expected:
                raise BackupError(
                    f"{name} is damaged: its SHA-256 is not the one in {sum_name(self.name)}."
                )
        if self.name not in sums:
            raise BackupError(f"{sum_name(self.name)} does not speak of {self.name}.")


def open_backup(place: Place, name: str) -> Backup:
    """Return a backup, its checksums compared; raises BackupError."""
    if not place.has(name):
        raise MissingError(place.location(name))
    backup = load(place, name)
    backup.check()
    return backup


def find(place: Place, word: str, database: str = "") -> tuple[Place, str]:
    """Return the file that a person means by ``latest``, a name, a stamp or a path."""
    if word == "latest":
        all_ = listing(place, database)
        if not all_:
            raise SetupError(
                f"There is no finished backup in {place.location()}.", exit_code=EXIT_USAGE
            )
        return place, all_[-1].name
    if Path(word).exists():
        path = Path(word).absolute()
        return Folder(path.parent), path.name
    minute = re.fullmatch(r"backup-(\d{8})-(\d{4})", word)
    named = [
        backup.name for backup in listing(place, database)
        if word in {backup.name, backup.location, backup.name.partition(".")[0]}
        or backup.name.partition(".")[0].endswith(f"_{word}")
        or (minute and f"_{minute[1]}T{minute[2]}" in backup.name)
    ]  # fmt: skip
    if len(named) != 1:
        what = "There is no" if not named else "There is more than one"
        raise SetupError(f"{what} backup {word} in {place.location()}.", exit_code=EXIT_USAGE)
    return place, named[0]


def listing(place: Place, database: str = "", form: re.Pattern[str] = NAME) -> list[Backup]:
    """Return the finished backups of a place, the oldest first."""
    names = {entry.name for entry in place.entries()}
    found = []
    for name in names:
        named = form.fullmatch(name)
        if (
            named
            and database in {"", named.groupdict().get("database")}
            and sum_name(name) in names
        ):
            with contextlib.suppress(BackupError):  # `verify` tells; here it would hide the others
                found.append(load(place, name))
    return sorted(found, key=lambda backup: (backup.taken_at, backup.name))


def unfinished(place: Place) -> list[str]:
    """Return dumps without checksum or with a manifest that cannot be read."""
    good = {backup.name for backup in listing(place)}
    dumps = {entry.name for entry in place.entries() if NAME.fullmatch(entry.name)}
    return sorted(dumps - good)


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long backups are kept: all for so many days, and the last of each week for longer."""

    days: int
    weeks: int = 0

    def kept(self, backups: Sequence[Backup], *, now: datetime) -> set[str]:
        """Return the names of those that stay; the backups are the oldest first."""
        week_of = {backup.name: backup.taken_at.isocalendar()[:2] for backup in backups}
        last_of_week = {week_of[backup.name]: backup.name for backup in backups}
        within_days = timedelta(days=self.days)
        within_weeks = timedelta(days=DAYS_OF_WEEK * self.weeks)
        return {
            backup.name for backup in backups
            if now - backup.taken_at <= within_days
            or (now - backup.taken_at <= within_weeks
                and last_of_week[week_of[backup.name]] == backup.name)
        }  # fmt: skip


def prune(place: Place, database: str, keeping: Keeping, *, now: datetime) -> list[str]:
    """Remove backups of a database that are too old; return the names of those that went.

    The newest whose checksum holds stays, however old it is.
    """
    backups = listing(place, database)
    kept, gone = keeping.kept(backups, now=now), []
    if any(backup.name not in kept for backup in backups):
        newest = next((backup for backup in reversed(backups) if _is_whole(backup)), None)
        for backup in backups:
            if newest is not None and backup.name not in {*kept, newest.name}:
                remove(place, backup.name)
                gone.append(backup.name)
    place.clear(now=now)
    return gone


def remove(place: Place, name: str) -> None:
    """Remove a backup; the checksum first: what a crash leaves is unfinished, and not damaged."""
    for each in (sum_name(name), manifest_name(name), name + ".files", name):
        place.remove(each)


def new_name(place: Place, database: str, taken_at: datetime, *, is_sealed: bool) -> str:
    """Return what a new backup is called; raises SetupError when there is one."""
    word = re.sub(r"[^A-Za-z0-9_.-]", "-", database)
    name = f"pg_{word}_{taken_at:{STAMP}}.dump{'.enc' if is_sealed else ''}"
    if place.has(name):
        raise SetupError(f"{name} is there already; try again in a second.")
    return name


def sum_name(name: str) -> str:
    """Return what a dump's checksums are called."""
    return name + ".sha256"


def manifest_name(name: str) -> str:
    """Return what a dump's manifest is called."""
    return name + ".json"


def finish(
    place: Place,
    name: str,
    dump_sha256: str,
    manifest: dict[str, Any],
    key: bytes | None,
    *,
    beside: Mapping[str, str] | None = None,
) -> Backup:
    """Write manifest and checksums of a dump that is written; it counts from now on.

    ``beside`` are the checksums of what else is there, by name.
    """
    manifest = {"format": FORMAT, **manifest, "sha256": dump_sha256}
    if key is not None:
        text = json.dumps({**manifest["contents"], "dump_sha256": dump_sha256}).encode()
        encrypted = b"".join(sealed.seal([text], key))
        manifest["contents"] = base64.b64encode(encrypted).decode()
    document = (json.dumps(manifest, indent=2) + "\n").encode()
    place.write(manifest_name(name), document)
    sums = {name: dump_sha256, manifest_name(name): hashlib.sha256(document).hexdigest()}
    sums |= beside or {}
    place.write(
        sum_name(name), "".join(f"{digest}  {each}\n" for each, digest in sums.items()).encode()
    )
    return Backup(place, name, manifest)


def load(place: Place, name: str) -> Backup:
    """Return a backup, by its manifest alone; raises BackupError."""
    try:
        manifest = json.loads(place.read(manifest_name(name)))
        if manifest["format"] > FORMAT:
            raise BackupError(f"{name} was made by a newer release than this one.")
        backup = Backup(place, name, manifest)
        _ = backup.taken_at, backup.is_sealed, manifest["sha256"], manifest["migrations"]
    except MissingError:
        raise BackupError(f"{manifest_name(name)} is missing.") from None
    except (ValueError, KeyError, TypeError):
        raise BackupError(f"{manifest_name(name)} is damaged.") from None
    return backup


def _sums(place: Place, name: str) -> dict[str, str]:
    """Return the checksums by the files that they are of."""
    try:
        lines = place.read(sum_name(name)).decode().splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        return {each.strip().lstrip("*"): digest for digest, each in pairs}
    except (MissingError, ValueError):
        raise BackupError(f"{name} has no {sum_name(name)} that can be read.") from None


def _is_whole(backup: Backup) -> bool:
    with contextlib.suppress(BackupError):
        backup.check()
        return True
    return False


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except sealed.SealedError as error:
        raise BackupError(f"{name} cannot be decrypted: {error}.") from None
