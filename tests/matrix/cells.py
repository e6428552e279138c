"""The cells of the matrix: each asks the service and returns what is wrong with the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sofinance.infra.db import Mode
from tests.matrix.samples import SAMPLES
from tests.matrix.world import (
    BRANCH_BOUND,
    EVERY_ROLE,
    ID_OF,
    KEY_PERMISSION,
    MARK,
    MARKED,
    NOWHERE,
    ROWS_OF_THE_SERVER,
    World,
    name_of,
    names_in,
)

if TYPE_CHECKING:
    from sofinance.infra.http import Endpoint
    from tests.matrix.world import Reply

FORBIDDEN = (403, "forbidden")
BRANCH_HEADER = "X-Branch-Id"
# A role's own figures, straight from the tables: what resolve_session works out in its own way.
PERMISSIONS = """
select permission.name
from permission
where coalesce(
    (select effect = 'ALLOW' from user_permission
     where org_id = {org} and user_id = {user} and permission = permission.name),
    (select effect = 'ALLOW' from role_grant
     where org_id = {org} and role = '{role}' and permission = permission.name),
    '{role}' = 'ADMIN' or permission.name in
        (select permission from role_permission where role = '{role}'))
"""


def permissions(world: World) -> dict[str, frozenset[str]]:
    """Return what each caller may, as the tables of permissions say."""
    allowed = {
        role: frozenset(
            name
            for (name,) in world.psql(
                PERMISSIONS.replace("= permission.name", "= permission.name").format(
                    org=world.org.id, user=world.who[role].id, role=role
                ),
                org=world.org,
            )
        )
        for role in EVERY_ROLE
    }
    return {**allowed, "API_KEY": frozenset({KEY_PERMISSION})}


async def roles(world: World, endpoint: Endpoint, allowed: dict[str, frozenset[str]]) -> list[str]:
    """Hold that who lacks the permission is refused, and that nobody else is."""
    wrong = []
    permission, sample = endpoint.permission, SAMPLES[name_of(endpoint)]
    for who, granted in allowed.items():
        reply = await world.ask(endpoint, who)
        if permission is not None and permission not in granted:
            told = f"This needs the permission {permission}."
            if (reply.status, reply.code) != FORBIDDEN or told not in reply.text:
                wrong.append(f"{who} lacks {permission}: {reply.status} {reply.text[:200]}")
        elif (
            reply.status in {401, 403}
            and who != "API_KEY"
            and (reply.status, reply.code) not in {sample.refused, sample.denied}
        ):
            wrong.append(f"{who} may: {reply.status} {reply.text[:200]}")
        if who == "ADMIN":
            expected = sample.refused or (endpoint.status, None)
            if (reply.status, reply.code) != expected:
                wrong.append(f"sample: {expected}, not {reply.status} {reply.text[:300]}")
        wrong += leaks(world, reply, who)
    return wrong


async def organisations(world: World, endpoint: Endpoint) -> list[str]:
    """Hold that another organisation's row is like one that there is nowhere, in every place."""
    wrong = []
    if endpoint.method == "GET":
        wrong += leaks(world, await world.ask(endpoint, "ADMIN", bare=True), "ADMIN")
    for name in names_in(SAMPLES[name_of(endpoint)]):
        if f"other_{name}" not in world.ids or name in ROWS_OF_THE_SERVER:
            continue
        theirs = world.ids[f"other_{name}"]
        wrong += await same(world, endpoint, "ADMIN", {name: theirs}, {name: nowhere(theirs)})
    theirs = world.ids["other_branch"]
    for headers in ({BRANCH_HEADER: str(theirs)}, {BRANCH_HEADER: str(NOWHERE)}):
        if not endpoint.org_wide and endpoint.mode is not Mode.WRITE:
            reply = await world.ask(endpoint, "ADMIN", headers=headers)
            wrong += leaks(world, reply, "ADMIN")
    return wrong


def nowhere(row: int | str) -> int | str:
    """Return what no organisation has, of the kind of a row's id, address or name."""
    if isinstance(row, int):
        return NOWHERE
    return f"{NOWHERE}@example.com" if "@" in row else f"ROLE_{NOWHERE}"


async def branches(world: World, endpoint: Endpoint) -> list[str]:
    """Hold that who has one branch finds nothing of another, nor what is about all of them."""
    who = "ONE_BRANCH"
    if endpoint.org_wide:
        reply = await world.ask(endpoint, who)
        is_refused = (reply.status, reply.code) == (403, "all_branches_required")
        return [] if is_refused else [f"{who}: {reply.status} {reply.text[:200]}"]
    wrong = []
    for name in names_in(SAMPLES[name_of(endpoint)]):
        if name in BRANCH_BOUND:
            hers = world.ids[name]
            wrong += await same(world, endpoint, who, {name: hers}, {name: NOWHERE})
    # Everything that she can ask without naming a branch.
    bound = {name: world.ids[f"{name}2"] for name in ("branch", "till")}
    if endpoint.method == "GET":
        wrong += leaks(world, await world.ask(endpoint, who, swap=bound), who)
        wrong += leaks(world, await world.ask(endpoint, who, bare=True, swap=bound), who)
        reply = await world.ask(endpoint, who, headers={BRANCH_HEADER: str(world.ids["branch"])})
        if reply.status != 403:
            wrong.append(f"{who} in the header: {reply.status} {reply.text[:200]}")
    return wrong


async def same(
    world: World, endpoint: Endpoint, who: str, theirs: dict[str, Any], nowhere: dict[str, Any]
) -> list[str]:
    """Hold that two answers tell no difference between a row of somebody's and none."""
    wrong = []
    ((name, value),) = theirs.items()
    first = await world.ask(endpoint, who, swap=theirs)
    second = await world.ask(endpoint, who, swap=nowhere)
    if first.like(value, nowhere[name]) != second.like(value, nowhere[name]):
        wrong.append(
            f"{who} can tell {name}: {first.status} {first.text[:300]}"
            f" from {second.status} {second.text[:300]}"
        )
    if name in SAMPLES[name_of(endpoint)].names and first.status != 404:
        wrong.append(f"{who} finds {name}: {first.status} {first.text[:300]}")
    return wrong + leaks(world, first, who)


def leaks(world: World, reply: Reply, who: str) -> list[str]:
    """Hold that an answer has no row of the other organisation, or of the other branch."""
    if reply.status >= 500:
        return [f"{who}: {reply.status} {reply.text[:300]}"]
    marks = tuple(f"{MARK}-{table}-{world.other.id}-" for table, _ in MARKED)
    ids = {
        member: {int(world.ids[f"other_{name}"]) for name in names}
        for member, names in ID_OF.items()
    }
    if who == "ONE_BRANCH":
        ids = {
            "branch_id": {*ids["branch_id"], world.ids["branch"]},
            "till_id": {*ids["till_id"], world.ids["till"]},
        }
    told = reply.leaks((*marks, world.other.admin.email), ids)
    return [f"{who} reads {', '.join(told)}: {reply.text[:300]}"] if told else []
