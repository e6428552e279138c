"""`sofinance serve`: one process on a database that somebody else runs."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sofinance import config
from sofinance.infra import logs
from sofinance.infra import serve as server
from sofinance.infra.command import EXIT_GOOD
from sofinance.infra.listening import listen

if TYPE_CHECKING:
    import argparse

# By its path: as a module it would be read once, and not again on a reload.
CONFIGURATION = str(Path(server.__file__).with_name("gunicorn_conf.py"))
GUNICORN = [sys.executable, "-m", "gunicorn", "-c", CONFIGURATION]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "serve",
        help="serve on the PostgreSQL of DATABASE_URL",
        description="Serve on the PostgreSQL (15 or newer) of DATABASE_URL, in one process. "
        "With --workers in several, by gunicorn. Migrate first: `sofinance migrate`.",
    )
    parser.add_argument("--host", help="the address to listen on (HOST)")
    parser.add_argument("--port", type=int, help="the port to listen on (PORT)")
    parser.add_argument(
        "--workers", type=int, metavar="N",
        help="in N processes (WEB_CONCURRENCY); 0: two per core",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; with several processes, become gunicorn."""
    given = dict(os.environ)
    if args.host is not None:
        given["HOST"] = args.host
    if args.port is not None:
        given["PORT"] = str(args.port)
    if args.workers is not None:
        given["WEB_CONCURRENCY"] = str(args.workers)
    settings = config.load(given)
    if args.workers is not None:
        os.execve(sys.executable, GUNICORN, given)  # noqa: S606 - no shell, nothing from outside
    logs.configure(level=settings.log_level, environment=settings.environment)
    with listen(settings.host, settings.port) as taken:
        settings = replace(settings, port=taken.getsockname()[1])
        server.run(server.serve(settings, taken, _nothing))
    return EXIT_GOOD


async def _nothing() -> None:
    """Be ready without a word: the log says so."""
