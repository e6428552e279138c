"""Health, metrics, documents: what those who run the service see."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from sofinance import __version__
from sofinance.app import MACHINE
from sofinance.infra.envelope import ENVELOPE_KEYS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Answer, Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

ALIVE = ["/health/live", "/healthz", "/livez", "/ping"]
READY = ["/health/ready", "/readyz"]


async def root(api: Api, path: str, **options: Any) -> Answer:
    return await api.get(path, prefix="", **options)


@pytest.mark.parametrize("path", [*ALIVE, *READY, "/health"])
async def test_a_healthy_service_says_so(api: Api, path: str) -> None:
    answer = await root(api, path)
    assert answer.body.keys() == ENVELOPE_KEYS
    health = answer.data
    assert (health["status"], health["version"]) == ("healthy", __version__)
    assert health["timestamp"].endswith("Z")
    assert health["checks"] == ({} if path in ALIVE else {"database": "healthy"})


@pytest.mark.parametrize(
    ("error", "said"), [(ConnectionRefusedError(), "unhealthy"), (TimeoutError(), "timeout")]
)
async def test_without_its_database_it_lives_but_is_not_ready(
    api_with: MakeApi, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    api = await api_with()

    async def take() -> Any:
        raise error

    monkeypatch.setattr(api.app[MACHINE].db.pool, "take", take)
    for path in ("/health", *READY):
        answer = await root(api, path)
        assert answer.refused == (503, "unhealthy")
        assert answer.headers["Retry-After"] == "1"
        assert answer.details["status"] == "unhealthy"
        assert answer.details["version"] == __version__
        assert answer.details["checks"] == {"database": said}
    for path in ALIVE:
        assert (await root(api, path)).status == 200


async def test_a_database_that_hangs_is_waited_for_two_seconds_at_most(
    api_with: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await api_with()
    monkeypatch.setattr("sofinance.infra.db.PING_TIMEOUT_S", 0.01)

    async def take() -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(api.app[MACHINE].db.pool, "take", take)
    assert (await root(api, "/health")).details["checks"] == {"database": "timeout"}


async def test_who_shuts_down_is_not_ready(api_with: MakeApi) -> None:
    api = await api_with()
    await api.app.shutdown()
    answer = await root(api, "/readyz")
    assert answer.refused == (503, "unhealthy")
    assert answer.details["checks"] == {"database": "healthy", "shutdown": "unhealthy"}
    assert (await root(api, "/livez")).status == 200


async def test_what_answers_says_what_it_is(api: Api) -> None:
    info = (await api.get("/info")).data
    assert (info["name"], info["version"], info["environment"]) == (
        "SOFinance", __version__, "development",
    )  # fmt: skip


async def test_requests_are_counted_by_route(api: Api, org: Org) -> None:
    for path in ("/categories/1", "/categories/2", "/nowhere/1", "/nowhere/2"):
        await api.get(path, org)
    await api.call("BREW", "/nowhere")
    answer = await root(api, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    lines = answer.text.splitlines()

    def series(start: str) -> list[str]:
        return [line for line in lines if line.startswith(start)]

    counted = 'http_requests_total{method="GET",route="/api/v1/categories/{id}",status="404"}'
    assert len(series(counted)) == 1
    assert series('http_requests_total{method="GET",route="unmatched",status="404"}')
    assert not [line for line in lines if "nowhere" in line or "BREW" in line]
    assert series('http_request_duration_seconds_bucket{le="0.2",method="GET"')
    assert series("database_up 1.0")
    for name in ("db_pool_size", "db_pool_open", "db_pool_in_use", "db_pool_waiting"):
        assert len(series(f"{name} ")) == 1


async def test_metrics_can_be_closed_to_strangers_or_switched_off(api_with: MakeApi) -> None:
    api = await api_with(metrics_token="a token for the scraper")
    for header in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer é"}):
        answer = await root(api, "/metrics", headers=header)
        assert answer.refused == (401, "unauthorized")
    token = {"Authorization": "Bearer a token for the scraper"}
    for path in ("/metrics", "/v1/metrics"):
        assert (await root(api, path, headers=token)).status == 200
    off = await api_with(metrics_enabled=False)
    assert (await root(off, "/metrics", headers=token)).refused == (404, "not_found")


async def test_the_api_describes_itself(api: Api) -> None:
    newest = json.loads((await root(api, "/openapi.json")).text)
    assert newest["openapi"] == "3.1.0"
    older = json.loads((await root(api, "/swagger.json")).text)
    assert older["swagger"] == "2.0"
    assert set(newest["paths"]) == set(older["paths"])
    page = await root(api, "/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert '"/swagger.json"' in page.text
    assert "{{" not in page.text
    assert "//" not in page.text.replace("// Begin", "").replace("// End", "")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js"):
        assert f"/docs/static/{name}" in page.text
        assert (await root(api, f"/docs/static/{name}")).status == 200
    for name in ("nothing.js", "..%2Fdecorators%2F__init__.py", "%2e%2e"):
        assert (await root(api, f"/docs/static/{name}")).refused == (404, "not_found")


async def test_what_is_not_http_is_told_in_the_envelope(api: Api) -> None:
    port = int(api.base_url.rpartition(":")[2])
    for sent in (b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        assert b" 400 " in head.splitlines()[0]
        answer = json.loads(body)
        assert answer.keys() == ENVELOPE_KEYS
        assert answer["error"]["code"] == "malformed_request"
