"""The real Prometheus beside real workers: it counts what was sent, and wakes when it should."""

from __future__ import annotations

import contextlib
import itertools
import json
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

from sofinance.infra import embedded, migrate
from tests.ops import live, promql
from tests.ops.test_dashboards import expressions
from tests.ops.test_runbooks import blocks
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sofinance.config import Settings

CLIENTS = 12
SIGHT_S = 20  # till a scrape has seen what is so
WAKE_S = 60  # till an alert fires or rests: pings every 5 s, signs of life of 10 s
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
ACCOUNTS = itertools.count()
VERIFY = "select steer_job('verify-books', 'run')"
LONG_AGO = """
update job set
    last_success_at = now() - interval '3 days', next_run_at = now() - interval '2 days'
"""
GUARD = "alter table journal_line {} trigger journal_line_is_final"


def test_prometheus_counts_what_three_workers_were_sent(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    port = live.free_port()
    with (
        live.prometheus(port, tmp_path / "prometheus") as prometheus,
        live.gunicorn(port, folder, **live.environment(settings.database_url)),
    ):
        live.until("a scrape", prometheus.sees, SIGHT_S)
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


@contextlib.contextmanager
def database_server() -> Iterator[embedded.Server]:
    """Run a migrated database server of the test's own, which it may stop."""
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
def redis_server() -> Iterator[RedisServer]:
    """Run a Redis of the test's own, which it may kill."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def repeatedly(ask: Callable[[], object]) -> Iterator[None]:
    """Ask a few times a second, for as long as a block runs."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.3):
            ask()

    asking = threading.Thread(target=go_on)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def sign_in_wrongly(port: int) -> int:
    """Try a password on another account each time, as from a list; returns the status."""
    body = json.dumps({"email": f"{next(ACCOUNTS)}@example.com", "password": "not this one"})
    return live.ask(port, "/api/v1/auth/login", "POST", body.encode())[0]


def run_as(server: embedded.Server, role: str, statement: str) -> None:
    """Run a statement as a role."""
    with psycopg.connect(server.url(role), autocommit=True) as conn:
        conn.execute(statement)


def test_alerts_fire_for_real_symptoms_and_clear(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    port = live.free_port()
    with contextlib.ExitStack() as stack:
        prometheus = stack.enter_context(live.prometheus(port, tmp_path / "prometheus"))

        caused: set[str] = set()

        def fires(*names: str) -> None:
            caused.update(names)
            live.until(f"{names} fire", lambda: {*names} <= prometheus.firing(), WAKE_S)

        def rests() -> None:
            # Of the others, a busy machine may cause some.
            live.until("quiet", lambda: caused.isdisjoint(prometheus.firing()), WAKE_S)

        # Nothing has been started yet.
        redis = stack.enter_context(redis_server())
        database = stack.enter_context(database_server())
        settings = live.environment(database.url("sofinance_app")) | {"REDIS_URL": redis.url}
        worker = stack.enter_context(live.worker(settings))
        fires("ServiceDown", "InstanceDown")
        stack.enter_context(live.gunicorn(port, folder, **settings))
        # A load balancer's question, whenever somebody answers.
        stack.enter_context(repeatedly(lambda: live.answers(port, "/readyz")))
        rests()

        # Somebody who owns the tables takes a guard away: the verification finds it, each time.
        run_as(database, "sofinance_owner", GUARD.format("disable"))
        failures = 'job_consecutive_failures{exported_job="verify-books"}'
        for count in (1, 2, 3):
            run_as(database, "sofinance_app", VERIFY)
            live.until(
                f"{count} failures",
                lambda count=count: prometheus.value(failures) == count,
                SIGHT_S,
            )
        fires("BooksBroken", "JobFailing")
        assert prometheus.value('job_errors_total{exported_job="verify-books"}') == 3
        run_as(database, "sofinance_owner", GUARD.format("enable"))
        run_as(database, "sofinance_app", VERIFY)
        rests()
        for name in promql.exported():
            assert not name.startswith("job_") or prometheus.query(name), name

        # Redis dies, and the worker freezes, as if three days ago: nobody runs jobs. Meanwhile
        # somebody tries passwords.
        redis.kill()
        worker.send_signal(signal.SIGSTOP)
        run_as(database, "sofinance_owner", LONG_AGO)
        with repeatedly(lambda: sign_in_wrongly(port)):
            assert sign_in_wrongly(port) == 401
            fires("SignInFailuresSpike")
        fires("JobRunnerDown", "JobOverdue", "JobStale", "RateLimiterWithoutRedis")
        redis.start()
        with live.worker(settings):
            rests()

            # The database stops, and comes back; nothing of ours is restarted.
            database.stop()
            with repeatedly(lambda: sign_in_wrongly(port)):
                assert sign_in_wrongly(port) == 503
                fires("DatabaseUnavailable", "ReadinessFailing")
                fires("HighErrorRate", "ElevatedErrorRate")
            assert live.answers(port, "/livez")
            database.start()
            rests()
            assert live.answers(port, "/readyz")
