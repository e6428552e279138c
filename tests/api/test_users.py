"""Users: who makes, changes and disables whom."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.api.conftest import Shop
    from tests.support import Answer, Api, Org, Psql, User

PASSWORD = "Wet paint, 3 doors"  # noqa: S105 - of made-up people
OTHER = "Blue Ladder, 9 steps"


def new(**changes: Any) -> dict[str, Any]:
    """Return the body of a new user: a cashier in all branches."""
    return {
        "email": f"{uuid.uuid4().hex}@example.com", "first_name": "Noor", "last_name": "Haddad",
        "role": "CASHIER", "all_branches": True, **changes,
    }  # fmt: skip


def same(user: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the body that replaces a user by what it is, but for the changes."""
    kept = ("email", "first_name", "last_name", "role", "all_branches", "branch_ids")
    return {name: user[name] for name in kept} | changes


async def sign_in(api: Api, email: str, password: str) -> Answer:
    return await api.post("/auth/login", None, {"email": email, "password": password})


async def signed_in(api: Api, who: User, body: dict[str, Any]) -> User:
    """Make a user and sign in; returns who can call."""
    made = (await api.post("/users", who, body | {"password": PASSWORD,
                                                  "must_change_password": False})).data  # fmt: skip
    token = (await sign_in(api, body["email"], PASSWORD)).data["access_token"]
    return replace(who, id=made["id"], role=body["role"], email=body["email"], token=token)


# -- one user ------------------------------------------------------------------------------------


async def test_a_user_is_made_with_a_temporary_password(api: Api, org: Org, psql: Psql) -> None:
    body = new(email="Noor." + uuid.uuid4().hex + "@Example.com")
    answer = await api.post("/users", org, body, key="once")
    user = answer.data
    assert answer.status == 201
    assert answer.headers["Location"] == f"/api/v1/users/{user['id']}"
    assert (user["email"], user["role"]) == (body["email"].lower(), "CASHIER")
    assert (user["all_branches"], user["branch_ids"]) == (True, [])
    assert user["must_change_password"]
    in_ = await sign_in(api, body["email"], user["temporary_password"])
    token = in_.data["access_token"]
    asked = await api.get("/categories", headers={"Authorization": f"Bearer {token}"})
    assert asked.refused == (403, "password_change_required")
    enrol = await api.post(
        "/auth/2fa/enroll",
        headers={"Authorization": f"Bearer {token}"},
        json={"password": user["temporary_password"]},
    )
    assert enrol.refused == (403, "password_change_required"), "whoever made it knows it"
    # The password is nowhere else: not in the audit log, and not among stored answers.
    kept = psql("select after::text from audit_log where action = 'users.create_user'", org=org)
    assert '"CASHIER"' in kept[0][0]
    assert user["temporary_password"] not in kept[0][0]
    assert psql("select count(*) from idempotency_key", org=org) == [(0,)]


