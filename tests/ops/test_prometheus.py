"""The real Prometheus beside real workers: it counts what was sent, and wakes when it should."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from sofinance.infra import embedded, migrate
from tests.ops import live, promql
from tests.ops.test_dashboards import expressions
from tests.ops.test_runbooks import blocks
from tests.redis_server import RedisServer
from tests.standby import Standby

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
    "db_query_errors_total", "secret_age_seconds", "wal_archive_last_success_timestamp",
    "wal_archive_failures_total", "db_replica_lag_seconds", "db_replica_up", "circuit_state",
    "traces_total", "trace_spans_dropped_total",
}  # fmt: skip
# What workers write down; there is none in that test.
TOLD = ("job_", "business_", "integrity_")
# A busy machine would cause these by itself, or they take longer than the test may: only the rule
# tests have them.
NOT_CAUSED = {
    "SlowResponses", "SlowestResponses", "EventLoopLag", "LogLinesLost", "PoolTimeouts",
    "PoolAlmostFull", "PoolWaits", "RequestsSentAway", "SlowCommits", "MailsFailing",
    "MailsDead", "MailsWaiting",
}  # fmt: skip
UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
ARCHIVING_NOTHING = {"archive_mode": "on", "archive_command": "false", "archive_timeout": "60"}
ADMIN, PASSWORD = "admin@harbour.example", "Correct horse 4 battery staple"  # of made-up people
ORGANISATION = ["--name", "Harbour Market", "--currency", "EUR", "--admin-email", ADMIN,
                "--admin-first-name", "Ada", "--admin-last-name", "Quux"]  # fmt: skip
TWO_YEARS_S = 63_072_000
ACCOUNTS = itertools.count()
VERIFY = "select steer_job('verify-books', 'run')"
PAUSE = "select steer_job('forget-job-runs', '{}')"
LONG_AGO = """
update job set
    last_success_at = now() - interval '3 days', next_run_at = now() - interval '2 days'
"""
HUSH = "set session_replication_role = replica; "
RAISE = HUSH + "update journal_line set debit = debit + {} where debit > 0"
LEAVE_A_KEY = """
insert into idempotency_key (org_id, key_hash, fingerprint, expires_at, created_at)
select org_id, sha256('a'), sha256('b'), now() + interval '1 day', now() - interval '2 hours'
from organisation
"""
EVENTS = """
insert into outbox_event (org_id, type, aggregate, aggregate_id, subject_id)
select 999999, 'sale.posted', 'sale', n, n from generate_series(1, 1001) as n
"""
LETTERS = """
insert into webhook_circuit (org_id, endpoint_id, open_until)
values (999999, 999999, now() + interval '1 day');
insert into webhook_lane (
    org_id, endpoint_id, aggregate, aggregate_id, delivery_id, open_count, is_stopped, waiting_since
) values
(999999, 999999, 'sale', 1, 1, 1, true, now()),
(999999, 999999, 'sale', 2, 2, 1, false, now() - interval '1 hour')
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


@contextlib.contextmanager
def database_server() -> Iterator[embedded.Server]:
    """Run a migrated database server of the test's own, which it may stop."""
    folder = Path(tempfile.mkdtemp(prefix="sofinance-alerts-"))
    folder.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
    server = embedded.Server(folder / "data", options=UNSAFE_BUT_FAST | ARCHIVING_NOTHING)
    try:
        server.start()
        migrate.apply(server.url("postgres"))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@contextlib.contextmanager
def standby_of(database: embedded.Server) -> Iterator[Standby]:
    """Run a standby of that server, which the test may pause and stop."""
    standby = Standby(database.url("postgres"), database.data.parent / "standby")
    try:
        standby.start()
        yield standby
    finally:
        standby.stop()


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


def post(port: int, path: str, **body: str) -> tuple[int, Any]:
    """Post to the API; returns the status and the data."""
    status, text = live.ask(port, f"/api/v1{path}", "POST", json.dumps(body).encode())
    return status, json.loads(text)["data"]


def sign_in_wrongly(port: int, email: str | None = None) -> int:
    """Try a password, on another account each time unless one is named; returns the status."""
    email = email or f"{next(ACCOUNTS)}@example.com"
    return post(port, "/auth/login", email=email, password="not this one")[0]


def refresh_twice(port: int) -> None:
    """Use a refresh token, and use it again, as somebody with a copy of it does."""
    status, tokens = post(port, "/auth/login", email=ADMIN, password=PASSWORD)
    assert status == 200
    again = [post(port, "/auth/refresh", refresh_token=tokens["refresh_token"])[0] for _ in "ab"]
    assert again == [200, 401]


