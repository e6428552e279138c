"""The real Prometheus beside real workers: it counts what was sent, and wakes when it should."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from sofinance.infra import embedded, migrate
from tests.ops import live, promql
from tests.ops.test_dashboards import expressions
from tests.ops.test_runbooks import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sofinance.config import Settings

CLIENTS = 12
SIGHT_S = 20  # till a scrape has seen what is so
WAKE_S = 40  # till an alert fires or rests: pings every 5 s, signs of life of 10 s
SENT = [
    *[("GET", "/api/v1/info")] * 300,
    *[("GET", "/api/v1/sales")] * 120,  # nobody's: 401
    *[("GET", "/api/v1/nowhere")] * 60,
    *[("POST", "/api/v1/auth/login")] * 60,  # without a body: 422
]
# Labelled, and nothing in this test makes the first of them.
NOT_YET = {
    "captchas_total", "deprecated_requests_total", "rate_limit_decisions_total",
    "db_query_errors_total", "secret_age_seconds",
}  # fmt: skip
UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
GUARD = "alter table journal_line {} trigger journal_line_is_final"


def test_prometheus_counts_what_three_workers_were_sent(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    with (
        live.gunicorn(settings.database_url, folder) as port,
        live.prometheus(port, tmp_path / "prometheus") as prometheus,
    ):
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = clients.map(lambda one: (*one, live.ask(port, one[1], one[0])[0]), SENT)
            got = Counter(answers)
        assert len(live.pids(folder, having=b"/api/v1/info")) == live.WORKERS

        for (method, path, status), count in got.items():
            route = "unmatched" if path.endswith("nowhere") else path
            told = f'{{job="sofinance", method="{method}", route="{route}", status="{status}"}}'
            asked = f"sum(http_requests_total{told})"
            live.until(asked, lambda asked=asked: prometheus.value(asked), live.SCRAPE_S + SIGHT_S)
            live.until(
                f"{asked} is {count}",
                lambda asked=asked, count=count: prometheus.value(asked) == count,
                SIGHT_S,
            )
        assert prometheus.value(
            'sum(http_request_duration_seconds_count{route="/api/v1/info"})'
        ) == sum(count for (_, path, _), count in got.items() if path == "/api/v1/info")
        assert got["GET", "/api/v1/info", 200] == 300
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
        assert {name for name in missing if not name.startswith("job_")} <= NOT_YET
        lint = subprocess.run(
            ["promtool", "check", "metrics"], input=body, capture_output=True, check=False
        )
        assert (lint.returncode, lint.stderr.decode()) == (0, "")

        # Prometheus's own parser takes whatever a dashboard or a runbook asks.
        asked_for = {one for _, _, one in expressions()}
        asked_for |= {part for _, text in blocks("promql") for part in text.split("\n\n")}
        for expression in asked_for:
            prometheus.query(
                expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
            )


@pytest.fixture
def database() -> Iterator[embedded.Server]:
    """A migrated database server of the test's own, which it may stop."""
    folder = Path(tempfile.mkdtemp(prefix="sofinance-alerts-"))
    folder.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
    server = embedded.Server(folder / "data", options=UNSAFE_BUT_FAST)
    try:
        server.start()
        migrate.apply(server.url("postgres"))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@contextlib.contextmanager
def probing(port: int) -> Iterator[None]:
    """Ask for readiness, as a load balancer does, for as long as a block runs."""
    over = threading.Event()

    def probe() -> None:
        while not over.wait(0.3):
            live.ask(port, "/readyz")

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        yield
    finally:
        over.set()
        prober.join()


def run_as(server: embedded.Server, role: str, statement: str) -> None:
    """Run a statement as a role."""
    with psycopg.connect(server.url(role), autocommit=True) as conn:
        conn.execute(statement)


def test_alerts_fire_for_real_symptoms_and_clear(database: embedded.Server, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    url = database.url("sofinance_app")
    verify = "select steer_job('verify-books', 'run')"
    with (
        live.worker(url) as worker,
        live.gunicorn(url, folder) as port,
        live.prometheus(port, tmp_path / "prometheus") as prometheus,
        probing(port),
    ):

        def fires(*names: str) -> None:
            live.until(f"{names} fire", lambda: {*names} <= prometheus.firing(), WAKE_S)

        def rests(*names: str) -> None:
            live.until(
                f"{names or 'all'} rest",
                lambda: prometheus.firing().isdisjoint(names or promql.alerts()),
                WAKE_S,
            )

        live.until("a worker", lambda: prometheus.value("job_runner_up") == 1, SIGHT_S)
        rests()

        # Somebody who owns the tables takes a guard away: the verification finds it, each time.
        run_as(database, "sofinance_owner", GUARD.format("disable"))
        for failures in (1, 2, 3):
            run_as(database, "sofinance_app", verify)
            live.until(
                f"{failures} failures",
                lambda failures=failures: (
                    prometheus.value('job_consecutive_failures{exported_job="verify-books"}')
                    == failures
                ),
                SIGHT_S,
            )
        fires("BooksBroken", "JobFailing")
        assert prometheus.value('job_errors_total{exported_job="verify-books"}') == 3
        run_as(database, "sofinance_owner", GUARD.format("enable"))
        run_as(database, "sofinance_app", verify)
        rests("BooksBroken", "JobFailing")
        for name in promql.exported():
            assert not name.startswith("job_") or prometheus.query(name), name

        # The worker freezes: nobody runs jobs. Another one is started.
        worker.send_signal(signal.SIGSTOP)
        fires("JobRunnerDown")
        with live.worker(url):
            rests()

            # The database stops, and comes back; nothing of ours is restarted.
            database.stop()
            fires("DatabaseUnavailable", "ReadinessFailing")
            assert live.ask(port, "/livez")[0] == 200
            database.start()
            rests()
            live.until("readiness", lambda: live.answers(port, "/readyz"), SIGHT_S)
