"""Passwords: changed by who has them, and chosen anew by a link that a real mail server took."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from email import message_from_string
from email.policy import default
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sofinance.infra import pace
from tests.api.test_sessions import ENDED, INVALID, bearer, me, refresh, tokens
from tests.api.test_sign_in import credentials, live_sessions, sign_in
from tests.infra.test_captcha import SECRET, Provider
from tests.infra.test_mail import smtp, taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support import Answer, Api, Org, Psql, User

    MakeApi = Callable[..., Awaitable[Api]]

NEW = "Blue kettle 7 sings"
OTHER = "Green kettle 8 hums"
WRONG = (401, "invalid_credentials")
UNFIT = (422, "invalid_request")
NO_LINK = (400, "invalid_reset_token")
PAGE = "https://office.example.com/new-password"


async def change(api: Api, user: User, current: str | None = None, new: str = NEW) -> Answer:
    body = {"current_password": current or user.password, "new_password": new}
    return await api.post("/auth/change-password", user, body)


async def ask(api: Api, email: str, **more: str) -> Answer:
    return await api.post("/auth/password-reset-request", json={"email": email, **more})


async def reset(api: Api, token: str, new: str = NEW) -> Answer:
    return await api.post("/auth/password-reset", json={"token": token, "new_password": new})


def audited(psql: Psql, org: Org, what: str) -> list[Any]:
    return psql(
        "select user_id, entity_id, severity, audit_log::text from audit_log where action = %s"
        " order by id", [f"passwords.{what}"], org=org,
    )  # fmt: skip


# -- changing ------------------------------------------------------------------------------------


async def test_a_password_is_changed_and_the_other_sessions_end(
    api: Api, org: Org, psql: Psql
) -> None:
    user = org.admin
    elsewhere = await tokens(api, user)
    statement = "select password_changed_at from app_user where id = %s"
    before = psql(statement, [user.id], org=org)
    assert (await change(api, user)).status == 204
    assert (await me(api, elsewhere["access_token"])).refused == ENDED
    assert (await refresh(api, elsewhere["refresh_token"])).refused == INVALID
    assert (await api.get("/auth/me", user)).status == 200  # where it was changed
    assert (await sign_in(api, user)).refused == WRONG
    assert (await sign_in(api, replace(user, password=NEW))).status == 200
    assert psql(statement, [user.id], org=org) > before
    ((user_id, entity_id, severity, text),) = audited(psql, org, "change_password")
    assert (user_id, entity_id, severity) == (user.id, user.id, "INFO")
    assert not any(secret in text for secret in (NEW, user.password, "argon2"))


async def test_a_wrong_current_password_changes_nothing(api: Api, org: Org, psql: Psql) -> None:
    assert (await change(api, org.admin, current=OTHER)).refused == WRONG
    assert (await sign_in(api, org.admin)).status == 200
    ((_, entity_id, severity, text),) = audited(psql, org, "change_password")
    assert (entity_id, severity) == (org.admin.id, "WARNING")
    assert OTHER not in text


@pytest.mark.parametrize(
    ("new", "what"),
    [
        ("Short 1", "8 characters"), ("nocapital 1", "capital"), ("NOSMALL 1", "small"),
        ("No digit here", "digit"), ("NoSign123", "sign"), ("Password 123!", "first that anybody"),
        ("Ada Admin 1!", "your name"),
    ],
)  # fmt: skip
async def test_a_password_that_will_not_do_is_refused_with_the_reason(
    api: Api, org: Org, new: str, what: str
) -> None:
    answer = await change(api, org.admin, new=new)
    assert answer.refused == UNFIT
    assert what in " ".join(answer.details["fields"]["new_password"])
    assert new not in answer.text


async def test_the_new_password_is_another_one(api: Api, org: Org, psql: Psql) -> None:
    psql("update app_user set must_change_password = true where id = %s", [org.admin.id], org=org)
    assert (await change(api, org.admin)).status == 204
    again = await change(api, org.admin, current=NEW, new=NEW)
    assert again.refused == UNFIT
    assert list(again.details["fields"]) == ["new_password"]


async def test_guessing_at_the_current_password_is_limited(api_with: MakeApi, org: Org) -> None:
    api = await api_with(rate_limit_enabled=True)
    answers = [await change(api, org.admin, current=OTHER) for _ in range(12)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
    assert (await sign_in(api, org.admin)).refused == (429, "rate_limited")


async def test_of_many_changes_at_once_one_wins(api: Api, org: Org, psql: Psql) -> None:
    user = org.admin
    answers = await asyncio.gather(*(change(api, user, new=f"{NEW} {n}") for n in range(20)))
    assert sorted(answer.status for answer in answers) == [204] + [401] * 19
    won = next(n for n, answer in enumerate(answers) if answer.status == 204)
    assert (await sign_in(api, replace(user, password=f"{NEW} {won}"))).status == 200
    assert len([row for row in audited(psql, org, "change_password") if row[2] == "INFO"]) == 1


async def test_who_must_change_the_password_does_that_first(api: Api, org: Org, psql: Psql) -> None:
    cashier = org.member("CASHIER")
    psql("update app_user set must_change_password = true where id = %s", [cashier.id], org=org)
    answer = await sign_in(api, cashier)
    assert answer.data["must_change_password"]
    gated = replace(cashier, token=answer.data["access_token"])
    for path in ("/sales", "/auth/sessions", "/categories"):
        assert (await api.get(path, gated)).refused == (403, "password_change_required")
    assert (await api.get("/auth/me", gated)).status == 200
    assert (await refresh(api, answer.data["refresh_token"])).status == 200
    assert (await change(api, gated)).status == 204
    assert (await api.get("/auth/sessions", gated)).status == 200
    assert (await api.get("/categories", gated)).status == 200


async def test_who_lacks_a_second_factor_may_sign_out_and_change_the_password(
    api_with: MakeApi, org: Org
) -> None:
    api = await api_with(mfa_required_roles="ADMIN")
    assert (await api.get("/categories", org)).refused == (401, "mfa_required")
    assert (await api.get("/categories", org.member("CASHIER"))).status == 200
    assert (await change(api, org.admin)).status == 204
    assert (await api.post("/auth/logout", org)).status == 204


# -- choosing a new one by mail --------------------------------------------------------------------


@asynccontextmanager
async def mailing(api_with: MakeApi, **settings: Any) -> AsyncIterator[tuple[Api, Any]]:
    """Yield an application that sends by a mail server in its own process, and the next mail."""
    with smtp("plain") as (port, server):
        api = await api_with(
            smtp_host="127.0.0.1", smtp_port=port, smtp_tls="off",
            mail_from="Office <office@shop.example>",
            **{"password_reset_url": PAGE, **settings},
        )  # fmt: skip

        async def next_mail() -> dict[str, Any]:
            async with asyncio.timeout(120):
                mail = await asyncio.to_thread(taken, server)
            read = message_from_string(mail["content"], policy=default)
            return {**mail, "content": read.get_content(), "subject": read["Subject"]}

        yield api, next_mail


def token_of(mail: dict[str, Any]) -> str:
    """Return the token in a mail."""
    found = re.search(r"sfp_\d+_\d+_[\w-]{43}", mail["content"])
    assert found, mail["content"]
    return found[0]


async def test_a_new_password_is_chosen_by_the_link_in_a_mail(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    user = org.admin
    psql("update app_user set must_change_password = true where id = %s", [user.id], org=org)
    async with mailing(api_with) as (api, next_mail):
        asked = await ask(api, user.email.upper())
        assert (asked.status, asked.data) == (202, {"valid_minutes": 30})
        mail = await next_mail()
        assert mail["to"] == [user.email]
        token = token_of(mail)
        assert f"{PAGE}#token={token}" in mail["content"]
        assert "30 minutes" in mail["content"]
        weak = await reset(api, token, "weak")
        assert (weak.refused, list(weak.details["fields"])) == (UNFIT, ["new_password"])
        assert (await reset(api, token)).status == 204
        assert (await me(api, user.token)).refused == ENDED
        signed_in = await sign_in(api, replace(user, password=NEW))
        assert not signed_in.data["must_change_password"]
        told = await next_mail()
        assert told["to"] == [user.email]
        assert told["subject"] == "Your password was changed"
        assert NEW not in told["content"]
        assert (await reset(api, token, OTHER)).refused == NO_LINK
    ((_, entity_id, severity, text),) = audited(psql, org, "reset_password")
    assert (entity_id, severity) == (user.id, "INFO")
    ((_, asked_for, _, asked_text),) = audited(psql, org, "request_reset")
    assert asked_for == user.id
    secret = token.split("_", 3)[3]
    assert not any(hidden in text + asked_text for hidden in (NEW, secret, "argon2"))
    stored = psql("select token_hash = sha256(%s) from password_reset", [secret.encode()], org=org)
    assert stored == [(True,)]


async def test_without_a_page_the_mail_has_the_token_alone(api_with: MakeApi, org: Org) -> None:
    async with mailing(api_with, password_reset_url="", password_reset_minutes=5) as (api, mail):
        assert (await ask(api, org.admin.email)).data == {"valid_minutes": 5}
        sent = await mail()
        assert "http" not in sent["content"]
        assert (await reset(api, token_of(sent))).status == 204


async def test_of_many_uses_of_a_link_at_once_one_wins(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    async with mailing(api_with) as (api, next_mail):
        await ask(api, org.admin.email)
        token = token_of(await next_mail())
        answers = await asyncio.gather(*(reset(api, token, f"{NEW} {n}") for n in range(20)))
        refused = [answer.refused for answer in answers if answer.status != 204]
        assert refused == [NO_LINK] * 19
        won = next(n for n, answer in enumerate(answers) if answer.status == 204)
        assert (await sign_in(api, replace(org.admin, password=f"{NEW} {won}"))).status == 200
    assert len(audited(psql, org, "reset_password")) == 1


async def test_an_unknown_and_a_disabled_address_are_answered_alike_and_sent_nothing(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    psql("update app_user set is_active = false where id = %s", [cashier.id], org=org)
    async with mailing(api_with) as (api, next_mail):
        answers = []
        for email in ("nobody@example.com", cashier.email, org.admin.email):
            began_s = time.monotonic()
            answers.append(await ask(api, email))
            passed_s = time.monotonic() - began_s
            assert passed_s >= pace.BEAT_S
        assert len({(answer.status, str(answer.data)) for answer in answers}) == 1
        assert (await next_mail())["to"] == [org.admin.email]
    assert psql("select count(*) from password_reset", org=org) == [(1,)]
    assert (await ask(api, "no address")).refused == UNFIT


async def test_a_user_has_three_links_at_most_however_many_ask(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    """Nobody is flooded with mail, and nobody's link is pushed out by others who ask."""
    async with mailing(api_with) as (api, next_mail):
        answers = await asyncio.gather(*(ask(api, org.admin.email) for _ in range(25)))
        assert {answer.status for answer in answers} == {202}
        mails = [token_of(await next_mail()) for _ in range(3)]
        assert len(set(mails)) == 3
        assert psql("select count(*) from password_reset", org=org) == [(3,)]
        assert (await reset(api, mails[0])).status == 204
        assert "changed" in (await next_mail())["content"]  # and no fourth link before it
        for token in mails[1:]:
            assert (await reset(api, token, OTHER)).refused == NO_LINK
        assert (await ask(api, org.admin.email)).status == 202
        assert token_of(await next_mail()) not in mails
    severities = [row[2] for row in audited(psql, org, "request_reset")]
    assert (severities.count("INFO"), severities.count("WARNING")) == (4, 22)


