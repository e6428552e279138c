"""Backups by the worker: on a schedule, and as operators ask over the API.

Everything is real: the worker runs the commands, which dump, restore into servers made for it, and
are broken off.
"""

# ruff: noqa: ASYNC220, ASYNC240 - nobody else is served meanwhile

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from sofinance.infra.db import Database
from sofinance.jobs import backups
from sofinance.jobs.tasks import JOBS
from sofinance.jobs.worker import Worker
from tests.api.conftest import open_shop
from tests.support import role_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

pytestmark = pytest.mark.empty_database
KEY = "7c" * 32
OURS = ("backup", "backup-base", "backup-verify", "backup-tasks")
DEADLINE_S = 180
LIVE = "select datname, oid from pg_database where datname = current_database()"
AUDITED = ("create_backup", "verify_backup", "restore_backup", "create_confirmation")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, superuser_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of backups, in the environment of the worker."""
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    monkeypatch.setenv("BACKUP_URL", role_url(superuser_dsn, "sofinance_backup"))
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY", KEY)
    monkeypatch.setenv("RESTORE_URL", superuser_dsn)
    if os.environ.get("TEST_POSTGRES", "") not in {"", "embedded"}:
        monkeypatch.setenv("PG_BIN", f"/usr/lib/postgresql/{os.environ['TEST_POSTGRES']}/bin")
    return tmp_path / "backups"


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def worker(database: Database) -> Worker:
    """A worker that knows the jobs of backups."""
    one = Worker(database, [job for job in JOBS if job.name in OURS])
    await one.declare()
    return one


@pytest.fixture
def restored(superuser_dsn: str) -> Iterator[list[str]]:
    """Names of databases that go again."""
    names: list[str] = []
    yield names
    with psycopg.connect(superuser_dsn, autocommit=True) as conn:
        for name in names:
            conn.execute(f"drop database if exists {name} with (force)")


def run(psql: Psql, name: str) -> None:
    """Let a job be due."""
    assert psql("select steer_job(%s, 'run')", [name]) == [(True,)]


def state(psql: Psql, name: str) -> tuple[str | None, int]:
    """Return what a job last complained of, and how often in a row."""
    asked = "select last_error, consecutive_failures from job where name = %s"
    return psql(asked, [name], role="superuser")[0]  # type: ignore[no-any-return]


def told(psql: Psql, name: str) -> str:
    """Return what a job last said."""
    asked = "select told from job_run where job = %s order by claim_no desc limit 1"
    return str(psql(asked, [name], role="superuser")[0][0])


async def figures(api: Api) -> dict[str, float]:
    """Return the metrics of backups."""
    lines = (await api.get("/metrics", prefix="")).text.splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith(("backup_", "wal_archive"))]
    return {name: float(value) for name, value in pairs}


async def test_the_schedule_backs_up_and_proves_it(
    api: Api, org: Org, psql: Psql, worker: Worker, folder: Path
) -> None:
    await open_shop(api, org)
    before = await figures(api)
    assert before['backup_last_success_timestamp{kind="FULL"}'] == 0
    assert before['backup_last_verified_timestamp{kind="DUMP"}'] == 0
    run(psql, "backup")
    assert await worker.run_once(), told(psql, "backup")
    assert str(folder) in told(psql, "backup")
    (backup,) = (await api.get("/system/backups", org)).data["items"]
    assert (backup["type"], backup["status"], backup["is_encrypted"]) == ("FULL", "SUCCESS", True)
    assert (folder / backup["file_name"]).stat().st_size == backup["size_bytes"]
    assert backup["location"] == str(folder)
    assert (backup["verified_at"], backup["created_by"]) == (None, None)

    run(psql, "backup-verify")
    assert await worker.run_once(), told(psql, "backup-verify")
    again = (await api.get(f"/system/backups/{backup['id']}", org)).data
    assert again["verified_at"] is not None
    (drill,) = (await api.get("/system/drills", org)).data["items"]
    assert (drill["type"], drill["error"]) == ("DUMP", None)
    assert drill["file_name"] == backup["file_name"]
    assert float(drill["rto_seconds"]) > 0
    now = time.time()
    after = await figures(api)
    assert now - 120 < after['backup_last_success_timestamp{kind="FULL"}'] <= now
    assert now - 120 < after['backup_last_verified_timestamp{kind="DUMP"}'] <= now
    assert after['backup_size_bytes{kind="FULL"}'] == backup["size_bytes"]
    assert after['backup_verification_failed{kind="DUMP"}'] == 0

    # The newest is damaged: the job fails, and says so in all places.
    (folder / backup["file_name"]).write_bytes(b"damaged")
    run(psql, "backup-verify")
    assert not await worker.run_once()
    assert "is damaged" in (state(psql, "backup-verify")[0] or "")
    assert (await figures(api))['backup_verification_failed{kind="DUMP"}'] == 1
    again = (await api.get(f"/system/backups/{backup['id']}", org)).data
    assert "is damaged" in again["verification_error"]
    # Nothing is archived here, so there is nothing to copy.
    run(psql, "backup-base")
    assert await worker.run_once()
    assert "archives no log" in told(psql, "backup-base")


async def test_a_backup_is_handed_out_encrypted_or_not_at_all(
    api_with: MakeApi,
    org: Org,
    psql: Psql,
    worker: Worker,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = await api_with(backup_dir=str(folder))
    run(psql, "backup")
    assert await worker.run_once(), told(psql, "backup")
    await asyncio.sleep(1.1)  # names have seconds
    monkeypatch.delenv("BACKUP_ENCRYPTION_KEY")
    run(psql, "backup")
    assert await worker.run_once(), told(psql, "backup")
    bare, sealed = (await api.get("/system/backups", org)).data["items"]
    refused = await api.get(f"/system/backups/{bare['id']}/download", org)
    assert refused.refused == (409, "backup_not_encrypted")
    url = f"{api.base_url}/api/v1/system/backups/{sealed['id']}/download"
    headers = {"Authorization": f"Bearer {org.admin.token}"}
    async with api.session.get(url, headers=headers) as answer:
        assert answer.status == 200
        assert sealed["file_name"] in answer.headers["Content-Disposition"]
        content = await answer.read()
    assert hashlib.sha256(content).hexdigest() == sealed["checksum_sha256"]
    actions = {row["action"] for row in (await api.get("/audit/logs", org)).data["items"]}
    assert "system.download_backup" in actions
    elsewhere = await api_with(backup_dir=str(folder / "other"))
    gone = await elsewhere.get(f"/system/backups/{sealed['id']}/download", org)
    assert gone.refused == (409, "backup_elsewhere")
    (folder / sealed["file_name"]).unlink()
    gone = await api.get(f"/system/backups/{sealed['id']}/download", org)
    assert gone.refused == (503, "backup_unreachable")


async def test_a_backup_that_fails_is_told(
    api: Api, org: Org, psql: Psql, worker: Worker, monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    monkeypatch.setenv("BACKUP_URL", dsn)  # of a role that does not see all
    run(psql, "backup")
    assert not await worker.run_once()
    (backup,) = (await api.get("/system/backups", org)).data["items"]
    assert backup["status"] == "FAILED"
    assert "does not see every organisation's rows" in backup["error"]
    stats = (await api.get("/system/backups/stats", org)).data
    assert (stats["total"], stats["failed"], stats["successful"]) == (1, 1, 0)
    assert (await figures(api))['backup_last_success_timestamp{kind="FULL"}'] == 0
    monkeypatch.delenv("BACKUP_URL")
    for name in ("backup", "backup-base", "backup-verify"):
        run(psql, name)
    assert await worker.run_once()
    assert told(psql, "backup") == backups.NOT_CONFIGURED


async def test_operators_back_up_verify_and_restore_beside(
    api: Api, org: Org, psql: Psql, worker: Worker, superuser_dsn: str, restored: list[str]
) -> None:
    await open_shop(api, org)
    asked = await api.post("/system/backups", org)
    assert asked.status == 202
    assert asked.data["status"] == "PENDING"
    backup_id = asked.data["id"]
    assert asked.headers["Location"] == f"/api/v1/system/backups/{backup_id}"
    assert (await api.post(f"/system/backups/{backup_id}/verify", org)).refused == (
        409, "backup_not_restorable",
    )  # fmt: skip
    assert await worker.run_once()
    backup = (await api.get(f"/system/backups/{backup_id}", org)).data
    assert (backup["status"], backup["created_by"]) == ("SUCCESS", org.admin.id)

    # Elsewhere, and away again; two at a time, whoever asks for more is told to wait.
    dry = await api.post(f"/system/backups/{backup_id}/restore?dry_run=true", org)
    verify = await api.post(f"/system/backups/{backup_id}/verify", org)
    assert (dry.status, verify.status) == (202, 202)
    busy = await api.post(f"/system/backups/{backup_id}/restore/async", org)
    assert busy.refused == (429, "restore_jobs_busy")
    assert busy.headers["Retry-After"] == "60"
    for name in ("sale", ""):
        some = await api.post(f"/system/backups/{backup_id}/restore?tables={name}", org)
        assert some.refused == (422, "restore_is_whole")
    assert await worker.run_once()
    for answer in (dry, verify):
        job = (await api.get(f"/system/restore-jobs/{answer.data['id']}", org)).data
        assert (job["status"], job["dry_run"], job["database"]) == ("SUCCESS", True, None), job
        assert "public.sale" in job["restored_tables"]

    # Into a new database: with a word that is good once, for this backup and this person.
    path = f"/system/backups/{backup_id}/restore?dry_run=false"
    assert (await api.post(path, org)).refused == (409, "confirmation_unknown")
    confirmed = await api.post("/system/restore/confirm-token", org, {"backup_id": backup_id})
    assert confirmed.status == 201
    path += f"&confirm_token={confirmed.data['confirm_token']}"
    live = psql(
        "select current_database(), oid from pg_database where datname = current_database()"
    )
    done = await api.post(path, org)
    assert (done.status, done.data["mode"]) == (202, "RESTORE")
    assert (await api.post(path, org)).refused == (409, "confirmation_used")
    assert await worker.run_once()
    job = (await api.get(f"/system/restore-jobs/{done.data['id']}", org)).data
    restored.append(job["database"] or "none")
    assert job["status"] == "SUCCESS", job["message"]
    there = role_url(superuser_dsn, "superuser", job["database"])
    with psycopg.connect(there) as conn:
        count = conn.execute("select count(*) from product").fetchone()
    assert count == psql("select count(*) from product", role="sofinance_backup")[0]
    assert "--switch-to" in job["message"]
    # The live one is what it was.
    assert live == psql(LIVE)
    actions = {row["action"] for row in (await api.get("/audit/logs", org)).data["items"]}
    assert {
        "system.create_backup",
        "system.restore_backup",
        "system.create_confirmation",
    } <= actions


async def test_a_confirmation_is_its_asker_s_for_one_backup_and_five_minutes(
    api: Api, org: Org, other_org: Org, psql: Psql
) -> None:
    ids = []
    for number in (1, 2):
        ids.append(psql("select begin_backup('FULL', '/srv')")[0][0])
        psql(
            "select finish_backup(%s, '/srv', %s, 1, repeat('0', 64), true, 1, 0, now())",
            [ids[-1], f"{number}.dump"],
        )
    confirmed = await api.post("/system/restore/confirm-token", org, {"backup_id": ids[0]})
    word = confirmed.data["confirm_token"]
    path = "/system/backups/{}/restore?dry_run=false&confirm_token={}"
    assert (await api.post(path.format(ids[1], word), org)).code == "confirmation_unknown"
    assert (await api.post(path.format(ids[0], word), other_org)).code == "confirmation_unknown"
    psql("update backup_confirmation set expires_at = now() - interval '1 second'",
         role="sofinance_owner")  # fmt: skip
    late = await api.post(path.format(ids[0], word), org)
    assert late.refused == (409, "confirmation_expired")
    # Twenty at once: one of them restores.
    word = (await api.post("/system/restore/confirm-token", org, {"backup_id": ids[0]})).data
    sent = path.format(ids[0], word["confirm_token"])
    answers = await asyncio.gather(*(api.post(sent, org) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [202] + [409] * 19
    assert psql("select count(*) from backup_task where kind = 'RESTORE'") == [(1,)]
    refused = await api.post("/system/restore/confirm-token", org, {"backup_id": 0})
    assert refused.status == 422
    missing = await api.post("/system/restore/confirm-token", org, {"backup_id": 99_999})
    assert missing.refused == (404, "not_found")


async def test_the_only_good_backup_is_not_given_up(
    api: Api, org: Org, psql: Psql, worker: Worker, folder: Path
) -> None:
    for _ in range(2):
        run(psql, "backup")
        assert await worker.run_once()
        await asyncio.sleep(1.1)  # names have seconds
    second, first = (await api.get("/system/backups", org)).data["items"]
    task = (await api.post(f"/system/backups/{first['id']}/verify", org)).data
    path = f"/system/backups/{first['id']}"
    assert (await api.delete(path, org)).refused == (409, "backup_busy")
    cancelled = await api.post(f"/system/restore-jobs/{task['id']}/cancel", org)
    assert cancelled.data["status"] == "CANCELLED"
    again = await api.post(f"/system/restore-jobs/{task['id']}/cancel", org)
    assert again.refused == (409, "restore_job_ended")
    assert (await api.delete(path, org)).status == 204
    assert (await api.get(path, org)).refused == (404, "not_found")
    last = await api.delete(f"/system/backups/{second['id']}", org)
    assert last.refused == (409, "backup_last_good_stays")
    assert len(list(folder.iterdir())) == 8
    assert await worker.run_once()
    assert {each.name.partition(".dump")[0] for each in folder.iterdir()} == {
        second["file_name"].partition(".dump")[0]
    }


@pytest.fixture
def scratches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Path]]]:
    """Tell what drills have left, in a directory that no other test's drill is in."""
    top = Path(tempfile.mkdtemp(prefix="sofinance-tests-"))
    top.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(top))

    def left() -> list[Path]:
        return list(top.glob("sofinance-drill-*"))

    yield left
    until = time.monotonic() + DEADLINE_S
    while left():  # that of a worker that was killed goes on, and takes away what it made
        assert time.monotonic() < until
        time.sleep(0.05)
    shutil.rmtree(top)


