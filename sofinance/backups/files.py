"""The files of the store in a backup: which there were, and a copy of each, made once.

An object of the store never changes, so a copy that is there is good for every later backup. The
inventory, ``<dump>.files``, is of the dump's own snapshot: a line per object with its size and its
SHA-256. Copies are in ``files``, encrypted like dumps; their names tell the key that they need, so
that a new key makes new copies. They go when no inventory names them any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from sofinance.backups import sealed, store
from sofinance.backups.places import ThereError
from sofinance.infra.secretbox import key_id
from sofinance.infra.storage import ObjectMissingError, Storage, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
    from datetime import datetime

    from sofinance.backups.places import Place
    from sofinance.backups.take import Keys

FOLDER = "files"
ENDING = ".files"
OBJECTS = """
select object_key, size_bytes, encode(sha256, 'hex') from attachment order by org_id, id"""
IS_THERE = "select exists (select from attachment where object_key = %s)"
ARCHIVES = """
select object_key, size_bytes, encode(object_sha256, 'hex') from audit_archive
order by org_id, archive_no"""
AUDIT = "/audit/"
# A copy that no inventory names may be that of a backup which is being taken.
YOUNG = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Object:
    """A file of the store, as its row says."""

    key: str
    size_bytes: int
    sha256: str

    def copy_name(self, key: bytes | None) -> str:
        """Return what its copy is called."""
        name = self.key.replace("/", ".")
        return name if key is None else f"{name}.{key_id(key).hex()}.enc"


def objects_of(conn: psycopg.Connection[Any]) -> list[Object]:
    """Return the objects of the snapshot that is open; none before there were any."""
    objects = []
    for table, rows in (("attachment", OBJECTS), ("audit_archive", ARCHIVES)):
        found = conn.execute("select to_regclass(%s) is not null", [f"public.{table}"]).fetchone()
        if found and found[0]:
            objects += [Object(*row) for row in conn.execute(rows).fetchall()]
    return objects


def copy(
    objects: Sequence[Object], storage: Storage, place: Place, keys: Keys, url: str,
    told: Callable[[str], None],
) -> list[str]:  # fmt: skip
    """Copy what is not there yet; return what the store has lost, or has otherwise than its row.

    One whose row went meanwhile may be gone, with good reason. What is lost fails no backup: the
    books are worth more, and it stays in the inventory, so that a drill finds it missing.
    """
    at = place / FOLDER
    there = {entry.name for entry in at.entries()}
    missing = [each for each in objects if each.copy_name(keys.current) not in there]

    async def copy_all() -> list[str]:
        lost = []
        for number, each in enumerate(missing, start=1):
            told(f"copying files: {number} of {len(missing)}")
            try:
                content = await _content(storage, each)
            except (ObjectMissingError, store.BackupError):
                if _is_there(url, each):
                    lost.append(each.key)
                continue
            _write(at, each, content, keys.current)
        await storage.aclose()
        return lost

    lost: list[str] = _run(copy_all()) if missing else []
    return lost


def write_inventory(
    place: Place, name: str, objects: Iterable[Object], key: bytes | None
) -> dict[str, str]:
    """Write the inventory of a dump; return its SHA-256 by its name."""
    lines = "".join(f"{json.dumps([o.key, o.size_bytes, o.sha256])}\n" for o in objects)
    chunks = [gzip.compress(lines.encode(), mtime=0)]
    data = b"".join(sealed.seal(chunks, key) if key else chunks)
    place.write(name + ENDING, data)
    return {name + ENDING: hashlib.sha256(data).hexdigest()}


def inventory(backup: store.Backup, keys: Keys) -> list[Object]:
    """Return what files a backup has; raises BackupError when that cannot be read."""
    if not backup.manifest.get("files"):
        return []
    name = backup.name + ENDING
    try:
        with backup.place.reading(name) as file:
            chunks = sealed.unseal(file, keys.all) if backup.is_sealed else iter([file.read()])
            text = gzip.decompress(b"".join(chunks))
        return [Object(*json.loads(line)) for line in text.splitlines()]
    except (sealed.SealedError, gzip.BadGzipFile, EOFError, ValueError) as error:
        raise store.BackupError(f"{name} cannot be read: {error}.") from None


def bring_back(backup: store.Backup, storage: Storage, keys: Keys) -> dict[str, int]:
    """Put each file into a store that lacks it, its checksum compared; return how many, by what."""
    objects = inventory(backup, keys)

    async def put_all() -> dict[str, int]:
        counts = {"restored": 0, "there": 0}
        for each in objects:
            if await _has(storage, each):
                counts["there"] += 1
                continue
            content = copied(backup.place, each, keys)
            await storage.put(each.key, _once(content))
            counts["restored"] += 1
        await storage.aclose()
        return counts

    counts: dict[str, int] = _run(put_all())
    return counts


def copied(place: Place, wanted: Object, keys: Keys) -> bytes:
    """Return a file from its copy; raises BackupError unless it is what it was."""
    at = place / FOLDER
    names = [wanted.copy_name(key) for key in (*keys.all, None)]
    name = next((name for name in names if at.has(name)), None)
    if name is None:
        raise store.BackupError(f"There is no copy of {wanted.key} that our keys open.")
    try:
        with at.reading(name) as file:
            chunks = sealed.unseal(file, keys.all) if name.endswith(".enc") else iter([file.read()])
            content = b"".join(chunks)
    except sealed.SealedError as error:
        raise store.BackupError(f"{name} cannot be decrypted: {error}.") from None
    if hashlib.sha256(content).hexdigest() != wanted.sha256:
        raise store.BackupError(f"{name} is damaged: its SHA-256 is not the one of its row.")
    return content


def prune(place: Place, keys: Keys, *, now: datetime) -> int:
    """Remove copies that no backup names; none when any inventory cannot be read."""
    named: set[str] = set()
    try:
        for backup in store.listing(place):
            for each in inventory(backup, keys):
                named |= {each.copy_name(key) for key in (*keys.all, None)}
    except store.BackupError:
        # Of another key, or damaged, which `sofinance backup verify` tells: all copies stay.
        return 0
    gone = 0
    for entry in (place / FOLDER).entries():
        if entry.name not in named and now - entry.changed_at > YOUNG:
            (place / FOLDER).remove(entry.name)
            gone += 1
    return gone


def _write(at: Place, each: Object, content: bytes, key: bytes | None) -> None:
    """Write a copy and read it back."""
    data = b"".join(sealed.seal([content], key)) if key else content
    name = each.copy_name(key)
    with contextlib.suppress(ThereError):  # another backup was faster, with the same content
        at.write(name, data)
        if at.sha256(name) != hashlib.sha256(data).hexdigest():
            at.remove(name)
            raise store.BackupError(f"{at.location(name)} is not what was written.")


async def _content(storage: Storage, each: Object) -> bytes:
    """Return an object's content; uploads are small, so it is held."""
    reading = await storage.read(each.key)
    try:
        content = b"".join([chunk async for chunk in reading])
    except StorageError as error:
        raise store.BackupError(f"The store does not give {each.key}: {error}") from None
    finally:
        await reading.aclose()
    if hashlib.sha256(content).hexdigest() != each.sha256:
        raise store.BackupError(f"{each.key} is damaged in the store: its SHA-256 has changed.")
    return content


async def _has(storage: Storage, each: Object) -> bool:
    try:
        reading = await storage.read(each.key)
    except ObjectMissingError:
        return False
    await reading.aclose()
    return reading.size_bytes == each.size_bytes


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _is_there(url: str, each: Object) -> bool:
    with psycopg.connect(url, autocommit=True) as conn:
        found = conn.execute(IS_THERE, [each.key]).fetchone()
    # An archive of the audit log stays for good: one that is missing was lost.
    return AUDIT in each.key or bool(found and found[0])


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it in a loop of its own, whoever calls."""
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(asyncio.run, work).result()
        except StorageError as error:
            raise store.BackupError(f"The store of files is of no use: {error}") from None
