"""The matrix fails when anything that keeps it is taken out: each is taken out, one at a time.

Two layers keep organisations apart: row security, and the conditions of the queries. Each is tried
with the other one switched off, since together either would hide that the other is gone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.matrix import cells
from tests.matrix.mutations import (
    is_missed,
    queries,
    route_of,
    tables_with,
    unconditioned,
    unguarded,
    uses,
    without_condition,
)
from tests.matrix.world import endpoints, name_of

if TYPE_CHECKING:
    from tests.matrix.world import World

# Where the API cannot show that the policy is gone: why. test_grid.py shows it in SQL.
SILENT_TABLES: dict[str, str] = {}
# Where the condition can be taken out and no answer changes: why.
SILENT_QUERIES: dict[str, str] = {}
SILENT_BRANCH_TABLES: dict[str, str] = {}


async def test_a_missing_policy_is_missed_where_no_query_has_a_condition(world: World) -> None:
    mutated = [query for query in queries().values() if without_condition(query) != query.sql]
    with unconditioned(mutated):
        # Row security alone keeps them apart.
        used = await uses(world, cells.organisations)
        silent = set()
        for table in tables_with(world, "org"):
            keys = [key for key, query in queries().items() if f" {table}" in query.sql]
            needed = list({name_of(e): e for key in keys for e in used.get(key, [])}.values())
            with unguarded(world, "org", [table]):
                if not await is_missed(world, cells.organisations, needed):
                    silent.add(table)
    assert silent == SILENT_TABLES.keys()


async def test_a_missing_condition_is_missed_where_no_table_has_a_policy(world: World) -> None:
    with unguarded(world, "org", tables_with(world, "org")):
        # The queries alone keep them apart.
        used = await uses(world, cells.organisations)
        silent = set()
        for key, query in queries().items():
            if key not in used or without_condition(query) == query.sql:
                continue
            with unconditioned([query]):
                if not await is_missed(world, cells.organisations, used[key]):
                    silent.add(key)
    assert silent == SILENT_QUERIES.keys()


async def test_a_missing_branch_policy_is_missed(world: World) -> None:
    used = await uses(world, cells.branches)
    silent = set()
    for table in tables_with(world, "branch"):
        keys = [key for key, query in queries().items() if f" {table}" in query.sql]
        needed = list({name_of(e): e for key in keys for e in used.get(key, [])}.values())
        with unguarded(world, "branch", [table]):
            if not await is_missed(world, cells.branches, needed):
                silent.add(table)
    assert silent == SILENT_BRANCH_TABLES.keys()


async def test_a_missing_permission_is_missed(world: World) -> None:
    allowed = cells.permissions(world)
    for endpoint in endpoints():
        if endpoint.permission is None:
            continue
        who = next(who for who, granted in allowed.items() if endpoint.permission not in granted)
        route = route_of(world, endpoint)
        route.endpoint = replace(endpoint, permission=None)
        try:
            wrong = await cells.roles(world, endpoint, {who: allowed[who]})
        finally:
            route.endpoint = endpoint
        assert wrong, f"{name_of(endpoint)} answers {who} as if nothing was missing"
