"""`sofinance operator-actions`: who changed what for everybody; and who is at work now."""

from __future__ import annotations

import os
import pwd
import socket
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.command import EXIT_GOOD, database_options, whole
from sofinance.tools.orgs import connected
from sofinance.tools.tables import tell

if TYPE_CHECKING:
    import argparse

    from sofinance.infra.sql import Connection

LIMIT_MAX = 1_000
COLUMNS = ("id", "done_at", "who", "action", "subject", "before", "after", "user_id")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "operator-actions",
        help="list who changed what for everybody",
        description="What commands, the API and psql changed for the whole server: jobs that were "
        "paused, resumed or asked to run, flags that were set, killed or retired. The latest "
        "first. What belongs to an organisation is in its audit log.",
    )
    parser.add_argument(
        "--limit", type=whole(1, LIMIT_MAX), default=50, metavar="N",
        help=f"how many, at most {LIMIT_MAX} (default 50)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    database_options(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """List them."""
    async with connected(args) as database, database.untenanted() as conn:
        rows = await q.operator_actions.list_operator_actions(
            conn, before_id=None, limit=args.limit
        )
    tell(args, rows, COLUMNS)
    return EXIT_GOOD


async def name_operator(conn: Connection) -> None:
    """Say who is at work, for what this transaction changes for everybody."""
    await q.operator_actions.name_operator(conn, who=operator(os.environ.get("SUDO_USER")))


def operator(sudo_user: str | None) -> str:
    """Return the account that runs this command, on which machine, and who became it by sudo.

    From the kernel, not from USER or LOGNAME, which anybody sets.
    """
    number = os.getuid()
    try:
        account = pwd.getpwuid(number).pw_name
    except KeyError:  # containers run under numbers without a name
        account = str(number)
    who = f"{account}@{socket.gethostname()}"
    return f"{who}, for {sudo_user}" if sudo_user else who
