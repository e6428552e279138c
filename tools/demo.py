"""`make demo`: weeks of a real grocer's tills, posted over HTTP to a service of their own.

The service runs in this process and the tills in another. What was posted stays: begun again
after a kill, of either or of the database, it goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from sofinance.infra import embedded
from sofinance.infra.command import EXIT_FAILED, SetupError, data_option
from sofinance.tools import dev

if TYPE_CHECKING:
    from sofinance.config import Settings
    from sofinance.infra.embedded import Server


def main(arguments: list[str]) -> int:
    """Serve, post, and stop; return what the import returned."""
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, epilog="Other options go to the import."
    )
    data_option(parser)
    args, rest = parser.parse_known_args(arguments)
    data = args.data or embedded.default_data().with_name("sofinance-demo")
    service = argparse.Namespace(data=data, host=None, port=0, json=False, empty=True)
    os.environ.setdefault("LOG_LEVEL", "warning")  # a line for each request is not the show
    returned = [EXIT_FAILED]

    async def ready(settings: Settings, database: Server, url: str) -> None:
        accounts = await dev.accounts_of_demo(service, settings, database, url)
        tills = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sofinance", "import", "completejourney",
            "--url", url, "--data", str(data), "--email", accounts["admin"]["email"], *rest,
            env={**os.environ, "SOFINANCE_PASSWORD": accounts["admin"]["password"]},
        )  # fmt: skip
        returned[0] = await tills.wait()
        os.kill(os.getpid(), signal.SIGTERM)  # as a person would, after looking at the result

    try:
        dev.serve(service, ready)
    except SetupError as error:
        print(f"make demo: {error.message}", file=sys.stderr)
        return error.exit_code
    print(f"The books stay in {data}: sofinance dev --data {data}", file=sys.stderr)
    return EXIT_FAILED if returned[0] < 0 else returned[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
