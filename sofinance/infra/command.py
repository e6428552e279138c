"""What every command shares: the one way to fail, and which database it talks to."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sofinance.config import Settings

EXIT_GOOD = 0
EXIT_FAILED = 1  # the thing asked for did not hold: `verify` found a broken record
EXIT_USAGE = 2  # an argument or a setting is wrong; nothing was tried
EXIT_CANNOT_RUN = 3  # the surroundings do not allow it: no database, port in use, no right

# Work on a whole ledger takes longer than a request may.
STATEMENT_TIMEOUT_MS = 3_600_000


class SetupError(Exception):
    """Something a person must put right first: a clear sentence and an exit code."""

    def __init__(self, message: str, *, exit_code: int = EXIT_CANNOT_RUN) -> None:
        super().__init__(message)
        self.message, self.exit_code = message, exit_code


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number within bounds."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text[:20]) <= high:
            raise argparse.ArgumentTypeError(
                f"{text[:40]!r} is no whole number from {low} to {high}"
            )
        return int(text)

    return read


# The number of a row: an organisation's, a branch's.
row_number = whole(1, (1 << 63) - 1)


def database_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which database a command works on."""
    parser.add_argument("--database-url", metavar="URL", help="the database, as sofinance_app")
    parser.add_argument("--owner-url", metavar="URL", help="the database, as sofinance_owner")
    data_option(parser)


def data_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the embedded database lives."""
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the embedded database's data directory"
    )


def settings_from(args: argparse.Namespace, *required: str, serves: bool = False) -> Settings:
    """Return the settings for a command that took ``database_options``.

    The database is the one of the options, else of DATABASE_URL and OWNER_URL, else the embedded
    one that runs in ``--data`` now. ``required`` names the settings the command cannot do
    without; by default the database alone. One that ``serves`` is held to all that serving needs.
    """
    from sofinance import config  # noqa: PLC0415 - config raises this module's SetupError
    from sofinance.infra import embedded  # noqa: PLC0415 - not needed where a URL is given

    given = dict(os.environ)
    for variable, option in (("DATABASE_URL", args.database_url), ("OWNER_URL", args.owner_url)):
        if option is not None:
            given.pop(f"{variable}_FILE", None)
            given[variable] = option
    settings = config.load(given, required=(), serves=serves)
    if args.data is not None or not (settings.database_url or settings.owner_url):
        running = embedded.attach(args.data)
        settings = replace(
            settings,
            database_url=running.url("sofinance_app"),
            owner_url=running.url("sofinance_owner"),
            jwt_secret=settings.jwt_secret or running.jwt_secret,
        )
    config.require(settings, required or ("database_url",))
    return settings
