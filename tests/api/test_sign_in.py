"""Signing in: what it answers, what it begins, and how many sessions anybody may have."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from argon2 import PasswordHasher

from sofinance.infra import pace
from tests.api.test_second_factor import enrol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Answer, Api, Org, Psql, User

    MakeApi = Callable[..., Awaitable[Api]]


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


async def test_a_caller_reads_what_they_may_do(api: Api, org: Org, psql: Psql) -> None:
    admin = (await api.get("/auth/me", org)).data
    assert (admin["branch_ids"], admin["gate"]) == (None, None)
    assert {"users:write", "sales:void"} <= set(admin["permissions"])
    cashier = org.member("CASHIER")
    mine = (await api.get("/auth/me", cashier)).data
    assert "sales:write" in mine["permissions"]
    assert "users:write" not in mine["permissions"]
    psql("update app_user set must_change_password = true where id = %s", [cashier.id], org=org)
    assert (await api.get("/auth/me", cashier)).data["gate"] == "password_change"


# -- failing -------------------------------------------------------------------------------------


async def test_a_wrong_password_of_somebody_known_is_audited(
    api: Api, org: Org, psql: Psql
) -> None:
    wrong = credentials(org.admin, password="Wrong horse 1 battery")
    refused = await api.post("/auth/login", json=wrong)
    assert refused.refused == (401, "invalid_credentials")
    ((user_id, severity, after, text),) = psql(
        "select user_id, severity, after, audit_log::text from audit_log"
        " where action = 'auth.login'", org=org,
    )  # fmt: skip
    assert (user_id, severity, after) == (
        org.admin.id,
        "WARNING",
        {"refused": "invalid_credentials"},
    )
    assert wrong["password"] not in text


async def test_a_refusal_comes_on_a_beat_whoever_it_is(api: Api, org: Org) -> None:
    """Known or not: the answer comes at the next quarter of a second."""
    for email in (org.admin.email, "nobody@example.com"):
        late_s = [pace.BEAT_S]
        # A machine that is busy may be late some times.
        while min(late_s) >= pace.BEAT_S / 4 and len(late_s) < 60:
            began_s = time.monotonic()
            wrong = {"email": email, "password": "wrong"}
            assert (await api.post("/auth/login", json=wrong)).status == 401
            passed_s = time.monotonic() - began_s
            assert passed_s >= pace.BEAT_S
            late_s.append(passed_s % pace.BEAT_S)
        assert min(late_s) < pace.BEAT_S / 4


async def test_an_account_has_one_spelling_to_guess_at(api: Api, org: Org) -> None:
    cashier = org.member("CASHIER")
    shouted = replace(cashier, email=cashier.email.upper())
    assert (await sign_in(api, shouted)).status == 200
    # PostgreSQL lowers a dotted capital I to an i, Python to two letters.
    dotted = replace(cashier, email=cashier.email.replace("i", "\u0130", 1))
    assert dotted.email != cashier.email
    assert (await sign_in(api, dotted)).refused == (401, "invalid_credentials")


async def test_guessing_is_refused_for_a_while_known_or_not(api_with: MakeApi, org: Org) -> None:
    """Ten wrong tries; then 429, with the right password too, and the same for a nobody."""
    api = await api_with(rate_limit_enabled=True)
    for email in (org.admin.email, f"nobody.{org.id}@example.com"):
        wrong = {"email": email, "password": "wrong"}
        answers = await asyncio.gather(*(api.post("/auth/login", json=wrong) for _ in range(20)))
        statuses = Counter(answer.status for answer in answers)
        assert statuses == {401: 10, 429: 10}
        assert {a.code for a in answers if a.status == 429} == {"rate_limited"}
    refused = await sign_in(api, org.admin)
    assert refused.refused == (429, "rate_limited")
    assert refused.details["violated_policies"] == ["account_and_address"]
    assert 0 < int(refused.headers["Retry-After"]) <= 60


async def test_what_guards_from_guessing_locks_nobody_out_elsewhere(
    api_with: MakeApi, org: Org
) -> None:
    proxied = {"trust_proxy_headers": True, "trusted_proxy_ips": "127.0.0.1"}
    api = await api_with(rate_limit_enabled=True, **proxied)
    home, abroad = ({"X-Forwarded-For": ip} for ip in ("192.0.2.1", "198.51.100.7"))
    wrong = credentials(org.admin, password="wrong")
    for _ in range(11):
        guess = await api.post("/auth/login", json=wrong, headers=abroad)
    assert guess.refused == (429, "rate_limited")
    assert (await sign_in(api, org.admin, headers=home)).status == 200


# -- with a second factor ------------------------------------------------------------------------


async def test_who_has_a_second_factor_signs_in_with_it(api: Api, org: Org, psql: Psql) -> None:
    app, recovery_codes = await enrol(api, org.admin)
    assert (await sign_in(api, org.admin)).refused == (401, "second_factor_required")
    wrong = credentials(org.admin, password="wrong", code=app.code())
    refused = await api.post("/auth/login", json=wrong)
    assert refused.refused == (401, "invalid_credentials")  # before anything is said of codes
    for bad in ("000000", "x", recovery_codes[0][:-1]):
        body = credentials(org.admin, code=bad)
        assert (await api.post("/auth/login", json=body)).refused == (401, "invalid_code")
    body = credentials(org.admin, code=recovery_codes[0])
    assert (await api.post("/auth/login", json=body)).status == 200
    assert (await api.post("/auth/login", json=body)).refused == (401, "invalid_code")
    statement = "select has_second_factor from user_session where id = %s"
    newest = live_sessions(psql, org, org.admin)[-1]
    assert psql(statement, [newest], org=org) == [(True,)]
    rows = psql(
        "select audit_log::text from audit_log where after ->> 'refused' = 'invalid_code'", org=org
    )
    assert len(rows) == 4
    assert not any(recovery_codes[0] in row[0] for row in rows)


async def test_of_many_sign_ins_with_one_code_one_wins(api: Api, org: Org) -> None:
    app, _ = await enrol(api, org.admin)
    body = credentials(org.admin, code=app.code())
    answers = await asyncio.gather(*(api.post("/auth/login", json=body) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 19
    assert {a.code for a in answers if a.status == 401} == {"invalid_code"}


async def test_a_tool_gives_the_code_in_its_form(api: Api, org: Org) -> None:
    _, recovery_codes = await enrol(api, org.admin)
    form = {
        "grant_type": "password", "username": org.admin.email, "password": org.admin.password,
    }  # fmt: skip
    lacking = refusal(await token(api, **form))
    assert lacking == (400, "invalid_grant", "second_factor_required")
    assert refusal(await token(api, **form, code="1")) == (400, "invalid_grant", "invalid_code")
    assert (await token(api, **form, code=recovery_codes[0])).status == 200


async def test_guessing_at_codes_is_limited(api_with: MakeApi, org: Org) -> None:
    api = await api_with(rate_limit_enabled=True)
    await enrol(api, org.admin)
    body = credentials(org.admin, code="000000")
    answers = [await api.post("/auth/login", json=body) for _ in range(12)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2


async def test_a_role_that_needs_a_second_factor_enrols_one_first(
    api_with: MakeApi, org: Org
) -> None:
    api = await api_with(mfa_required_roles="ADMIN")
    gated = replace(org.admin, token=(await sign_in(api, org.admin)).data["access_token"])
    assert (await api.get("/categories", gated)).refused == (401, "mfa_required")
    assert (await api.get("/auth/me", gated)).status == 200
    _, recovery_codes = await enrol(api, gated)
    body = credentials(org.admin, code=recovery_codes[0])
    open_to = replace(gated, token=(await api.post("/auth/login", json=body)).data["access_token"])
    assert (await api.get("/categories", open_to)).status == 200


# -- hashes --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("costly_passwords")
async def test_a_hash_of_weaker_parameters_is_renewed_at_sign_in(
    api: Api, org: Org, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    weak = PasswordHasher(time_cost=1, memory_cost=1024).hash(cashier.password)
    psql("update app_user set password_hash = %s where id = %s", [weak, cashier.id], org=org,
         role="sofinance_owner")  # fmt: skip
    statement = "select password_hash, password_changed_at from app_user where id = %s"
    before = psql(statement, [cashier.id], org=org)[0]
    signed_in = await sign_in(api, cashier)
    after = psql(statement, [cashier.id], org=org)[0]
    assert after[0] != weak
    assert not PasswordHasher().check_needs_rehash(after[0])
    assert after[1] == before[1]  # the password is the same
    headers = {"Authorization": f"Bearer {signed_in.data['access_token']}"}
    assert (await api.get("/auth/me", headers=headers)).status == 200
    assert (await sign_in(api, cashier)).status == 200
    assert psql(statement, [cashier.id], org=org)[0] == after


# -- OAuth2 --------------------------------------------------------------------------------------


async def token(api: Api, *, content: str | None = None, **form: str) -> Answer:
    """POST a form to the token endpoint."""
    body = (content if content is not None else urlencode(form)).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return await api.post("/auth/token", content=body, headers=kind)


def refusal(answer: Answer) -> tuple[int, str, str]:
    assert set(answer.body) == {"error", "error_description", "code", "details"}
    return answer.status, answer.body["error"], answer.body["code"]


async def test_a_tool_gets_tokens_as_rfc_6749_says(api: Api, org: Org, psql: Psql) -> None:
    answer = await token(
        api, grant_type="password", username=org.admin.email, password=org.admin.password,
        scope="everything", client_id="tool", client_secret="", state="x",
    )  # fmt: skip
    assert answer.status == 200
    assert set(answer.body) == {
        "access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in",
    }  # fmt: skip
    assert (answer.body["token_type"], answer.body["expires_in"]) == ("bearer", 900)
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    headers = {"Authorization": f"Bearer {answer.body['access_token']}"}
    assert (await api.get("/auth/sessions", headers=headers)).data["items"][0]["kind"] == "token"
    renewal = {"grant_type": "refresh_token", "refresh_token": answer.body["refresh_token"]}
    renewed = await token(api, **renewal)
    assert renewed.body["refresh_token"] != answer.body["refresh_token"]
    assert refusal(await token(api, **renewal)) == (400, "invalid_grant", "refresh_token_reused")
    assert (await api.get("/auth/sessions", headers=headers)).refused == (401, "unauthorized")


async def test_what_a_tool_does_wrong_has_the_names_of_rfc_6749(api: Api, org: Org) -> None:
    email, password = org.admin.email, org.admin.password
    good = {"grant_type": "password", "username": email, "password": password}
    wrong = refusal(await token(api, **{**good, "password": "wrong"}))
    assert wrong == (400, "invalid_grant", "invalid_credentials")
    nobody = refusal(await token(api, **{**good, "username": "not an address"}))
    assert nobody == wrong
    renewal = {"grant_type": "refresh_token", "refresh_token": "x"}
    assert refusal(await token(api, **renewal)) == (400, "invalid_grant", "invalid_refresh_token")
    other = refusal(await token(api, **{**good, "grant_type": "client_credentials"}))
    assert other == (400, "unsupported_grant_type", "unsupported_grant_type")
    invalid = (400, "invalid_request", "invalid_request")
    lacking = await token(api, grant_type="password", username=email, password="")
    assert refusal(lacking) == invalid
    assert lacking.body["details"]["fields"] == {"password": ["Missing data for required field."]}
    assert refusal(await token(api, content="")) == invalid
    twice = await token(api, content=urlencode(good) + "&grant_type=password")
    assert refusal(twice) == invalid
    for broken in ("grant_type", "a=%ff", "a=\xe9", "&".join(f"a{n}=1" for n in range(60))):
        answer = await token(api, content=broken)
        assert refusal(answer) == (400, "invalid_request", "malformed_form")
    as_json = await api.post("/auth/token", json=good)
    assert refusal(as_json) == (415, "invalid_request", "unsupported_media_type")
    assert as_json.headers["Accept"] == "application/x-www-form-urlencoded"


async def test_tools_are_limited_like_everybody(api_with: MakeApi, org: Org) -> None:
    api = await api_with(rate_limit_enabled=True)
    wrong = {"grant_type": "password", "username": org.admin.email, "password": "wrong"}
    answers = await asyncio.gather(*(token(api, **wrong) for _ in range(20)))
    assert Counter(answer.status for answer in answers) == {400: 10, 429: 10}
    limited = refusal(next(answer for answer in answers if answer.status == 429))
    assert limited == (429, "temporarily_unavailable", "rate_limited")


async def test_the_documents_describe_the_token_endpoint_as_it_is(api: Api) -> None:
    written = (await api.get("/openapi.json", prefix="")).body["paths"]["/api/v1/auth/token"]
    operation = written["post"]
    assert set(operation["requestBody"]["content"]) == {"application/x-www-form-urlencoded"}
    answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answered == {"$ref": "#/components/schemas/auth.Tokens"}
    refused = operation["responses"]["400"]["content"]["application/json"]["schema"]
    assert refused == {"$ref": "#/components/schemas/OAuthRefusal"}
    old = (await api.get("/swagger.json", prefix="")).body["paths"]["/api/v1/auth/token"]["post"]
    assert {"formData"} == {p["in"] for p in old["parameters"] if p["in"] != "header"}
