"""Back to a moment: a base backup, the log since, and the books as they were then."""

# ruff: noqa: ASYNC240 - nobody else is served meanwhile

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from sofinance import cli
from sofinance.backups import contents, point_in_time, store, wal
from sofinance.backups.places import Folder
from sofinance.backups.take import Keys
from sofinance.infra import embedded, migrate
from sofinance.infra.command import SetupError
from tests.api.conftest import open_shop
from tests.conftest import DEBIAN_PROGRAMS, UNSAFE_BUT_FAST
from tests.s3_faults import place as place_of
from tests.s3_server import BUCKET, S3Server
from tests.support import ROLE_PASSWORD, role_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Api, Org

pytestmark = pytest.mark.empty_database
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "archive_wal.sh"
MAJOR = os.environ.get("TEST_POSTGRES", "")
PROGRAMS = None if MAJOR in {"", "embedded"} else Path(DEBIAN_PROGRAMS.format(major=MAJOR))

NO_KEYS = Keys(())
ARCHIVED_WITHIN_S = 120  # ends as soon as it is


@dataclass(frozen=True)
class Archiving:
    """A server that archives its log, and where its backups are."""

    server: embedded.Server
    url: str
    folder: Path
    segments: Path

    def figures(self) -> dict[str, Any]:
        """Say what the database holds now."""
        return figures(role_url(self.url, "sofinance_backup"))

    def archive(self) -> None:
        """Have what was written until now archived, as archive_timeout does."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            # Where nothing was written since the last one, a switch leaves nothing to archive.
            conn.execute("select pg_logical_emit_message(true, 'tests', 'something')")
            name = conn.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
        until = time.monotonic() + ARCHIVED_WITHIN_S
        while not (self.segments / f"{name[0]}.gz").exists():
            assert time.monotonic() < until, self.server.log.read_text()[-2000:]
            time.sleep(0.05)


def figures(url: str) -> dict[str, Any]:
    with psycopg.connect(url, autocommit=True) as conn:
        contents.begin_snapshot(conn)
        return contents.contents(conn)


@contextlib.contextmanager
def running_s3() -> Iterator[S3Server]:
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def archiving() -> Iterator[Archiving]:
    """A migrated server of the test's own; the script where PostgreSQL's account can run it."""
    top = Path(tempfile.mkdtemp(prefix="sofinance-tests-"))
    top.chmod(0o711)
    script, segments = top / "archive_wal.sh", top / "wal"
    shutil.copy(SCRIPT, script)
    script.chmod(0o755)
    segments.mkdir()
    server = embedded.Server(
        top / "data",
        programs=PROGRAMS,
        options={
            **UNSAFE_BUT_FAST, "max_connections": "40", "shared_buffers": "32MB",
            "archive_mode": "on", "archive_command": f"{script} %p %f {segments}",
        },
    )  # fmt: skip
    os.chown(segments, server.account.uid, server.account.gid)
    server.start()
    try:
        url = server.url(embedded.SUPERUSER)
        migrate.apply(url)
        with psycopg.connect(url, autocommit=True) as conn:
            for role in embedded.ROLES:
                conn.execute(f"alter role {role} password '{ROLE_PASSWORD}'")
            conn.execute("alter role sofinance_backup replication")
        yield Archiving(server, url, top / "backups", segments)
    finally:
        server.stop()
        shutil.rmtree(top)


@pytest.fixture
def superuser_dsn(archiving: Archiving) -> str:
    """The service of these tests is on that server."""
    return archiving.url


@pytest.fixture
def command(
    archiving: Archiving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run a command with --json; return what it prints, or what it complains of."""
    monkeypatch.setenv("BACKUP_DIR", str(archiving.folder))
    monkeypatch.setenv("BACKUP_WAL_DIR", str(archiving.segments))
    monkeypatch.setenv("BACKUP_URL", role_url(archiving.url, "sofinance_backup"))
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY", "3c" * 32)
    monkeypatch.setenv("XDG_STATE_HOME", str(archiving.folder.parent / "state"))
    if PROGRAMS:
        monkeypatch.setenv("PG_BIN", str(PROGRAMS))

    def run(*words: str, fails: int = 0) -> Any:
        capsys.readouterr()
        code = cli.main([*words, "--json"])
        said = capsys.readouterr()
        assert code == fails, said.err or said.out
        return json.loads(said.out) if said.out else said.err

    return run


