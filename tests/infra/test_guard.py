"""Credentials: who is let in, for how long, and what is remembered of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from sofinance.infra import guard as guarding
from sofinance.infra.db import Database
from sofinance.infra.errors import ApiError
from sofinance.infra.guard import Guard, digest, make_secret, read_opaque, write_opaque
from sofinance.infra.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sofinance.config import Settings
    from tests.support import Org

NOW = datetime.now(UTC)


@pytest.fixture
async def guard(settings: Settings) -> AsyncIterator[Guard]:
    database = Database(settings)
    yield Guard(settings, database)
    await database.close()


async def refused(guard: Guard, authorization: str | None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        guard.recall(authorization) or await guard.resolve(authorization or "")
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")
    return caught.value


async def test_a_token_says_who_calls(guard: Guard, org: Org) -> None:
    token = f"Bearer {org.admin.token}"
    assert guard.recall(token) is None
    first = await guard.resolve(token)
    assert guard.recall(token) is first
    assert (first.user_id, first.org_id, first.role) == (org.admin.id, org.id, "ADMIN")
    assert first.branch_ids is None
    assert first.allows("system:manage")
    cashier = await guard.resolve(f"bearer {org.member('CASHIER').token}")
    assert cashier.allows("sales:write")
    assert not cashier.allows("sales:void")


@pytest.mark.parametrize(
    "authorization",
    [
        None, "", "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "x.y.z", "Bearer " + "x" * 5_000,
        "Bearer sfk_1_1_x", "Bearer sfk_0_1_x", "Bearer sfk_99999999999999999999_1_x",
        "Bearer sfk_1", "Bearer sfk_1_1_\udce4", "Bearer sfk_\u0661_1_x",
    ],
)  # fmt: skip
async def test_what_is_no_credential_is_refused(guard: Guard, authorization: str | None) -> None:
    await refused(guard, authorization)


@pytest.mark.parametrize("claim", ["sub", "org", "sid", "exp", "iat", "iss", "aud"])
async def test_a_token_that_lacks_a_claim_is_refused(
    guard: Guard, settings: Settings, org: Org, claim: str
) -> None:
    claims = claims_of(org.admin.token, settings)
    del claims[claim]
    await refused(guard, "Bearer " + signed(claims, settings))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "x"}, {"aud": "x"}, {"org": 10**30}, {"org": 0}, {"sub": "x"}, {"sid": -1},
        {"sid": "1; select 1"}, {"sub": "999999999"}, {"sid": 999_999_999}, {"org": 999_999_999},
    ],
)  # fmt: skip
async def test_a_token_about_something_else_is_refused(
    guard: Guard, settings: Settings, org: Org, changes: dict[str, Any]
) -> None:
    await refused(
        guard, "Bearer " + signed(claims_of(org.admin.token, settings) | changes, settings)
    )


async def test_a_session_is_of_its_user_and_organisation(
    guard: Guard, settings: Settings, org: Org, other_org: Org
) -> None:
    ours = claims_of(org.admin.token, settings)
    theirs = claims_of(other_org.admin.token, settings)
    cashiers = claims_of(org.member("CASHIER").token, settings)
    for mixed in (
        ours | {"sid": theirs["sid"]},
        ours | {"org": theirs["org"]},
        ours | {"sub": cashiers["sub"]},
    ):
        await refused(guard, "Bearer " + signed(mixed, settings))


async def test_a_token_is_good_until_it_expires(
    guard: Guard, settings: Settings, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = claims_of(org.admin.token, settings)
    old = claims | {"exp": int((NOW - timedelta(minutes=1)).timestamp())}
    assert "expired" in (await refused(guard, "Bearer " + signed(old, settings))).message
    token = f"Bearer {org.admin.token}"
    await guard.resolve(token)
    later_s = claims["exp"] + 1
    monkeypatch.setattr(guarding.time, "time", lambda: later_s)
    assert "expired" in (await refused(guard, token)).message  # although it is remembered


async def test_memory_of_credentials_is_bounded(
    guard: Guard, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "CREDENTIAL_COUNT_MAX", 3)
    tokens = [f"Bearer {user.token}" for user in org.members.values()]
    for token in tokens[:3]:
        await guard.resolve(token)
    first = guard.recall(tokens[0])
    for token in tokens[3:]:
        await guard.resolve(token)
    assert first is not None
    assert guard.recall(tokens[0]) is first  # used since, so it was kept
    assert guard.recall(tokens[1]) is None


def test_an_opaque_credential_says_where_it_is_looked_up() -> None:
    secret, hashed = make_secret()
    assert len(secret) == 43
    found = read_opaque("sfr", write_opaque("sfr", 7, 8, secret))
    assert found is not None
    assert (found.org_id, found.id, found.digest) == (7, 8, hashed)
    assert digest(secret) == hashed
    assert read_opaque("sfk", write_opaque("sfr", 7, 8, secret)) is None


def claims_of(token: str, settings: Settings) -> dict[str, Any]:
    read: dict[str, Any] = jwt.decode(
        token, settings.jwt_secret, algorithms=["HS256"], audience=settings.jwt_audience
    )
    return read


def signed(claims: dict[str, Any], settings: Settings) -> str:
    header = {"kid": KeyRing.configured(settings).signing.kid, "typ": "at+jwt"}
    return jwt.encode(claims, settings.jwt_secret, algorithm="HS256", headers=header)
