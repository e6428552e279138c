"""`sofinance routes`: every route, who may call it and what limits it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from sofinance.infra import openapi
from sofinance.infra.command import EXIT_FAILED, EXIT_GOOD
from sofinance.public_routes import PUBLIC_ROUTES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from sofinance.infra.http import Endpoint

PUBLIC, ANY_USER = "public", "any user"
HEADINGS = ("METHOD", "PATH", "WHO", "BRANCHES", "ADMIN", "LIMIT")


@dataclass(frozen=True, slots=True)
class Row:
    """A route as it is listed."""

    method: str
    path: str
    who: str
    org_wide: bool
    admin: bool
    limit: str | None

    @property
    def name(self) -> str:
        """The method and the path."""
        return f"{self.method} {self.path}"

    def cells(self) -> tuple[str, ...]:
        """Return what stands in the columns."""
        branches = "all" if self.org_wide else "own"
        return (
            self.method, self.path, self.who, "-" if self.who == PUBLIC else branches,
            "admin" if self.admin else "-", self.limit or "-",
        )  # fmt: skip


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "routes",
        help="list every route and who may call it",
        description="WHO is a permission, `any user` (whoever has signed in) or `public`.",
    )
    parser.add_argument(
        "--unprotected", action="store_true",
        help="list the public ones only; exit code 1 if one is not in sofinance/public_routes.py",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the routes."""
    from sofinance.app import find_endpoints  # noqa: PLC0415 - all of the API

    rows = routes(find_endpoints())
    if args.unprotected:
        rows = [row for row in rows if row.who == PUBLIC]
    strange = unlisted(rows) if args.unprotected else []
    if args.json:
        print(orjson.dumps([asdict(row) for row in rows]).decode())
    else:
        print("\n".join(table([row.cells() for row in rows])))
    for name in strange:
        print(f"not in sofinance/public_routes.py: {name}")
    return EXIT_FAILED if strange else EXIT_GOOD


def routes(endpoints: Sequence[Endpoint]) -> list[Row]:
    """Return all routes by path; those of the documents are no endpoints, and public."""
    rows = [
        Row(
            method=endpoint.method,
            path=endpoint.path,
            who=PUBLIC if endpoint.public else endpoint.permission or ANY_USER,
            org_wide=endpoint.org_wide,
            admin=endpoint.admin,
            limit=endpoint.limit or ("default" if endpoint.is_limited else None),
        )
        for endpoint in endpoints
    ]
    app = web.Application()
    openapi.add_documents(app, list(endpoints))
    rows += [
        Row(route.method, route.resource.canonical, PUBLIC, org_wide=False, admin=False, limit=None)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    ]
    return sorted(rows, key=lambda row: (row.path, row.method))


def unlisted(rows: Iterable[Row]) -> list[str]:
    """Return the public routes that nobody has listed as such."""
    return [row.name for row in rows if row.who == PUBLIC and row.name not in PUBLIC_ROUTES]


def table(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    """Yield the lines of a table whose columns are as wide as what is in them."""
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    for row in (HEADINGS, *rows):
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
