"""What alerts are about, caused for real: each step waits till its alerts fire, or rest."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.ops import cards, live, promql, strain
from tests.ops.strain import crowd, locked, repeatedly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sofinance.infra import embedded
    from tests.redis_server import RedisServer
    from tests.standby import Standby

CLIENTS = 12
WAKE_S = 240  # till an alert fires or rests: pings every 5 s, signs of life of 10 s, or much else
# More than may be waiting for a mail server that says nothing, and more than one worker's pool and
# queue hold, in the service of the alerts.
MAILS = 64
CROWD = 60
SMALL = {
    "DATABASE_POOL_SIZE": "4", "DATABASE_POOL_WAITING_MAX": "10", "DATABASE_ACQUIRE_TIMEOUT_S": "1",
}  # fmt: skip
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
REMINDER = """
insert into mail (org_id, dedupe_key, kind, recipient, subject, body)
select org_id, 'reminder:1', 'receivable_reminder', 'owes@example.com', 'Due', 'Please pay.'
from organisation
"""
GUARD = "alter table journal_line {} trigger journal_line_is_final"


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
    standby: Standby
    redis: RedisServer
    mails: strain.MailServer
    listener: strain.Listener
    port: int
    folder: Path
    settings: dict[str, str]
    signed_in: dict[str, str] = field(default_factory=dict)
    caused: set[str] = field(default_factory=set)

    @property
    def secret(self) -> Path:
        """The file with a secret."""
        return self.folder / "jwt_secret"

    def fires(self, *names: str) -> None:
        """Wait till these alerts fire, or have fired meanwhile."""
        began_s = time.time()
        self.caused.update(names)
        for name in names:
            live.until(name, partial(self.prometheus.has_fired, name, began_s), WAKE_S)

    def rests(self) -> None:
        """Wait till each of them was seen to rest: a busy machine may cause some by itself."""
        for name in sorted(self.caused):
            live.until(f"{name} rests", partial(self._is_resting, name), WAKE_S)

    def _is_resting(self, name: str) -> bool:
        # Without a look at the service no alert about it fires.
        return self.prometheus.sees() and name not in self.prometheus.firing()

    def ask(self, path: str, method: str = "GET", **body: Any) -> tuple[int, Any]:
        """Ask as the administrator; returns the status and the data."""
        told = json.dumps(body).encode() if method != "GET" else None
        status, text = live.ask(self.port, f"/api/v1{path}", method, told, **self.signed_in)
        return status, json.loads(text)["data"]

    def run_as(self, role: str, statement: str) -> None:
        """Run a statement as a role."""
        with psycopg.connect(self.database.url(role), autocommit=True) as conn:
            conn.execute(statement)

    def run_job(self, name: str) -> None:
        """Have a worker run a job, and wait for the end of a run that began after this."""
        with psycopg.connect(self.database.url("postgres"), autocommit=True) as conn:
            asked_at = conn.execute("select clock_timestamp()").fetchone()
            conn.execute("select steer_job(%s, 'run')", [name])
            ran = "select 1 from job_run where job = %s and started_at > %s"
            told = [name, *(asked_at or ())]
            live.until(name, lambda: conn.execute(ran, told).fetchone(), live.SIGHT_S)


def break_the_books(scene: Scene) -> None:
    """Take a guard away, as the owner of the tables can; the verification finds it each time."""
    scene.run_as("sofinance_owner", GUARD.format("disable"))
    failures = 'job_consecutive_failures{exported_job="verify-books"}'
    for count in (1, 2, 3):
        scene.run_as("sofinance_app", VERIFY)
        scene.prometheus.shows(failures, count)
    scene.fires("BooksBroken", "JobFailing", "IntegrityBroken")
    scene.prometheus.shows('max(integrity_events_open{check="guards_stand"})', 1)
    scene.prometheus.shows("job_errors_total{exported_job='verify-books', reason='failed'}", 3)
    scene.run_as("sofinance_owner", GUARD.format("enable"))
    scene.run_as("sofinance_app", VERIFY)
    scene.rests()
    for name in promql.exported():
        if name.startswith("job_"):
            live.until(name, partial(scene.prometheus.query, name), live.SIGHT_S)


def open_organisation(scene: Scene) -> None:
    """Found an organisation, and sign its administrator in."""
    live.sofinance(
        "org", "create", *ORGANISATION, "--password-stdin", said=PASSWORD,
        OWNER_URL=scene.database.url("sofinance_owner"), **scene.settings,
    )  # fmt: skip
    _, tokens = post(scene.port, "/auth/login", email=ADMIN, password=PASSWORD)
    scene.signed_in = {"Authorization": f"Bearer {tokens['access_token']}"}


def corrupt_a_row(scene: Scene) -> None:
    """Raise a debit past every rule, as whoever owns the server can, and leave a key unanswered."""
    _, accounts = scene.ask("/accounts?size=100")
    ids = {one["code"]: one["id"] for one in accounts["items"]}
    lines = [{"account_id": ids["6000"], "debit": "5.00"},
             {"account_id": ids["1010"], "credit": "5.00"}]  # fmt: skip
    assert scene.ask("/journal/entries", "POST", memo="Rent", lines=lines)[0] == 201
    scene.run_as("postgres", RAISE.format(1))
    scene.run_as("postgres", LEAVE_A_KEY)
    scene.run_as("sofinance_app", VERIFY)
    scene.fires("IntegrityBroken", "IntegritySuspicion")
    broken = 'integrity_events_open{check=~"entries_balance|keys_are_answered"}'
    scene.prometheus.shows(f"count(max by (check) ({broken}))", 2)
    scene.prometheus.shows("count(max by (check) (integrity_events_open))", 2)
    _, found = scene.ask("/admin/integrity-events?open=true")
    events = {one["check"]: one for one in found}
    assert events["entries_balance"]["first_broken"]["is_balanced"] is False
    scene.run_as("postgres", RAISE.format(-1))
    scene.run_as("postgres", "delete from idempotency_key where status is null")
    scene.run_as("sofinance_app", VERIFY)
    scene.rests()


def slow_down(scene: Scene) -> None:
    """Have the mail server and the disk slow, and a processor that is not there."""
    scene.mails.mode = "hang"
    with ThreadPoolExecutor(CLIENTS) as clients:
        asked = clients.map(lambda number: ask_for_mail(scene.port, number), range(MAILS))
        assert {*asked} == {202}
    names = itertools.count()

    def write() -> None:
        # Some wait too long for a connection where there is little processor time as well.
        assert scene.ask("/categories", "POST", name=f"Fruit {next(names)}")[0] in {201, 503}

    with strain.slow_disk(scene.database.url("postgres")), crowd(write, CLIENTS):
        strain.freeze(scene.folder / "metrics")
        scene.fires("MailsWaiting", "SlowCommits", "EventLoopLag")
    scene.mails.mode = "refuse"
    scene.fires("MailsFailing")
    scene.prometheus.shows("sum(mails_waiting)", 0)
    scene.run_as("postgres", REMINDER)
    scene.run_job("mail-delivery")
    scene.run_job("business-figures")
    scene.fires("MailsDead")


def ask_for_mail(port: int, number: int) -> int:
    """Ask for a mail, from an address of one's own; returns the status."""
    body = json.dumps({"email": f"{number}@example.com"}).encode()
    return live.ask(port, "/api/v1/sign-up", "POST", body, source=f"127.0.0.{number + 2}")[0]


