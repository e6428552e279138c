"""`sofinance migrate`: bring a database to this release's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance import __version__
from sofinance.infra import migrate
from sofinance.infra.command import EXIT_FAILED, EXIT_GOOD, database_options, settings_from
from sofinance.infra.migration_lint import lint

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "migrate",
        help="bring the database of OWNER_URL to this release's schema",
        description="apply (or nothing): apply what is pending, each migration in one "
        "transaction. The first time as a superuser, which creates the four roles; later "
        "sofinance_owner will do. Two at once are safe: the second waits. status, check: only say "
        "what is pending, was applied by a newer release, or was changed after it was applied; "
        "check exits with 1 unless the database is as this release has it. lint: refuse, without "
        "a database, what code of the release before could not live with.",
    )
    parser.add_argument(
        "action", nargs="?", default="apply", choices=("apply", "status", "check", "lint")
    )
    database_options(parser)
    parser.add_argument(
        "--status", action="store_true", help="like status, with exit code 1 if any is pending"
    )
    parser.add_argument("--check", action="store_true", help="like check")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Migrate, or say what there would be to do."""
    if args.action == "lint":
        return run_lint()
    checks = args.action == "check" or args.check
    looks = not checks and (args.action == "status" or args.status)
    # To look, as an operator does on an instance, DATABASE_URL will do: one of the two is there.
    settings = settings_from(args, "environment" if looks else "owner_url")
    if not (looks or checks):
        applied = migrate.apply(settings.owner_url)
        for name in applied:
            print(f"applied {name}")
        if not applied:
            print("nothing to apply")
        return EXIT_GOOD
    status = migrate.status(settings.owner_url or settings.database_url)
    for name in status.pending:
        print(f"pending {name}")
    for name in status.unknown:
        print(f"unknown {name}: applied by a newer release")
    for name in status.changed:
        print(f"changed {name}: its file is another than the one that was applied")
    print(f"{len(status.applied)} applied, {len(status.pending)} pending")
    if checks:
        return EXIT_FAILED if status.pending or status.changed else EXIT_GOOD
    return EXIT_FAILED if args.status and status.pending else EXIT_GOOD


def run_lint() -> int:
    """Tell what the release before could not live with."""
    found = lint(migrate.MIGRATIONS, version=__version__)
    for finding in found:
        print(finding)
    print(f"{len(found)} findings" if found else "the release before can live with all of them")
    return EXIT_FAILED if found else EXIT_GOOD
