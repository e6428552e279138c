"""Traces and error reports of real processes, as a receiver outside of them gets them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sofinance.infra.tracing import SLOW_S, is_drawn
from tests.ops import live
from tests.ops.receiver import Posted, posted
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sofinance.config import Settings
    from tests.support import Org

ARRIVE_S = 120
CALLER = "00f067aa0ba902b7"
# None of this may leave the house in a trace or a report.
PRIVATE = [b"hunter2", b"ada@shop.example", b"+49151123456", b"eyJ", b"Bearer"]


def receiver(port: int, folder: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Run a receiver that keeps what it gets in a folder."""
    folder.mkdir()
    return live.process(sys.executable, "-m", "tests.ops.receiver", str(port), str(folder))


def spans_of(folder: Path) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield every span that was received, with what was told of its process."""
    for one in posted(folder):
        if one.path != "/v1/traces":
            continue
        for resource in ExportTraceServiceRequest.FromString(one.body).resource_spans:
            told = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                yield from ((told, span) for span in scope.spans)


def trace_of(folder: Path, trace_id: str) -> dict[str, Any]:
    """Return the spans of a trace by name."""
    return {span.name: span for _, span in spans_of(folder) if span.trace_id.hex() == trace_id}


def told(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def ids(count: int) -> list[str]:
    """Return trace ids, of which every other is drawn."""
    tails = ["f" * 14 if number % 2 else "0" * 14 for number in range(count)]
    return [f"{number:018x}{tail}" for number, tail in enumerate(tails, 1)]


@pytest.mark.empty_database
def test_a_collector_gets_the_traces_and_the_errors_of_requests(
    settings: Settings, org: Org, owner_dsn: str, tmp_path: Path
) -> None:
    port, collector, folder = live.free_port(), live.free_port(), tmp_path / "received"
    redis = RedisServer()
    redis.start()
    variables = live.environment(settings.database_url) | {
        "JWT_SECRET": settings.jwt_secret, "REDIS_URL": redis.url, "REDIS_TIMEOUT_MS": "1000",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=retail",
        "LOG_LEVEL": "error", "SENTRY_DSN": f"http://public@127.0.0.1:{collector}/7",
    }  # fmt: skip
    signed_in = {"Authorization": f"Bearer {org.admin.token}"}
    (tmp_path / "metrics").mkdir()
    names = ids(20)
    try:
        with (
            receiver(collector, folder),
            live.gunicorn(port, tmp_path / "metrics", **variables),
        ):
            for number, trace_id in enumerate(names):
                customer = {
                    "name": "hunter2", "email": f"{number}.ada@shop.example",
                    "phone": f"+49151123456{number:02}",
                }  # fmt: skip
                status, _ = live.ask(
                    port, "/api/v1/customers", "POST", json.dumps(customer).encode(),
                    traceparent=f"00-{trace_id}-{CALLER}-00", **signed_in,
                )  # fmt: skip
                assert status == 201
            with psycopg.connect(owner_dsn, autocommit=True) as conn:
                conn.execute("alter table category rename to category_away")
            broken = "a" * 18 + "0" * 14
            status, _ = live.ask(
                port, "/api/v1/categories?search=hunter2",
                traceparent=f"00-{broken}-{CALLER}-00",
                **{"X-Request-ID": "till-7/42", "User-Agent": "ada@shop.example", **signed_in},
            )  # fmt: skip
            assert status == 500
            live.until("the failure", lambda: trace_of(folder, broken), ARRIVE_S)
            live.until("a report", lambda: reports(folder), ARRIVE_S)
            live.until("a lot", lambda: trace_of(folder, names[-1]), ARRIVE_S)
    finally:
        redis.close()

    examine_traces(folder, names, org, broken)
    examine_report(folder, broken)
    for one in posted(folder):
        for private in PRIVATE:
            assert private not in one.body


def examine_traces(folder: Path, names: list[str], org: Org, broken: str) -> None:
    """Look at what came of the requests."""
    # One in two of those ids is drawn, and the others are left out, but for what took long.
    lasted_s = {
        span.trace_id.hex(): (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        for _, span in spans_of(folder)
        if span.name == "POST /api/v1/customers"
    }
    drawn = [one for one in names if is_drawn(one, 10)]
    assert len(drawn) == len(names) / 2
    assert lasted_s.keys() >= {*drawn}
    assert all(lasted_s[one] > SLOW_S for one in lasted_s.keys() - {*drawn})
    # One for which Redis was asked: a worker that has just begun may count by itself.
    traces = [trace_of(folder, one) for one in drawn]
    spans = next(trace for trace in traces if "redis EVALSHA" in trace)
    root = spans["POST /api/v1/customers"]
    assert (root.kind, root.parent_span_id.hex()) == (2, CALLER)
    assert told(root)["http.route"] == "/api/v1/customers"
    assert told(root)["sofinance.org_id"] == org.id
    assert {
        "redis EVALSHA",
        "request.begin",
        "customers.create_customer",
        "request.commit_work",
    } <= {*spans}
    for name, span in spans.items():
        if span is not root:
            assert (span.kind, span.parent_span_id) == (3, root.span_id), name
            assert root.start_time_unix_nano <= span.start_time_unix_nano, name
            assert span.end_time_unix_nano <= root.end_time_unix_nano, name
    failed = trace_of(folder, broken)["GET /api/v1/categories"]
    assert failed.status.code == 2
    assert told(failed)["error.type"] == "internal"
    resources = {tuple(sorted(resource.items())) for resource, _ in spans_of(folder)}
    assert {dict(one)["service.name"] for one in resources} == {"sofinance"}
    assert {dict(one)["deployment.environment.name"] for one in resources} == {"development"}
    traces = [one for one in posted(folder) if one.path == "/v1/traces"]
    assert {one.headers["content-type"] for one in traces} == {"application/x-protobuf"}
    assert {one.headers["x-tenant"] for one in traces} == {"retail"}


def examine_report(folder: Path, broken: str) -> None:
    """Look at what was reported of the one that failed."""
    # The error was reported once, under the names by which log and trace have it.
    (report,) = reports(folder)
    assert "sentry_key=public" in report.headers["x-sentry-auth"]
    _, head, event, *_ = report.body.split(b"\n")
    assert json.loads(head)["type"] == "event"
    said = json.loads(event)
    assert said["tags"] == {"request_id": "till-7/42", "trace_id": broken}
    assert said["contexts"]["trace"]["trace_id"] == broken
    assert said["level"] == "error"
    assert said["exception"]["values"][-1]["type"] == "UndefinedTableError"
    assert said["exception"]["values"][-1]["stacktrace"]["frames"]
    assert not said.keys() & {"request", "user", "breadcrumbs", "extra"}


def reports(folder: Path) -> list[Posted]:
    """Return the envelopes of errors that were received."""
    return [one for one in posted(folder) if one.path == "/api/7/envelope/"]


@pytest.mark.empty_database
def test_a_collector_gets_the_traces_of_jobs(settings: Settings, tmp_path: Path) -> None:
    collector, folder = live.free_port(), tmp_path / "received"
    variables = live.environment(settings.database_url) | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "TRACE_SAMPLE_PERCENT": "100",
    }
    live.sofinance("worker", "--once", **variables)  # makes the jobs known
    live.sofinance("jobs", "run", "forget-expired", **variables)
    with receiver(collector, folder), live.worker(variables):
        live.until("a job", lambda: spans_of_job(folder), ARRIVE_S)
    (root,) = spans_of_job(folder)
    spans = trace_of(folder, root.trace_id.hex())
    assert (root.kind, root.parent_span_id) == (1, b"")
    assert told(root)["job.outcome"] == "succeeded"
    assert spans["flags.list_organisations"].parent_span_id == root.span_id


def spans_of_job(folder: Path) -> list[Any]:
    """Return what was received of the job that was asked for; others may be due as well."""
    return [span for _, span in spans_of(folder) if span.name == "job forget-expired"]


def test_what_is_set_and_not_installed_is_told_at_start(tmp_path: Path) -> None:
    blocked = tmp_path / "sitecustomize.py"
    blocked.write_text(
        "import sys\nsys.modules['sentry_sdk'] = sys.modules['opentelemetry'] = None\n"
    )
    for variables, problems in (
        ({}, []),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
                "SENTRY_DSN": "https://k@h.example/1",
            },
            [
                "OTEL_EXPORTER_OTLP_ENDPOINT needs a package more: ",
                "pip install 'sofinance[telemetry]'",
                "SENTRY_DSN needs a package more: pip install 'sofinance[sentry]'",
            ],
        ),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "sofinance", "config", "check"],
            env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin", "DATABASE_URL": "postgresql:///x",
                 "JWT_SECRET": "x" * 40, **variables},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        said = ran.stdout + ran.stderr
        assert [problem for problem in problems if problem not in said] == []
        assert (ran.returncode == 0) is (problems == []), said
