"""Limits as clients meet them: status, headers, problem type, and whose address it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.redis_server import RedisServer
    from tests.support import Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

LIMITED: dict[str, Any] = {
    "rate_limit_enabled": True,
    "rate_limit_per_minute": 1,
    "rate_limit_burst": 3,
    "redis_timeout_ms": 1_000,
}
PATH = "/categories"


async def test_burst_and_one_more_over_two_workers_with_one_redis(
    api_with: MakeApi, org: Org, shared_redis: RedisServer
):
    options = {**LIMITED, "redis_url": shared_redis.url}
    workers = [await api_with(**options), await api_with(**options)]
    answers = [await workers[n % 2].get(PATH, org) for n in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    policy = '"user";q=3;w=180, "organisation";q=24000;w=120'
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {policy}
    assert [answer.headers["RateLimit"][:10] for answer in answers] == [
        f'"user";r={left}' for left in (2, 1, 0, 0)
    ]
    assert answers[3].code == "rate_limited"
    assert 0 < int(answers[3].headers["Retry-After"]) <= 60


async def test_a_refusal_is_a_registered_problem(api_with: MakeApi, org: Org):
    api = await api_with(**{**LIMITED, "rate_limit_burst": 1})
    accept = {"Accept": "application/problem+json"}
    await api.get(PATH, org)
    refused = await api.get(PATH, org, headers=accept)
    assert refused.status == 429
    assert refused.body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert refused.body["violated-policies"] == ["user"]


async def test_guessing_at_tokens_is_limited_by_address(api_with: MakeApi):
    api = await api_with(**LIMITED)
    headers = {"Authorization": "Bearer made.up.token"}
    answers = [await api.get(PATH, headers=headers) for _ in range(5)]
    assert [answer.status for answer in answers] == [401, 401, 401, 429, 429]
    assert answers[0].headers["RateLimit"].startswith('"address";r=2')


async def test_probes_are_never_limited(api_with: MakeApi):
    api = await api_with(**LIMITED)
    assert {(await api.get("/livez", prefix="")).status for _ in range(9)} == {200}


async def test_a_made_up_address_does_not_help(api_with: MakeApi):
    """From a stranger not at all; through our proxy only what the proxy itself wrote counts."""
    api = await api_with(**LIMITED)
    forged = [{"X-Forwarded-For": f"198.51.100.{n}"} for n in range(5)]
    answers = [await api.get("/info", headers=headers) for headers in forged]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    behind = await api_with(**LIMITED, trust_proxy_headers=True, trusted_proxy_ips="127.0.0.1, ::1")
    forged = [{"X-Forwarded-For": f"198.51.100.{n}, 203.0.113.7"} for n in range(5)]
    answers = [await behind.get("/info", headers=headers) for headers in forged]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    other = await behind.get("/info", headers={"X-Forwarded-For": "203.0.113.8"})
    assert other.status == 200


async def test_twenty_wrong_passwords_are_too_many(api_with: MakeApi, org: Org):
    api = await api_with(rate_limit_enabled=True)

    async def sign_in(email: str, password: str) -> int:
        wanted = {"email": email, "password": password}
        return (await api.post("/auth/login", json=wanted)).status

    for email in (org.admin.email, f"nobody-{org.id}@example.com"):
        tried = [await sign_in(email, "wrong") for _ in range(12)]
        assert tried == [401] * 10 + [429] * 2
    assert await sign_in(org.admin.email, org.admin.password) == 429


async def test_signing_in_clears_what_went_wrong_before(api_with: MakeApi, org: Org):
    api = await api_with(rate_limit_enabled=True)
    wanted = {"email": org.admin.email, "password": org.admin.password}
    for _ in range(2):
        for _ in range(7):
            wrong = await api.post("/auth/login", json={**wanted, "password": "wrong"})
            assert wrong.refused == (401, "invalid_credentials")
        assert (await api.post("/auth/login", json=wanted)).status == 200
