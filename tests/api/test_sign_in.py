"""Signing in: what it answers, what it begins, and how many sessions anybody may have."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support import Answer, Api, Org, Psql, User


def credentials(user: User, **changes: Any) -> dict[str, Any]:
    return {"email": user.email, "password": user.password, **changes}


async def sign_in(api: Api, user: User, **options: Any) -> Answer:
    return await api.post("/auth/login", json=credentials(user), **options)


def live_sessions(psql: Psql, org: Org, user: User) -> list[int]:
    statement = "select id from user_session where user_id = %s and revoked_at is null order by id"
    return [row[0] for row in psql(statement, [user.id], org=org)]


async def test_a_sign_in_answers_two_tokens_and_how_long_they_last(api: Api, org: Org) -> None:
    answer = await sign_in(api, org.admin)
    assert answer.data["token_type"] == "bearer"  # noqa: S105 - not a secret
    assert answer.data["expires_in"] == 15 * 60
    assert answer.data["refresh_expires_in"] == 480 * 60
    assert answer.data["refresh_token"].startswith(f"sfr_{org.id}_")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "session_id" not in answer.data


async def test_a_session_remembers_its_device_and_address(api: Api, org: Org, psql: Psql) -> None:
    agent = {"User-Agent": "Till/1.0 " + "x" * 600}
    assert (await sign_in(api, org.admin, headers=agent)).status == 200
    odd = {"User-Agent": "Café/2"}
    assert (await sign_in(api, org.admin, headers=odd)).status == 200
    first, second = psql(
        "select device, host(ip) from user_session where user_id = %s order by id desc limit 2",
        [org.admin.id], org=org,
    )  # fmt: skip
    assert second == (("Till/1.0 " + "x" * 600)[:500], "127.0.0.1")
    assert first[0] == "Café/2"


async def test_a_refresh_token_is_kept_as_a_digest(api: Api, org: Org, psql: Psql) -> None:
    secret = (await sign_in(api, org.admin)).data["refresh_token"].split("_", 3)[3]
    found = psql(
        "select used_at from refresh_token where token_hash = sha256(%s)",
        [secret.encode()], org=org,
    )  # fmt: skip
    assert found == [(None,)]


async def test_one_session_too_many_ends_the_oldest(api: Api, org: Org, psql: Psql) -> None:
    cashier = org.member("CASHIER")  # has a session already
    for _ in range(4):
        assert (await sign_in(api, cashier)).status == 200
    assert (await api.get("/auth/me", cashier)).status == 200
    before = live_sessions(psql, org, cashier)
    assert (await sign_in(api, cashier)).status == 200
    assert (await api.get("/auth/me", cashier)).refused == (401, "unauthorized")
    after = live_sessions(psql, org, cashier)
    assert (len(before), len(after), after[:4]) == (5, 5, before[1:])
    why = psql("select revoked_why from user_session where id = %s", [before[0]], org=org)
    assert why == [("too_many",)]


async def test_sign_ins_at_once_leave_no_more_sessions_than_allowed(
    api: Api, org: Org, psql: Psql
) -> None:
    manager = org.member("MANAGER")
    answers = await asyncio.gather(*(sign_in(api, manager) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len(live_sessions(psql, org, manager)) == 5


async def test_a_sign_in_is_audited_without_its_secrets(api: Api, org: Org, psql: Psql) -> None:
    answer = await sign_in(api, org.admin)
    rows = psql(
        "select user_id, session_id, entity_id, severity, host(ip), audit_log::text from audit_log"
        " where action = 'auth.login'", org=org,
    )  # fmt: skip
    (row,) = rows
    session_id = live_sessions(psql, org, org.admin)[-1]
    assert row[:5] == (org.admin.id, session_id, session_id, "INFO", "127.0.0.1")
    for secret in (org.admin.password, answer.data["access_token"], answer.data["refresh_token"]):
        assert secret not in row[5]
