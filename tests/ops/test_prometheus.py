"""The real Prometheus beside real workers: it counts what was sent, and wakes when it should."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.ops import cards, live, promql, symptoms
from tests.ops.test_dashboards import expressions
from tests.ops.test_runbooks import blocks

if TYPE_CHECKING:
    from pathlib import Path

    from sofinance.config import Settings

# The alerts' symptoms are made on the embedded PostgreSQL, whatever the others run on.
pytestmark = pytest.mark.once

CLIENTS = 12
SENT = [
    *[("GET", "/api/v1/info")] * 300,
    *[("GET", "/api/v1/sales")] * 120,  # nobody's: 401
    *[("GET", "/api/v1/nowhere")] * 60,
    *[("POST", "/api/v1/auth/login")] * 60,  # without a body: 422
]
# Labelled, and nothing in this test makes the first of them.
NOT_YET = {
    "captchas_total", "deprecated_requests_total", "rate_limit_decisions_total",
    "db_query_errors_total", "secret_age_seconds", "wal_archive_last_success_timestamp",
    "wal_archive_failures_total", "db_replica_lag_seconds", "db_replica_up", "circuit_state",
    "traces_total", "trace_spans_dropped_total",
}  # fmt: skip
# What workers write down; there is none in that test.
TOLD = ("job_", "business_", "integrity_")


def test_prometheus_counts_what_three_workers_were_sent(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    port = live.free_port()
    with (
        live.prometheus(port, tmp_path / "prometheus") as prometheus,
        live.gunicorn(port, folder, **live.environment(settings.database_url)),
    ):
        live.until("a scrape", prometheus.sees, live.SIGHT_S)
        got = Counter[tuple[str, str, int]]()

        def sent_to_all() -> bool:
            with ThreadPoolExecutor(CLIENTS) as clients:
                answers = clients.map(lambda one: (*one, live.ask(port, one[1], one[0])[0]), SENT)
                got.update(answers)
            return len(live.pids(folder, having=b"/api/v1/info")) == live.WORKERS

        live.until("all workers are asked", sent_to_all, live.SIGHT_S)

        for (method, path, status), count in got.items():
            route = "unmatched" if path.endswith("nowhere") else path
            told = f'{{job="sofinance", method="{method}", route="{route}", status="{status}"}}'
            asked = f"sum(http_requests_total{told})"
            prometheus.shows(asked, count)
        prometheus.shows(
            'sum(http_request_duration_seconds_count{route="/api/v1/info"})',
            sum(count for (_, path, _), count in got.items() if path == "/api/v1/info"),
        )
        assert got["GET", "/api/v1/info", 200] % 300 == 0
        assert {status for _, _, status in got} == {200, 401, 404, 422}

        # What is scraped is what the tests of rules and dashboards take for exported.
        status, body = live.ask(port, "/metrics", Authorization=f"Bearer {live.TOKEN}")
        assert (status, live.ask(port, "/metrics")[0]) == (200, 401)
        scraped = set(re.findall(r"^([a-z]\w+)[{ ]", body.decode(), re.MULTILINE))
        exported = promql.exported().keys()
        assert scraped <= exported
        read = {name for rule in promql.rules() for name in promql.names_in(rule["expr"])}
        read |= {name for _, _, one in expressions() for name in promql.names_in(one)}
        missing = (read & exported) - scraped
        assert {name for name in missing if not name.startswith(TOLD)} <= NOT_YET
        lint = subprocess.run(
            [promql.program("promtool"), "check", "metrics"],
            input=body,
            capture_output=True,
            check=False,
        )
        assert (lint.returncode, lint.stderr.decode()) == (0, "")

        # Prometheus's own parser takes whatever a dashboard or a runbook asks.
        asked_for = {one for _, _, one in expressions()}
        asked_for |= {part for _, text in blocks("promql") for part in text.split("\n\n")}
        for expression in asked_for:
            prometheus.query(
                expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
            )


def test_alerts_fire_for_real_symptoms_and_clear(tmp_path: Path) -> None:
    with symptoms.set_up(tmp_path) as scene, live.worker(scene.settings) as worker:
        scene.fires("ServiceDown", "InstanceDown")  # nothing serves yet
        with symptoms.serving(scene):
            scene.rests()
            symptoms.back_up(scene)
            symptoms.break_the_books(scene)
            symptoms.lose_the_replica(scene)
            symptoms.leave_letters(scene)
            symptoms.open_organisation(scene)
            symptoms.corrupt_a_row(scene)
            cards.take_cards(scene)
            symptoms.slow_down(scene)
            symptoms.jam(scene)
            symptoms.send_mail_again(scene)
            scene.rests()
            symptoms.stand_still(scene, worker)
    assert promql.of_the_service() == scene.caused
