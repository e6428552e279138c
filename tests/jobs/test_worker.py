"""The worker: each job is run by one of many, whoever dies, hangs or fails."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from sofinance import cli
from sofinance import queries as q
from sofinance.infra.db import Database, Mode
from sofinance.jobs import Job, JobFailedError, forgetting, worker
from sofinance.jobs.tasks import JOBS
from sofinance.jobs.worker import Worker
from sofinance.tools import verify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

pytestmark = pytest.mark.empty_database
DAY_S = 86_400
DEADLINE_S = 120
CLAIMANTS = 24


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


def job(work: Callable[[Database], Awaitable[str]], name: str = "nap", **changes: Any) -> Job:
    """Return a job that is due once a day, half a day from now."""
    offset_s = (int(time.time()) + DAY_S // 2) % DAY_S
    asked = {
        "description": "Sleeps.", "every_s": DAY_S, "offset_s": offset_s, "lease_s": 60, **changes,
    }  # fmt: skip
    return Job(name, work=work, **asked)


async def nothing(_: Database) -> str:
    """Do nothing."""
    return "did nothing"


def due(psql: Psql, name: str = "nap") -> None:
    """Let a job be due."""
    psql("update job set next_run_at = now() where name = %s", [name], role="sofinance_owner")


def state(psql: Psql, columns: str, name: str = "nap") -> tuple[Any, ...]:
    """Return columns of a job."""
    return tuple(psql(f"select {columns} from job where name = %s", [name], role="superuser")[0])


def runs(psql: Psql) -> list[tuple[Any, ...]]:
    """Return what came of each run, in order."""
    return psql("select claim_no, outcome, told from job_run order by 1", role="superuser")


async def until(condition: Callable[[], bool]) -> None:
    """Wait till something holds."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "in vain"
        await asyncio.sleep(0.02)


async def test_of_many_workers_one_runs_a_job(database: Database, psql: Psql) -> None:
    ran: list[str] = []

    async def note(_: Database) -> str:
        ran.append("once")
        await asyncio.sleep(0.1)
        return "noted"

    workers = [Worker(database, [job(note)]) for _ in range(CLAIMANTS)]
    await asyncio.gather(*(each.declare() for each in workers))
    for count in range(1, 4):
        due(psql)
        assert all(await asyncio.gather(*(each.run_once() for each in workers)))
        assert ran == ["once"] * count
        assert runs(psql)[-1] == (count, "succeeded", "noted")


async def test_a_job_is_due_at_its_time_and_missed_runs_are_made_up_for_by_one(
    database: Database, psql: Psql
) -> None:
    one = Worker(database, [job(nothing, every_s=86_400, offset_s=1_800)])
    await one.declare()
    assert await one.run_once()
    assert runs(psql) == [], "it is not due yet"
    at = "to_char(next_run_at at time zone 'UTC', 'HH24:MI:SS')"
    assert state(psql, at) == ("00:30:00",)
    psql("update job set next_run_at = now() - interval '5 days'", role="sofinance_owner")
    assert await one.run_once()
    assert [outcome for _, outcome, _ in runs(psql)] == ["succeeded"]
    assert state(psql, f"{at}, next_run_at > now(), last_success_at is not null") == (
        "00:30:00", True, True,
    )  # fmt: skip


async def test_a_failure_is_told_counted_and_tried_again_and_others_go_on(
    database: Database, psql: Psql
) -> None:
    async def fail(_: Database) -> str:
        raise JobFailedError("two checks failed")

    async def crash(_: Database) -> str:
        return str(1 / 0)

    one = Worker(database, [job(fail, "fails"), job(crash, "crashes"), job(nothing)])
    await one.declare()
    for count, wait_s in ((1, 30), (2, 60), (3, 120)):
        for name in ("fails", "crashes", "nap"):
            due(psql, name)
        assert not await one.run_once()
        waits = "consecutive_failures, round(extract(epoch from next_run_at - last_error_at))"
        assert state(psql, waits, "fails") == (count, wait_s)
    assert state(psql, "last_error, error_count, lost_count", "fails") == (
        "two checks failed", 3, 0,
    )  # fmt: skip
    assert state(psql, "last_error", "crashes") == ("ZeroDivisionError: division by zero",)
    assert state(psql, "consecutive_failures, last_error") == (0, None)
    well = Worker(database, [job(nothing, "fails")])
    due(psql, "fails")
    assert await well.run_once()
    assert state(psql, "consecutive_failures, error_count, last_error", "fails") == (
        0, 3, "two checks failed",
    )  # fmt: skip


