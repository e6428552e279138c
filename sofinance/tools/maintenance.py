"""`sofinance maintenance`: vacuum tables and rebuild bloated indexes now, or only tell of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sofinance.infra.command import EXIT_FAILED, EXIT_GOOD, database_options, settings_from, whole
from sofinance.jobs.maintaining import bloat, maintain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

MINUTES, MINUTES_MAX = 60, 24 * 60
MIB = 1 << 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "maintenance",
        help="vacuum tables and rebuild bloated indexes, beside the service",
        description="VACUUM and ANALYZE every table and REINDEX CONCURRENTLY every bloated index "
        "of OWNER_URL's database, for so many minutes at most; exit with 1 when that was too "
        "short. A worker with OWNER_URL does it on the first Sunday of the month, 02:00 to 03:00 "
        "UTC.",
    )
    parser.add_argument("--report", action="store_true", help="only tell of dead rows and bloat")
    parser.add_argument(
        "--minutes", type=whole(1, MINUTES_MAX), default=MINUTES, help="how long at most (60)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    database_options(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Maintain, or tell what there would be to do."""
    settings = settings_from(args, "owner_url")
    if args.report:
        tables, indexes = await bloat(settings.owner_url)
        tell(tables, indexes, as_json=args.json)
        return EXIT_GOOD
    now = datetime.now(UTC)
    report = await maintain(
        settings.owner_url, since=now, ends_at=now + timedelta(minutes=args.minutes)
    )
    if args.json:
        print(json.dumps({
            "vacuumed": report.vacuumed, "rebuilt": report.rebuilt, "skipped": report.skipped,
            "is_complete": report.is_complete,
        }))  # fmt: skip
    else:
        print(str(report))
    return EXIT_GOOD if report.is_complete else EXIT_FAILED


def tell(tables: Sequence[Any], indexes: Sequence[Any], *, as_json: bool) -> None:
    """Print the largest tables with dead rows, and the bloated indexes."""
    with_dead = sorted(
        (table for table in tables if table.dead_count), key=lambda table: -table.dead_count
    )
    if as_json:
        print(json.dumps({
            "tables": [
                {"name": t.name, "dead_count": t.dead_count, "live_count": t.live_count,
                 "size_bytes": t.size_bytes} for t in with_dead
            ],
            "indexes": [
                {"name": i.name, "size_bytes": i.size_bytes, "needed_bytes": i.needed_bytes}
                for i in indexes
            ],
        }))  # fmt: skip
        return
    for table in with_dead:
        print(f"{table.name:<32} {table.dead_count:>12,} dead of {table.live_count:>12,}")
    for index in indexes:
        size, needed = index.size_bytes / MIB, index.needed_bytes / MIB
        print(f"{index.name:<32} {size:>9,.1f} MiB, needs {needed:,.1f}")
    if not with_dead and not indexes:
        print("nothing to do")