def send_mail_again(scene: Scene) -> None:
    """Replay what is dead, as the runbook says, to a server that takes mail."""
    scene.mails.mode = "take"
    _, dead = scene.ask("/admin/mail/dead-letter")
    (mail,) = dead["items"]
    assert scene.ask("/admin/mail/unblock", "POST", email="owes@example.com")[0] == 200
    assert scene.ask(f"/admin/mail/{mail['id']}/replay", "POST")[0] == 202
    scene.run_job("mail-delivery")
    scene.run_job("business-figures")
    assert scene.mails.taken_count == 1


def jam(scene: Scene) -> None:
    """Keep everybody from a table till no connection is left; nobody reads what is logged of it."""

    def ask() -> None:
        assert scene.ask("/categories")[0] in {200, 503}

    scene.listener.hang_up()
    with locked(scene.database.url("postgres"), "category"), crowd(ask, CROWD):
        scene.fires("SlowResponses", "SlowestResponses", "LogLinesLost")
        scene.fires("PoolTimeouts", "PoolAlmostFull", "PoolWaits", "RequestsSentAway")
    scene.listener.come_back()


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


def lose_the_replica(scene: Scene) -> None:
    """Have it lag, then go away; what the workers write is what it lacks."""
    scene.prometheus.shows("min(db_replica_up)", 1)
    scene.standby.pause()
    scene.fires("ReplicaLagging")
    scene.standby.resume()
    scene.rests()
    scene.standby.stop()
    scene.fires("ReplicaDown")
    scene.standby.start()
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