async def test_a_job_of_a_worker_that_died_is_taken_over_and_its_claim_is_void(
    database: Database, psql: Psql
) -> None:
    one = Worker(database, [job(nothing)])
    await one.declare()
    due(psql)
    async with database.untenanted(mode=Mode.WRITE) as conn:
        dead = await q.jobs.claim_job(conn, runner="dead", names=["nap"])
    assert await one.run_once()
    assert runs(psql) == [], "the lease holds"
    psql("update job set lease_until = now() - interval '1 s'", role="sofinance_owner")
    assert await one.run_once()
    assert runs(psql) == [
        (1, "lost", "its worker was not heard of any more"), (2, "succeeded", "did nothing"),
    ]  # fmt: skip
    async with database.untenanted(mode=Mode.WRITE) as conn:
        key = {"name": "nap", "claim_no": dead.claim_no}
        assert await q.jobs.renew_job(conn, **key) is None
        assert not await q.jobs.finish_job(conn, **key, outcome="succeeded", told="late")
    assert len(runs(psql)) == 2
    assert state(psql, "error_count, lost_count, stopped_count") == (1, 1, 0)


async def test_a_run_keeps_its_claim_and_breaks_off_when_it_has_lost_it(
    database: Database, psql: Psql
) -> None:
    broken_off = asyncio.Event()

    async def sleep(_: Database) -> str:
        try:
            await asyncio.sleep(DEADLINE_S)
        except asyncio.CancelledError:
            broken_off.set()
            raise
        return "slept"

    one = Worker(database, [job(sleep, lease_s=1)])
    await one.declare()
    due(psql)
    running = asyncio.create_task(one.run_once())
    await until(lambda: state(psql, "runner is not null") == (True,))
    (first,) = state(psql, "lease_until")
    await until(lambda: state(psql, "lease_until")[0] > first + timedelta(seconds=1))
    psql("update job set claim_no = claim_no + 1", role="sofinance_owner")
    assert await asyncio.wait_for(running, DEADLINE_S) is False
    assert broken_off.is_set()


