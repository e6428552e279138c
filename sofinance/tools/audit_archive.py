"""`sofinance audit-archive`: list what of the audit log is archived, read it back, prove it."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import orjson

from sofinance import queries as q
from sofinance.infra.command import (
    EXIT_CANNOT_RUN,
    EXIT_FAILED,
    EXIT_GOOD,
    EXIT_USAGE,
    SetupError,
    database_options,
)
from sofinance.infra.db import Mode
from sofinance.infra.storage import StorageError, open_storage
from sofinance.infra.times import iso
from sofinance.jobs.archiving import ArchiveError, read_back
from sofinance.tools.orgs import all_organisations, connected, org_option
from sofinance.tools.tables import tell

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from sofinance.infra.db import Database
    from sofinance.infra.storage import Storage

BATCH = 500
COLUMNS = ("organisation", "archive", "month", "first_id", "last_id", "rows", "bytes", "archived")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "audit-archive",
        help="list, read and verify what of the audit log is archived",
        description="list: every archive. show: the rows of one as lines of JSON, compared with "
        "its digests first. verify: read every archive from the store and compare it; exit 1 if "
        "one is missing or was changed. `sofinance verify` proves that none was left out.",
    )
    parser.add_argument("action", choices=("list", "show", "verify"))
    parser.add_argument("archive", nargs="?", type=int, help="for show: its number, with --org")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    org_option(parser, "all of them")
    database_options(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """List, show or verify."""
    if (args.action == "show") != (args.archive is not None):
        raise SetupError("Give a number to show, and to nothing else.", exit_code=EXIT_USAGE)
    if args.action == "show" and args.org is None:
        raise SetupError("Say whose archive to show: --org.", exit_code=EXIT_USAGE)
    async with (
        connected(args) as database,
        contextlib.aclosing(open_storage(database.settings)) as storage,
    ):
        org_ids = await all_organisations(database, args.org)
        try:
            if args.action == "show":
                return await show(database, storage, args.org, args.archive)
            if args.action == "verify":
                return await verify(args, database, storage, org_ids)
        except StorageError as error:
            raise SetupError(f"The file store fails: {error}.", exit_code=EXIT_CANNOT_RUN) from None
        rows = [line(org_id, one) async for org_id, one in archives(database, org_ids)]
    tell(args, rows, COLUMNS)
    return EXIT_GOOD


async def show(database: Database, storage: Storage, org_id: int, archive_no: int) -> int:
    """Print the lines of an archive."""
    async with database.tenant(org_id, mode=Mode.READ) as conn:
        found = await q.audit.list_archives(conn, org_id=org_id, after_no=archive_no - 1, limit=1)
    if not found or found[0].archive_no != archive_no:
        raise SetupError(
            f"Organisation {org_id} has no archive {archive_no}.", exit_code=EXIT_USAGE
        )
    try:
        lines = await read_back(storage, found[0])
    except ArchiveError as error:
        raise SetupError(f"{error}.", exit_code=EXIT_FAILED) from None
    sys.stdout.write(lines.decode())
    return EXIT_GOOD


async def verify(
    args: argparse.Namespace, database: Database, storage: Storage, org_ids: list[int]
) -> int:
    """Read every archive, and tell which are not what they were."""
    checked = rows = 0
    broken = []
    async for org_id, one in archives(database, org_ids):
        checked, rows = checked + 1, rows + one.row_count
        try:
            await read_back(storage, one)
        except ArchiveError as error:
            broken.append(
                {"organisation": org_id, "archive": one.archive_no, "problem": str(error)}
            )
    if args.json:
        told = {"ok": not broken, "archives": checked, "rows": rows, "broken": broken}
        print(orjson.dumps(told).decode())
    else:
        for each in broken:
            print(f"✗ organisation {each['organisation']}, archive {each['archive']}: "
                  f"{each['problem']}")  # fmt: skip
        print(f"{checked} archives of {rows} rows: {len(broken) or 'none'} broken")
    return EXIT_FAILED if broken else EXIT_GOOD


async def archives(database: Database, org_ids: list[int]) -> AsyncIterator[tuple[int, Any]]:
    """Yield every archive of these organisations, with the organisation's number."""
    for org_id in org_ids:
        after_no, count = 0, BATCH
        while count == BATCH:
            async with database.tenant(org_id, mode=Mode.READ) as conn:
                found = await q.audit.list_archives(
                    conn, org_id=org_id, after_no=after_no, limit=BATCH
                )
            for one in found:
                yield org_id, one
                after_no = one.archive_no
            count = len(found)


def line(org_id: int, one: Any) -> dict[str, Any]:
    """Return what is told of an archive."""
    return {
        "organisation": org_id,
        "archive": one.archive_no,
        "month": one.month.isoformat()[:7],
        "first_id": one.first_id,
        "last_id": one.last_id,
        "rows": one.row_count,
        "bytes": one.size_bytes,
        "archived": iso(one.archived_at),
        "object": one.object_key,
        "sha256": one.object_sha256.hex(),
    }