def back_up(scene: Scene) -> None:
    """Have no backup, then one; have it damaged, and the log archived at last."""
    scene.fires("BackupTooOld", "BackupVerificationTooOld", "WalArchiveStale")
    folder = scene.folder / "backups"
    backing_up = scene.settings | {
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


def stand_still(scene: Scene, worker: subprocess.Popen[bytes]) -> None:
    """Freeze the worker, as if three days ago: nobody runs jobs. One is paused, besides."""
    worker.send_signal(signal.SIGSTOP)
    scene.run_as("sofinance_owner", LONG_AGO)
    scene.run_as("sofinance_app", PAUSE.format("pause"))
    # A secret grows old.
    os.utime(scene.secret, times=(time.time() - TWO_YEARS_S,) * 2)
    attack(scene)
    scene.redis.kill()
    scene.fires("RateLimiterWithoutRedis", "SecretTooOld", "CircuitOpen")
    scene.fires("JobRunnerDown", "JobOverdue", "JobStale", "JobPaused")
    os.utime(scene.secret)
    scene.run_as("sofinance_app", PAUSE.format("resume"))
    scene.redis.start()
    with live.worker(scene.settings):
        scene.rests()
        lose_the_database(scene)


def lose_the_database(scene: Scene) -> None:
    """Stop it, and start it; nothing of ours is restarted."""
    scene.database.stop()
    with repeatedly(lambda: sign_in_wrongly(scene.port)):
        assert sign_in_wrongly(scene.port) == 503
        scene.fires("DatabaseUnavailable", "ReadinessFailing")
        scene.fires("HighErrorRate", "ElevatedErrorRate")
    assert live.answers(scene.port, "/livez")
    scene.database.start()
    scene.rests()
    assert live.answers(scene.port, "/readyz")


@contextlib.contextmanager
def set_up(folder: Path) -> Iterator[Scene]:
    """Run Prometheus and all that the service needs, and have it look for the service in vain."""
    port = live.free_port()
    with contextlib.ExitStack() as stack:
        prometheus = stack.enter_context(live.prometheus(port, folder / "prometheus"))
        redis = stack.enter_context(strain.redis_server())
        database = stack.enter_context(strain.database_server())
        standby = stack.enter_context(strain.standby_of(database))
        mails = strain.MailServer()
        stack.enter_context(mails.serving())
        listener = strain.Listener(folder / "log")
        stack.callback(listener.close)
        settings = live.environment(database.url("sofinance_app")) | {
            "REDIS_URL": redis.url, "REDIS_TIMEOUT_MS": "1000",
            "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(mails.port),
            "SMTP_TLS": "off", "MAIL_FROM": "books@example.com", "SIGN_UP_ENABLED": "true",
            "DATA_ENCRYPTION_KEY": "5a" * 32, "JWT_SECRET_FILE": str(folder / "jwt_secret"),
            **cards.SETTINGS,
        }  # fmt: skip
        there = urlsplit(settings["DATABASE_URL"])
        there = there._replace(netloc=there.netloc.replace(f":{there.port}", f":{standby.port}"))
        settings["DATABASE_REPLICA_URL"] = there.geturl()
        scene = Scene(
            prometheus, database, standby, redis, mails, listener, port, folder, settings
        )  # fmt: skip
        scene.secret.write_text(settings.pop("JWT_SECRET"))
        yield scene


@contextlib.contextmanager
def serving(scene: Scene) -> Iterator[None]:
    """Serve, and have a load balancer ask whether we are ready."""
    metrics = scene.folder / "metrics"
    metrics.mkdir()
    settings = scene.settings | SMALL | {"LOG_LEVEL": "error"}
    with (
        live.gunicorn(scene.port, metrics, stdout=scene.listener.stdout, **settings),
        repeatedly(lambda: live.answers(scene.port, "/readyz")),
    ):
        yield
