"""`sofinance balances`: the daily snapshots that reports start from, and proof that they are right.

A balance is its snapshots plus the lines since. Rolling up moves the border between the two; it
never changes a figure, and `check` compares every snapshot with the journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.command import (
    EXIT_FAILED,
    EXIT_GOOD,
    database_options,
)
from sofinance.infra.db import Database, Mode
from sofinance.jobs import balances
from sofinance.tools.orgs import all_organisations, connected, org_option

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "balances",
        help="roll up, rebuild or check the snapshots of balances",
        description="roll-up: add the entries since the last time to the daily snapshots, while "
        "postings go on. rebuild: make the snapshots again from the journal. check: compare them "
        "with the journal; exit 1 if they differ.",
    )
    parser.add_argument("action", choices=("roll-up", "rebuild", "check"))
    database_options(parser)
    org_option(parser, "all of them")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Do it for one organisation or for all; a difference makes it fail."""
    action = {"roll-up": roll_up, "rebuild": rebuild, "check": check}[args.action]
    async with connected(args) as database:
        good = [
            await action(database, org_id) for org_id in await all_organisations(database, args.org)
        ]
    return EXIT_GOOD if all(good) else EXIT_FAILED


async def roll_up(database: Database, org_id: int) -> bool:
    """Add what was posted since the last time to the snapshots."""
    print(f"organisation {org_id}: rolled up to entry {await balances.roll_up(database, org_id)}")
    return True


async def rebuild(database: Database, org_id: int) -> bool:
    """Throw the snapshots away and make them again from the journal."""
    await balances.mark(database, org_id)
    async with database.tenant(org_id) as conn:
        reached = await q.journal.rebuild_balances(conn)
    print(f"organisation {org_id}: rebuilt up to entry {reached}")
    return True


async def check(database: Database, org_id: int) -> bool:
    """Compare every snapshot with the lines it stands for; print what differs."""
    async with database.tenant(org_id, mode=Mode.REPORT) as conn:
        differences = await q.journal.list_snapshot_differences(conn, org_id=org_id)
    for each in differences:
        print(
            f"organisation {org_id}: account {each.account_id} on {each.posted_on}: "
            f"snapshot {each.snapshot}, journal {each.journal}"
        )
    if not differences:
        print(f"organisation {org_id}: the snapshots equal the journal")
    return not differences