@dataclass
class Scene:
    """What runs, and what has been made to fire."""

    prometheus: live.Prometheus
    database: embedded.Server
    port: int
    caused: set[str] = field(default_factory=set)

    def fires(self, *names: str) -> None:
        """Wait till these alerts fire."""
        self.caused.update(names)
        live.until(f"{names} fire", lambda: {*names} <= self.prometheus.firing(), WAKE_S)

    def rests(self) -> None:
        """Wait till none of them does; of the others, a busy machine may cause some."""
        live.until("quiet", lambda: self.caused.isdisjoint(self.prometheus.firing()), WAKE_S)

    def run_as(self, role: str, statement: str) -> None:
        """Run a statement as a role."""
        with psycopg.connect(self.database.url(role), autocommit=True) as conn:
            conn.execute(statement)


def break_the_books(scene: Scene) -> None:
    """Take a guard away, as the owner of the tables can; the verification finds it each time."""
    scene.run_as("sofinance_owner", GUARD.format("disable"))
    failures = 'job_consecutive_failures{exported_job="verify-books"}'
    for count in (1, 2, 3):
        scene.run_as("sofinance_app", VERIFY)
        live.until(
            f"{count} failures",
            lambda count=count: scene.prometheus.value(failures) == count,
            SIGHT_S,
        )
    scene.fires("BooksBroken", "JobFailing", "IntegrityBroken")
    assert scene.prometheus.value('max(integrity_events_open{check="guards_stand"})') == 1
    assert scene.prometheus.value('job_errors_total{exported_job="verify-books"}') == 3
    scene.run_as("sofinance_owner", GUARD.format("enable"))
    scene.run_as("sofinance_app", VERIFY)
    scene.rests()
    for name in promql.exported():
        assert not name.startswith("job_") or scene.prometheus.query(name), name


def corrupt_a_row(scene: Scene, settings: dict[str, str]) -> None:
    """Raise a debit past every rule, as whoever owns the server can, and leave a key unanswered."""
    live.sofinance(
        "org", "create", *ORGANISATION, "--password-stdin", said=PASSWORD,
        OWNER_URL=scene.database.url("sofinance_owner"), **settings,
    )  # fmt: skip
    _, tokens = post(scene.port, "/auth/login", email=ADMIN, password=PASSWORD)
    signed_in = {"Authorization": f"Bearer {tokens['access_token']}"}
    _, text = live.ask(scene.port, "/api/v1/accounts?size=100", **signed_in)
    ids = {one["code"]: one["id"] for one in json.loads(text)["data"]["items"]}
    lines = [{"account_id": ids["6000"], "debit": "5.00"},
             {"account_id": ids["1010"], "credit": "5.00"}]  # fmt: skip
    entry = json.dumps({"memo": "Rent", "lines": lines}).encode()
    assert live.ask(scene.port, "/api/v1/journal/entries", "POST", entry, **signed_in)[0] == 201
    scene.run_as("postgres", RAISE.format(1))
    scene.run_as("postgres", LEAVE_A_KEY)
    scene.run_as("sofinance_app", VERIFY)
    scene.fires("IntegrityBroken", "IntegritySuspicion")
    broken = scene.prometheus.query("max by (check) (integrity_events_open)")
    assert {one["metric"]["check"] for one in broken} == {"entries_balance", "keys_are_answered"}
    _, text = live.ask(scene.port, "/api/v1/admin/integrity-events?open=true", **signed_in)
    events = {one["check"]: one for one in json.loads(text)["data"]}
    assert events["entries_balance"]["first_broken"]["is_balanced"] is False
    scene.run_as("postgres", RAISE.format(-1))
    scene.run_as("postgres", "delete from idempotency_key where status is null")
    scene.run_as("sofinance_app", VERIFY)
    scene.rests()


def attack(scene: Scene) -> None:
    """Try passwords, of many accounts and of one, and use the copy of a token."""
    with repeatedly(lambda: sign_in_wrongly(scene.port)):
        assert sign_in_wrongly(scene.port) == 401
        scene.fires("SignInFailuresSpike")
    refresh_twice(scene.port)
    scene.fires("RefreshTokenReuse")
    with ThreadPoolExecutor(CLIENTS) as clients:
        tries = clients.map(lambda _: sign_in_wrongly(scene.port, ADMIN), range(CLIENTS))
        assert {*tries} == {401, 429}
    with repeatedly(lambda: sign_in_wrongly(scene.port, ADMIN)):
        scene.fires("RequestsRefused")


def lose_the_replica(scene: Scene, standby: Standby) -> None:
    """Have it lag, then go away; what the workers write is what it lacks."""
    up = "min(db_replica_up)"
    live.until("a replica", lambda: scene.prometheus.value(up) == 1, SIGHT_S)
    standby.pause()
    scene.fires("ReplicaLagging")
    standby.resume()
    scene.rests()
    standby.stop()
    scene.fires("ReplicaDown")
    standby.start()
    scene.rests()