async def test_a_job_is_broken_off_and_taken_up_by_another_worker(
    api: Api, org: Org, psql: Psql, worker: Worker, database: Database,
    scratches: Callable[[], list[Path]],
) -> None:  # fmt: skip
    await api.post("/system/backups", org)
    assert await worker.run_once()
    (backup,) = (await api.get("/system/backups", org)).data["items"]

    async def begun(asked: dict[str, Any]) -> asyncio.Task[bool]:
        work = asyncio.create_task(worker.run_once())
        until = time.monotonic() + DEADLINE_S
        while (await seen(asked))["status"] == "QUEUED":
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        return work

    async def seen(asked: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = (await api.get(f"/system/restore-jobs/{asked['id']}", org)).data
        return found

    asked = (await api.post(f"/system/backups/{backup['id']}/verify", org)).data
    work = await begun(asked)
    await api.post(f"/system/restore-jobs/{asked['id']}/cancel", org)
    assert await work
    assert ((await seen(asked))["status"], (await seen(asked))["message"]) == (
        "CANCELLED", "it was broken off",
    )  # fmt: skip
    assert scratches() == []

    # Its worker is killed: the row is there, and another worker does it.
    asked = (await api.post(f"/system/backups/{backup['id']}/verify", org)).data
    doomed = subprocess.Popen(
        [sys.executable, "-m", "sofinance", "worker", "--job", "backup-tasks"],
        env={**os.environ, "DATABASE_URL": database.settings.database_url},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while (await seen(asked))["status"] == "QUEUED":
        assert doomed.poll() is None
        await asyncio.sleep(0.05)
    doomed.kill()
    doomed.wait()
    assert (await seen(asked))["status"] == "RUNNING"
    psql("update job set lease_until = now() - interval '1 s' where runner is not null",
         role="sofinance_owner")  # fmt: skip
    run(psql, "backup-tasks")
    another = Worker(database, [job for job in JOBS if job.name in OURS])
    assert await another.run_once()
    assert (await seen(asked))["status"] == "SUCCESS"
    tries = psql("select attempt_count from backup_task where id = %s", [asked["id"]])
    assert tries == [(2,)]


async def test_only_the_operator_s_administrators_see_backups(
    api: Api, api_with: MakeApi, org: Org, other_org: Org, psql: Psql
) -> None:
    backup_id = psql("select begin_backup('FULL', '/srv')")[0][0]
    named = await api_with(operator_org_id=org.id)
    asked = [
        ("GET", "/system/info", None), ("GET", "/system/backups", None),
        ("GET", "/system/backups/stats", None), ("GET", f"/system/backups/{backup_id}", None),
        ("GET", f"/system/backups/{backup_id}/download", None),
        ("POST", "/system/backups", None), ("POST", "/system/backup/create", None),
        ("DELETE", f"/system/backups/{backup_id}", None),
        ("POST", f"/system/backups/{backup_id}/verify", None),
        ("POST", f"/system/backups/{backup_id}/restore", None),
        ("POST", "/system/restore/confirm-token", {"backup_id": backup_id}),
        ("GET", "/system/restore-jobs", None), ("GET", "/system/restore-jobs/1", None),
        ("POST", "/system/restore-jobs/1/cancel", None), ("GET", "/system/drills", None),
    ]  # fmt: skip
    for method, path, body in asked:
        answer = await named.call(method, path, other_org, body)
        assert answer.refused == (403, "forbidden"), path
        answer = await named.call(method, path, org.member("MANAGER"), body)
        assert answer.refused == (403, "forbidden"), path
    info = (await named.get("/system/info", org)).data
    assert (info["archives_log"], info["name"]) == (False, "SOFinance")
    frozen = await api_with(operator_org_id=org.id, admin_read_only=True)
    assert (await frozen.post("/system/backups", org)).refused == (409, "admin_read_only")


async def test_what_nobody_does_in_time_ends(psql: Psql, org: Org, worker: Worker) -> None:
    backup_id = psql("select begin_backup('FULL', '/srv')")[0][0]
    ask = "select ask_backup_task(%s, %s, 1, 1, 2)"
    for kind in ("CREATE", "VERIFY", "VERIFY"):
        assert psql(ask, [kind, backup_id])[0][0]
    assert psql(ask, ["VERIFY", backup_id]) == [(None,)]
    psql(
        "update backup_task set status = 'RUNNING', attempt_count = 3 where id = 1;"
        "update backup_task set created_at = now() - interval '2 days' where id = 2;"
        "update backup_task set cancel_requested_at = now(), status = 'RUNNING' where id = 3;"
        "update backup set created_at = now() - interval '2 days'",
        role="sofinance_owner",
    )
    psql("select reopen_backup_tasks(24); select forget_lost_backups(24)")
    assert psql("select status, message from backup_task order by id") == [
        ("FAILED", "its worker was not heard of again, three times"),
        ("FAILED", "nobody did it in time"),
        ("CANCELLED", "broken off"),
    ]
    assert psql("select status from backup") == [("FAILED",)]
