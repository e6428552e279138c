"""`make demo`: two weeks of a real grocer's tills, from an empty directory to verified books.

Serves an embedded database of its own, imports over HTTP in a second process, as somebody from
outside would, and verifies. Stopped half-way, by whatever, it is completed by running it again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

from sofinance.infra import embedded
from sofinance.infra.command import SetupError, data_option
from sofinance.tools import completejourney, demo, dev, import_completejourney

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sofinance.config import Settings

NAME = "The Complete Journey"
EMAIL = "office@complete-journey.example"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return the importer's exit code, 0 if the books hold what the data says."""
    args = parse(argv)
    # The importer tells how far it is; a line for each of its requests would bury that.
    os.environ.setdefault("LOG_LEVEL", "warning")
    codes: list[int] = []

    async def ready(settings: Settings, database: embedded.Server, url: str) -> None:
        admin = demo.SignIn(EMAIL, demo.password_of(settings, NAME))
        await demo.found(
            settings,
            name=NAME,
            time_zone=str(completejourney.TIME_ZONE),
            tax_percent=Decimal(0),
            people=[demo.Person(admin, "Robin", "Grocer", "ADMIN")],
        )
        codes.append(await import_weeks(args, settings, url, admin))
        if not args.json:
            print(
                f"\nTo look around: sofinance dev --data {database.data}\n"
                f"and sign in as {admin.email} with {admin.password}.",
                flush=True,
            )
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        dev.serve(args, ready)
    except SetupError as error:
        print(f"demo: {error.message}", file=sys.stderr)
        return error.exit_code
    return codes[0] if codes else 128 + signal.SIGTERM


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line: the importer's selection, and where the database is to live."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    import_completejourney.add_selection(parser)
    data_option(parser)
    parser.add_argument("--host", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (0, any)")
    args = parser.parse_args(argv)
    if args.data is None:
        # Beside the one of `make run`, so that both can run at once.
        beside = embedded.default_data()
        args.data = beside.with_name(f"{beside.name}-demo")
    return args


async def import_weeks(
    args: argparse.Namespace, settings: Settings, url: str, admin: demo.SignIn
) -> int:
    """Run the importer in a process of its own; return its exit code."""
    first, last = args.weeks
    command = [
        sys.executable, "-m", "sofinance", "import", "completejourney", "--url", url,
        "--weeks", f"{first}-{last}", "--margin", str(args.margin),
        "--concurrency", str(args.concurrency),
    ]  # fmt: skip
    command += [] if args.baskets is None else ["--baskets", str(args.baskets)]
    command += ["--json"] if args.json else []
    environment = {
        **os.environ,
        "DATABASE_URL": settings.database_url,
        "SOFINANCE_EMAIL": admin.email,
        "SOFINANCE_PASSWORD": admin.password,
    }
    importer = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        return await importer.wait()
    finally:
        if importer.returncode is None:
            importer.terminate()
            await importer.wait()


if __name__ == "__main__":
    sys.exit(main())
