"""A second factor: enrolled, shown, each code used once, taken away; nowhere stored in clear."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sofinance.infra import totp
from sofinance.infra.sql import Row
from tests.support import direct, sign_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql, User

    MakeApi = Callable[..., Awaitable[Api]]

RACERS = 20


class App:
    """An authenticator app: a secret, and the codes of it that were not given out yet."""

    def __init__(self, secret: str) -> None:
        self.secret = base64.b32decode(secret)
        self.step = totp.step_at(datetime.now(UTC)) - 1

    def code(self) -> str:
        """Return the next code; two are good without waiting, also when a step ends meanwhile."""
        self.step += 1
        return totp.code_at(self.secret, self.step)


async def begin(api: Api, who: User) -> App:
    answer = await api.post("/auth/2fa/enroll", who, {"password": who.password})
    return App(answer.data["secret"])


async def enrol(api: Api, who: User) -> tuple[App, list[str]]:
    app = await begin(api, who)
    codes = (await api.post("/auth/2fa/verify", who, {"code": app.code()})).data
    return app, codes["recovery_codes"]


@pytest.fixture
async def another_session(settings: Settings, org: Org) -> User:
    """The administrator, signed in once more."""
    conn: Any = await asyncpg.connect(direct(settings.database_url), record_class=Row)
    async with conn.transaction():
        await conn.execute(
            f"select set_config('app.org_id', '{org.id}', true),"
            " set_config('app.branch_ids', 'all', true)"
        )
        token = await sign_in(conn, settings, org.id, org.admin.id)
    await conn.close()
    return replace(org.admin, token=token)


# -- enrolling ---------------------------------------------------------------------------------


async def test_somebody_enrols_a_second_factor(
    api: Api, org: Org, another_session: User, psql: Psql
) -> None:
    who = org.admin
    before = (await api.get("/auth/2fa", who)).data
    assert before == {
        "is_enrolled": False, "confirmed_at": None, "recovery_codes_left": 0,
        "is_required": False, "is_shown": False,
    }  # fmt: skip
    answer = await api.post("/auth/2fa/enroll", who, {"password": who.password})
    secret = answer.data["secret"]
    assert answer.data["otpauth_uri"].startswith("otpauth://totp/SOFinance:")
    assert f"secret={secret}&" in answer.data["otpauth_uri"]
    # Until a code confirms it, nothing has changed.
    assert (await api.get("/auth/2fa", who)).data == before
    assert (await api.get("/categories", another_session)).status == 200
    codes = (await api.post("/auth/2fa/verify", who, {"code": App(secret).code()})).data
    assert len(set(codes["recovery_codes"])) == totp.RECOVERY_CODE_COUNT
    after = (await api.get("/auth/2fa", who)).data
    assert (after["is_enrolled"], after["is_shown"], after["recovery_codes_left"]) == (
        True, True, 10,
    )  # fmt: skip
    # This session goes on, the other one has ended.
    assert (await api.get("/categories", who)).status == 200
    assert (await api.get("/categories", another_session)).refused == (401, "unauthorized")
    # What was shown is nowhere to be read again.
    stored = psql("select secret from user_totp", org=org)[0][0]
    assert base64.b32decode(secret) not in bytes(stored)
    log = psql("select action, coalesce(after::text, '') from audit_log", org=org)
    assert {"second_factor.enroll", "second_factor.verify"} <= {action for action, _ in log}
    for told in (secret, *codes["recovery_codes"]):
        assert not any(told in text for _, text in log)


async def test_enrolling_needs_the_password(api: Api, org: Org) -> None:
    wrong = await api.post("/auth/2fa/enroll", org.admin, {"password": "wrong"})
    assert wrong.refused == (401, "invalid_credentials")
    early = await api.post("/auth/2fa/verify", org.admin, {"code": "123456"})
    assert early.refused == (409, "second_factor_not_begun")


async def test_enrolling_never_replaces_what_is_in_use(api: Api, org: Org) -> None:
    forgotten = await begin(api, org.admin)
    app = await begin(api, org.admin)
    old = await api.post("/auth/2fa/verify", org.admin, {"code": forgotten.code()})
    assert old.refused == (401, "invalid_code")
    assert (await api.post("/auth/2fa/verify", org.admin, {"code": app.code()})).status == 200
    again = await api.post("/auth/2fa/enroll", org.admin, {"password": org.admin.password})
    assert again.refused == (409, "user_totp_confirmed_stays")
    verified = await api.post("/auth/2fa/verify", org.admin, {"code": app.code()})
    assert verified.refused == (409, "user_totp_confirmed_stays")


async def test_of_many_who_confirm_one_does(api: Api, org: Org) -> None:
    code = (await begin(api, org.admin)).code()
    answers = await asyncio.gather(
        *(api.post("/auth/2fa/verify", org.admin, {"code": code}) for _ in range(RACERS))
    )
    outcomes = Counter((a.status, None if a.status == 200 else a.code) for a in answers)
    assert outcomes == {(200, None): 1, (409, "user_totp_confirmed_stays"): RACERS - 1}


async def test_without_a_key_nothing_is_kept(api_with: MakeApi, org: Org, psql: Psql) -> None:
    api = await api_with(data_encryption_key="")
    answer = await api.post("/auth/2fa/enroll", org.admin, {"password": org.admin.password})
    assert answer.refused == (503, "encryption_not_configured")
    assert psql("select count(*) from user_totp", org=org) == [(0,)]


async def test_a_lost_key_is_told_and_recovery_codes_still_work(
    api: Api, api_with: MakeApi, org: Org
) -> None:
    app, codes = await enrol(api, org.admin)
    other = await api_with(data_encryption_key="6b" * 32)
    path, body = "/auth/2fa/recovery-codes", {"code": app.code()}
    assert (await other.post(path, org.admin, body)).refused == (503, "encryption_key_missing")
    assert (await other.post(path, org.admin, {"code": codes[0]})).status == 200


async def test_a_secret_is_sealed_anew_with_a_new_key(
    api: Api, api_with: MakeApi, settings: Settings, org: Org
) -> None:
    app, _ = await enrol(api, org.admin)
    path, wrong = "/auth/2fa/recovery-codes", {"code": "000000"}
    keys = {"data_encryption_key": "6b" * 32}
    new = await api_with(**keys)
    both = await api_with(**keys, data_encryption_key_previous=settings.data_encryption_key)
    assert (await new.post(path, org.admin, wrong)).refused == (503, "encryption_key_missing")
    assert (await both.post(path, org.admin, {"code": app.code()})).status == 200
    assert (await new.post(path, org.admin, wrong)).refused == (401, "invalid_code")


# -- codes -------------------------------------------------------------------------------------


async def test_a_code_is_good_once(api: Api, org: Org) -> None:
    app, _ = await enrol(api, org.admin)
    path = "/auth/2fa/recovery-codes"
    first = totp.code_at(app.secret, app.step)
    second = app.code()
    assert (await api.post(path, org.admin, {"code": second})).status == 200
    for used in (second, first, "000000", "12345", "no code"):
        answer = await api.post(path, org.admin, {"code": used})
        assert answer.refused == (401, "invalid_code"), used


async def test_of_many_uses_of_one_code_one_wins(api: Api, org: Org) -> None:
    app, _ = await enrol(api, org.admin)
    code = app.code()
    for _ in ("a code of the app", "a recovery code"):
        answers = await asyncio.gather(
            *(
                api.post("/auth/2fa/recovery-codes", org.admin, {"code": code})
                for _ in range(RACERS)
            )
        )
        outcomes = Counter((a.status, None if a.status == 200 else a.code) for a in answers)
        assert outcomes == {(200, None): 1, (401, "invalid_code"): RACERS - 1}
        (won,) = (answer for answer in answers if answer.status == 200)
        code = won.data["recovery_codes"][0]


async def test_recovery_codes_are_replaced(api: Api, org: Org) -> None:
    app, old = await enrol(api, org.admin)
    path = "/auth/2fa/recovery-codes"
    new = (await api.post(path, org.admin, {"code": app.code()})).data["recovery_codes"]
    assert not set(new) & set(old)
    assert (await api.post(path, org.admin, {"code": old[0]})).refused == (401, "invalid_code")
    body = {"password": org.admin.password, "code": new[3].lower().replace("-", " ")}
    assert (await api.post("/auth/2fa/disable", org.admin, body)).status == 204


async def test_guesses_are_throttled(api_with: MakeApi, org: Org) -> None:
    api = await api_with(rate_limit_enabled=True)
    app, _ = await enrol(api, org.admin)
    await api.get("/auth/2fa", org.admin)  # the worker reads anew what enrolling changed
    guesses = [
        await api.post("/auth/2fa/recovery-codes", org.admin, {"code": "000000"}) for _ in range(11)
    ]
    assert [guess.status for guess in guesses] == [401] * 10 + [429]
    answer = await api.post("/auth/2fa/recovery-codes", org.admin, {"code": app.code()})
    assert answer.refused == (429, "rate_limited")


# -- signing in --------------------------------------------------------------------------------


def login(who: User, **changes: Any) -> dict[str, Any]:
    """Return what signs somebody in."""
    return {"email": who.email, "password": who.password, **changes}


async def test_who_has_a_second_factor_signs_in_with_it(api: Api, org: Org, psql: Psql) -> None:
    who = org.admin
    app, codes = await enrol(api, who)
    path, code = "/auth/login", app.code()
    # First the password: without it nobody learns that there is a second factor.
    for wrong in ({"password": "wrong"}, {"password": "wrong", "code": code}):
        answer = await api.post(path, json=login(who, **wrong))
        assert answer.refused == (401, "invalid_credentials")
    asked = await api.post(path, json=login(who))
    assert asked.refused == (401, "second_factor_required")
    assert (await api.post(path, json=login(who, code=None))).error == asked.error
    wrong = await api.post(path, json=login(who, code="000000"))
    assert wrong.refused == (401, "invalid_code")
    for good in (code, codes[0]):
        signed_in = await api.post(path, json=login(who, code=good))
        token = replace(who, token=signed_in.data["access_token"])
        assert (await api.get("/auth/2fa", token)).data["is_shown"]
        assert (await api.get("/categories", token)).status == 200
        replayed = await api.post(path, json=login(who, code=good))
        assert replayed.refused == (401, "invalid_code")
    failures = psql(
        "select after->>'refused', count(*) from audit_log where severity = 'WARNING' group by 1",
        org=org,
    )
    assert dict(failures) == {"invalid_credentials": 2, "invalid_code": 3}


async def test_of_many_sign_ins_with_one_code_one_succeeds(api: Api, org: Org) -> None:
    app, codes = await enrol(api, org.admin)
    for code in (app.code(), codes[0]):
        answers = await asyncio.gather(
            *(api.post("/auth/login", json=login(org.admin, code=code)) for _ in range(RACERS))
        )
        outcomes = Counter((a.status, None if a.status == 200 else a.code) for a in answers)
        assert outcomes == {(200, None): 1, (401, "invalid_code"): RACERS - 1}


async def test_a_tool_signs_in_with_a_code(api: Api, org: Org) -> None:
    who = org.admin
    app, _ = await enrol(api, who)
    form = {"grant_type": "password", "username": who.email, "password": who.password}
    url = f"{api.base_url}/api/v1/auth/token"
    async with api.session.post(url, data=form) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "second_factor_required")
    async with api.session.post(url, data={**form, "code": "000000"}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "invalid_code")
    async with api.session.post(url, data={**form, "code": app.code()}) as answer:
        token = (await answer.json())["access_token"]
    assert (await api.get("/auth/2fa", replace(who, token=token))).data["is_shown"]


async def test_guesses_at_codes_are_throttled_apart_from_passwords(
    api_with: MakeApi, org: Org
) -> None:
    api, who = await api_with(rate_limit_enabled=True), org.admin
    app, _ = await enrol(api, who)
    # Asking what is missing costs nothing: a shop signs in behind one address every morning.
    asked = {(await api.post("/auth/login", json=login(who))).refused for _ in range(12)}
    assert asked == {(401, "second_factor_required")}
    guesses = [await api.post("/auth/login", json=login(who, code="000000")) for _ in range(11)]
    assert [guess.status for guess in guesses] == [401] * 10 + [429]
    assert (await api.post("/auth/login", json=login(who, code=app.code()))).status == 429


async def test_a_session_that_is_renewed_has_shown_it_still(api: Api, org: Org) -> None:
    who = org.admin
    app, _ = await enrol(api, who)
    first = (await api.post("/auth/login", json=login(who, code=app.code()))).data
    renewed = await api.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})
    token = replace(who, token=renewed.data["access_token"])
    assert (await api.get("/categories", token)).status == 200


# -- taking it away ----------------------------------------------------------------------------


async def test_somebody_takes_their_second_factor_away(
    api: Api, org: Org, another_session: User
) -> None:
    who = org.admin
    app, _ = await enrol(api, who)
    gone = {"password": who.password, "code": app.code()}
    wrong = await api.post("/auth/2fa/disable", who, {**gone, "password": "wrong"})
    assert wrong.refused == (401, "invalid_credentials")
    wrong = await api.post("/auth/2fa/disable", who, {**gone, "code": "000000"})
    assert wrong.refused == (401, "invalid_code")
    assert (await api.post("/auth/2fa/disable", who, gone)).status == 204
    left = (await api.get("/auth/2fa", who)).data
    assert (left["is_enrolled"], left["is_shown"], left["recovery_codes_left"]) == (
        False, False, 0,
    )  # fmt: skip
    assert (await api.get("/categories", another_session)).refused == (401, "unauthorized")
    assert (await api.post("/auth/2fa/enroll", who, {"password": who.password})).status == 200


async def test_an_administrator_resets_somebody_s(api: Api, org: Org, psql: Psql) -> None:
    manager = org.member("MANAGER")
    path = f"/users/{manager.id}/second-factor"
    assert (await api.delete(path, org.admin)).refused == (404, "not_found")
    await enrol(api, manager)
    assert (await api.delete(path, org.member("CASHIER"))).refused == (403, "forbidden")
    assert (await api.delete(path, manager)).refused == (403, "forbidden")
    assert (await api.delete(path, org.admin)).status == 204
    assert (await api.get("/categories", manager)).refused == (401, "unauthorized")
    (row,) = psql(
        "select entity_id, before->>'role' from audit_log"
        " where action = 'second_factor.reset_factor' and severity = 'INFO'", org=org,
    )  # fmt: skip
    assert row == (manager.id, "MANAGER")


async def test_nobody_resets_who_may_more(api: Api, org: Org, other_org: Org, psql: Psql) -> None:
    await enrol(api, org.admin)
    path, beyond = f"/users/{org.admin.id}/second-factor", "user_totp_taken_within_own_access"
    assert (await api.delete(path, org.member("MANAGER"))).refused == (403, beyond)
    assert (await api.delete(path, other_org.admin)).refused == (404, "not_found")
    assert (await api.delete("/users/999999999/second-factor", org.admin)).status == 404
    # Nor who is in other branches.
    branch = (await api.post("/branches", org, {"name": "Elsewhere"})).data["id"]
    manager, cashier = org.member("MANAGER"), org.member("CASHIER")
    await enrol(api, cashier)
    psql(
        f"update app_user set all_branches = false where id = {manager.id};"
        f"insert into user_branch values ({org.id}, {manager.id}, {branch})", org=org,
        role="sofinance_owner",
    )  # fmt: skip
    path = f"/users/{cashier.id}/second-factor"
    assert (await api.delete(path, manager)).refused == (403, beyond)
    psql(
        f"update app_user set all_branches = false where id = {cashier.id};"
        f"insert into user_branch values ({org.id}, {cashier.id}, {branch})", org=org,
        role="sofinance_owner",
    )  # fmt: skip
    assert (await api.delete(path, manager)).status == 204


async def test_an_operator_helps_the_only_administrator(api: Api, org: Org, psql: Psql) -> None:
    await enrol(api, org.admin)
    taken = f"delete from user_totp where user_id = {org.admin.id}"
    assert psql.refusal(taken, org=org) == "user_totp_taken_within_own_access"
    psql(taken, role="sofinance_owner", org=org)
    assert (await api.post("/auth/login", json=login(org.admin))).status == 200


# -- gates -------------------------------------------------------------------------------------


async def test_a_role_that_needs_one_does_nothing_else_before(api_with: MakeApi, org: Org) -> None:
    api = await api_with(mfa_required_roles="MANAGER")
    who = org.member("MANAGER")
    assert (await api.get("/categories", org.admin)).status == 200
    assert (await api.get("/categories", who)).refused == (401, "mfa_required")
    assert (await api.get("/auth/me", who)).status == 200
    assert (await api.get("/auth/2fa", who)).data["is_required"]
    app, _ = await enrol(api, who)
    assert (await api.get("/categories", who)).status == 200
    gone = {"password": who.password, "code": app.code()}
    assert (await api.post("/auth/2fa/disable", who, gone)).status == 204
    assert (await api.get("/categories", who)).refused == (401, "mfa_required")


async def test_a_session_without_it_is_of_no_use_to_who_has_one(
    api: Api, org: Org, psql: Psql
) -> None:
    await enrol(api, org.admin)
    assert (await api.get("/categories", org.admin)).status == 200
    psql(
        "update user_session set has_second_factor = false;"
        f"update app_user set access_version = access_version + 1 where id = {org.admin.id}",
        role="superuser", org=org,
    )  # fmt: skip
    refused = (401, "second_factor_required")
    assert (await api.get("/categories", org.admin)).refused == refused
    assert (await api.get("/auth/2fa", org.admin)).status == 200


async def test_a_key_or_a_till_changes_nobody_s_second_factor(
    api: Api, org: Org, psql: Psql
) -> None:
    secret = "s" * 43
    ((key_id,),) = psql(
        "insert into api_key (org_id, user_id, name, secret_hash, permissions, expires_at)"
        f" values ({org.id}, {org.admin.id}, 'Key', sha256('{secret}'), '{{sales:read}}',"
        " now() + '1 day') returning id", org=org, role="sofinance_owner",
    )  # fmt: skip
    key = replace(org.admin, token=f"sfk_{org.id}_{key_id}_{secret}")
    body = {"password": key.password, "code": "000000"}
    for path, sent in (
        ("enroll", {"password": key.password}), ("verify", {"code": "000000"}),
        ("recovery-codes", {"code": "000000"}), ("disable", body),
    ):  # fmt: skip
        answer = await api.post(f"/auth/2fa/{path}", key, sent)
        assert answer.refused == (403, "session_required")
