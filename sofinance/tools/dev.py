"""`sofinance dev`: everything from nothing: PostgreSQL, schema, demo organisation, service."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from sofinance import config
from sofinance.infra import logs, migrate
from sofinance.infra import serve as server
from sofinance.infra.command import EXIT_GOOD, data_option
from sofinance.infra.embedded import SUPERUSER, Server, write_private
from sofinance.infra.listening import listen, url_of
from sofinance.jobs import worker
from sofinance.jobs.tasks import JOBS
from sofinance.tools import demo

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from types import FrameType

    from sofinance.config import Settings

    Ready = Callable[[Settings, Server, str], Awaitable[None]]

# A working day: whoever tries the service out signs in once.
ACCESS_TOKEN_MINUTES = 480
# One person is every till and every importer here: limits that are there, and in nobody's way.
LIMITS = tuple(
    f"RATE_LIMIT_{which}{what}"
    for which in ("", "ORG_", "SIGN_IN_", "REPORT_")
    for what in ("PER_MINUTE", "BURST")
)
LIMIT = 100_000


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "dev",
        help="serve from nothing: an embedded PostgreSQL and a demo organisation",
        description="Start a PostgreSQL of our own in a data directory that survives restarts, "
        "migrate it, make a demo organisation on the first start, and serve. Ctrl-C stops both.",
    )
    data_option(parser)
    parser.add_argument("--host", help="the address to listen on (HOST, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="the port to listen on (PORT, 8000); 0 for any")
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON when ready, for scripts"
    )
    parser.add_argument(
        "--empty", action="store_true", help="leave out the demo's products, stock and sales"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal, then stop the database too."""

    async def ready(settings: Settings, database: Server, url: str) -> None:
        accounts = await accounts_of_demo(args, settings, database, url)
        if args.json:
            print(json.dumps(_line(accounts, database, url)), flush=True)
        else:
            print(_greeting(accounts, database, url), flush=True)

    return serve(args, ready)


def serve(args: argparse.Namespace, ready: Ready) -> int:
    """Start everything from nothing and serve; ``ready`` is awaited when requests are answered."""
    settings = _settings(args)
    # On stderr: stdout is for what the person, or the script that asked for --json, waits for.
    logs.configure(level=settings.log_level, environment=settings.environment, stream=sys.stderr)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    with listen(settings.host, settings.port) as taken:
        database = Server(args.data)
        try:
            _say(args, f"Starting PostgreSQL in {database.data}")
            database.start()
            for name in migrate.apply(database.url(SUPERUSER)):
                _say(args, f"Applied {name}")
            settings = replace(
                settings,
                port=taken.getsockname()[1],
                database_url=database.socket_url("sofinance_app"),
                owner_url=database.socket_url("sofinance_owner"),
                jwt_secret=database.jwt_secret,
                data_encryption_key=settings.data_encryption_key or database.data_encryption_key,
                storage_dir=os.environ.get("STORAGE_DIR") or str(database.data / "uploads"),
            )
            url = url_of(taken)
            server.run(
                server.serve(
                    settings,
                    taken,
                    lambda: ready(settings, database, url),
                    beside=worker.running(settings, JOBS),
                )
            )
        finally:
            _say(args, "Stopping PostgreSQL")
            database.stop()
    return EXIT_GOOD


async def accounts_of_demo(
    args: argparse.Namespace, settings: Settings, database: Server, url: str
) -> dict[str, Any]:
    """Return the demo's organisation and sign-ins; it is made if there is none yet."""
    accounts = _recall(database.data)
    if accounts is None:
        _say(args, "Making the demo organisation")
        # Its hundreds of requests are nobody's; what goes wrong with one is still told.
        logs.configure(level="warning", environment=settings.environment, stream=sys.stderr)
        accounts = asdict(await demo.create_demo(settings, url, empty=args.empty))
        logs.configure(
            level=settings.log_level, environment=settings.environment, stream=sys.stderr
        )
        _remember(database.data, accounts)
    return accounts


def _settings(args: argparse.Namespace) -> Settings:
    given = dict(os.environ)
    for variable, option in (("HOST", args.host), ("PORT", args.port)):
        if option is not None:
            given[variable] = str(option)
    given.setdefault("ACCESS_TOKEN_MINUTES", str(ACCESS_TOKEN_MINUTES))
    for limit in LIMITS:
        given.setdefault(limit, str(LIMIT))
    given.setdefault("JWT_KEY_OVERLAP_MINUTES", given["ACCESS_TOKEN_MINUTES"])
    if args.json:
        # A script that reads one line may never read stderr, and a full pipe would stop us.
        given.setdefault("LOG_LEVEL", "warning")
    for variable in ("DATABASE_URL", "OWNER_URL", "JWT_SECRET", "SECRET_KEY"):
        given.pop(variable, None)  # the embedded database's own take their place
        given.pop(f"{variable}_FILE", None)
    return config.load(given, required=())


def _line(accounts: dict[str, Any], database: Server, url: str) -> dict[str, Any]:
    return {
        "url": url,
        "docs_url": f"{url}/docs",
        "database_url": database.url("sofinance_app"),
        "owner_url": database.url("sofinance_owner"),
        **accounts,
    }


def _greeting(accounts: dict[str, Any], database: Server, url: str) -> str:
    admin, cashier = accounts["admin"], accounts["cashier"]
    return f"""
SOFinance serves {accounts["organisation"]} on {url}

  documentation  {url}/docs
  administrator  {admin["email"]}  {admin["password"]}
  cashier        {cashier["email"]}  {cashier["password"]}
  data           {database.data}

Ctrl-C stops it."""


def _recall(data: Path) -> dict[str, Any] | None:
    """Return the demo's sign-ins, which are kept beside the data; None before there is one."""
    path = data / "demo.json"
    if not path.exists():
        return None
    accounts: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return accounts


def _remember(data: Path, accounts: dict[str, Any]) -> None:
    write_private(data / "demo.json", json.dumps(accounts) + "\n")


def _say(args: argparse.Namespace, what: str) -> None:
    if not args.json:
        print(what, file=sys.stderr)


def _leave(number: int, _frame: FrameType | None) -> None:
    """Leave by way of every `finally`, so that the database is not left running."""
    sys.exit(128 + number)