async def test_a_worker_that_is_told_to_stop_breaks_off_and_leaves_the_job_due(
    database: Database, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STOP_TIMEOUT_S", 0.1)

    async def sleep(_: Database) -> str:
        await asyncio.sleep(DEADLINE_S)
        return "slept"

    one = Worker(database, [job(sleep)])
    await one.declare()
    due(psql)
    stopping = asyncio.Event()
    running = asyncio.create_task(one.run(stopping))
    await until(lambda: state(psql, "runner is not null") == (True,))
    await until(lambda: bool(psql("select name from job_runner", role="superuser")))
    stopping.set()
    await asyncio.wait_for(running, DEADLINE_S)
    assert runs(psql) == [(1, "stopped", "its worker was stopped")]
    assert state(psql, "next_run_at <= now(), consecutive_failures") == (True, 0)
    assert state(psql, "error_count, lost_count, stopped_count") == (0, 0, 1)
    assert psql("select name from job_runner", role="superuser") == []


def command(dsn: str, *words: str) -> subprocess.Popen[bytes]:
    """Start a command of sofinance in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "sofinance", *words, "--database-url", dsn],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


async def test_a_killed_worker_s_job_is_run_by_the_next(
    dsn: str, superuser_dsn: str, org: Org, psql: Psql
) -> None:
    name = "balances-roll-up"
    first = command(dsn, "worker", "--job", name)
    try:
        await until(lambda: bool(psql("select name from job_runner", role="superuser")))
        with psycopg.connect(superuser_dsn) as holding:
            holding.execute("lock table balance_roll_up in access exclusive mode")
            psql("update job set lease_s = 2, next_run_at = now()", role="sofinance_owner")
            await until(lambda: state(psql, "runner is not null", name) == (True,))
            first.kill()
            first.wait(DEADLINE_S)
    finally:
        first.kill()
        first.wait(DEADLINE_S)
    second = command(dsn, "worker", "--job", name)  # others fall due every few seconds
    try:
        await until(lambda: len(runs(psql)) == 2)
    finally:
        second.send_signal(signal.SIGTERM)
        assert second.wait(DEADLINE_S) == 0
    assert [(claim_no, outcome) for claim_no, outcome, _ in runs(psql)] == [
        (1, "lost"), (2, "succeeded"),
    ]  # fmt: skip
    assert (
        psql("select name from job_runner where last_heartbeat_at > now() - interval '1 s'") == []
    )
    assert psql("select org_id from balance_roll_up", role="superuser") == [(org.id,)]


async def test_the_jobs_of_this_release_run(dsn: str, org: Org, psql: Psql) -> None:
    assert command(dsn, "worker", "--once").wait(DEADLINE_S) == 0
    ran = {name for (name,) in psql("select job from job_run", role="superuser")}
    assert ran <= {one.name for one in JOBS if one.every_s < DAY_S}, "not due yet"
    psql("update job set next_run_at = now()", role="sofinance_owner")
    assert command(dsn, "worker", "--once").wait(DEADLINE_S) == 0
    outcomes = dict(psql("select job, outcome from job_run", role="superuser"))
    assert outcomes == {job.name: "succeeded" for job in JOBS}
    psql("update job set next_run_at = now()", role="sofinance_owner")
    psql("alter table journal_line disable trigger journal_line_is_final", role="sofinance_owner")
    assert command(dsn, "worker", "--once").wait(DEADLINE_S) == 1
    count = len(verify.CHECKS) + 3  # and links, addresses, guards
    assert state(psql, "consecutive_failures, last_error", "verify-books") == (
        1, f"1 of {count} checks failed: guards_stand, 1 broken; run `sofinance verify`",
    )  # fmt: skip


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the JSON that a command printed."""
    return json.loads(capsys.readouterr().out)


async def test_jobs_are_told_run_and_paused_by_command(
    database: Database, dsn: str, psql: Psql, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Worker(database, [job(nothing)])
    await one.declare()

    async def jobs(*words: str) -> int:
        return await asyncio.to_thread(cli.main, ["jobs", *words, "--database-url", dsn])

    assert await jobs("run", "nap") == 0
    assert await jobs("pause", "nap") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("nap runs as soon as a worker is free")
    assert second.startswith("nap is paused")
    await one.run_once()
    assert runs(psql) == [], "paused is paused"
    assert await jobs("resume", "nap") == 0
    await one.run_once()
    assert len(runs(psql)) == 1
    capsys.readouterr()
    assert await jobs("runs", "nap", "--json") == 0
    assert [(run["outcome"], run["told"]) for run in told(capsys)] == [("succeeded", "did nothing")]
    assert await jobs("--json") == 0
    assert [each["name"] for each in told(capsys)] == ["nap"]
    assert await jobs() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("name  is running  is paused  next run at")
    assert lines[1].startswith("nap   no          no ")
    assert await jobs("run", "nope") == 2
    assert await jobs("run") == 2
    assert "There is no job 'nope'" in capsys.readouterr().err
    assert await jobs("runs", "nope") == 2
    assert "There is no job 'nope'" in capsys.readouterr().err
    words = ["worker", "--job", "nope", "--database-url", dsn]
    assert await asyncio.to_thread(cli.main, words) == 2
    assert "There is no job 'nope'; there are balances-roll-up" in capsys.readouterr().err


async def test_readiness_and_metrics_tell_whether_jobs_run(
    api_with: MakeApi, database: Database, psql: Psql
) -> None:
    async def fail(_: Database) -> str:
        raise JobFailedError("no")

    api = await api_with(job_heartbeat_required=True)
    answer = await api.get("/readyz", prefix="")
    assert answer.refused == (503, "unhealthy")
    assert answer.details["checks"]["jobs"] == "unhealthy"
    one = Worker(database, [job(nothing), job(fail, "fails")])
    await one.declare()
    due(psql)
    due(psql, "fails")
    stopping = asyncio.Event()
    running = asyncio.create_task(one.run(stopping))
    await until(lambda: len(runs(psql)) == 2 and bool(psql("select name from job_runner")))
    assert (await api.get("/readyz", prefix="")).data["checks"]["jobs"] == "healthy"
    lines = (await api.get("/metrics", prefix="")).text.splitlines()
    assert "job_runner_up 1.0" in lines
    assert 'job_errors_total{job="fails",reason="failed"} 1.0' in lines
    psql(
        "update job set error_count = 3, lost_count = 2, stopped_count = 5 where name = 'fails'",
        role="sofinance_owner",
    )
    lines = (await api.get("/metrics", prefix="")).text.splitlines()
    assert [line for line in lines if line.startswith('job_errors_total{job="fails"')] == [
        'job_errors_total{job="fails",reason="failed"} 1.0',
        'job_errors_total{job="fails",reason="lost"} 2.0',
        'job_errors_total{job="fails",reason="stopped"} 5.0',
    ]
    assert 'job_consecutive_failures{job="fails"} 1.0' in lines
    assert 'job_consecutive_failures{job="nap"} 0.0' in lines
    last = next(line for line in lines if line.startswith("job_last_success_timestamp{"))
    assert last.startswith('job_last_success_timestamp{job="nap"} 1.')
    stopping.set()
    await running
    psql("select beat_runner('old', '1')")
    psql("update job_runner set last_heartbeat_at = now() - interval '301 s'",
         role="sofinance_owner")  # fmt: skip
    assert (await api.get("/readyz", prefix="")).refused == (503, "unhealthy")


async def test_an_administrator_reads_how_jobs_are(
    api: Api, org: Org, database: Database, psql: Psql
) -> None:
    one = Worker(database, [job(nothing)])
    await one.declare()
    due(psql)
    await one.run_once()
    for path, options in (("/admin/jobs/status", {}), ("/v1/admin/jobs/status", {"prefix": ""})):
        status = (await api.get(path, org, **options)).data
        assert [(each["name"], each["consecutive_failures"]) for each in status] == [("nap", 0)]
        assert status[0]["last_success_at"].endswith("Z")
        cashier = await api.get(path, org.member("CASHIER"), **options)
        assert cashier.refused == (403, "forbidden")


async def test_old_runs_are_forgotten(database: Database, psql: Psql) -> None:
    one = Worker(database, [job(nothing)])
    await one.declare()
    for _ in range(3):
        due(psql)
        await one.run_once()
    psql("update job_run set ended_at = now() - interval '91 days' where claim_no < 3",
         role="sofinance_owner")  # fmt: skip
    async with database.untenanted(mode=Mode.WRITE) as conn:
        assert await q.jobs.forget_job_runs(conn, keep_days=90, limit=1) == 1
        assert await q.jobs.forget_job_runs(conn, keep_days=90, limit=10) == 1
        assert await q.jobs.forget_job_runs(conn, keep_days=90, limit=10) == 0
    assert [claim_no for claim_no, _, _ in runs(psql)] == [3]


async def test_what_has_expired_is_forgotten_by_many_at_once(
    database: Database, dsn: str, org: Org, psql: Psql, capsys: pytest.CaptureFixture[str]
) -> None:
    psql(
        "insert into idempotency_key (org_id, key_hash, fingerprint, expires_at)"
        " select %(org)s, sha256(n::text::bytea), sha256('x'),"
        " now() + case when n <= 2500 then interval '-1 s' else '1 hour' end"
        " from generate_series(1, 2600) as n",
        {"org": org.id},
        org=org,
    )
    psql(
        "update user_session set created_at = now() - interval '100 days',"
        " idle_until = now() - interval '31 days', expires_at = now() - interval '31 days'"
        " where id = (select min(id) from user_session)",
        role="superuser",
    )
    sessions = psql("select count(*) from user_session", role="superuser")[0][0]
    told = await asyncio.gather(*(forgetting.forget_expired(database) for _ in range(4)))
    assert sum(gone["idempotency_keys"] for gone in told) == 2500
    assert sum(gone["sessions"] for gone in told) == 1
    kept = psql("select count(*), bool_and(expires_at > now()) from idempotency_key", org=org)
    assert kept == [(100, True)]
    assert psql("select count(*) from user_session", role="superuser")[0][0] == sessions - 1
    psql("update idempotency_key set expires_at = now() - interval '1 s'", role="superuser")
    words = ["cleanup", "--json", "--database-url", dsn]
    assert await asyncio.to_thread(cli.main, words) == 0
    assert json.loads(capsys.readouterr().out) == {
        "idempotency_keys": 100, "sessions": 0, "signed_url_uses": 0, "notifications": 0,
        "portal_links": 0,
    }  # fmt: skip
    assert await asyncio.to_thread(cli.main, ["cleanup", "--database-url", dsn]) == 0
    assert capsys.readouterr().out.split() == [
        "idempotency", "keys", "0", "forgotten", "sessions", "0", "forgotten",
        "signed", "url", "uses", "0", "forgotten", "notifications", "0", "forgotten",
        "portal", "links", "0", "forgotten",
    ]  # fmt: skip
