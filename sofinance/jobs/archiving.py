"""Old months of the audit log, moved into the store of files: written, read back, then removed.

An archive is the rows of a month as lines of JSON, gzipped; a busy month has several. The object
is written first, under a tombstone that has it removed if nothing comes of it. Only when what was
read back has the same digest is the archive's row written, and that row, in the same transaction,
takes the log's rows away, if they still are the same (audit_archive_matches).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import uuid
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sofinance import queries as q
from sofinance.infra.db import Mode
from sofinance.infra.storage import ObjectMissingError, StorageError, open_storage
from sofinance.jobs import JobFailedError
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sofinance.infra.db import Database
    from sofinance.infra.storage import Storage

# Rows of an archive: some megabytes, which are held in memory.
PART_ROW_COUNT = 5_000
# Of an organisation in one run: the others have their turn, too.
PART_COUNT_MAX = 200
# How long an object may wait for its row; the janitor removes it then.
UPLOAD_S = 3_600
CONTENT_TYPE = "application/gzip"


class ArchiveError(Exception):
    """The store does not have what an archive says; its text says what is different."""


async def archive_everywhere(database: Database) -> str:
    """Archive what is old in every organisation; nothing unless RETENTION_AUDIT_DAYS says when."""
    keep_days = database.settings.retention_audit_days
    if not keep_days:
        return "RETENTION_AUDIT_DAYS is 0: the audit log stays as it is"
    made = rows = 0
    async with contextlib.aclosing(open_storage(database.settings)) as storage:
        try:
            for org_id in await whose(database):
                for _ in range(PART_COUNT_MAX):
                    gone = await archive_part(database, storage, org_id, keep_days)
                    if not gone:
                        break
                    made, rows = made + 1, rows + gone
        except (StorageError, ArchiveError) as error:
            told = f"made {made} archives of {rows} rows"
            raise JobFailedError(f"{told}; then the store failed: {error}") from None
    return f"made {made} archives of {rows} rows"


async def archive_part(
    database: Database, storage: Storage, org_id: int, keep_days: int, now: datetime | None = None
) -> int:
    """Archive the oldest rows of an organisation that are old enough; returns how many."""
    async with database.tenant(org_id, mode=Mode.READ) as conn:
        part = await q.audit.find_archivable(
            conn, org_id=org_id, keep_days=keep_days, now=now or datetime.now(UTC),
            limit=PART_ROW_COUNT,
        )  # fmt: skip
        if part is None:
            return 0
        span = {name: part[name] for name in ("month", "first_id", "last_id")}
        rows = await q.audit.list_lines(conn, org_id=org_id, limit=PART_ROW_COUNT, **span)
    lines = "".join(f"{row.line}\n" for row in rows).encode()
    # Without the time in it, the same lines make the same object.
    content = gzip.compress(lines, mtime=0)
    says = {
        **span,
        "row_count": len(rows),
        "lines_sha256": hashlib.sha256(lines).digest(),
        "object_key": f"org/{org_id}/audit/{uuid.uuid4().hex}",
        "size_bytes": len(content),
        "object_sha256": hashlib.sha256(content).digest(),
    }
    async with database.tenant(org_id) as conn:
        await q.attachments.begin_upload(
            conn, org_id=org_id, object_key=says["object_key"], keep_s=UPLOAD_S
        )
    await storage.put(says["object_key"], _once(content), content_type=CONTENT_TYPE)
    await read_back(storage, says)
    async with database.tenant(org_id) as conn:
        await q.audit.archive_rows(conn, org_id=org_id, **says)
    return len(rows)


async def read_back(storage: Storage, says: Any) -> bytes:
    """Return the lines of an archive from the store; raises ArchiveError if they are not those."""
    try:
        async with contextlib.aclosing(await storage.read(says["object_key"])) as reading:
            content = b"".join([chunk async for chunk in reading])
    except ObjectMissingError:
        raise ArchiveError(f"{says['object_key']} is missing") from None
    if hashlib.sha256(content).digest() != says["object_sha256"]:
        raise ArchiveError(f"{says['object_key']} was changed: its SHA-256 is another one")
    try:
        lines = gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        raise ArchiveError(f"{says['object_key']} does not decompress") from None
    if (hashlib.sha256(lines).digest(), lines.count(b"\n")) != (
        says["lines_sha256"],
        says["row_count"],
    ):
        raise ArchiveError(f"{says['object_key']} has other lines than its archive")
    return lines


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
