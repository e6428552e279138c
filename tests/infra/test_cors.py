"""Which pages may read our answers, and what browsers are told about all of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from sofinance.config import SettingsError, load
from sofinance.infra.security import SECURITY_HEADERS, page_policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

OFFICE, SHOP = "https://office.example.com", "http://localhost:3000"
PATH = "/categories"


def cors(headers: object) -> list[str]:
    return [name for name in headers if name.lower().startswith("access-control")]  # type: ignore[attr-defined]


@pytest.fixture
async def open_api(api_with: MakeApi) -> Api:
    """An application that two origins may read."""
    return await api_with(cors_origins=f"{OFFICE},{SHOP}")


async def test_a_known_origin_may_read_answers_and_refusals(open_api: Api, org: Org) -> None:
    for origin in (OFFICE, SHOP):
        for who, status in ((org, 200), (None, 401)):
            answer = await open_api.get(PATH, who, headers={"Origin": origin})
            assert answer.status == status
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in answer.headers
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            assert {
                "ETag", "Link", "Location", "X-Request-ID", "Idempotent-Replayed", "Retry-After",
                "RateLimit", "RateLimit-Policy", "Deprecation", "Sunset",
            } <= set(exposed)  # fmt: skip


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "*", f"{OFFICE}.evil.example", f"{OFFICE}:443",
        "http://office.example.com", "https://OFFICE.example.com", f"{OFFICE}/", "", f"{OFFICE},",
        f"{OFFICE},{SHOP}",
    ],
)  # fmt: skip
async def test_an_unknown_origin_sees_no_header(open_api: Api, org: Org, origin: str) -> None:
    answer = await open_api.get(PATH, org, headers={"Origin": origin})
    assert (answer.status, cors(answer.headers)) == (200, [])
    # What it got is not to be given to a page of a known origin.
    assert answer.headers["Vary"] == "Origin"
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    refused = await open_api.call("OPTIONS", PATH, headers=asked)
    assert (refused.refused, cors(refused.headers)) == ((405, "method_not_allowed"), [])


async def test_a_browser_asks_first(open_api: Api, org: Org) -> None:
    asked = {
        "Origin": OFFICE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    answer = await open_api.call("OPTIONS", PATH, headers=asked)
    assert (answer.status, answer.text) == (204, "")
    assert answer.headers["Access-Control-Allow-Origin"] == OFFICE
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {
        "authorization", "content-type", "idempotency-key", "if-match", "if-none-match",
        "x-branch-id", "x-request-id", "x-span-id", "x-trace-id", "traceparent",
    } <= set(allowed)  # fmt: skip
    assert answer.headers["Access-Control-Max-Age"] == "7200"
    assert answer.headers["Vary"] == "Origin"
    nowhere = await open_api.call("OPTIONS", "/nowhere", headers=asked)
    assert nowhere.refused == (404, "not_found")
    # Without the question it is an OPTIONS like any other.
    plain = await open_api.call("OPTIONS", PATH, headers={"Origin": OFFICE})
    assert plain.refused == (405, "method_not_allowed")


async def test_without_origins_nothing_is_said(api: Api, org: Org) -> None:
    answer = await api.get(PATH, org, headers={"Origin": OFFICE})
    assert (answer.status, cors(answer.headers)) == (200, [])
    assert "Vary" not in answer.headers


@pytest.mark.parametrize(
    "text",
    [
        "*", "null", "https://*.example.com", "office.example.com", f"{OFFICE}/", f"{OFFICE}/app",
        "https://Office.example.com", "ftp://example.com", f"{OFFICE},,{SHOP}", f"{OFFICE} {SHOP}",
        "https://user@example.com", "https://example.com:0",
    ],
)  # fmt: skip
def test_only_origins_can_be_configured(text: str) -> None:
    good = {"DATABASE_URL": "postgresql://app:pw@db/books", "JWT_SECRET": "s" * 32}
    with pytest.raises(SettingsError) as caught:
        load({**good, "CORS_ORIGINS": text})
    assert "CORS_ORIGINS" in caught.value.message
    assert load({**good, "CORS_ORIGINS": f"{OFFICE}, {SHOP}"}).cors_origins == f"{OFFICE},{SHOP}"


# --- security headers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/ping", "/metrics", "/openapi.json", "/nowhere", "/api/v1/categories", "/docs/static/x"],
)
async def test_every_answer_tells_browsers_to_do_nothing_with_it(api: Api, path: str) -> None:
    answer = await api.get(path, prefix="")
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


async def test_the_documents_page_runs_its_own_scripts_and_no_others(api: Api) -> None:
    page = await api.get("/docs", prefix="")
    policy = page.headers["Content-Security-Policy"]
    assert policy == page_policy(page.text)
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    scripts = re.search(r"script-src ([^;]+)", policy)
    assert scripts is not None
    assert re.fullmatch(r"'self' 'sha256-[\w+/]{43}='", scripts[1])
    assert "'unsafe-inline'" not in scripts[1]
    # All that it loads is its own.
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert loaded
    for path in loaded:
        assert path.startswith("/docs/static/")
        async with api.session.get(api.base_url + path) as loaded_file:
            assert loaded_file.status == 200


async def test_https_is_demanded_of_who_came_by_it(api_with: MakeApi) -> None:
    behind = {"hsts_max_age_s": 3600, "trust_proxy_headers": True}
    by_https = {"X-Forwarded-Proto": "https"}

    async def said(api: Api, headers: dict[str, str]) -> str | None:
        return (await api.get("/info", headers=headers)).headers.get("Strict-Transport-Security")

    api = await api_with(**behind, trusted_proxy_ips="127.0.0.1")
    assert await said(api, by_https) == "max-age=3600"
    assert await said(api, {"Forwarded": "for=1.2.3.4;proto=https"}) == "max-age=3600"
    for other in (
        {}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Proto": "https, http"},
        {**by_https, "Forwarded": "for=1.2.3.4;proto=http"},
        {"Forwarded": "for=1.2.3.4;proto=https, for=5.6.7.8;proto=http"},
    ):  # fmt: skip
        assert await said(api, other) is None
    # Nobody believes a stranger, and nothing is said unless it is asked for.
    assert await said(await api_with(**behind, trusted_proxy_ips="10.0.0.1"), by_https) is None
    assert await said(await api_with(hsts_max_age_s=3600), by_https) is None
    off = await api_with(trust_proxy_headers=True, trusted_proxy_ips="127.0.0.1")
    assert await said(off, by_https) is None
