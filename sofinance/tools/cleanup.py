"""`sofinance cleanup`: forget what has expired, now; a worker does it every hour."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from sofinance.infra.command import EXIT_GOOD, database_options
from sofinance.jobs.forgetting import forget_expired
from sofinance.tools.orgs import connected

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "cleanup",
        help="forget idempotency keys and sessions that have expired",
        description="Forget idempotency keys past their hours and sessions that were over a month "
        "ago, some at a time, beside the service. A worker does it every hour.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    database_options(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Forget, and tell how much."""
    shows = sys.stderr.isatty() and not args.json
    total = 0

    def tell(org_id: int, count: int) -> None:
        nonlocal total
        total += count
        if shows:
            line = f"organisation {org_id}: {total:,} rows so far"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    async with connected(args) as database:
        gone = await forget_expired(database, tell)
    if shows:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(gone))
    else:
        for name, count in gone.items():
            print(f"{name.replace('_', ' '):<16}  {count:>10,} forgotten")
    return EXIT_GOOD
