"""API keys: machines act for who made them, with less, and not for a moment longer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.test_users import new, same, signed_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.api.conftest import Shop
    from tests.support import Answer, Api, Org, Psql, User

    MakeApi = Callable[..., Awaitable[Api]]

OUT = (401, "unauthorized")
NO_SESSION = (403, "api_key_changed_in_session")


def key(*permissions: str, **changes: Any) -> dict[str, Any]:
    """Return the body of a new key."""
    return {"name": "Scales", "permissions": list(permissions) or ["sales:write"], **changes}


async def make(api: Api, who: User, *permissions: str, **changes: Any) -> tuple[int, User]:
    """Make a key; returns its id, and who calls with it."""
    made = (await api.post("/api-keys", who, key(*permissions, **changes))).data
    return made["id"], replace(who, token=made["secret"])


# -- end to end ----------------------------------------------------------------------------------


async def test_a_key_sells_and_does_nothing_else(shop: Shop, psql: Psql) -> None:
    api, manager = shop.api, shop.org.member("MANAGER")
    answer = await api.post("/api-keys", manager, key("sales:write"), key="once")
    made = answer.data
    assert answer.status == 201
    assert answer.headers["Location"] == f"/api/v1/api-keys/{made['id']}"
    assert made["secret"].startswith(f"sfk_{shop.org.id}_{made['id']}_")
    machine = replace(manager, token=made["secret"])
    sold = await shop.sell(paid="11.00", who=machine)
    assert sold.status == 201
    audited = psql(
        "select user_id, api_key_id, session_id from audit_log where action = 'sales.post_sale'",
        org=shop.org,
    )
    assert audited == [(manager.id, made["id"], None)]
    for path in ("/sales", "/categories", "/users", "/permissions"):
        assert (await api.get(path, machine)).refused == (403, "forbidden"), path
    override = shop.item(unit_price="1.00")
    assert (await shop.sell(override, paid="1.10", who=machine)).refused == (
        403, "sale_line_price_override_allowed",
    )  # fmt: skip
    # The secret is nowhere: not in the log, not among stored answers, not in the list.
    secret = made["secret"].split("_", 3)[3]
    assert "secret" not in (await api.get("/api-keys", manager)).data["items"][0]
    assert psql("select count(*) from idempotency_key", org=shop.org) == [(0,)]
    kept = psql("select after::text from audit_log where action ~ 'api_keys'", org=shop.org)
    assert secret not in str(kept)


async def test_a_key_is_for_some_branches(shop: Shop) -> None:
    api, org = shop.api, shop.org
    other = (await api.post("/branches", org, {"name": "Elsewhere"})).data["id"]
    _, machine = await make(api, org.admin, "sales:write", "branches:read", branch_ids=[other])
    assert [b["id"] for b in (await api.get("/branches", machine)).data["items"]] == [other]
    assert (await shop.sell(paid="11.00", who=machine)).refused == (409, "sale_till_known")


async def test_a_key_may_what_its_user_still_may(api: Api, org: Org) -> None:
    manager = org.member("MANAGER")
    _, machine = await make(api, manager, "categories:read", "categories:write")
    assert (await api.post("/categories", machine, {"name": "Fruit"})).status == 201
    denial = f"/permissions/users/{manager.id}/categories:write"
    assert (await api.put(denial, org, {"type": "DENY"})).status == 200
    assert (await api.post("/categories", machine, {"name": "Nuts"})).refused == (
        403, "forbidden",
    )  # fmt: skip
    assert (await api.get("/categories", machine)).status == 200
    assert (await api.delete(denial, org)).status == 204
    assert (await api.post("/categories", machine, {"name": "Nuts"})).status == 201


# -- what a key may have -------------------------------------------------------------------------


async def test_a_key_has_no_more_than_who_makes_it(shop: Shop) -> None:
    api, org = shop.api, shop.org
    manager = org.member("MANAGER")
    beyond = await api.post("/api-keys", manager, key("sales:write", "audit:read"))
    assert beyond.refused == (403, "api_key_within_own_access")
    assert beyond.details == {"permissions": ["audit:read"], "branch_ids": []}
    unknown = await api.post("/api-keys", org, key("sales:steal"))
    assert unknown.refused == (403, "api_key_within_own_access")
    other = (await api.post("/branches", org, {"name": "Elsewhere"})).data["id"]
    user = (await api.get(f"/users/{manager.id}", org)).data
    here = same(user, all_branches=False, branch_ids=[shop.branch_id])
    assert (await api.put(f"/users/{manager.id}", org, here)).status == 200
    for there in (other, 999_999_999):
        answer = await api.post("/api-keys", manager, key(branch_ids=[shop.branch_id, there]))
        assert answer.refused == (403, "api_key_within_own_access")
        assert answer.details == {"permissions": [], "branch_ids": [there]}
    assert (await api.post("/api-keys", org.member("CASHIER"), key())).refused == (
        403, "forbidden",
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"permissions": []}, {"name": ""}, {"expires_in_days": 0}, {"expires_in_days": 367},
        {"branch_ids": []}, {"user_id": 1}, {"permissions": None},
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_refused(api: Api, org: Org, changes: dict[str, Any]) -> None:
    answer = await api.post("/api-keys", org, key() | changes)
    assert answer.refused == (422, "invalid_request")


async def test_a_key_ends_within_a_year_and_a_day(api: Api, org: Org) -> None:
    for days in (1, 366):
        made = (await api.post("/api-keys", org, key(expires_in_days=days))).data
        ends = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
        assert timedelta(days=days, minutes=-5) < ends <= timedelta(days=days)


async def test_a_key_makes_no_keys_and_changes_no_access(api: Api, org: Org) -> None:
    everything = [row["name"] for row in (await api.get("/permissions", org)).data["items"]]
    key_id, machine = await make(api, org.admin, *everything)
    cashier = org.member("CASHIER").id
    assert (await api.get("/users", machine)).status == 200
    for method, path, body, code in (
        ("POST", "/api-keys", key(), "api_key"),
        ("POST", f"/api-keys/{key_id}/rotate", {}, "api_key"),
        ("DELETE", f"/api-keys/{key_id}", None, "api_key"),
        ("POST", "/roles", {"name": "MINE"}, "org_role"),
        ("PUT", "/permissions/roles/CASHIER/sales:void", {"effect": "ALLOW"}, "role_grant"),
        ("PUT", f"/permissions/users/{cashier}/sales:void", {"type": "ALLOW"}, "user_permission"),
    ):  # fmt: skip
        answer = await api.call(method, path, machine, body)
        assert answer.refused == (403, f"{code}_changed_in_session"), path
    names = {"first_name": "Not", "last_name": "Me"}
    renamed = await api.put("/users/profile", machine, names)
    assert renamed.refused == (403, "session_required")
    user = (await api.get(f"/users/{cashier}", machine)).data
    # The rule that speaks first differs: who is in no session is nobody.
    for method, path, body in (
        ("POST", "/users", new()), ("POST", f"/users/{cashier}/disable", None),
        ("PUT", f"/users/{cashier}", same(user, role="ACCOUNTANT")),
        ("POST", f"/users/{cashier}/reset-password", {}),
    ):  # fmt: skip
        answer = await api.call(method, path, machine, body)
        assert answer.refused == (403, "app_user_changed_in_session"), path
    assert (await api.get("/categories", org.member("CASHIER"))).status == 200


# -- ends, in every worker -----------------------------------------------------------------------


async def test_an_end_counts_at_once_in_every_worker(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    workers = [await api_with(), await api_with()]
    manager = org.member("MANAGER")

    async def refused(machine: User) -> list[tuple[int, str]]:
        return [(await worker.get("/categories", machine)).refused for worker in workers]

    async def works(machine: User) -> None:
        for worker in workers:
            assert (await worker.get("/categories", machine)).status == 200

    key_id, machine = await make(workers[0], manager, "categories:read")
    await works(machine)
    assert (await workers[0].delete(f"/api-keys/{key_id}", manager)).status == 204
    assert await refused(machine) == [OUT, OUT]
    assert (await workers[0].delete(f"/api-keys/{key_id}", manager)).refused == (404, "not_found")

    key_id, machine = await make(workers[0], manager, "categories:read")
    await works(machine)
    past = "created_at = now() - interval '2 days', expires_at = now() - interval '1 day'"
    psql(f"update api_key set {past} where id = {key_id}", org=org, role="superuser")
    assert await refused(machine) == [OUT, OUT]

    key_id, machine = await make(workers[0], manager, "categories:read")
    await works(machine)
    assert (await workers[1].post(f"/users/{manager.id}/disable", org)).status == 200
    assert await refused(machine) == [OUT, OUT]
    assert (await workers[1].post(f"/users/{manager.id}/enable", org)).status == 200
    assert await refused(machine) == [OUT, OUT]  # it was revoked, for good


async def test_a_secret_that_is_another_key_s_is_refused(api: Api, org: Org) -> None:
    first, one = await make(api, org.admin)
    second, other = await make(api, org.admin)
    mixed = one.token.replace(f"_{first}_", f"_{second}_")
    assert (await api.get("/categories", replace(one, token=mixed))).refused == OUT
    assert (await api.get("/categories", replace(one, token=other.token + "x"))).refused == OUT


# -- rotation ------------------------------------------------------------------------------------


async def test_a_key_is_rotated_with_an_overlap_or_without(api: Api, org: Org) -> None:
    first, one = await make(api, org.admin, "categories:read")
    rotated = await api.post(f"/api-keys/{first}/rotate", org, {"overlap_minutes": 10})
    assert (rotated.status, rotated.data["replaces"]) == (201, first)
    assert rotated.data["permissions"] == ["categories:read"]
    two = replace(one, token=rotated.data["secret"])
    for machine in (one, two):
        assert (await api.get("/categories", machine)).status == 200
    ends = datetime.fromisoformat((await api.get(f"/api-keys/{first}", org)).data["expires_at"])
    assert ends - datetime.now(UTC) <= timedelta(minutes=10)
    again = await api.post(f"/api-keys/{first}/rotate", org, {})
    assert again.refused == (409, "api_key_replaces_once")
    third = await api.post(f"/api-keys/{rotated.data['id']}/rotate", org, {})
    assert third.status == 201
    assert (await api.get("/categories", two)).refused == OUT
    assert (await api.get("/categories", one)).status == 200  # it has its minutes still


async def test_of_twenty_rotations_at_once_one_is_made(api: Api, org: Org, psql: Psql) -> None:
    for body in ({}, {"overlap_minutes": 5}):
        key_id, _ = await make(api, org.admin)
        answers = await asyncio.gather(
            *(api.post(f"/api-keys/{key_id}/rotate", org, body) for _ in range(20))
        )
        assert [answer.status for answer in answers].count(201) == 1
        refused = {answer.refused for answer in answers if answer.status != 201}
        assert refused == {(409, "api_key_replaces_once") if body else (404, "not_found")}
        made = psql("select count(*) from api_key where replaces = %s", [key_id], org=org)
        assert made == [(1,)]


async def test_what_a_user_lost_is_not_rotated_back(api: Api, org: Org) -> None:
    manager = org.member("MANAGER")
    key_id, machine = await make(api, manager, "categories:read")
    denial = f"/permissions/users/{manager.id}/categories:read"
    assert (await api.put(denial, org, {"type": "DENY"})).status == 200
    rotated = await api.post(f"/api-keys/{key_id}/rotate", manager, {})
    assert rotated.refused == (403, "api_key_within_own_access")
    assert (await api.delete(denial, org)).status == 204
    assert (await api.get("/categories", machine)).status == 200  # nothing had been done


# -- whose they are ------------------------------------------------------------------------------


async def test_keys_are_one_s_own_or_those_of_who_has_no_more(
    api: Api, org: Org, other_org: Org
) -> None:
    manager, cashier = org.member("MANAGER"), org.member("CASHIER")
    of_manager, _ = await make(api, manager)
    of_admin, _ = await make(api, org.admin, "sales:write")

    async def listed(who: User, query: str = "") -> list[int]:
        answer: Answer = await api.get(f"/api-keys{query}", who)
        return [row["id"] for row in answer.data["items"]]

    assert await listed(manager) == [of_manager]
    assert await listed(manager, "?everyone=true") == [of_admin, of_manager]
    assert await listed(org.admin, f"?user_id={manager.id}") == [of_manager]
    assert await listed(cashier) == []
    assert (await api.get("/api-keys?everyone=true", cashier)).refused == (403, "forbidden")
    assert (await api.get(f"/api-keys?user_id={manager.id}", cashier)).status == 403
    for who in (cashier, other_org.admin):
        for method, path in (("GET", ""), ("DELETE", "")):
            answer = await api.call(method, f"/api-keys/{of_manager}{path}", who)
            assert answer.refused == (404, "not_found")
    # Nobody gets somebody else's secret, and nobody ends the key of who has more.
    assert (await api.post(f"/api-keys/{of_manager}/rotate", org, {})).status == 404
    assert (await api.delete(f"/api-keys/{of_admin}", manager)).refused == (
        403, "api_key_ended_within_own_access",
    )  # fmt: skip
    assert (await api.delete(f"/api-keys/{of_manager}", org)).status == 204
    assert await listed(manager) == []
    assert await listed(manager, "?include_ended=true") == [of_manager]


async def test_a_manager_of_one_branch_ends_no_key_of_all(shop: Shop) -> None:
    api, org = shop.api, shop.org
    of_manager, _ = await make(api, org.member("MANAGER"))
    body = new(role="MANAGER", all_branches=False, branch_ids=[shop.branch_id])
    local = await signed_in(api, org.admin, body)
    refused = await api.delete(f"/api-keys/{of_manager}", local)
    assert refused.refused == (403, "api_key_ended_within_own_access")
    # Nor does one see the keys of who works elsewhere.
    elsewhere = (await api.post("/branches", org, {"name": "Elsewhere"})).data["id"]
    body = new(role="MANAGER", all_branches=False, branch_ids=[elsewhere])
    far = await signed_in(api, org.admin, body)
    of_far, _ = await make(api, far)
    assert (await api.get(f"/api-keys/{of_far}", local)).refused == (404, "not_found")
    assert (await api.delete(f"/api-keys/{of_far}", local)).refused == (404, "not_found")
    assert (await api.get(f"/api-keys?user_id={far.id}", local)).refused == (404, "not_found")
    assert (await api.get("/api-keys?everyone=true", local)).refused == (403, "forbidden")
    assert (await api.get(f"/api-keys?user_id={org.admin.id}", local)).status == 200


# -- when it was last seen -----------------------------------------------------------------------


async def test_the_day_of_last_use_is_written_once_a_day(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    workers = [await api_with(), await api_with()]
    key_id, machine = await make(workers[0], org.admin, "categories:read")
    path = f"/api-keys/{key_id}"
    assert (await workers[0].get(path, org)).data["last_used_on"] is None
    await asyncio.gather(*(worker.get("/categories", machine) for worker in workers * 10))
    today = datetime.now(UTC).date().isoformat()
    assert (await workers[0].get(path, org)).data["last_used_on"] == today
    row = "select xmin::text from api_key where id = %s"
    before = psql(row, [key_id], org=org)
    fresh = await api_with()
    for worker in (*workers, fresh):
        assert (await worker.get("/categories", machine)).status == 200
    assert psql(row, [key_id], org=org) == before
    psql(f"update api_key set last_used_on = '2020-01-01' where id = {key_id}", org=org)
    assert (await fresh.get("/categories", machine)).status == 200  # it knows today's already
    later = await api_with()
    assert (await later.get("/categories", machine)).status == 200
    assert (await later.get(path, org)).data["last_used_on"] == today
