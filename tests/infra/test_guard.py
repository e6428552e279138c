"""Access tokens: who is let in, for how long, and to what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from sofinance.infra import guard as guarding
from sofinance.infra.errors import ApiError
from sofinance.infra.guard import Guard, Principal, require

SECRET = "a secret of this test, long enough"  # noqa: S105 - made up
NOW = datetime.now(UTC)


def make_guard(**changes: Any) -> Guard:
    options: dict[str, Any] = {
        "secret": SECRET,
        "algorithm": "HS256",
        "issuer": "us",
        "audience": "them",
        "token_minutes": 15,
        **changes,
    }
    guard = Guard(**options)
    guard.learn_roles([("CASHIER", "sales:write"), ("MANAGER", "sales:void")])
    return guard


def bearer(guard: Guard, **changes: Any) -> str:
    claims: dict[str, Any] = {"user_id": 7, "org_id": 3, "role": "CASHIER", "now": NOW, **changes}
    return "Bearer " + guard.issue_token(**claims)[0]


def refused(guard: Guard, authorization: str | None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        guard.authenticate(authorization)
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")
    return caught.value


def test_a_token_says_who_calls() -> None:
    guard = make_guard()
    token, seconds = guard.issue_token(user_id=7, org_id=3, role="CASHIER", now=NOW, branch_id=5)
    assert seconds == 15 * 60
    first, second = guard.authenticate(f"Bearer {token}"), guard.authenticate(f"Bearer {token}")
    assert first is second  # verified once
    assert (first.user_id, first.org_id, first.role, first.branch_id) == (7, 3, "CASHIER", 5)
    assert first.permissions == {"sales:write"}
    assert guard.authenticate(f"bearer {token}") == first


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "x.y.z", "Bearer " + "x" * 5_000],
)
def test_what_is_no_token_is_refused(authorization: str | None) -> None:
    refused(make_guard(), authorization)


@pytest.mark.parametrize(
    "changes",
    [{"secret": "another secret, just as long as it"}, {"issuer": "x"}, {"audience": "x"}],
)
def test_a_token_of_somebody_else_is_refused(changes: dict[str, str]) -> None:
    refused(make_guard(), bearer(make_guard(**changes)))


@pytest.mark.parametrize("claim", ["sub", "org", "role", "exp", "iat", "iss", "aud"])
def test_a_token_that_lacks_a_claim_is_refused(claim: str) -> None:
    guard = make_guard()
    token = bearer(guard).removeprefix("Bearer ")
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="them")
    del claims[claim]
    refused(guard, "Bearer " + jwt.encode(claims, SECRET, algorithm="HS256"))


def test_an_unsigned_token_is_refused() -> None:
    guard = make_guard()
    claims = jwt.decode(bearer(guard)[7:], SECRET, algorithms=["HS256"], audience="them")
    refused(guard, "Bearer " + jwt.encode(claims, None, algorithm="none"))


def test_a_token_is_good_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = make_guard()
    old = bearer(guard, now=NOW - timedelta(minutes=16))
    assert "expired" in refused(guard, old).message
    token = bearer(guard)
    guard.authenticate(token)
    later_s = (NOW + timedelta(minutes=15, seconds=1)).timestamp()
    monkeypatch.setattr(guarding.time, "time", lambda: later_s)
    assert "expired" in refused(guard, token).message  # although it is remembered


def test_a_clock_that_is_ahead_of_ours_locks_nobody_out() -> None:
    guard = make_guard()
    assert guard.authenticate(bearer(guard, now=NOW + timedelta(seconds=30))).user_id == 7


def test_memory_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "TOKEN_COUNT_MAX", 3)
    guard = make_guard()
    tokens = [bearer(guard, user_id=number) for number in range(1, 6)]
    first = guard.authenticate(tokens[0])
    for token in (tokens[1], tokens[2], tokens[0], tokens[3], tokens[4]):
        guard.authenticate(token)
    assert guard.authenticate(tokens[0]) is first  # used since, so it was kept


def test_what_a_role_may_do_is_learned_anew() -> None:
    guard = make_guard()
    token = bearer(guard)
    assert not guard.authenticate(token).allows("sales:void")
    guard.learn_roles([("CASHIER", "sales:void")])
    assert guard.authenticate(token).permissions == {"sales:void"}


def test_permissions_decide_and_an_administrator_may_everything() -> None:
    guard = make_guard()
    cashier, admin, stranger = (
        guard.authenticate(bearer(guard, role=role)) for role in ("CASHIER", "ADMIN", "GUEST")
    )
    require(cashier, "sales:write")
    require(admin, "anything:at_all")
    assert admin.permissions == {"sales:write", "sales:void"}

    def refuse(who: Principal, permission: str) -> None:
        with pytest.raises(ApiError) as caught:
            require(who, permission)
        assert (caught.value.status, caught.value.code) == (403, "forbidden")
        assert caught.value.details == {"permission": permission}

    refuse(cashier, "sales:void")
    refuse(stranger, "sales:write")