def leave_letters(scene: Scene) -> None:
    """Keep workers from the events of an organisation, and leave letters dead and waiting."""
    with psycopg.connect(scene.database.url("postgres")) as held:
        held.execute("select pg_advisory_xact_lock(8, hashint8(999999))")
        scene.run_as("postgres", EVENTS)
        scene.run_as("postgres", LETTERS)
        scene.fires("OutboxGrowing", "DeadLetters", "WebhooksDelayed")
        scene.run_as("postgres", "delete from outbox_event where org_id = 999999")
    scene.run_as("postgres", "delete from webhook_lane where org_id = 999999")
    scene.run_as("postgres", "delete from webhook_circuit where org_id = 999999")
    scene.rests()


def back_up(scene: Scene, settings: dict[str, str], folder: Path) -> None:
    """Have no backup, then one; have it damaged, and the log archived at last."""
    scene.fires("BackupTooOld", "BackupVerificationTooOld", "WalArchiveStale")
    backing_up = settings | {
        "BACKUP_URL": scene.database.url("sofinance_backup"), "BACKUP_DIR": str(folder),
    }  # fmt: skip
    live.sofinance("backup", **backing_up)
    (dump,) = folder.glob("*.dump")
    whole = dump.read_bytes()
    dump.write_bytes(whole[:-1])
    with pytest.raises(subprocess.CalledProcessError):
        live.sofinance("drill", "--backup", "latest", **backing_up)
    scene.fires("BackupVerificationFailed")
    dump.write_bytes(whole)
    live.sofinance("drill", "--backup", "latest", **backing_up)
    scene.run_as("postgres", "alter system set archive_command = 'true'")
    scene.run_as("postgres", "select pg_reload_conf()")
    scene.run_as("postgres", "select pg_switch_wal()")
    scene.rests()


def test_alerts_fire_for_real_symptoms_and_clear(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    port = live.free_port()
    with contextlib.ExitStack() as stack:
        prometheus = stack.enter_context(live.prometheus(port, tmp_path / "prometheus"))
        # Nothing has been started yet.
        redis = stack.enter_context(redis_server())
        database = stack.enter_context(database_server())
        scene = Scene(prometheus, database, port)
        settings = live.environment(database.url("sofinance_app")) | {"REDIS_URL": redis.url}
        standby = stack.enter_context(standby_of(database))
        there = urlsplit(settings["DATABASE_URL"])
        there = there._replace(netloc=there.netloc.replace(f":{there.port}", f":{standby.port}"))
        settings["DATABASE_REPLICA_URL"] = there.geturl()
        secret = tmp_path / "jwt_secret"
        secret.write_text(settings.pop("JWT_SECRET"))
        settings["JWT_SECRET_FILE"] = str(secret)
        worker = stack.enter_context(live.worker(settings))
        scene.fires("ServiceDown", "InstanceDown")
        stack.enter_context(live.gunicorn(port, folder, **settings))
        # A load balancer's question, whenever somebody answers.
        stack.enter_context(repeatedly(lambda: live.answers(port, "/readyz")))
        scene.rests()

        back_up(scene, settings, tmp_path / "backups")
        break_the_books(scene)
        lose_the_replica(scene, standby)
        leave_letters(scene)
        corrupt_a_row(scene, settings)

        # The worker freezes, as if three days ago: nobody runs jobs. One is paused, besides.
        worker.send_signal(signal.SIGSTOP)
        scene.run_as("sofinance_owner", LONG_AGO)
        scene.run_as("sofinance_app", PAUSE.format("pause"))
        # A secret grows old.
        os.utime(secret, times=(time.time() - TWO_YEARS_S,) * 2)
        attack(scene)
        redis.kill()
        scene.fires("RateLimiterWithoutRedis", "SecretTooOld", "CircuitOpen")
        scene.fires("JobRunnerDown", "JobOverdue", "JobStale", "JobPaused")
        os.utime(secret)
        scene.run_as("sofinance_app", PAUSE.format("resume"))
        redis.start()
        with live.worker(settings):
            scene.rests()

            # The database stops, and comes back; nothing of ours is restarted.
            database.stop()
            with repeatedly(lambda: sign_in_wrongly(port)):
                assert sign_in_wrongly(port) == 503
                scene.fires("DatabaseUnavailable", "ReadinessFailing")
                scene.fires("HighErrorRate", "ElevatedErrorRate")
            assert live.answers(port, "/livez")
            database.start()
            scene.rests()
            assert live.answers(port, "/readyz")
    assert promql.alerts().keys() - scene.caused == NOT_CAUSED
