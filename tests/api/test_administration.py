"""Administration: from which addresses, when it is read-only, and who may break the glass."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sofinance.app import find_endpoints
from sofinance.config import Settings, SettingsError, load
from sofinance.infra.administration import Administration
from sofinance.infra.http import Routes
from sofinance.infra.proxies import Proxies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Answer, Api, Org, Psql, User

    MakeApi = Callable[..., Awaitable[Api]]

GLASS = "/admin/break-glass"
WHY = {"reason": "a wrong name is printed on every receipt"}
INVALID = (403, "break_glass_invalid")


async def broken(api: Api, who: Any, **body: Any) -> Any:
    """Break the glass; returns the answer's data."""
    return (await api.post(GLASS, who, {**WHY, **body})).data


async def rename(api: Api, who: Org | User, token: str | None = None, **body: Any) -> Answer:
    headers = {} if token is None else {"X-Break-Glass-Token": token}
    change = body or {"name": "Renamed"}
    return await api.call("PATCH", "/organisation", who, change, headers=headers)


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "status"),
    [
        (("", "", ""), 200),
        (("127.0.0.0/8", "", ""), 200),
        (("192.0.2.0/24, 127.0.0.1", "", ""), 200),
        (("10.0.0.0/8", "", ""), 403),
        (("::1", "", ""), 403),
        # Nobody believes what a client says of itself.
        (("10.0.0.0/8", "", "10.0.0.7"), 403),
        # Behind our proxy it is the client's address that counts.
        (("10.0.0.0/8", "127.0.0.1", "10.0.0.7"), 200),
        (("10.0.0.0/8", "127.0.0.1", "10.0.0.7, 192.0.2.1"), 403),
        # A proxy's own address has no client's rights, on the list or not.
        (("127.0.0.0/8", "127.0.0.1", ""), 403),
        (("127.0.0.0/8", "127.0.0.1", "unknown"), 403),
        (("0.0.0.0/0, ::/0", "127.0.0.1", "garbage"), 403),
    ],
)
async def test_administration_is_open_to_listed_addresses(
    api_with: MakeApi, org: Org, psql: Psql, case: tuple[str, str, str], status: int
) -> None:
    allowed, proxies, forwarded = case
    api = await api_with(
        admin_ip_allowlist_cidrs=allowed, trust_proxy_headers=bool(proxies),
        trusted_proxy_ips=proxies,
    )  # fmt: skip
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    answer = await api.get("/audit/logs", org, headers=headers)
    assert answer.status == status
    if status == 403:
        assert answer.refused == (403, "address_not_allowed")
        told = "select action, after ->> 'code' from audit_log where severity = 'WARNING'"
        assert psql(told, org=org) == [("audit.list_logs", "address_not_allowed")]
    # What is no administration goes on.
    assert (await api.get("/organisation", org, headers=headers)).status == 200


def test_an_address_that_cannot_be_told_is_on_no_list() -> None:
    settings = Settings.for_tests(database_url="", admin_ip_allowlist_cidrs="0.0.0.0/0,::/0")
    rules = Administration(settings, Proxies([]))
    assert rules.allows("192.0.2.7")
    assert rules.allows("2001:db8::7")
    assert not rules.allows(None)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "office", "10.0.0.1,10.0.0", "unix"])
def test_a_bad_list_stops_the_start(text: str) -> None:
    environ = {
        "DATABASE_URL": "postgresql://app@db/books", "JWT_SECRET": "s" * 32,
        "ADMIN_IP_ALLOWLIST_CIDRS": text,
    }  # fmt: skip
    with pytest.raises(SettingsError, match=r"ADMIN_IP_ALLOWLIST_CIDRS: .* is no address"):
        load(environ)


async def test_permission_comes_before_the_address(api_with: MakeApi, org: Org) -> None:
    api = await api_with(admin_ip_allowlist_cidrs="10.0.0.0/8")
    assert (await api.get("/audit/logs", org.member("CASHIER"))).refused == (403, "forbidden")
    assert (await api.get("/audit/logs")).refused == (401, "unauthorized")


# -- read-only ---------------------------------------------------------------------------------


async def test_read_only_stops_administrative_changes_and_nothing_else(
    api_with: MakeApi, org: Org
) -> None:
    api = await api_with(admin_read_only=True)
    assert (await rename(api, org)).refused == (409, "admin_read_only")
    assert (await api.get("/organisation", org)).data["name"] == "Test"
    assert (await api.get("/audit/logs", org)).status == 200
    assert (await api.post("/categories", org, {"name": "Fruit"})).status == 201


async def test_in_the_read_only_mode_somebody_can_still_be_kept_out(
    api_with: MakeApi, org: Org
) -> None:
    api = await api_with(admin_read_only=True)
    cashier = org.member("CASHIER")
    path = f"/users/{cashier.id}"
    assert (await api.post(f"{path}/disable", org)).status == 200
    assert (await api.get("/auth/me", cashier)).refused == (401, "unauthorized")
    assert (await api.post(f"{path}/enable", org)).refused == (409, "admin_read_only")
    token = (await broken(api, org))["token"]
    headers = {"X-Break-Glass-Token": token}
    assert (await api.post(f"{path}/enable", org, headers=headers)).status == 200


