"""Sessions: renewed by tokens that are good once, listed, and ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sofinance.app import MACHINE
from sofinance.jobs.forgetting import forget_expired
from tests.api.test_sign_in import live_sessions, sign_in

if TYPE_CHECKING:
    from tests.support import Answer, Api, Org, Psql, User

INVALID = (401, "invalid_refresh_token")
REUSED = (401, "refresh_token_reused")
ENDED = (401, "unauthorized")


async def tokens(api: Api, user: User) -> dict[str, Any]:
    data: dict[str, Any] = (await sign_in(api, user)).data
    return data


async def refresh(api: Api, refresh_token: str) -> Answer:
    return await api.post("/auth/refresh", json={"refresh_token": refresh_token})


def bearer(access_token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {access_token}"}


async def me(api: Api, access_token: str) -> Answer:
    return await api.get("/auth/me", headers=bearer(access_token))


def reasons(psql: Psql, org: Org, user: User) -> list[Any]:
    statement = "select revoked_why from user_session where user_id = %s order by id"
    return [row[0] for row in psql(statement, [user.id], org=org)]


# -- renewing --------------------------------------------------------------------------------------


async def test_a_refresh_token_renews_its_session_once(api: Api, org: Org, psql: Psql) -> None:
    first = await tokens(api, org.admin)
    psql("update user_session set idle_until = now() + interval '1 minute'", org=org)
    second = (await refresh(api, first["refresh_token"])).data
    assert second["refresh_token"] != first["refresh_token"]
    assert (second["expires_in"], second["refresh_expires_in"]) == (15 * 60, 480 * 60)
    assert (await me(api, second["access_token"])).status == 200
    third = (await refresh(api, second["refresh_token"])).data
    assert (await me(api, third["access_token"])).status == 200
    assert len(live_sessions(psql, org, org.admin)) == 2  # the fixture's, and this one


async def test_a_reused_refresh_token_ends_the_session(api: Api, org: Org, psql: Psql) -> None:
    first = await tokens(api, org.admin)
    second = (await refresh(api, first["refresh_token"])).data
    assert (await refresh(api, first["refresh_token"])).refused == REUSED
    assert (await me(api, second["access_token"])).refused == ENDED
    assert (await refresh(api, second["refresh_token"])).refused == INVALID
    assert (await refresh(api, first["refresh_token"])).refused == REUSED
    assert (await api.get("/auth/me", org.admin)).status == 200  # another session of theirs
    assert reasons(psql, org, org.admin) == [None, "reuse"]
    rows = psql(
        "select user_id, severity, after, host(ip), audit_log::text from audit_log"
        " where action = 'auth.refresh'", org=org,
    )  # fmt: skip
    assert [row[:4] for row in rows] == [
        (org.admin.id, "CRITICAL", {"refused": "refresh_token_reused"}, "127.0.0.1")
    ]
    assert first["refresh_token"].split("_", 3)[3] not in rows[0][4]


async def test_of_many_uses_at_once_one_wins_and_the_session_ends(
    api: Api, org: Org, psql: Psql
) -> None:
    token = (await tokens(api, org.admin))["refresh_token"]
    answers = await asyncio.gather(*(refresh(api, token) for _ in range(25)))
    won = [answer for answer in answers if answer.status == 200]
    assert len(won) == 1
    assert {answer.refused for answer in answers if answer.status != 200} == {REUSED}
    assert (await me(api, won[0].data["access_token"])).refused == ENDED
    assert (await refresh(api, won[0].data["refresh_token"])).refused == INVALID
    assert reasons(psql, org, org.admin) == [None, "reuse"]
    assert psql("select count(*) from audit_log where action = 'auth.refresh'", org=org) == [(1,)]


@pytest.mark.parametrize("column", ["idle_until", "expires_at"])
async def test_a_session_that_is_over_is_not_renewed(
    api: Api, org: Org, psql: Psql, column: str
) -> None:
    token = (await tokens(api, org.admin))["refresh_token"]
    # As time would: the application itself may not shorten, or prolong, a session's life.
    statement = "update user_session set created_at = now() - interval '2 days', idle_until = {}"
    past = "now() - interval '1 second'"
    statement = statement.format(past)
    if column == "expires_at":
        statement += f", expires_at = {past}"
    psql(statement, role="superuser")
    assert (await refresh(api, token)).refused == INVALID


async def test_a_session_is_prolonged_to_its_end_at_most(api: Api, org: Org, psql: Psql) -> None:
    token = (await tokens(api, org.admin))["refresh_token"]
    psql(
        "update user_session set idle_until = now() + interval '1 minute',"
        " expires_at = now() + interval '10 minutes' where org_id = %s", [org.id],
        role="superuser",
    )  # fmt: skip
    renewed = (await refresh(api, token)).data
    assert 590 <= renewed["refresh_expires_in"] <= 600
    assert 590 <= renewed["expires_in"] <= 600


async def test_a_disabled_user_renews_nothing(api: Api, org: Org, psql: Psql) -> None:
    cashier = org.member("CASHIER")
    token = (await tokens(api, cashier))["refresh_token"]
    psql("update app_user set is_active = false where id = %s", [cashier.id], org=org)
    assert (await refresh(api, token)).refused == INVALID


async def test_what_is_no_refresh_token_is_refused(api: Api, org: Org, other_org: Org) -> None:
    token = (await tokens(api, org.admin))["refresh_token"]
    _, org_id, session_id, secret = token.split("_", 3)
    for forged in (
        "x",
        f"sfk_{org_id}_{session_id}_{secret}",
        f"sfr_{other_org.id}_{session_id}_{secret}",
        f"sfr_{org_id}_{int(session_id) + 1}_{secret}",
        f"sfr_{org_id}_{session_id}_{secret[:-1]}",
        f"sfr_{2**63 - 1}_{session_id}_{secret}",
        f"sfr_{2**63}_{session_id}_{secret}",
        f"sfr_0_{session_id}_{secret}",
        org.admin.token[:200],
    ):
        assert (await refresh(api, forged)).refused == INVALID
    assert (await refresh(api, "x" * 201)).refused == (422, "invalid_request")
    assert (await refresh(api, token)).status == 200


# -- ending ----------------------------------------------------------------------------------------


async def test_signing_out_ends_the_session_and_its_tokens(api: Api, org: Org, psql: Psql) -> None:
    signed_in = await tokens(api, org.admin)
    headers = bearer(signed_in["access_token"])
    assert (await api.post("/auth/logout", headers=headers)).status == 204
    assert (await me(api, signed_in["access_token"])).refused == ENDED
    assert (await refresh(api, signed_in["refresh_token"])).refused == INVALID
    assert (await api.post("/auth/logout", headers=headers)).refused == ENDED
    assert (await api.get("/auth/me", org.admin)).status == 200
    assert (await api.post("/auth/logout")).refused == ENDED
    assert reasons(psql, org, org.admin) == [None, "sign_out"]
    (row,) = psql(
        "select user_id, entity_id = session_id from audit_log"
        " where action = 'sessions.log_out'", org=org,
    )  # fmt: skip
    assert row == (org.admin.id, True)


async def test_signing_out_everywhere_ends_every_session_of_the_user(
    api: Api, org: Org, psql: Psql
) -> None:
    first, second = await tokens(api, org.admin), await tokens(api, org.admin)
    assert (await api.post("/auth/logout-all", org)).status == 204
    for token in (org.admin.token, first["access_token"], second["access_token"]):
        assert (await me(api, token)).refused == ENDED
    assert (await refresh(api, second["refresh_token"])).refused == INVALID
    assert reasons(psql, org, org.admin) == ["sign_out_all"] * 3
    assert (await api.get("/auth/me", org.member("CASHIER"))).status == 200


async def test_a_user_lists_the_sessions_that_go_on(api: Api, org: Org) -> None:
    agent = {"User-Agent": "Back office/3"}
    signed_in = (await sign_in(api, org.admin, headers=agent)).data
    gone = await tokens(api, org.admin)
    assert (await api.post("/auth/logout", headers=bearer(gone["access_token"]))).status == 204
    await tokens(api, org.member("CASHIER"))
    listed = (await api.get("/auth/sessions", headers=bearer(signed_in["access_token"]))).data
    assert listed["pagination"]["total"] == 2
    first, second = listed["items"]
    assert (first["device"], first["ip"], first["kind"]) == (agent["User-Agent"], "127.0.0.1",
                                                             "password")  # fmt: skip
    assert (first["is_current"], second["is_current"]) == (True, False)
    assert first["created_at"] == first["last_used_at"] < first["idle_until"] < first["expires_at"]
    page = (await api.get("/auth/sessions?size=1&page=2", org)).data["items"]
    assert [session["is_current"] for session in page] == [True]


async def test_a_user_ends_one_of_their_own_sessions(api: Api, org: Org) -> None:
    await tokens(api, org.admin)
    (other, _) = (await api.get("/auth/sessions", org)).data["items"]
    assert (await api.delete(f"/auth/sessions/{other['id']}", org)).status == 204
    assert (await api.delete(f"/auth/sessions/{other['id']}", org)).refused == (404, "not_found")
    assert (await api.get("/auth/sessions", org)).data["pagination"]["total"] == 1


async def test_nobody_ends_somebody_elses_session(
    api: Api, org: Org, other_org: Org, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    for owner in (org.admin, other_org.admin):
        theirs = live_sessions(psql, org if owner is org.admin else other_org, owner)[0]
        refused = await api.delete(f"/auth/sessions/{theirs}", cashier)
        assert refused.refused == (404, "not_found")
        assert (await api.get("/auth/me", owner)).status == 200


async def test_sessions_that_were_over_a_month_ago_are_forgotten_with_their_tokens(
    api: Api, org: Org, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    for _ in range(2):
        await tokens(api, cashier)
    gone, kept, _ = live_sessions(psql, org, cashier)
    for session_id, days in ((gone, 31), (kept, 29)):
        psql(
            "update user_session set created_at = now() - interval '60 days',"
            f" idle_until = now() - interval '{days} days',"
            f" expires_at = now() - interval '{days} days' where org_id = %s and id = %s",
            [org.id, session_id], role="superuser",
        )  # fmt: skip
    await forget_expired(api.app[MACHINE].db)
    left = psql("select id from user_session where user_id = %s", [cashier.id], org=org)
    assert (gone,) not in left
    assert (kept,) in left
    of_gone = "select count(*) from refresh_token where session_id = %s"
    assert psql(of_gone, [gone], org=org) == [(0,)]
    assert psql(of_gone, [kept], org=org) == [(1,)]


async def test_an_api_key_has_no_session(api: Api, org: Org, psql: Psql) -> None:
    made = psql(
        "insert into api_key (org_id, user_id, name, secret_hash, permissions, expires_at)"
        " values (%s, %s, 'Key', sha256('k'), '{sales:read}', now() + '1 day') returning id",
        [org.id, org.admin.id], org=org, role="sofinance_owner",
    )  # fmt: skip
    headers = bearer(f"sfk_{org.id}_{made[0][0]}_k")
    refused = (403, "session_required")
    assert (await api.get("/auth/me", headers=headers)).status == 200
    assert (await api.get("/auth/sessions", headers=headers)).refused == refused
    assert (await api.delete("/auth/sessions/1", headers=headers)).refused == refused
    for path in ("/auth/logout", "/auth/logout-all"):
        assert (await api.post(path, headers=headers)).refused == refused
    assert len(live_sessions(psql, org, org.admin)) == 1
