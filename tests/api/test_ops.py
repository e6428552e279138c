"""Health, metrics, documents: what those who run the service see."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from prometheus_client import REGISTRY

from sofinance import __version__
from sofinance.app import MACHINE
from sofinance.infra import health, logs, sql
from sofinance.infra.envelope import ENVELOPE_KEYS
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Answer, Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

ROOT = Path(__file__).parents[2]
WELL = {"database": "healthy", "migrations": "healthy"}
ALIVE = ["/health/live", "/healthz", "/livez", "/ping"]
READY = ["/health/ready", "/readyz"]


def store(path: str) -> dict[str, str]:
    """Return what is said of the file store, for which readiness does not ask."""
    return {"storage": "healthy"} if path == "/health" else {}


async def root(api: Api, path: str, **options: Any) -> Answer:
    return await api.get(path, prefix="", **options)


@pytest.mark.parametrize("path", [*ALIVE, *READY, "/health"])
async def test_a_healthy_service_says_so(api: Api, path: str) -> None:
    answer = await root(api, path)
    assert answer.body.keys() == ENVELOPE_KEYS
    health = answer.data
    assert (health["status"], health["version"]) == ("healthy", __version__)
    assert health["timestamp"].endswith("Z")
    assert health["checks"] == ({} if path in ALIVE else {**WELL, **store(path)})


@pytest.mark.parametrize(
    ("error", "said"), [(ConnectionRefusedError(), "unhealthy"), (TimeoutError(), "timeout")]
)
async def test_without_its_database_it_lives_but_is_not_ready(
    api_with: MakeApi, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    api = await api_with()

    async def take() -> Any:
        raise error

    monkeypatch.setattr(api.app[MACHINE].db.lookout, "take", take)
    for path in ("/health", *READY):
        answer = await root(api, path)
        assert answer.refused == (503, "unhealthy")
        assert answer.headers["Retry-After"] == "1"
        assert answer.details["status"] == "unhealthy"
        assert answer.details["version"] == __version__
        assert answer.details["checks"] == {
            "database": said, "migrations": said, **store(path),
        }  # fmt: skip
    for path in ALIVE:
        assert (await root(api, path)).status == 200


async def test_a_database_that_hangs_is_waited_for_two_seconds_at_most(
    api_with: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await api_with()
    monkeypatch.setattr("sofinance.infra.health.CHECK_TIMEOUT_S", 0.01)

    async def take() -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(api.app[MACHINE].db.lookout, "take", take)
    checks = (await root(api, "/readyz")).details["checks"]
    assert checks == {"database": "timeout", "migrations": "timeout"}


async def test_a_release_is_not_ready_before_its_migrations(
    api_with: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await api_with()
    known = health.known_migrations()
    assert known[0] == "0001_roles"
    monkeypatch.setattr(health, "known_migrations", lambda: [*known, "9999_of_the_next_release"])
    for path in ("/health", *READY):
        answer = await root(api, path)
        assert answer.refused == (503, "unhealthy")
        assert answer.details["checks"] == {
            **WELL, "migrations": "unhealthy", **store(path),
        }  # fmt: skip
    monkeypatch.setattr(health, "known_migrations", lambda: known[:-1])
    assert (await root(api, "/readyz")).data["checks"] == WELL, "older code serves on"


async def test_without_redis_it_is_degraded_and_ready(api_with: MakeApi) -> None:
    with contextlib.closing(RedisServer()) as redis:
        redis.start()
        api = await api_with(redis_url=redis.url)
        assert (await root(api, "/readyz")).data["checks"] == {**WELL, "redis": "healthy"}
        redis.kill()
        for path in ("/health", *READY):
            answer = await root(api, path)
            assert (answer.status, answer.data["status"]) == (200, "degraded")
            assert answer.data["checks"] == {
                **WELL, "redis": "unhealthy", **store(path),
            }  # fmt: skip


async def test_who_shuts_down_is_not_ready(api_with: MakeApi) -> None:
    api = await api_with()
    await api.app.shutdown()
    answer = await root(api, "/readyz")
    assert answer.refused == (503, "unhealthy")
    assert answer.details["checks"] == {**WELL, "shutdown": "unhealthy"}
    assert (await root(api, "/livez")).status == 200


async def test_what_answers_says_what_it_is(api: Api) -> None:
    info = (await api.get("/info")).data
    assert (info["name"], info["version"], info["environment"]) == (
        "SOFinance", __version__, "development",
    )  # fmt: skip


async def test_an_administrator_sees_what_runs_and_on_what(api_with: MakeApi, org: Org) -> None:
    api = await api_with(git_commit="4cd499a")
    build = (await api.get("/debug/version", org, prefix="")).data
    assert (build["version"], build["commit"]) == (__version__, "4cd499a")
    assert build["migration"] == health.known_migrations()[-1]
    stats = (await api.get("/debug/database-stats", org, prefix="")).data
    assert 1 <= stats["pool"]["in_use"] <= stats["pool"]["open"]
    assert stats["pool"]["open"] <= stats["pool"]["size"]
    assert stats["database"]["size_bytes"] > 1_000_000
    assert stats["database"]["connection_count"] >= 1
    for path in ("/debug/version", "/debug/database-stats"):
        assert (await root(api, path)).refused == (401, "unauthorized")
        manager = await api.get(path, org.member("MANAGER"), prefix="")
        assert manager.refused == (403, "forbidden")


async def test_an_administrator_sees_the_settings_and_no_secret(
    api_with: MakeApi, org: Org, settings: Settings
) -> None:
    api = await api_with(
        web_timeout_s=61,
        password_reset_url="https://ada:pass@office.example.com/reset?key=hidden",
    )  # fmt: skip
    answer = await api.get("/admin/config", org)
    assert answer.status == 200
    shown = {one["name"]: (one["value"], one["is_default"]) for one in answer.data["settings"]}
    assert shown.keys() == {field.name.upper() for field in dataclasses.fields(settings)}
    assert shown["WEB_TIMEOUT_S"] == ("61", False)
    assert shown["PORT"] == ("8000", True)
    assert shown["DATABASE_URL"] == shown["JWT_SECRET"] == ("[secret]", False)
    assert shown["SMTP_PASSWORD"] == ("", True)
    assert shown["PASSWORD_RESET_URL"][0] == (
        "https://[secret]@office.example.com/reset?key=[secret]"
    )
    secrets = {
        str(getattr(settings, field.name))
        for field in dataclasses.fields(settings) if field.metadata["secret"]
    } - {""}  # fmt: skip
    assert not [secret for secret in secrets if secret in answer.text]
    manager = await api.get("/admin/config", org.member("MANAGER"))
    assert manager.refused == (403, "forbidden")
    assert (await api.get("/admin/config")).refused == (401, "unauthorized")


@pytest.mark.parametrize(
    "path",
    [
        "/debug/version",
        "/debug/database-stats",
        "/v1/admin/jobs/status",
        "/api/v1/admin/config",
        "/api/v1/admin/operator-actions",
    ],
)
async def test_the_server_s_own_state_is_for_who_runs_it(
    api_with: MakeApi, org: Org, other_org: Org, path: str
) -> None:
    named = await api_with(operator_org_id=org.id, sign_up_enabled=True)
    assert (await named.get(path, org, prefix="")).status == 200
    assert (await named.get(path, other_org, prefix="")).refused == (403, "forbidden")
    for nobodys in ({"sign_up_enabled": True}, {"environment": "production"}):
        api = await api_with(**nobodys)
        assert (await api.get(path, org, prefix="")).refused == (403, "forbidden")
    named = await api_with(operator_org_id=org.id, environment="production")
    assert (await named.get(path, org, prefix="")).status == 200
    assert (await named.get(path, other_org, prefix="")).refused == (403, "forbidden")


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


async def test_named_queries_are_measured_and_slow_ones_told(
    api_with: MakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = await api_with()
    nap = sql.Query("tests.nap", "value", "select pg_sleep(:seconds)::text as slept")
    fault = sql.Query("tests.fault", "many", "select 1 / :zero::int as never")
    logs.configure(level="INFO", environment="test")
    monkeypatch.setattr(sql, "SLOW_QUERY_S", 0.05)
    async with api.app[MACHINE].db.untenanted() as conn:
        await nap(conn, seconds=0.0)
        await nap(conn, seconds=0.1)
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with api.app[MACHINE].db.untenanted() as conn:
            await fault(conn, zero=0)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "slow" in line]
    assert [(line["level"], line["metadata"]["query"]) for line in told] == [
        ("WARNING", "tests.nap")
    ]
    assert told[0]["metadata"]["duration_ms"] >= 100
    lines = (await root(api, "/metrics")).text.splitlines()
    assert 'db_query_duration_seconds_count{query="tests.nap"} 2.0' in lines
    assert 'db_query_duration_seconds_bucket{le="0.1",query="tests.nap"} 1.0' in lines
    assert 'db_query_rows_total{query="tests.nap"} 2.0' in lines
    assert 'db_query_errors_total{query="tests.fault"} 1.0' in lines
    assert [line for line in lines if line.startswith("event_loop_lag_seconds ")]


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    ours = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in REGISTRY.collect()
        if not family.name.startswith(("python_", "process_"))
    }
    assert sorted(name for name in ours if f"`{name}`" not in page) == []
    assert "db_query_duration_seconds" in ours


async def test_metrics_can_be_closed_to_strangers_or_switched_off(api_with: MakeApi) -> None:
    api = await api_with(metrics_token="a token for the scraper")
    for header in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer é"}):
        answer = await root(api, "/metrics", headers=header)
        assert answer.refused == (401, "unauthorized")
    reader, writer = await asyncio.open_connection(*api.base_url.removeprefix("http://").split(":"))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
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