async def test_one_address_asks_for_few_mails(api_with: MakeApi) -> None:
    api = await api_with(rate_limit_enabled=True)
    asked = (ask(api, f"nobody{n}@example.com") for n in range(15))
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status for answer in answers) == [202] * 10 + [429] * 5


async def test_a_link_that_is_over_or_forged_is_refused(
    api_with: MakeApi, org: Org, other_org: Org, psql: Psql
) -> None:
    user = org.member("CASHIER")
    async with mailing(api_with) as (api, next_mail):
        await ask(api, user.email)
        token = token_of(await next_mail())
        secret = token.split("_", 3)[3]
        for forged in (
            "x",
            f"sfr_{org.id}_{user.id}_{secret}",
            f"sfp_{other_org.id}_{user.id}_{secret}",
            f"sfp_{org.id}_{org.admin.id}_{secret}",
            f"sfp_{org.id}_{user.id}_{secret[:-1]}",
            f"sfp_{2**63 - 1}_{user.id}_{secret}",
        ):
            assert (await reset(api, forged)).refused == NO_LINK
        past = "created_at = now() - interval '1 hour', expires_at = now() - interval '1 second'"
        psql(f"update password_reset set {past}", org=org)
        assert (await reset(api, token)).refused == NO_LINK
        await ask(api, user.email)
        token = token_of(await next_mail())
        psql("update app_user set is_active = false where id = %s", [user.id], org=org)
        assert (await reset(api, token)).refused == NO_LINK
    assert live_sessions(psql, org, user) == []  # they ended with the user