async def test_glass_is_used_where_a_handler_opens_its_own_transactions(
    api_with: MakeApi, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints, routes = find_endpoints(), Routes()

    @routes.endpoint(
        "POST", "/slow", permission="system:manage", admin=True, own_transactions=True,
        idempotent=False,
    )  # fmt: skip
    async def take_long(_: Any) -> None:
        """Take long."""

    monkeypatch.setattr("sofinance.app.find_endpoints", lambda: [*endpoints, *routes])
    api = await api_with(admin_read_only=True)
    assert (await api.post("/slow", org)).refused == (409, "admin_read_only")
    token = (await broken(api, org))["token"]
    headers = {"X-Break-Glass-Token": token}
    assert (await api.post("/slow", org, headers=headers)).status == 204
    used = "select after ->> 'path' from audit_log where action = 'admin.use_break_glass'"
    assert psql(used, org=org) == [("/api/v1/slow",)]
    bad = await api.post("/slow", org, headers={"X-Break-Glass-Token": token + "x"})
    assert bad.refused == INVALID


def test_who_changes_what_others_may_do_is_administration() -> None:
    administrative = ("users:write", "roles:write", "api_keys:write", "organisation:write")
    missed = [
        endpoint.name for endpoint in find_endpoints()
        if endpoint.method != "GET" and endpoint.permission in administrative
        and not endpoint.admin
    ]  # fmt: skip
    assert missed == []


async def test_a_broken_glass_lets_its_owner_change_things(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    api = await api_with(admin_read_only=True, enable_audit_logging=False)
    glass = await broken(api, org)
    assert (await rename(api, org, glass["token"])).data["name"] == "Renamed"
    assert (await rename(api, org)).refused == (409, "admin_read_only")
    # Its uses are on record though nothing else is.
    columns = "user_id, action, entity_type, entity_id, after, severity, session_id is not null"
    assert psql(f"select {columns} from audit_log", org=org) == [
        (
            org.admin.id, "admin.use_break_glass", "break_glass", glass["id"],
            {"method": "PATCH", "path": "/api/v1/organisation"}, "CRITICAL", True,
        )
    ]  # fmt: skip


async def test_breaking_and_ending_it_are_critical_and_its_token_is_nowhere(
    api: Api, org: Org, psql: Psql
) -> None:
    glass = await broken(api, org)
    assert (await rename(api, org, glass["token"])).status == 200
    assert (await api.delete(f"{GLASS}/{glass['id']}", org)).status == 204
    rows = psql("select action, entity_id, severity from audit_log order by id", org=org)
    assert rows == [
        ("admin.break_glass", glass["id"], "CRITICAL"),
        ("admin.use_break_glass", glass["id"], "CRITICAL"),
        ("organisation.change_organisation", org.id, "INFO"),
        ("admin.revoke_break_glass", glass["id"], "CRITICAL"),
    ]
    secret = glass["token"].split("_", 3)[3]
    everything = psql("select audit_log::text from audit_log", org=org)
    everything += psql("select break_glass::text from break_glass", org=org)
    everything += psql("select convert_from(body, 'utf8') from idempotency_key", org=org)
    assert secret not in str(everything)
    assert glass["reason"] in str(everything)


async def test_it_ends_when_it_was_said_to(api: Api, org: Org, psql: Psql) -> None:
    glass = await broken(api, org)
    begins, ends = (datetime.fromisoformat(glass[name]) for name in ("created_at", "expires_at"))
    assert ends - begins == timedelta(minutes=30)
    glass = await broken(api, org, ttl_minutes=240)
    begins, ends = (datetime.fromisoformat(glass[name]) for name in ("created_at", "expires_at"))
    assert ends - begins == timedelta(minutes=240)
    psql(
        "alter table break_glass disable trigger all;"
        "update break_glass set created_at = now() - interval '9 minutes',"
        " expires_at = now() - interval '1 second';"
        "alter table break_glass enable trigger all",
        role="superuser", org=org,
    )  # fmt: skip
    assert (await rename(api, org, glass["token"])).refused == INVALID


@pytest.mark.parametrize(
    "body",
    [
        {}, {"reason": "short"}, {**WHY, "ttl_minutes": 0}, {**WHY, "ttl_minutes": 241},
        {**WHY, "ttl_minutes": "30"}, {"reason": "x" * 501}, {**WHY, "user_id": 1},
    ],
)  # fmt: skip
async def test_it_needs_a_reason_and_a_time(api: Api, org: Org, body: Any) -> None:
    assert (await api.post(GLASS, org, body)).refused == (422, "invalid_request")


async def test_blanks_are_no_reason(api: Api, org: Org) -> None:
    answer = await api.post(GLASS, org, {"reason": " " * 20})
    assert answer.refused == (422, "break_glass_reason_given")


async def test_nobody_else_s_and_no_other_token_will_do(
    api: Api, org: Org, other_org: Org, psql: Psql
) -> None:
    glass = await broken(api, org)
    token = glass["token"]
    manager = org.member("MANAGER")
    psql(
        f"insert into user_permission values"
        f" ({org.id}, {manager.id}, 'organisation:write', 'ALLOW')", org=org,
        role="sofinance_owner",
    )  # fmt: skip
    strange = await broken(api, other_org)
    forged = [
        token + "x", token[:-1], "", "sfb", f"sfb_{org.id}_{glass['id']}_", strange["token"],
        token.replace("sfb", "sfk"), token.replace(f"_{glass['id']}_", f"_{strange['id']}_"),
        f"sfb_{org.id}_99999999999999999999_x",
    ]  # fmt: skip
    assert (await rename(api, manager)).status == 200
    assert (await rename(api, manager, token)).refused == INVALID
    assert (await rename(api, other_org, token)).refused == INVALID
    for bad in forged:
        assert (await rename(api, org, bad)).refused == INVALID, bad
    assert (await rename(api, org, token)).status == 200
    told = "select count(*) from audit_log where after ->> 'code' = 'break_glass_invalid'"
    assert psql(told, org=org) == [(len(forged) + 1,)]


async def test_an_ended_glass_opens_nothing(api: Api, org: Org, other_org: Org) -> None:
    glass = await broken(api, org)
    path = f"{GLASS}/{glass['id']}"
    assert (await api.delete(path, other_org)).refused == (404, "not_found")
    assert (await api.delete(path, org)).status == 204
    assert (await api.delete(path, org)).refused == (404, "not_found")
    assert (await rename(api, org, glass["token"])).refused == INVALID
    (listed,) = (await api.get(GLASS, org)).data["items"]
    assert listed["revoked_by"] == org.admin.id
    assert "token" not in listed
    assert (await api.get(GLASS, other_org)).data["items"] == []


async def test_of_many_who_end_it_at_once_one_does(api: Api, org: Org) -> None:
    path = f"{GLASS}/{(await broken(api, org))['id']}"
    answers = await asyncio.gather(*(api.delete(path, org) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [204] + [404] * 19


async def test_nothing_is_done_with_it_after_it_was_ended(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    api = await api_with(admin_read_only=True)
    glass = await broken(api, org)

    async def end() -> Answer:
        await asyncio.sleep(0.03)
        return await api.delete(f"{GLASS}/{glass['id']}", org)

    uses = [rename(api, org, glass["token"], name=f"Name {n}") for n in range(25)]
    *answers, ended = await asyncio.gather(*uses, end())
    assert ended.status == 204
    done = [answer for answer in answers if answer.status == 200]
    assert {answer.refused for answer in answers if answer.status != 200} <= {INVALID}
    used, last_used, ended_at = psql(
        "select count(*) filter (where action = 'admin.use_break_glass'),"
        " max(id) filter (where action = 'admin.use_break_glass'),"
        " max(id) filter (where action = 'admin.revoke_break_glass') from audit_log", org=org,
    )[0]  # fmt: skip
    assert used == len(done)
    assert last_used is None or last_used < ended_at


async def test_only_who_may_manage_the_system_breaks_it(api: Api, org: Org) -> None:
    for role in ("MANAGER", "CASHIER", "ACCOUNTANT", "INVENTORY_CLERK"):
        assert (await api.post(GLASS, org.member(role), WHY)).refused == (403, "forbidden")
        assert (await api.get(GLASS, org.member(role))).refused == (403, "forbidden")


async def test_a_machine_breaks_no_glass(api: Api, org: Org, psql: Psql) -> None:
    ((key_id,),) = psql(
        "insert into api_key (org_id, user_id, name, secret_hash, permissions, expires_at) values"
        " (%s, %s, 'Key', sha256('k'), '{system:manage,organisation:write}', now() + '1 day')"
        " returning id", [org.id, org.admin.id], org=org, role="sofinance_owner",
    )  # fmt: skip
    key = {"Authorization": f"Bearer sfk_{org.id}_{key_id}_k"}
    assert (await api.get(GLASS, headers=key)).status == 200
    assert (await api.post(GLASS, json=WHY, headers=key)).refused == (403, "session_required")
    token = (await broken(api, org))["token"]
    change = {"name": "Renamed"}
    headers = {**key, "X-Break-Glass-Token": token}
    answer = await api.call("PATCH", "/organisation", json=change, headers=headers)
    assert answer.refused == INVALID


async def test_a_use_that_is_undone_leaves_nothing(api: Api, org: Org, psql: Psql) -> None:
    token = (await broken(api, org))["token"]
    assert (await rename(api, org, token, name=" ")).refused == (
        422, "organisation_name_not_empty",
    )  # fmt: skip
    used = "select count(*) from audit_log where action = 'admin.use_break_glass'"
    assert psql(used, org=org) == [(0,)]