async def test_the_books_come_back_as_they_were_at_a_moment(
    api: Api, org: Org, archiving: Archiving, command: Callable[..., Any], tmp_path: Path
):
    shop = await open_shop(api, org)
    customer_id = await shop.customer()

    async def sell() -> None:
        assert (await shop.sell(shop.item(), customer_id=customer_id)).status == 201

    await sell()
    base = command("backup", "base")
    assert base["file"].endswith(".tar.gz.enc")
    await sell()
    then, moment = archiving.figures(), datetime.now(UTC)
    await asyncio.sleep(0.2)
    await sell()
    now = archiving.figures()
    assert list(contents.differences(then, now))
    archiving.archive()

    # To the moment before the last sale.
    data = archiving.folder.parent / "then"
    said = command("restore", "--at", moment.isoformat(), "--into", str(data))
    assert said["ok"]
    assert datetime.fromisoformat(said["replayed_to"]) < moment
    server = embedded.Server(data, programs=PROGRAMS)
    server.start()
    try:
        assert list(contents.differences(then, figures(server.url("sofinance_backup")))) == []
        with psycopg.connect(server.url("sofinance_app")) as conn:
            assert conn.execute("show archive_mode").fetchone() == ("off",)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(role_url(server.url("sofinance_app"), "sofinance_app"))
    finally:
        server.stop()

    # To all that was archived.
    data = archiving.folder.parent / "latest"
    command("restore", "--at", "latest", "--into", str(data))
    server = embedded.Server(data, programs=PROGRAMS)
    server.start()
    try:
        assert list(contents.differences(now, figures(server.url("sofinance_backup")))) == []
    finally:
        server.stop()

    refuses_what_it_cannot_do(archiving, command, moment, tmp_path)

    # A base backup that is damaged is no base.
    path = Path(base["file"])
    assert command("backup", "verify") == {
        "ok": True, "backups": [{"name": path.name, "ok": True, "error": None}]
    }  # fmt: skip
    assert [each["file"] for each in command("backup", "list")["backups"]] == [str(path)]
    path.write_bytes(path.read_bytes()[:-1])
    assert not command("backup", "verify", fails=1)["ok"]
    data = archiving.folder.parent / "damaged"
    at = moment.isoformat()
    assert "damaged" in command("restore", "--at", at, "--into", str(data), fails=1)


def refuses_what_it_cannot_do(
    archiving: Archiving, command: Callable[..., Any], moment: datetime, tmp_path: Path
) -> None:
    # Never over what is there; not to before there was a backup, nor to what was never archived.
    data, at = archiving.folder.parent / "latest", moment.isoformat()
    refused = command("restore", "--at", at, "--into", str(data), fails=3)
    assert "is not empty, and nothing was done" in refused
    refused = command("restore", "--at", "2020-01-01", "--into", str(tmp_path / "x"), fails=3)
    assert "no base backup from before" in refused
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    data = archiving.folder.parent / "later"
    refused = command("restore", "--at", later, "--into", str(data), fails=3)
    assert "The log that is archived ends before" in refused


async def test_the_books_come_back_from_a_bucket(
    api: Api,
    org: Org,
    archiving: Archiving,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
):
    shop = await open_shop(api, org)
    with running_s3() as s3:
        monkeypatch.setenv("BACKUP_DIR", f"s3://{BUCKET}/shop")
        monkeypatch.setenv("BACKUP_WAL_DIR", "")
        monkeypatch.setenv("BACKUP_S3_ENDPOINT", s3.url)
        monkeypatch.setenv("BACKUP_S3_ACCESS_KEY_ID", "tests")
        monkeypatch.setenv("BACKUP_S3_SECRET_ACCESS_KEY", "tests")
        base = command("backup", "base")
        assert base["file"].startswith(f"s3://{BUCKET}/shop/base/base_")
        customer_id = await shop.customer()
        assert (await shop.sell(shop.item(), customer_id=customer_id)).status == 201
        now = archiving.figures()
        archiving.archive()
        # As PostgreSQL would with archive_command = 'sofinance backup archive-wal %p'.
        for segment in wal.kept(Folder(archiving.segments)):
            path = archiving.folder.parent / segment.segment
            wal.fetch(Folder(archiving.segments), segment.segment, path, NO_KEYS)
            said = command("backup", "archive-wal", str(path))
            assert said["location"] == f"s3://{BUCKET}/shop/wal/{path.name}.gz.enc"
        fetched = archiving.folder.parent / "RECOVERYXLOG"
        assert cli.main(["backup", "restore-wal", base["first_segment"], str(fetched)]) == 0
        assert fetched.stat().st_size == 16 << 20
        assert cli.main(["backup", "restore-wal", "0" * 24, str(fetched)]) == 1
        monkeypatch.setenv("BACKUP_S3_ENDPOINT", "http://127.0.0.1:1")
        assert cli.main(["backup", "restore-wal", base["first_segment"], str(fetched)]) == 200
        monkeypatch.setenv("BACKUP_S3_ENDPOINT", s3.url)

        assert command("backup", "verify")["ok"]
        data = archiving.folder.parent / "latest"
        command("restore", "--at", "latest", "--into", str(data))
        server = embedded.Server(data, programs=PROGRAMS)
        server.start()
        try:
            assert list(contents.differences(now, figures(server.url("sofinance_backup")))) == []
        finally:
            server.stop()
        said = command("drill", "--point-in-time")
        assert said["ok"]
        assert said["report"].startswith(f"s3://{BUCKET}/shop/drill_")
        assert command("restore", "latest", "--to", archiving.url, "--dry-run")["confirm"]

        # A week later the first base goes, with the log that only it needs.
        later = datetime.now(UTC) + timedelta(days=31)
        await asyncio.sleep(1.1)  # names have seconds
        second = command("backup", "base")
        place, log = place_of(s3, "shop"), place_of(s3, "shop/wal")
        kept_names = {segment.name for segment in wal.kept(log)}
        gone = point_in_time.prune(place, log, store.Keeping(30), now=later)
        assert gone == [Path(base["file"]).name]  # what was archived lately stays
        assert {segment.name for segment in wal.kept(log)} == kept_names
        assert second["file"] == point_in_time.bases(place)[0].location