async def test_a_link_dies_with_what_it_was_sent_for(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    """The mailbox of before, the password of before, the user of before."""
    admin, clerk = org.admin, org.member("INVENTORY_CLERK")
    async with mailing(api_with) as (api, next_mail):

        async def link(user: User) -> str:
            await ask(api, user.email)
            return token_of(await next_mail())

        token = await link(admin)
        assert (await change(api, admin)).status == 204
        assert "changed" in (await next_mail())["content"]
        assert (await reset(api, token, OTHER)).refused == NO_LINK

        token = await link(clerk)
        given = {"password": "Grey kettle 9 rests"}
        changed = await api.post(f"/users/{clerk.id}/reset-password", admin, given)
        assert changed.status == 200, changed.text
        assert (await reset(api, token)).refused == NO_LINK

        token = await link(clerk)
        body = {
            "email": f"new.{clerk.email}", "first_name": "Max", "last_name": "Clerk",
            "role": clerk.role, "all_branches": True, "branch_ids": [],
        }  # fmt: skip
        moved = await api.put(f"/users/{clerk.id}", admin, body)
        assert moved.status == 200, moved.text
        assert (await reset(api, token)).refused == NO_LINK

        token = await link(replace(clerk, email=body["email"]))
        for action in ("disable", "enable"):
            assert (await api.post(f"/users/{clerk.id}/{action}", admin)).status == 200
        assert (await reset(api, token)).refused == NO_LINK


async def test_a_captcha_comes_before_anything_else(
    api_with: MakeApi, org: Org, psql: Psql
) -> None:
    provider, app = Provider(), web.Application()
    app.router.add_post("/verify", provider.verify)
    async with TestServer(app) as server:
        api = await api_with(
            captcha_mode="turnstile", turnstile_secret_key=SECRET,
            turnstile_verify_url=str(server.make_url("/verify")),
        )  # fmt: skip
        email = org.admin.email
        assert (await ask(api, email)).refused == (400, "captcha_required")
        assert (await ask(api, email, captcha_token="bad")).refused == (403, "captcha_failed")
        assert psql("select count(*) from password_reset", org=org) == [(0,)]
        assert (await ask(api, email, captcha_token="good")).status == 202
        assert psql("select count(*) from password_reset", org=org) == [(1,)]
    assert [asked["remoteip"] for asked in provider.asked] == ["127.0.0.1"] * 2


async def test_a_user_of_before_signs_in_with_what_they_chose(api: Api, org: Org) -> None:
    """Typed on a keyboard that composes another way, it is the same password."""
    composed, decomposed = "Caf\u00e9 kettle 7", "Cafe\u0301 kettle 7"
    assert (await change(api, org.admin, new=composed)).status == 204
    body = credentials(org.admin, password=decomposed)
    assert (await api.post("/auth/login", json=body)).status == 200
    headers = bearer((await api.post("/auth/login", json=body)).data["access_token"])
    assert (await api.get("/auth/me", headers=headers)).status == 200
