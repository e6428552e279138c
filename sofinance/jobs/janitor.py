"""Removing from the store what has no row: files that were deleted, uploads that came to nothing.

The store is asked while no transaction is open. A tombstone is claimed first, so that no other
worker asks at the same time, and so that no row can be made of what is about to be removed.
"""

from __future__ import annotations

import contextlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.storage import LIST_COUNT_MAX, StorageError, open_storage
from sofinance.jobs import JobFailedError
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from sofinance.infra.db import Database
    from sofinance.infra.storage import Storage

BATCH = 50
# Between two attempts of five.
PAUSE_S = 30
# Batches of one organisation in one run: the others have their turn, too.
BATCH_COUNT_MAX = 20
# What an organisation has in the store, and how many lists of each a search for orphans reads.
KINDS = ("attachments", "audit")
PAGE_COUNT_MAX = 20


async def clean_storage(database: Database) -> str:
    """Remove what is due in every organisation; fails while something is given up."""
    org_ids = await whose(database)
    removed = failed = given_up = 0
    async with contextlib.aclosing(open_storage(database.settings)) as storage:
        # A store that is away uses up no attempts.
        try:
            await storage.probe()
        except StorageError as error:
            raise JobFailedError(f"the file store is away: {error}") from None
        for org_id in org_ids:
            for _ in range(BATCH_COUNT_MAX):
                done, undone = await clean_batch(database, storage, org_id)
                removed, failed = removed + done, failed + undone
                if done + undone < BATCH or undone:
                    break
            async with database.tenant(org_id) as conn:
                given_up += await q.attachments.count_given_up(conn, org_id=org_id)
    told = f"removed {removed} objects, failed to remove {failed}"
    if given_up:
        raise JobFailedError(f"{told}; {given_up} are given up: see docs/attachments.md")
    return told


async def find_orphans(database: Database) -> str:
    """Find objects that no row names, and leave tombstones: the next cleaning removes them.

    Such are left by a database that was restored to an earlier moment. Of each organisation some
    thousand objects are looked at; where there are more, from a random one on, so that in the end
    all had their turn: keys are random, too.
    """
    days = database.settings.retention_orphan_days
    if not days:
        return "RETENTION_ORPHAN_DAYS is 0: every file stays"
    before = datetime.now(UTC) - timedelta(days=days)
    looked_at = buried = 0
    async with contextlib.aclosing(open_storage(database.settings)) as storage:
        try:
            for org_id in await whose(database):
                for kind in KINDS:
                    keys = await list_old(storage, f"org/{org_id}/{kind}/", before)
                    looked_at += len(keys)
                    async with database.tenant(org_id) as conn:
                        buried += await q.attachments.bury_orphans(
                            conn, org_id=org_id, object_keys=keys
                        )
        except StorageError as error:
            raise JobFailedError(f"the file store is away: {error}") from None
    return f"{buried} of {looked_at} objects are nobody's, and go"


async def list_old(storage: Storage, prefix: str, before: datetime) -> list[str]:
    """Return keys of objects that are older, from the first on if one list has them all."""
    found = await storage.list_objects(prefix, limit=LIST_COUNT_MAX)
    if len(found) == LIST_COUNT_MAX:
        start = f"{prefix}{secrets.token_hex(16)}"
        for _ in range(PAGE_COUNT_MAX):
            page = await storage.list_objects(prefix, after=start, limit=LIST_COUNT_MAX)
            found += page
            if len(page) < LIST_COUNT_MAX:
                break
            start = page[-1].key
    return sorted({one.key for one in found if one.changed_at < before})


async def clean_batch(database: Database, storage: Storage, org_id: int) -> tuple[int, int]:
    """Remove some of an organisation's objects; returns how many went and how many did not."""
    async with database.tenant(org_id) as conn:
        due = await q.attachments.claim_tombstones(
            conn, org_id=org_id, limit=BATCH, pause_s=PAUSE_S
        )
    gone: list[int] = []
    failures: dict[int, str] = {}
    for tombstone in due:
        try:
            await storage.delete(tombstone.object_key)
        except (StorageError, ValueError) as error:
            failures[tombstone.id] = str(error)[:200]
        else:
            gone.append(tombstone.id)
    if due:
        async with database.tenant(org_id) as conn:
            await q.attachments.bury(conn, org_id=org_id, ids=gone)
            for id_, why in failures.items():
                await q.attachments.fail_tombstone(conn, org_id=org_id, id=id_, last_error=why)
    return len(gone), len(failures)