async def test_a_user_works_at_once_with_a_password_that_was_agreed(api: Api, org: Org) -> None:
    cashier = await signed_in(api, org.admin, new())
    assert (await api.get("/categories", cashier)).status == 200
    assert (await api.get("/users", cashier)).refused == (403, "forbidden")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"email": "noor"}, "email"), ({"role": "boss"}, "role"), ({"last_name": ""}, "last_name"),
        ({"all_branches": False}, "branch_ids"), ({"branch_ids": [1]}, "branch_ids"),
        ({"password": "password"}, "password"), ({"password": "Noor Haddad 1"}, "password"),
        ({"is_active": False}, "is_active"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_refused(
    api: Api, org: Org, changes: dict[str, Any], field: str
) -> None:
    answer = await api.post("/users", org, new(**changes))
    assert answer.refused == (422, "invalid_request")
    assert list(answer.details["fields"]) == [field]


async def test_an_address_signs_in_once_on_the_whole_server(
    api: Api, org: Org, other_org: Org
) -> None:
    answers = [
        await api.post("/users", org, new(email=taken))
        for taken in (org.admin.email, other_org.admin.email)
    ]
    assert {answer.refused for answer in answers} == {(409, "sign_in_address_taken")}
    assert answers[0].error == answers[1].error  # where it is taken, nobody is told
    assert (await api.post("/users", org, new(role="KING"))).refused == (
        409, "app_user_role_known",
    )  # fmt: skip


async def test_a_user_is_changed_by_who_has_seen_the_last_state(api: Api, org: Org) -> None:
    user = (await api.post("/users", org, new())).data
    path = f"/users/{user['id']}"
    read = await api.get(path, org)
    tag = {"If-Match": read.headers["ETag"]}
    changed = await api.put(path, org, same(user, role="ACCOUNTANT"), headers=tag)
    assert changed.data["role"] == "ACCOUNTANT"
    again = await api.put(path, org, same(user), headers=tag)
    assert again.refused == (412, "version_mismatch")
    assert (await api.get(path, org)).data["role"] == "ACCOUNTANT"


async def test_branches_are_given_and_taken(shop: Shop) -> None:
    api, org = shop.api, shop.org
    other = (await api.post("/branches", org, {"name": "Elsewhere"})).data["id"]
    both = sorted([shop.branch_id, other])
    user = (await api.post("/users", org, new(all_branches=False, branch_ids=both))).data
    assert user["branch_ids"] == both
    body = same(user, branch_ids=[other, other])
    assert (await api.put(f"/users/{user['id']}", org, body)).data["branch_ids"] == [other]
    assert (await api.put(f"/users/{user['id']}", org, same(user, branch_ids=[999_999_999]))
            ).refused == (409, "user_branch_branch_known")  # fmt: skip


async def test_one_s_names_are_one_s_own(api: Api, org: Org) -> None:
    cashier = org.member("CASHIER")
    mine = await api.put("/users/profile", cashier, {"first_name": "Ida", "last_name": "Roy"})
    assert (mine.data["first_name"], mine.data["id"]) == ("Ida", cashier.id)
    assert (await api.get("/users/profile", cashier)).data["last_name"] == "Roy"
    more = {"first_name": "Ida", "last_name": "Roy", "role": "ADMIN"}
    assert (await api.put("/users/profile", cashier, more)).refused == (422, "invalid_request")


# -- who is seen ---------------------------------------------------------------------------------


async def test_users_are_listed_and_searched(api: Api, org: Org) -> None:
    made = (await api.post("/users", org, new(first_name="Zoë", last_name="Aalto"))).data
    listed = (await api.get("/users?size=2", org)).data
    assert (listed["items"][0]["id"], listed["pagination"]["total"]) == (made["id"], 6)
    for query, count in (("search=aalto", 1), ("search=zoë%20aa", 1), ("role=MANAGER", 1),
                         ("is_active=false", 0), ("search=nobody", 0)):  # fmt: skip
        found = (await api.get(f"/users?{query}", org)).data
        assert (len(found["items"]), found["pagination"]["total"]) == (count, count), query
    assert "password" not in (await api.get("/users", org)).text.replace(
        "must_change_password", "").replace("password_changed_at", "")  # fmt: skip


async def test_another_organisation_s_user_is_not_there(api: Api, org: Org, other_org: Org) -> None:
    theirs = other_org.member("CASHIER").id
    for method, rest, body in (
        ("GET", "", None), ("PUT", "", new()), ("POST", "/disable", None),
        ("POST", "/enable", None), ("POST", "/reset-password", {}), ("GET", "/sessions", None),
        ("DELETE", "/sessions", None),
    ):  # fmt: skip
        answer = await api.call(method, f"/users/{theirs}{rest}", org.admin, body)
        assert answer.refused == (404, "not_found"), (method, rest)
    assert (await api.get(f"/permissions/users/{theirs}", org)).status == 404


async def test_who_has_some_branches_sees_whoever_works_there(shop: Shop) -> None:
    api, org = shop.api, shop.org
    there = (await api.post("/branches", org, {"name": "Elsewhere"})).data["id"]
    here = {"all_branches": False, "branch_ids": [shop.branch_id]}
    manager = await signed_in(api, org.admin, new(role="MANAGER", **here))
    near = (await api.post("/users", org, new(**here))).data
    far = (await api.post("/users", org, new(all_branches=False, branch_ids=[there]))).data
    seen = {user["id"] for user in (await api.get("/users?size=100", manager)).data["items"]}
    assert {manager.id, near["id"], org.admin.id} <= seen
    assert far["id"] not in seen
    assert (await api.get(f"/users/{far['id']}", manager)).refused == (404, "not_found")
    assert (await api.post(f"/users/{far['id']}/disable", manager)).status == 404
    # What is seen is not yet theirs to change.
    assert (await api.post(f"/users/{near['id']}/disable", manager)).status == 200
    refused = await api.post(f"/users/{org.member('CASHIER').id}/disable", manager)
    assert refused.refused == (403, "app_user_within_own_access")
    refused = await api.post("/users", manager, new())
    assert refused.refused == (403, "app_user_within_own_access")
    body = new(all_branches=False, branch_ids=[shop.branch_id, there])
    assert (await api.post("/users", manager, body)).refused == (403, "forbidden")
    assert (await api.post("/users", manager, new(**here))).status == 201


# -- escalation ----------------------------------------------------------------------------------


async def test_a_manager_makes_and_changes_who_has_no_more(api: Api, org: Org, psql: Psql) -> None:
    manager, admin = org.member("MANAGER"), org.admin
    made = (await api.post("/users", manager, new(role="MANAGER"))).data
    body = new(role="ADMIN")
    assert (await api.post("/users", manager, body)).refused == (403, "app_user_admin_by_admin")
    path = f"/users/{made['id']}"
    assert (await api.put(path, manager, same(made, role="ADMIN"))).refused == (
        403, "app_user_admin_by_admin",
    )  # fmt: skip
    for rest, sent in (("disable", None), ("reset-password", {})):
        answer = await api.post(f"/users/{admin.id}/{rest}", manager, sent)
        assert answer.refused == (403, "app_user_admin_by_admin")
    # Somebody who may read the audit log, which the manager may not.
    override = f"/permissions/users/{made['id']}/audit:read"
    assert (await api.put(override, org, {"type": "ALLOW"})).status == 200
    beyond = (403, "app_user_within_own_access")
    for method, rest, sent in (
        ("POST", "/reset-password", {}), ("POST", "/disable", None),
        ("PUT", "", same(made, email="mine@example.com")),
    ):  # fmt: skip
        assert (await api.call(method, path + rest, manager, sent)).refused == beyond
    ended = await api.delete(f"{path}/sessions", manager)
    assert ended.status == 204  # there is none
    await sign_in(api, made["email"], made["temporary_password"])
    ended = await api.delete(f"{path}/sessions", manager)
    assert ended.refused == (403, "user_session_ended_within_own_access")
    assert (await api.delete(override, org)).status == 204
    assert (await api.post(f"{path}/reset-password", manager, {})).status == 200
    denied = psql("select count(*) from audit_log where severity = 'WARNING'", org=org)
    assert denied == [(8,)]


async def test_nobody_changes_their_own_access(api: Api, org: Org) -> None:
    admin = org.admin
    mine = (await api.get(f"/users/{admin.id}", org)).data
    path = f"/users/{admin.id}"
    own = (403, "app_user_access_not_by_oneself")
    assert (await api.put(path, org, same(mine, role="MANAGER"))).refused == own
    moved = same(mine, email=f"{uuid.uuid4().hex}@example.com")
    assert (await api.put(path, org, moved)).refused == own, "the links to a new password go there"
    assert (await api.post(f"{path}/disable", org)).refused == own
    assert (await api.post(f"{path}/reset-password", org, {})).refused == (403, "forbidden")
    renamed = await api.put(path, org, same(mine, first_name="Augusta"))
    assert renamed.data["first_name"] == "Augusta"
    manager = org.member("MANAGER")
    mine = (await api.get(f"/users/{manager.id}", org)).data
    answer = await api.put(f"/users/{manager.id}", manager, same(mine, role="ADMIN"))
    assert answer.refused == own


# -- ends ----------------------------------------------------------------------------------------


async def test_a_disabled_user_is_out_at_once_and_signs_in_anew_when_enabled(
    api: Api, org: Org, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    assert (await api.get("/categories", cashier)).status == 200
    path = f"/users/{cashier.id}"
    assert (await api.post(f"{path}/disable", org)).data["is_active"] is False
    assert (await api.get("/categories", cashier)).refused == (401, "unauthorized")
    assert (await sign_in(api, cashier.email, cashier.password)).status == 401
    reasons = psql("select revoked_why from user_session where user_id = %s", [cashier.id], org=org)
    assert set(reasons) == {("disabled",)}
    assert (await api.post(f"{path}/enable", org)).data["is_active"] is True
    assert (await api.get("/categories", cashier)).refused == (401, "unauthorized")
    assert (await sign_in(api, cashier.email, cashier.password)).status == 200


async def test_a_password_is_reset_and_sessions_end(api: Api, org: Org) -> None:
    cashier = org.member("CASHIER")
    path = f"/users/{cashier.id}"
    assert len((await api.get(f"{path}/sessions", org)).data["items"]) == 1
    weak = await api.post(f"{path}/reset-password", org, {"password": "secret"})
    assert weak.refused == (422, "invalid_request")
    reset = await api.post(f"{path}/reset-password", org, {})
    assert (await api.get("/categories", cashier)).refused == (401, "unauthorized")
    assert (await sign_in(api, cashier.email, cashier.password)).status == 401
    assert (await sign_in(api, cashier.email, reset.data["temporary_password"])).status == 200
    given = await api.post(f"{path}/reset-password", org, {"password": OTHER})
    assert given.data["temporary_password"] is None
    assert (await api.get(f"{path}/sessions", org)).data["items"] == []
    assert (await sign_in(api, cashier.email, OTHER)).status == 200


async def test_a_user_is_signed_out_everywhere(api: Api, org: Org) -> None:
    cashier = org.member("CASHIER")
    await sign_in(api, cashier.email, cashier.password)
    path = f"/users/{cashier.id}/sessions"
    (latest, _) = (await api.get(path, org)).data["items"]
    assert (latest["kind"], latest["till_id"]) == ("password", None)
    assert (await api.delete(path, org.member("ACCOUNTANT"))).refused == (403, "forbidden")
    assert (await api.delete(path, org.member("MANAGER"))).status == 204
    assert (await api.get(path, org)).data["items"] == []
    assert (await api.get("/categories", cashier)).refused == (401, "unauthorized")


# -- the last administrator ----------------------------------------------------------------------


async def test_an_organisation_keeps_an_administrator(api: Api, org: Org) -> None:
    second = await signed_in(api, org.admin, new(role="ADMIN"))
    assert (await api.post(f"/users/{org.admin.id}/disable", second)).status == 200
    assert (await api.get("/users", org)).refused == (401, "unauthorized")
    # Who would disable the last one has been disabled, or is the last one.
    assert (await api.post(f"/users/{second.id}/disable", second)).refused == (
        403, "app_user_access_not_by_oneself",
    )  # fmt: skip


async def test_of_twenty_who_demote_each_other_at_once_one_stays(
    api: Api, org: Org, psql: Psql
) -> None:
    admins = [org.admin]
    admins += [await signed_in(api, org.admin, new(role="ADMIN")) for _ in range(19)]
    pairs = zip(admins, admins[1:] + admins[:1], strict=True)
    answers = await asyncio.gather(
        *(api.post(f"/users/{victim.id}/disable", who) for who, victim in pairs)
    )
    left = psql("select count(*) from app_user where role = 'ADMIN' and is_active", org=org)[0][0]
    done = [answer for answer in answers if answer.status == 200]
    assert left >= 1
    assert len(done) == 20 - left
    refused = {answer.refused for answer in answers if answer.status != 200}
    # Whoever was disabled meanwhile is nobody any more.
    assert refused <= {
        (401, "unauthorized"), (403, "app_user_admin_by_admin"),
        (403, "app_user_changed_in_session"), (403, "org_role_changed_in_session"),
        (409, "app_user_keeps_an_admin"),
    }  # fmt: skip
