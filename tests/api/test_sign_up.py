"""Signing up: a link in a mail proves the address; no answer tells who has an account."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from sofinance.config import Settings, SettingsError, load
from sofinance.infra import sealed_links
from sofinance.infra.secretbox import SecretBox
from tests.api.test_passwords import mailing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Answer, Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

ASK, CONFIRM = "/sign-up", "/sign-up/confirm"
PASSWORD = "Trombone-lantern-orbit-47"  # noqa: S105 - of made-up people
INVALID = (400, "invalid_sign_up_token")


def new_email() -> str:
    return f"{uuid.uuid4().hex}@quux.example"


def form(token: str, **changes: Any) -> dict[str, Any]:
    organisation = {"name": "Quux & Daughters", "currency": "EUR", "time_zone": "Europe/Berlin"}
    return {
        "token": token, "password": PASSWORD, "first_name": "Wilhelmina", "last_name": "Quux",
        "organisation": organisation, **changes,
    }  # fmt: skip


async def confirm(api: Api, body: dict[str, Any]) -> Answer:
    return await api.post(CONFIRM, json=body)


def token_for(email: str, *, minutes: int = 60, purpose: str = "sign_up") -> str:
    """Return the token that a mail would bring."""
    box = SecretBox.configured(Settings.for_tests(database_url=""))
    return sealed_links.write(box, email, purpose=purpose, minutes=minutes)


@pytest.fixture
async def open_api(api_with: MakeApi) -> Api:
    """A service on which one may sign up."""
    return await api_with(sign_up_enabled=True)


# -- from the first mail to the first sale's shop --------------------------------------------------


async def test_a_stranger_becomes_the_administrator_of_an_organisation(
    api_with: MakeApi, psql: Psql
) -> None:
    email = new_email()
    url = "https://office.example/welcome"
    async with mailing(api_with, sign_up_enabled=True, sign_up_url=url) as (api, next_mail):
        asked = await api.post(ASK, json={"email": email.upper()})
        assert (asked.status, asked.data) == (202, {"valid_minutes": 60})
        mail = await next_mail()
        assert email in str(mail["to"])
        found = re.search(re.escape(url) + r"#token=([\w-]+)", mail["content"])
        assert found, mail["content"]
        made = await confirm(api, form(found[1]))
        assert made.status == 201
        assert made.data["email"] == email
        signed_in = await api.post("/auth/login", json={"email": email, "password": PASSWORD})
        headers = {"Authorization": f"Bearer {signed_in.data['access_token']}"}
        seen = (await api.get("/organisation", headers=headers)).data
    org_id = made.data["org_id"]
    assert (seen["id"], seen["name"], seen["currency"]) == (org_id, "Quux & Daughters", "EUR")
    told = psql(
        "select user_id, action, entity_id, after, host(ip) from audit_log order by id limit 1",
        org=org_id,
    )
    assert told == [
        (
            made.data["user_id"], "sign_up.sign_up", org_id,
            {"name": "Quux & Daughters", "email": "[personal]", "currency": "EUR"}, "127.0.0.1",
        )
    ]  # fmt: skip
    assert psql("select role, all_branches from app_user", org=org_id) == [("ADMIN", True)]


async def test_who_has_an_account_is_told_so_by_mail_and_by_nothing_else(
    api_with: MakeApi, org: Org
) -> None:
    async with mailing(api_with, sign_up_enabled=True) as (api, next_mail):
        known = await api.post(ASK, json={"email": org.admin.email})
        mail = await next_mail()
        assert org.admin.email in str(mail["to"])
        assert "You have one already" in mail["content"]
        assert not re.search(r"[\w-]{60}", mail["content"])  # and no token
        unknown = await api.post(ASK, json={"email": new_email()})
        other = await next_mail()
    assert mail["subject"] == other["subject"]
    assert known.status == unknown.status == 202
    assert known.data == unknown.data
    assert known.headers.keys() == unknown.headers.keys()


async def test_asking_leaves_nothing_behind(open_api: Api, psql: Psql) -> None:
    count = "select count(*) from sign_in_address"
    before = psql(count, role="superuser")
    assert (await open_api.post(ASK, json={"email": new_email()})).status == 202
    assert psql(count, role="superuser") == before


# -- who may not -----------------------------------------------------------------------------------


async def test_it_is_off_unless_it_is_switched_on(api: Api) -> None:
    refused = (403, "sign_up_disabled")
    assert (await api.post(ASK, json={"email": new_email()})).refused == refused
    assert (await confirm(api, form(token_for(new_email())))).refused == refused


async def test_without_a_key_nothing_is_sealed(api_with: MakeApi) -> None:
    api = await api_with(sign_up_enabled=True, data_encryption_key="")
    answer = await api.post(ASK, json={"email": new_email()})
    assert answer.refused == (503, "encryption_not_configured")


async def test_the_captcha_comes_first(api_with: MakeApi) -> None:
    api = await api_with(
        sign_up_enabled=True, captcha_mode="turnstile", turnstile_secret_key="x",
        turnstile_verify_url="http://127.0.0.1:9/verify",
    )  # fmt: skip
    asked = {"email": new_email()}
    assert (await api.post(ASK, json=asked)).refused == (400, "captcha_required")
    refused = await api.post(ASK, json={**asked, "captcha_token": "x"})
    assert refused.refused == (403, "captcha_failed")


async def test_nobody_is_flooded_with_mail(api_with: MakeApi) -> None:
    api = await api_with(sign_up_enabled=True, rate_limit_enabled=True)
    victim = {"email": new_email()}
    answers = [await api.post(ASK, json=victim) for _ in range(4)]
    assert [answer.status for answer in answers] == [202, 202, 202, 429]
    assert answers[3].code == "rate_limited"
    assert (await api.post(ASK, json={"email": new_email()})).status == 202


async def test_a_token_must_be_ours_and_not_over(open_api: Api) -> None:
    email = new_email()
    good = token_for(email)
    for bad in (
        "x", "", "=", "ä", good[:-4], "B" + good[1:], good + "AAAA", f"sfk_1_1_{'x' * 43}",
        token_for(email, minutes=0), token_for(email, purpose="other"),
    ):  # fmt: skip
        answer = await confirm(open_api, form(bad))
        assert answer.refused == ((422, "invalid_request") if not bad else INVALID), bad
    assert (await confirm(open_api, form(good))).status == 201


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"password": "short"}, "invalid_request"),
        ({"password": "Wilhelmina Quux 1"}, "invalid_request"),
        ({"first_name": ""}, "invalid_request"),
        ({"organisation": {"name": "A", "currency": "euro"}}, "invalid_request"),
        ({"organisation": {"name": "A", "currency": "EUR", "time_zone": "Mars"}},
         "invalid_request"),
        ({"organisation": {"name": " ", "currency": "EUR"}}, "organisation_name_not_empty"),
        ({"organisation": {"name": "A", "currency": "EUR", "standard_tax_percent": "101"}},
         "tax_code_rate_in_range"),
        ({"role": "ADMIN"}, "invalid_request"),
        ({"email": "other@quux.example"}, "invalid_request"),
    ],
)  # fmt: skip
async def test_what_is_refused_makes_nothing_and_the_link_stays_good(
    open_api: Api, changes: dict[str, Any], code: str
) -> None:
    token = token_for(new_email())
    assert (await confirm(open_api, form(token, **changes))).refused == (422, code)
    assert (await confirm(open_api, form(token))).status == 201


async def test_a_link_is_good_once_however_many_use_it_at_once(open_api: Api) -> None:
    token = token_for(new_email())
    answers = await asyncio.gather(*(confirm(open_api, form(token)) for _ in range(20)))
    made = [answer for answer in answers if answer.status == 201]
    assert len(made) == 1
    codes = {answer.code for answer in answers if answer.status != 201}
    assert codes <= {"sign_in_address_taken", "try_again"}
    again = await confirm(open_api, form(token))
    assert again.refused == (409, "sign_in_address_taken")


# -- settings ----------------------------------------------------------------------------------


def test_it_is_not_switched_on_where_it_could_not_work() -> None:
    good = {
        "DATABASE_URL": "postgresql://app:Zq8vKpb3@db/books", "JWT_SECRET": "s" * 32,
        "SIGN_UP_ENABLED": "true",
    }  # fmt: skip
    with pytest.raises(SettingsError, match="DATA_ENCRYPTION_KEY is missing"):
        load({**good, "ENVIRONMENT": "staging"})
    keyed = {**good, "DATA_ENCRYPTION_KEY": "5a" * 32}
    assert load(keyed).sign_up_enabled
    with pytest.raises(SettingsError) as caught:
        load({**keyed, "ENVIRONMENT": "production", "METRICS_TOKEN": "m" * 32})
    assert [problem.partition(" ")[0] for problem in caught.value.problems] == [
        "CAPTCHA_MODE", "SMTP_HOST", "REDIS_URL",
    ]  # fmt: skip
