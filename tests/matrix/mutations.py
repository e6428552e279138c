"""What is taken out of the service, one at a time, to see that the matrix misses it."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from sofinance import queries as q
from sofinance.infra.route import Route
from sofinance.infra.sql import Query
from tests.matrix.world import World, endpoints, name_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from sofinance.infra.http import Endpoint

    Cell = Callable[[World, Endpoint], Awaitable[list[str]]]

CONDITION = re.compile(r"\b(?:[a-z_]+\.)?org_id = \$(\d+)\b")
POLICIES = """
select tablename, policyname, qual, with_check from pg_policies
where schemaname = 'public' and policyname = '{name}' order by tablename
"""


# What the API's queries call; rules run as the owner, and are shown in tests/attacks.
FUNCTIONS = """
select proname, pg_get_functiondef(oid) from pg_proc
where pronamespace = 'public'::regnamespace and not prosecdef and prosrc ~ 'org_id = p_org_id'
order by proname
"""
PARAMETER = re.compile(r"\b(?:[a-z_]+\.)?org_id = p_org_id\b")


def functions(world: World) -> dict[str, str]:
    """Return the functions whose statements have a condition on the organisation."""
    return dict(world.psql(FUNCTIONS, role="superuser"))


@contextmanager
def unconditioned_function(world: World, definition: str) -> Iterator[None]:
    """Take the conditions on the organisation out of a function."""
    try:
        world.psql(PARAMETER.sub("p_org_id is not null", definition), role="superuser")
        yield
    finally:
        world.psql(definition, role="superuser")


def queries() -> dict[str, Query]:
    """Return every named query by its key."""
    files = [found for found in vars(q).values() if hasattr(found, "__dict__")]
    found = [query for file in files for query in vars(file).values() if isinstance(query, Query)]
    return {query.key: query for query in found}


def without_condition(query: Query) -> str:
    """Return the text of a query whose conditions on the organisation are always true."""

    def always(match: re.Match[str]) -> str:
        number = int(match[1])
        is_org = query.params[number - 1] == "org_id"
        return f"${number}::bigint is not null" if is_org else match[0]

    return CONDITION.sub(always, query.sql)


@contextmanager
def unconditioned(mutated: list[Query]) -> Iterator[None]:
    """Take the conditions on the organisation out of some queries."""
    before = [(query, query.sql) for query in mutated]
    try:
        for query in mutated:
            query.sql = without_condition(query)
        yield
    finally:
        for query, text in before:
            query.sql = text


@contextmanager
def unguarded(world: World, name: str, tables: list[str]) -> Iterator[None]:
    """Let a policy of some tables allow everything."""
    policies = {
        table: (using, check)
        for table, _, using, check in world.psql(POLICIES.format(name=name), role="superuser")
        if table in tables
    }
    try:
        for table in policies:
            world.psql(
                f"alter policy {name} on {table} using (true) with check (true)", role="superuser"
            )
        yield
    finally:
        for table, (using, check) in policies.items():
            world.psql(
                f"alter policy {name} on {table} using ({using}) with check ({check or using})",
                role="superuser",
            )


def tables_with(world: World, name: str) -> list[str]:
    """Return the tables that have a policy of this name."""
    return [row[0] for row in world.psql(POLICIES.format(name=name), role="superuser")]


@asynccontextmanager
async def watched() -> AsyncIterator[set[str]]:
    """Note which queries are run meanwhile."""
    seen: set[str] = set()
    run = Query.__call__

    async def noting(self: Query, conn: Any, /, **args: Any) -> Any:
        seen.add(self.key)
        return await run(self, conn, **args)

    Query.__call__ = noting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Query.__call__ = run  # type: ignore[method-assign]


async def uses(world: World, cell: Cell) -> dict[str, list[Endpoint]]:
    """Run the whole matrix once; return which endpoints run which query, readers first."""
    found: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in sorted(endpoints(), key=lambda endpoint: endpoint.method != "GET"):
        async with watched() as seen:
            wrong = await cell(world, endpoint)
        assert not wrong, f"{name_of(endpoint)}: {wrong}"
        for key in seen:
            found[key].append(endpoint)
    return found


async def is_missed(
    world: World, cell: Cell, needed: list[Endpoint], shown: dict[str, Any]
) -> bool:
    """Say whether one of these endpoints' cells fails now, or a report has become another."""
    if shown and await world.answers(needed) != shown:
        return True
    for endpoint in needed:
        if await cell(world, endpoint):
            return True
    return False


def route_of(world: World, endpoint: Endpoint) -> Route:
    """Return what serves an endpoint in the running application."""
    for route in world.api.app.router.routes():
        served = getattr(route.handler, "__self__", None)
        if isinstance(served, Route) and name_of(served.endpoint) == name_of(endpoint):
            return served
    raise LookupError(name_of(endpoint))