async def test_the_drill_replays_the_log_too(
    api: Api,
    org: Org,
    archiving: Archiving,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
):
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("BACKUP_WAL_DIR", str(archiving.folder / "none"))
        refused = command("drill", "--point-in-time", fails=1)
    assert "Nothing is archived" in refused["error"]
    shop = await open_shop(api, org)
    command("backup", "base")
    customer_id = await shop.customer()
    assert (await shop.sell(shop.item(), customer_id=customer_id)).status == 201
    archiving.archive()
    said = command("drill", "--point-in-time")
    assert (said["ok"], said["organisations"]) == (True, 1)
    back = said["point_in_time"]
    assert 0 < back["rpo_s"] < 60
    assert back["rto_s"] > 0
    assert datetime.fromisoformat(back["replayed_to"]) <= datetime.now(UTC)
    assert json.loads(Path(said["report"]).read_text("utf-8"))["point_in_time"] == back


def test_old_bases_go_with_the_log_that_only_they_need(
    archiving: Archiving, command: Callable[..., Any]
):
    first = Path(command("backup", "base")["file"])
    archiving.archive()
    archived = {path.name for path in archiving.segments.iterdir()}
    time.sleep(1.1)  # names have seconds
    second = Path(command("backup", "base")["file"])
    a_month_ago = time.time() - 40 * 86_400
    for name in archived:
        os.utime(archiving.segments / name, (a_month_ago, a_month_ago))
    now = datetime.now(UTC) + timedelta(days=31)
    place = Folder(archiving.folder)
    gone = point_in_time.prune(place, Folder(archiving.segments), store.Keeping(30), now=now)
    assert first.name in gone
    assert archived <= set(gone)
    assert [each.location for each in point_in_time.bases(place)] == [str(second)]
    assert second.with_name(store.sum_name(second.name)).exists()


def test_a_server_that_archives_nothing_has_no_base(
    archiving: Archiving, command: Callable[..., Any]
):
    with psycopg.connect(archiving.url, autocommit=True) as conn:
        conn.execute("alter role sofinance_backup noreplication")
    assert "alter role sofinance_backup replication" in command("backup", "base", fails=3)
    assert point_in_time.bases(Folder(archiving.folder)) == []
    with pytest.raises(SetupError, match="no base backup"):
        point_in_time.base_for(Folder(archiving.folder), None)


def test_a_segment_is_archived_once_and_never_replaced(tmp_path: Path):
    segment, kept = tmp_path / ("0" * 23 + "1"), tmp_path / "kept"
    kept.mkdir()
    segment.write_bytes(b"log" * 1000)

    def archive() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, segment, segment.name, kept], check=False, capture_output=True, text=True
        )

    assert archive().returncode == 0
    assert archive().returncode == 0  # the same again
    (archived,) = kept.iterdir()
    assert (archived.name, archived.stat().st_size < 100) == (f"{segment.name}.gz", True)
    assert archived.stat().st_mode & 0o777 == 0o640, "who makes backups reads it, nobody else"
    fetched = tmp_path / "fetched"
    wal.fetch(Folder(kept), segment.name, fetched, NO_KEYS)
    assert fetched.read_bytes() == b"log" * 1000
    segment.write_bytes(b"another")
    refused = archive()
    assert (refused.returncode, "is another one" in refused.stderr) == (1, True)
    assert gzip.decompress(archived.read_bytes()) == b"log" * 1000
    assert [*kept.iterdir()] == [archived]
    archived.write_bytes(archived.read_bytes()[:-4])
    assert archive().returncode == 1, "one that is damaged is not called good"
    segment.unlink()
    archived.unlink()
    assert archive().returncode != 0
    assert [path.name for path in kept.glob("[!.]*")] == []
    assert subprocess.run([SCRIPT], check=False, capture_output=True).returncode == 2
