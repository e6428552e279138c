"""`sofinance migrate`: bring a database to this release's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance.infra import migrate
from sofinance.infra.command import EXIT_FAILED, EXIT_GOOD, database_options, settings_from

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "migrate",
        help="bring the database of OWNER_URL to this release's schema",
        description="Apply what is pending, each migration in one transaction. The first time as "
        "a superuser, which creates the four roles; later sofinance_owner will do. Two at once "
        "are safe: the second waits.",
    )
    database_options(parser)
    parser.add_argument(
        "--status", action="store_true", help="only say what is pending; exit 1 if anything is"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Migrate, or say what there would be to do."""
    settings = settings_from(args, "owner_url")
    if not args.status:
        applied = migrate.apply(settings.owner_url)
        for name in applied:
            print(f"applied {name}")
        if not applied:
            print("nothing to apply")
        return EXIT_GOOD
    status = migrate.status(settings.owner_url)
    for name in status.pending:
        print(f"pending {name}")
    for name in status.unknown:
        print(f"unknown {name}: applied by a newer release")
    print(f"{len(status.applied)} applied, {len(status.pending)} pending")
    return EXIT_FAILED if status.pending else EXIT_GOOD
