"""Roles and permissions: the matrix of the built-in roles, what is given, and who may give it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.test_users import new, signed_in

if TYPE_CHECKING:
    from tests.support import Answer, Api, Org, Psql, User

# What each built-in role may do. ADMIN may do everything; MANAGER all but system:*, audit:*,
# flags:*, webhooks:*, and what decides about the organisation and its roles.
MATRIX: dict[str, str] = {
    "accounts": "MANAGER read write; ACCOUNTANT read write",
    "api_keys": "MANAGER write",
    "attachments": "MANAGER read write; CASHIER read write; INVENTORY_CLERK read write;"
    " ACCOUNTANT read write",
    "audit": "",
    "branches": "MANAGER read write; CASHIER read; INVENTORY_CLERK read; ACCOUNTANT read",
    "categories": "MANAGER read write; CASHIER read; INVENTORY_CLERK read",
    "customers": "MANAGER read write portal; CASHIER read write; ACCOUNTANT read",
    "flags": "",
    "inventory": "MANAGER read write; CASHIER read; INVENTORY_CLERK read write; ACCOUNTANT read",
    "journal": "MANAGER read write; ACCOUNTANT read write",
    "notifications": "MANAGER send",
    "organisation": "",
    "payments": "MANAGER read write; CASHIER read write; ACCOUNTANT read",
    "periods": "MANAGER read write; ACCOUNTANT read write",
    "products": "MANAGER read write; CASHIER read; INVENTORY_CLERK read write",
    "reports": "MANAGER read; ACCOUNTANT read",
    "roles": "MANAGER read",
    "sales": "MANAGER read write void override_price backdate; CASHIER read write; ACCOUNTANT read",
    "system": "",
    "tax": "MANAGER read write; CASHIER read; INVENTORY_CLERK read; ACCOUNTANT read write",
    "tills": "MANAGER pair",
    "users": "MANAGER read write",
    "webhooks": "",
}


def granted(role: str) -> set[str]:
    """Return what the table above says of a role."""
    found = set()
    for resource, line in MATRIX.items():
        for part in filter(None, line.split("; ")):
            who, *actions = part.split()
            found |= {f"{resource}:{action}" for action in actions if who == role}
    return found


async def allowed(api: Api, who: User) -> set[str]:
    return set((await api.get("/permissions/mine", who)).data["effective"])


async def give(api: Api, who: Org | User, path: str, effect: str = "ALLOW") -> Answer:
    name = "effect" if path.startswith("roles") else "type"
    return await api.put(f"/permissions/{path}", who, {name: effect})


# -- what there is -------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["MANAGER", "CASHIER", "INVENTORY_CLERK", "ACCOUNTANT"])
async def test_a_role_may_what_the_table_says(api: Api, org: Org, role: str) -> None:
    assert await allowed(api, org.member(role)) == granted(role)
    told = (await api.get(f"/permissions/roles/{role}", org)).data
    assert (set(told["permissions"]), told["allowed"], told["denied"]) == (granted(role), [], [])


async def test_an_administrator_may_everything_that_there_is(api: Api, org: Org) -> None:
    listed = (await api.get("/permissions", org)).data["items"]
    names = [permission["name"] for permission in listed]
    assert await allowed(api, org.admin) == set(names)
    assert {name.partition(":")[0] for name in names} == set(MATRIX)
    assert names == sorted(names)
    assert (await api.get("/permissions", org.member("CASHIER"))).refused == (403, "forbidden")


@pytest.mark.parametrize(
    ("role", "own", "may"),
    [
        (None, None, False), ("ALLOW", None, True), (None, "ALLOW", True), ("DENY", "ALLOW", True),
        ("ALLOW", "DENY", False), (None, "DENY", False),
    ],
)  # fmt: skip
async def test_a_user_s_deny_then_allow_then_the_role_decides(
    api: Api, org: Org, role: str | None, own: str | None, *, may: bool
) -> None:
    cashier = org.member("CASHIER")
    if role is not None:
        assert (await give(api, org, "roles/CASHIER/sales:void", role)).status == 200
    if own is not None:
        assert (await give(api, org, f"users/{cashier.id}/sales:void", own)).status == 200
    assert ("sales:void" in await allowed(api, cashier)) is may
    seen = (await api.get(f"/permissions/users/{cashier.id}", org)).data
    assert ("sales:void" in seen["effective"]) is may
    assert ("sales:void" in seen["role_permissions"]) is (role == "ALLOW")
    assert seen["allowed_overrides"] == (["sales:void"] if own == "ALLOW" else [])
    assert seen["denied_overrides"] == (["sales:void"] if own == "DENY" else [])


async def test_nothing_is_denied_to_an_administrator(api: Api, org: Org) -> None:
    second = await signed_in(api, org.admin, new(role="ADMIN"))
    assert (await give(api, org, f"users/{second.id}/sales:void", "DENY")).status == 200
    assert "sales:void" in await allowed(api, second)
    refused = await give(api, org, "roles/ADMIN/sales:void", "DENY")
    assert refused.refused == (422, "role_grant_spares_admin")


# -- roles of one's own --------------------------------------------------------------------------


async def test_a_role_of_one_s_own_is_made_given_and_deleted(api: Api, org: Org) -> None:
    lead = {"name": "SHIFT_LEAD", "description": "Closes the till."}
    made = await api.post("/roles", org, lead)
    assert made.status == 201
    assert made.headers["Location"] == "/api/v1/roles/SHIFT_LEAD"
    assert (await api.post("/roles", org, lead)).refused == (409, "org_role_pk")
    person = await signed_in(api, org.admin, new(role="SHIFT_LEAD"))
    assert await allowed(api, person) == set()
    assert (await api.get("/categories", person)).refused == (403, "forbidden")
    for _ in range(2):  # to say it again changes nothing
        told = await give(api, org, "roles/SHIFT_LEAD/categories:read")
        assert told.data["permissions"] == ["categories:read"]
    assert (await api.get("/categories", person)).status == 200
    assert (await api.delete("/roles/SHIFT_LEAD", org)).refused == (409, "app_user_role_known")
    role = [r for r in (await api.get("/roles", org)).data["items"] if not r["is_built_in"]]
    assert [(r["name"], r["user_count"]) for r in role] == [("SHIFT_LEAD", 1)]
    path = "/permissions/roles/SHIFT_LEAD/categories:read"
    assert (await api.delete(path, org)).status == 204
    assert (await api.delete(path, org)).refused == (404, "not_found")
    assert (await api.get("/categories", person)).refused == (403, "forbidden")
    assert (await api.post("/roles", org, {"name": "SPARE"})).status == 201
    assert (await api.delete("/roles/SPARE", org)).status == 204
    assert (await api.get("/roles/SPARE", org)).refused == (404, "not_found")
    assert (await api.delete("/roles/CASHIER", org)).refused == (409, "org_role_built_in_stays")


async def test_a_role_is_described_by_who_has_seen_the_last_state(api: Api, org: Org) -> None:
    tag = {"If-Match": (await api.get("/roles/CASHIER", org)).headers["ETag"]}
    body = {"description": "Sells."}
    changed = await api.put("/roles/CASHIER", org, body, headers=tag)
    assert changed.data["description"] == "Sells."
    again = await api.put("/roles/CASHIER", org, body, headers=tag)
    assert again.refused == (412, "version_mismatch")


@pytest.mark.parametrize("name", ["lead", "L", "1ST", "LEAD!", "A" * 41])
async def test_a_role_has_a_name_in_capitals(api: Api, org: Org, name: str) -> None:
    assert (await api.post("/roles", org, {"name": name})).refused == (422, "invalid_request")


async def test_what_is_not_there_is_not_changed(api: Api, org: Org, other_org: Org) -> None:
    assert (await give(api, org, "roles/KING/sales:void")).refused == (404, "not_found")
    assert (await give(api, org, "roles/CASHIER/sales:steal")).refused == (
        409, "role_grant_permission_known",
    )  # fmt: skip
    cashier = org.member("CASHIER")
    assert (await give(api, org, f"users/{cashier.id}/sales:steal")).refused == (
        409, "user_permission_permission_known",
    )  # fmt: skip
    theirs = other_org.member("CASHIER")
    assert (await give(api, org, f"users/{theirs.id}/sales:void")).refused == (404, "not_found")
    await api.post("/roles", other_org, {"name": "THEIRS"})
    assert (await api.get("/roles/THEIRS", org)).refused == (404, "not_found")


# -- escalation ----------------------------------------------------------------------------------


async def deputy(api: Api, org: Org, *more: str) -> User:
    """Make somebody who may change roles and users, and a few things more."""
    await api.post("/roles", org, {"name": "DEPUTY"})
    for permission in ("roles:read", "roles:write", "users:read", "users:write", *more):
        assert (await give(api, org, f"roles/DEPUTY/{permission}")).status == 200
    return await signed_in(api, org.admin, new(role="DEPUTY"))


async def test_nobody_gives_what_they_do_not_have(api: Api, org: Org, psql: Psql) -> None:
    who = await deputy(api, org, "sales:read")
    person = await signed_in(api, org.admin, new(role="DEPUTY"))
    await api.post("/roles", org, {"name": "EMPTY"})
    assert (await give(api, who, "roles/EMPTY/sales:read")).status == 200
    beyond = await give(api, who, "roles/EMPTY/sales:void")
    assert beyond.refused == (403, "role_grant_within_own_access")
    assert beyond.details == {"permission": "sales:void", "role": "EMPTY"}
    # A role that has more is not theirs to change, not even by what they have.
    more = await give(api, who, "roles/CASHIER/sales:read", "DENY")
    assert more.refused == (403, "role_grant_within_own_access")
    assert (await give(api, org, "roles/EMPTY/sales:void", "DENY")).status == 200
    undone = await api.delete("/permissions/roles/EMPTY/sales:void", who)
    assert undone.refused == (403, "role_grant_within_own_access")

    assert (await give(api, who, f"users/{person.id}/sales:read", "DENY")).status == 200
    assert (await api.delete(f"/permissions/users/{person.id}/sales:read", who)).status == 204
    for effect in ("ALLOW", "DENY"):
        answer = await give(api, who, f"users/{person.id}/sales:void", effect)
        assert answer.refused == (403, "user_permission_within_own_access")
        assert answer.details == {"permission": "sales:void"}
    assert (await give(api, org, f"users/{person.id}/sales:void", "DENY")).status == 200
    undone = await api.delete(f"/permissions/users/{person.id}/sales:void", who)
    assert undone.refused == (403, "user_permission_within_own_access")
    assert (await api.post("/users", who, new(role="CASHIER"))).refused == (
        403, "app_user_within_own_access",
    )  # fmt: skip
    assert (await api.post("/users", who, new(role="EMPTY"))).status == 201
    audited = psql(
        "select count(*) from audit_log where severity = 'WARNING' and user_id = %s", [who.id],
        org=org,
    )  # fmt: skip
    assert audited == [(7,)]


async def test_nobody_changes_what_they_may_themselves(api: Api, org: Org) -> None:
    who = await deputy(api, org, "sales:read")
    own = await give(api, who, f"users/{who.id}/sales:read", "ALLOW")
    assert own.refused == (403, "user_permission_not_of_oneself")
    for permission, effect in (("sales:void", "ALLOW"), ("sales:read", "DENY")):
        answer = await give(api, who, f"roles/DEPUTY/{permission}", effect)
        assert answer.refused == (403, "role_grant_not_of_own_role")
    refused = await give(api, org, f"users/{org.admin.id}/sales:void", "DENY")
    assert refused.refused == (403, "user_permission_not_of_oneself")
    cashier = org.member("CASHIER")
    assert (await give(api, cashier, f"users/{cashier.id}/sales:void")).refused == (
        403, "forbidden",
    )  # fmt: skip


async def test_roles_are_changed_by_who_has_all_branches(api: Api, org: Org) -> None:
    branch = (await api.post("/branches", org, {"name": "Main Street"})).data["id"]
    await deputy(api, org, "sales:read")
    body = new(role="DEPUTY", all_branches=False, branch_ids=[branch])
    who = await signed_in(api, org.admin, body)
    everywhere = (403, "all_branches_required")
    assert (await give(api, who, "roles/CASHIER/sales:read")).refused == everywhere
    assert (await api.post("/roles", who, {"name": "MINE"})).refused == everywhere
    near = (await api.post("/users", org, body | {"email": new()["email"]})).data
    assert (await give(api, who, f"users/{near['id']}/sales:read", "DENY")).status == 200
    far = await give(api, who, f"users/{org.member('CASHIER').id}/sales:read", "DENY")
    assert far.refused == (403, "user_permission_within_own_access")


async def test_twenty_say_the_same_at_once(api: Api, org: Org, psql: Psql) -> None:
    path = f"users/{org.member('CASHIER').id}/sales:void"
    answers = await asyncio.gather(*(give(api, org, path) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    counted: Any = psql("select count(*) from user_permission", org=org)
    assert counted == [(1,)]
