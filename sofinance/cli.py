"""The command `sofinance`: which module does what, and how a failure is told."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg

from sofinance import __version__
from sofinance.infra.command import EXIT_CANNOT_RUN, EXIT_GOOD, EXIT_USAGE, SetupError
from sofinance.infra.logs import on_stderr

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

# Command -> the module that has add_parser(subparsers) and run(args) -> exit code.
TOOLS = {
    "dev": "sofinance.tools.dev",
    "serve": "sofinance.tools.serve",
    "migrate": "sofinance.tools.migrate",
    "worker": "sofinance.tools.worker",
    "jobs": "sofinance.tools.worker",
    "cleanup": "sofinance.tools.cleanup",
    "maintenance": "sofinance.tools.maintenance",
    "flags": "sofinance.tools.flags",
    "operator-actions": "sofinance.tools.operator_actions",
    "keys": "sofinance.tools.keys",
    "config": "sofinance.tools.config",
    "routes": "sofinance.tools.routes",
    "smoke": "sofinance.tools.smoke",
    "verify": "sofinance.tools.verify",
    "backup": "sofinance.tools.backup",
    "restore": "sofinance.tools.restore",
    "drill": "sofinance.tools.drill",
    "export": "sofinance.tools.export",
    "audit-archive": "sofinance.tools.audit_archive",
    "balances": "sofinance.tools.balances",
    "import": "sofinance.tools.import_completejourney",
    "org": "sofinance.tools.orgs",
    "user": "sofinance.tools.users",
}
# Fewer than the service takes for no answer: a command's own mistakes are to be seen as they are.
NO_DATABASE = (
    psycopg.OperationalError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    ConnectionError,
)
# The role of a URL is another than the one that is meant.
NO_RIGHT = (psycopg.errors.InsufficientPrivilege, asyncpg.InsufficientPrivilegeError)


def parser(commands: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of these commands, or of all.

    Only their modules are imported, so that a service that starts does not wait for an importer.
    """
    top = argparse.ArgumentParser(
        prog="sofinance",
        description="The back office of a retailer: the sale that keeps its own books.",
        epilog="Settings come from the environment: see .env.example. "
        "`sofinance COMMAND --help` tells more.",
    )
    top.add_argument("--version", action="version", version=f"sofinance {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in dict.fromkeys(TOOLS[name] for name in commands or TOOLS):
        importlib.import_module(module).add_parser(subparsers)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (0 good, 1 failed, 2 usage, 3 cannot run)."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        args = parser([words[0]] if words and words[0] in TOOLS else ()).parse_args(words)
        return _run(args)
    except SetupError as error:
        return _tell(error.message, error.exit_code)
    except BrokenPipeError:
        # `sofinance export ... | head`: nobody listens any more; keep Python from flushing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_GOOD
    except NO_DATABASE as error:
        return _tell(f"The database does not answer: {_sentence(error)}", EXIT_CANNOT_RUN)
    except NO_RIGHT as error:
        return _tell(
            f"The database's role may not do this: {_sentence(error)} Name the one that "
            f"`sofinance {words[0]} --help` asks for.",
            EXIT_CANNOT_RUN,
        )
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(args: argparse.Namespace) -> int:
    with on_stderr():
        result: int | Coroutine[Any, Any, int] = args.run(args)
        return asyncio.run(result) if inspect.iscoroutine(result) else int(result)  # type: ignore[arg-type]


def _tell(message: str, exit_code: int) -> int:
    print(f"sofinance: {message}", file=sys.stderr)
    return exit_code


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = [line for line in lines if not line.endswith("?")] or [type(error).__name__]
    return said[-1].strip().rstrip(".") + "."  # libpq asks whether the server is running


__all__ = ["EXIT_USAGE", "TOOLS", "main", "parser"]
