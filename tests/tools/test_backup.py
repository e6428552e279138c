"""`sofinance backup`, `restore` and `drill`: what was written comes back, and only that.

Everything is real: pg_dump and pg_restore of the server's version, the books of a shop.
"""

# ruff: noqa: ASYNC221, ASYNC240 - nobody else is served meanwhile

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from sofinance import cli
from sofinance.backups import confirmations, files, programs, sealed, store
from sofinance.backups.places import Folder
from sofinance.backups.take import Keys
from sofinance.infra import embedded, migrate
from sofinance.infra.command import SetupError
from sofinance.tools import drill
from sofinance.tools.restore import findings_of
from tests.api.conftest import open_shop
from tests.api.test_attachments import attach
from tests.support import ROLE_PASSWORD, Psql, role_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sofinance.config import Settings
    from tests.api.conftest import Shop
    from tests.conftest import MakeApi
    from tests.support import Api, Org

    Command = Callable[..., Any]

pytestmark = pytest.mark.empty_database
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
KEY = "1f" * 32
OTHER_KEY = "2e" * 32


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, superuser_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of backups; the environment of whoever backs up."""
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    monkeypatch.setenv("BACKUP_URL", role_url(superuser_dsn, "sofinance_backup"))
    if os.environ.get("TEST_POSTGRES", "") not in {"", "embedded"}:
        monkeypatch.setenv("PG_BIN", f"/usr/lib/postgresql/{os.environ['TEST_POSTGRES']}/bin")
    return tmp_path / "backups"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with --json; return what it prints, or what it complains of."""

    def run(*words: str, fails: int = 0) -> Any:
        capsys.readouterr()
        code = cli.main([*words, "--json"])
        said = capsys.readouterr()
        assert code == fails, said.err or said.out
        return json.loads(said.out) if said.out else said.err

    return run


@pytest.fixture
async def shop(api: Api, org: Org) -> Shop:
    """A shop that has sold."""
    shop = await open_shop(api, org)
    for number in range(3):
        assert (await shop.sell(shop.item(number), paid="5.00")).status in {201, 422}
    customer_id = await shop.customer()
    for number in range(3):
        assert (await shop.sell(shop.item(number), customer_id=customer_id)).status == 201
    return shop


@pytest.fixture
def target(superuser_dsn: str) -> Iterator[str]:
    """The superuser's URL of an empty database on the same server; whatever it becomes, it goes."""
    name = "back_" + superuser_dsn.rpartition("_")[2]
    with psycopg.connect(superuser_dsn, autocommit=True) as conn:
        conn.execute(f"create database {name} owner sofinance_owner template template0")
        yield role_url(superuser_dsn, "superuser", name)
        names = conn.execute("select datname from pg_database where datname ~ %s", [f"^{name}"])
        for (each,) in names.fetchall():
            conn.execute(f"drop database {each} with (force)")


def beside(path: Path, name: Callable[[str], str]) -> Path:
    return path.with_name(name(path.name))


def rows(url: str, statement: str) -> Any:
    with psycopg.connect(url) as conn:
        return conn.execute(statement).fetchall()


def databases(url: str) -> set[str]:
    """Return the target and what was made beside it; other tests make databases of their own."""
    name = url.rpartition("/")[2]
    return {each for (each,) in rows(url, "select datname from pg_database") if name in each}


async def test_a_backup_restores_and_the_shop_goes_on_selling(
    shop: Shop, folder: Path, command: Command, target: str, api_with: MakeApi
):
    taken = command("backup")
    path = Path(taken["file"])
    assert path.name.startswith("pg_sofinance_test_")
    assert {each.name for each in folder.iterdir()} == {
        path.name, f"{path.name}.json", f"{path.name}.sha256", f"{path.name}.files",
    }  # fmt: skip
    assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o600}
    assert path.read_bytes().startswith(b"PGDMP")

    before = await shop.balances()
    restored = command("restore", "latest", "--to", target)
    assert restored["ok"]
    assert restored["rows"] == taken["rows"] > 100
    assert restored["kept_as"] is None

    # The service on what was restored: same books, the same people, the next sale.
    app_url = role_url(target, "sofinance_app")
    there = await api_with(database_url=app_url)
    again = replace(shop, api=there)
    assert await again.balances() == before
    assert (await again.sell(again.item(1), paid="100.00")).refused[0] == 422
    customer_id = await again.customer()
    assert (await again.sell(again.item(1), customer_id=customer_id)).status == 201
    assert await again.balances() != before
    assert [each for each in findings_of(app_url) if each.broken] == []


async def test_what_was_restored_is_as_closed_as_it_was(shop: Shop, command: Command, target: str):
    command("backup")
    command("restore", "latest", "--to", target)
    psql = Psql(target)
    assert psql.refusal("select from sale") == "42704"  # no organisation, no rows: an error
    assert psql("select count(*) from sale", org=shop.org.id + 1) == [(0,)]
    assert psql("select count(*) > 2 from sale", org=shop.org) == [(True,)]
    assert psql.refusal("update journal_line set debit = 1", org=shop.org) == "42501"
    assert psql.refusal("drop table sale", org=shop.org) == "42501"
    owners = psql(
        "select distinct tableowner::text from pg_tables where schemaname = 'public'",
        role="superuser",
    )
    assert owners == [("sofinance_owner",)]
    psql.close()
    # The owner alone can migrate it further; a backup of it can be taken.
    assert migrate.apply(role_url(target, "sofinance_owner")) == ()
    assert command("backup", "--backup-url", role_url(target, "sofinance_backup"))["rows"]


async def test_a_backup_during_postings_is_one_state(shop: Shop, command: Command, target: str):
    customer_id = await shop.customer()
    going = True

    async def sell() -> int:
        count = 0
        while going:
            answer = await shop.sell(shop.item(0, "0.01"), customer_id=customer_id)
            assert answer.status == 201, answer.text
            count += 1
        return count

    tills = [asyncio.create_task(sell()) for _ in range(3)]
    taken = await asyncio.to_thread(command, "backup")
    going = False
    assert sum([await till for till in tills]) > 3
    # All tables and the journal equal the figures of the one snapshot, and the books add up.
    assert command("restore", "latest", "--to", target)["rows"] == taken["rows"]


async def test_a_damaged_backup_is_refused(shop: Shop, folder: Path, command: Command, target: str):
    path = Path(command("backup")["file"])
    whole = path.read_bytes()
    middle = len(whole) // 2
    damages = {
        "one bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "cut off": whole[:-1],
        "more": whole + b"\0",
        "nothing": b"",
    }
    for damage, content in damages.items():
        path.write_bytes(content)
        assert "damaged" in command("restore", "latest", "--to", target, fails=1), damage
        said = command("backup", "verify", fails=1)
        assert not said["ok"]
        assert "damaged" in said["backups"][0]["error"], damage
    path.write_bytes(whole)
    assert command("backup", "verify")["ok"]

    manifest = beside(path, store.manifest_name)
    said = manifest.read_text("utf-8")
    manifest.write_text(said.replace('"rows": ', '"rows": 1'), "utf-8")
    assert "damaged" in command("restore", "latest", "--to", target, fails=1)
    manifest.write_text(said, "utf-8")
    beside(path, store.sum_name).unlink()
    assert command("backup", "list") == {"backups": [], "unfinished": [path.name]}
    assert "no" in command("restore", str(path), "--to", target, fails=1)
    assert rows(target, "select count(*) from pg_tables where schemaname = 'public'") == [(0,)]


async def test_a_dump_that_lies_about_its_checksum_is_found_out(
    shop: Shop, command: Command, target: str
):
    """Who can write the directory can write checksums, too; a dump of other rows shows."""
    path = Path(command("backup")["file"])
    customer_id = await shop.customer()
    assert (await shop.sell(shop.item(), customer_id=customer_id)).status == 201
    await asyncio.sleep(1.1)  # names have seconds
    other = Path(command("backup")["file"])
    manifest = json.loads(beside(other, store.manifest_name).read_text("utf-8"))
    figures = json.loads(beside(path, store.manifest_name).read_text("utf-8"))["contents"]
    for name in (store.manifest_name(other.name), store.sum_name(other.name)):
        (other.parent / name).unlink()
    manifest["contents"] = figures
    store.finish(Folder(other.parent), other.name, manifest["sha256"], manifest, None)
    said = command("restore", other.name, "--to", target, fails=1)
    assert "public.sale differs" in said
    assert "journal_sha256 differs" in said


async def test_an_encrypted_backup_opens_with_its_key_alone(
    shop: Shop, command: Command, target: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY", KEY)
    path = Path(command("backup")["file"])
    assert path.name.endswith(".dump.enc")
    assert path.read_bytes().startswith(b"SOFBKP1\n")
    assert b"PGDMP" not in path.read_bytes()
    assert "ledger" not in beside(path, store.manifest_name).read_text("utf-8")

    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY", OTHER_KEY)
    said = command("restore", "latest", "--to", target, fails=1)
    assert "encrypted with another key" in said
    monkeypatch.delenv("BACKUP_ENCRYPTION_KEY")
    assert "no key is set" in command("restore", "latest", "--to", target, fails=1)

    # A new key seals what comes, the one before opens what is there.
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY", OTHER_KEY)
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY_PREVIOUS", KEY)
    assert command("backup", "verify")["ok"]
    assert command("restore", "latest", "--to", target)["ok"]


async def test_a_restore_never_overwrites(shop: Shop, folder: Path, command: Command, target: str):
    command("backup")
    with psycopg.connect(target) as conn:
        conn.execute("create table precious (id int)")
        conn.execute("insert into precious values (42)")
    name = target.rpartition("/")[2]
    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute(f"alter database {name} set work_mem = '5MB'")
    said = command("restore", "latest", "--to", target, fails=1)
    assert "is not empty, and nothing was done" in said

    dry = command("restore", "latest", "--to", target, "--dry-run")
    assert (dry["is_empty"], dry["confirm_good_for_s"]) == (False, 300)
    restored = command("restore", "latest", "--to", target, "--confirm", dry["confirm"])
    assert rows(target, "select count(*) > 2 from sale") == [(True,)]
    assert rows(target, "show work_mem") == [("5MB",)]
    kept = role_url(target, "superuser", restored["kept_as"])
    assert rows(kept, "select id from precious") == [(42,)]

    # Good once, for one backup and one database, for five minutes.
    said = command("restore", "latest", "--to", target, "--confirm", dry["confirm"], fails=1)
    assert "was used" in said
    dry = command("restore", "latest", "--to", target, "--dry-run")
    said = command("restore", "latest", "--to", kept, "--confirm", dry["confirm"], fails=1)
    assert "another backup or another database" in said
    dry = command("restore", "latest", "--to", target, "--dry-run")
    (noted,) = (folder / confirmations.FOLDER).iterdir()
    noted.write_text(noted.read_text("utf-8").replace('"until": ', '"until": -'), "utf-8")
    said = command("restore", "latest", "--to", target, "--confirm", dry["confirm"], fails=1)
    assert "too old" in said
    assert {each for each in databases(target) if "restoring" in each} == set()


async def test_a_database_that_was_restored_beside_takes_the_place_of_the_live_one(
    shop: Shop, command: Command, target: str
):
    command("backup")
    name = target.rpartition("/")[2]
    beside = f"{name}_beside"
    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute("create table precious (id int)")
        conn.execute(f"alter database {name} set work_mem = '7MB'")
    there = role_url(target, "superuser", beside)
    assert command("restore", "latest", "--to", there, "--create")["ok"]
    switch = ("restore", "--to", target, "--switch-to", beside)
    assert f"--confirm {name} does it" in command(*switch, fails=1)
    missing = ("restore", "--to", target, "--switch-to", f"{name}_none", "--confirm", name)
    assert "does not exist" in command(*missing, fails=3)
    switched = command(*switch, "--confirm", name)
    assert rows(target, "select count(*) > 2 from sale") == [(True,)]
    assert rows(target, "show work_mem") == [("7MB",)]
    kept = role_url(target, "superuser", switched["kept_as"])
    assert rows(kept, "select count(*) from precious") == [(0,)]
    assert beside not in databases(target)


async def test_a_restore_that_fails_leaves_everything_as_it_was(
    shop: Shop, command: Command, target: str, monkeypatch: pytest.MonkeyPatch
):
    command("backup")
    with psycopg.connect(target) as conn:
        conn.execute("create table precious (id int)")
    before = databases(target)
    dry = command("restore", "latest", "--to", target, "--dry-run")

    def refuse(_url: str) -> None:
        raise store.BackupError("broken")

    monkeypatch.setattr("sofinance.tools.restore.verify_books", refuse)
    command("restore", "latest", "--to", target, "--confirm", dry["confirm"], fails=1)
    assert databases(target) == before
    assert rows(target, "select count(*) from precious") == [(0,)]


async def test_a_backup_of_a_newer_release_is_refused(
    shop: Shop, command: Command, target: str, superuser_dsn: str
):
    with psycopg.connect(superuser_dsn) as conn:
        conn.execute(
            "insert into _yoyo_migration (migration_hash, migration_id, applied_at_utc)"
            " values ('x', '9999_from_the_future', now())"
        )
    command("backup")
    said = command("restore", "latest", "--to", target, fails=1)
    assert "of a newer release" in said
    assert "9999_from_the_future" in said


async def test_who_is_no_superuser_restores_as_a_member_of_the_roles(
    shop: Shop, command: Command, target: str
):
    """As on a managed PostgreSQL, which gives nobody a superuser."""
    command("backup")
    name = target.rpartition("/")[2]
    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute(f"create role {name}_admin login createdb password '{ROLE_PASSWORD}'")
        conn.execute(
            f"grant sofinance_owner, sofinance_app, sofinance_readonly, sofinance_backup,"
            f" pg_signal_backend to {name}_admin"
        )
    try:
        admin = role_url(target, f"{name}_admin")
        assert command("restore", "latest", "--to", admin)["ok"]
        dry = command("restore", "latest", "--to", admin, "--dry-run")
        restored = command("restore", "latest", "--to", admin, "--confirm", dry["confirm"])
        assert restored["kept_as"]
    finally:
        with psycopg.connect(target, autocommit=True) as conn:
            for (each,) in conn.execute(
                "select datname from pg_database where datname ~ %s", [f"^{name}_"]
            ).fetchall():
                conn.execute(f"drop database {each} with (force)")
            conn.execute(f"reassign owned by {name}_admin to sofinance_owner")
            conn.execute(f"drop owned by {name}_admin")
            conn.execute(f"drop role {name}_admin")


def test_a_database_that_is_missing_is_made_when_asked(
    command: Command, target: str, superuser_dsn: str
):
    """Without the extension that whoever runs the server may have put into the one before."""
    name = target.rpartition("/")[2]
    new = role_url(target, "superuser", f"{name}_new")
    with psycopg.connect(superuser_dsn, autocommit=True) as conn:
        conn.execute("create extension pg_stat_statements")
        command("backup")
        conn.execute("drop extension pg_stat_statements")
    assert "--create makes it" in command("restore", "latest", "--to", new, fails=2)
    app = role_url(target, "sofinance_app", f"{name}_new")
    refused = command("restore", "latest", "--to", app, "--create", fails=3)
    assert "permission denied to create database" in refused
    nobody = "postgresql://postgres:x@127.0.0.1:1/books"
    assert "Connection refused." in command("restore", "latest", "--to", nobody, fails=3)
    assert command("restore", "latest", "--to", new, "--create")["database"] == f"{name}_new"
    owner = f"select pg_get_userbyid(datdba) from pg_database where datname = '{name}_new'"
    assert rows(new, owner) == [("sofinance_owner",)]


def test_old_backups_go_and_the_newest_good_one_stays(folder: Path, command: Command):
    path = Path(command("backup")["file"])
    database = store.NAME.fullmatch(path.name)["database"]  # type: ignore[index]
    for day in (1, 2, 3):
        name = f"pg_{database}_2025010{day}T020000Z.dump"
        shutil.copy(path, folder / name)
        manifest = json.loads(beside(path, store.manifest_name).read_text("utf-8"))
        manifest["taken_at"] = f"2025-01-0{day}T02:00:00.000Z"
        store.finish(Folder(folder), name, manifest.pop("sha256"), manifest, None)
    # As if nothing had been backed up since: the newest is damaged, so the one before stays.
    for each in folder.glob(f"{path.name}*"):
        each.unlink()
    (folder / f"pg_{database}_20250103T020000Z.dump").write_bytes(b"damaged")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    gone = store.prune(Folder(folder), database, store.Keeping(30), now=now)
    assert [name.split("_")[-1] for name in gone] == [
        "20250101T020000Z.dump", "20250103T020000Z.dump",
    ]  # fmt: skip
    assert command("backup", "verify")["ok"]
    # With a new one, the old ones have had their time.
    assert len(command("backup")["removed"]) == 1
    assert len(command("backup", "list")["backups"]) == 1


def test_the_last_of_each_week_stays_longer(folder: Path):
    def taken(day: int) -> store.Backup:
        at = datetime(2026, 3, 1, 2, tzinfo=UTC) + timedelta(days=day)
        return store.Backup(Folder(folder), f"day {day}", {"taken_at": at.isoformat()})

    backups = [taken(day) for day in range(120)]
    now = backups[-1].taken_at + timedelta(hours=1)
    kept = store.Keeping(30, 12).kept(backups, now=now)
    days = sorted(int(name.partition(" ")[2]) for name in kept)
    # 2026-03-01 was a Sunday: day 0, and every seventh is the last of its week.
    assert days == [*range(42, 90, 7), *range(90, 120)]
    assert store.Keeping(30).kept(backups, now=now) == {f"day {day}" for day in range(90, 120)}


async def test_files_come_back_with_their_rows(
    shop: Shop, settings: Settings, folder: Path, command: Command, target: str,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    api, org, stored = shop.api, shop.org, Path(settings.storage_dir)
    monkeypatch.setenv("STORAGE_DIR", str(stored))
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY", KEY)
    product = ("product", shop.product_ids[0])
    contents_of = [os.urandom(3000), os.urandom(5000)]
    for content in contents_of:
        answer = await attach(api, org, b"%PDF-1.7\n" + content, "note.pdf", to=product)
        assert answer.status == 201, answer.text
    taken = command("backup")
    assert (taken["files"], taken["files_are_copied"]) == (2, True)
    copies = sorted((folder / files.FOLDER).iterdir())
    assert len(copies) == 2
    assert all(copy.read_bytes().startswith(b"SOFBKP1\n") for copy in copies)

    # Each is copied once; a third one with the next backup.
    before = {copy: copy.stat().st_mtime_ns for copy in copies}
    await attach(api, org, b"%PDF-1.7\n third", "third.pdf", to=product)
    await asyncio.sleep(1.1)  # names have seconds
    assert command("backup")["files"] == 3
    assert {copy: copy.stat().st_mtime_ns for copy in copies} == before
    said = command("drill", "--backup", "latest")
    assert (said["ok"], said["files"]) == (True, 3)
    back = folder / "back"
    said = command("restore", "latest", "--to", target, "--files-to", str(back))
    assert said["files"] == {"restored": 3, "there": 0}
    asked = "select object_key, encode(sha256, 'hex') from attachment"
    for key, digest in rows(target, asked):
        assert hashlib.sha256((back / key).read_bytes()).hexdigest() == digest

    # A copy that is damaged, a file that the store has lost, and copies that nobody needs.
    whole = copies[0].read_bytes()
    copies[0].write_bytes(whole[:-1])
    assert "cannot be decrypted" in command("drill", "--backup", "latest", fails=1)["error"]
    copies[0].write_bytes(whole)
    ((lost, _),) = rows(target, asked + " order by id desc limit 1")
    (stored / lost).unlink()
    await asyncio.sleep(1.1)
    assert command("backup")["files"] == 3  # its copy is there already
    later = datetime.now(UTC) + timedelta(days=3)
    place, keys = Folder(folder), Keys((bytes.fromhex(KEY),))
    assert files.prune(place, keys, now=later) == 0
    for backup in store.listing(place)[1:]:
        store.remove(place, backup.name)
    assert files.prune(place, keys, now=datetime.now(UTC)) == 0  # it is young
    assert files.prune(place, Keys((bytes.fromhex(OTHER_KEY),)), now=later) == 0  # who knows
    assert files.prune(place, keys, now=later) == 1
    # Another key needs other copies.
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY", OTHER_KEY)
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY_PREVIOUS", KEY)
    await asyncio.sleep(1.1)
    said = command("backup", fails=1)  # the dump stands, and what is lost is told
    assert said["files_lost"] == [lost]
    said = command("drill", "--backup", "latest", fails=1)
    assert "There is no copy of" in said["error"]


def test_a_role_that_does_not_see_all_rows_takes_no_backup(
    folder: Path, command: Command, dsn: str
):
    said = command("backup", "--backup-url", dsn, fails=2)
    assert "does not see every organisation's rows" in said
    assert not folder.exists() or list(folder.iterdir()) == []


async def test_the_drill_proves_a_restore_and_says_how_long_it_took(
    shop: Shop, folder: Path, command: Command
):
    said = command("drill")
    assert (said["ok"], said["error"]) == (True, None)
    assert 0 < said["rpo_s"] < said["rto_s"] + 60
    assert {"restore", "compare", "migrate", "analyze", "verify"} == set(said["steps_s"])
    report = json.loads(Path(said["report"]).read_text("utf-8"))
    assert report["backup"] == store.listing(Folder(folder))[-1].name
    assert report["organisations"] == 1


async def test_a_drill_without_a_place_to_restore_into_is_one_that_failed(
    shop: Shop, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
):
    command("backup")
    monkeypatch.setattr("tempfile.tempdir", str(folder / "nowhere"))
    said = command("drill", "--backup", "latest", fails=1)
    assert "No such file or directory" in said["error"]
    assert json.loads(Path(said["report"]).read_text("utf-8"))["error"] == said["error"]


async def test_a_drill_without_room_says_so(
    shop: Shop, command: Command, monkeypatch: pytest.MonkeyPatch
):
    command("backup")

    def fail(*_: object, **__: object) -> None:
        raise psycopg.errors.InternalError_("checkpoint request failed")

    monkeypatch.setattr("sofinance.backups.bring_back.restore", fail)
    assert command("drill", "--backup", "latest", fails=1)["error"] == "checkpoint request failed"
    monkeypatch.setattr(drill, "ROOM_BYTES_MIN", 1 << 62)
    said = command("drill", "--backup", "latest", fails=1)
    assert "checkpoint request failed (there is no room in " in said["error"]
    assert json.loads(Path(said["report"]).read_text("utf-8"))["error"] == said["error"]


async def test_the_drill_fails_on_books_that_are_broken(
    shop: Shop, command: Command, superuser_dsn: str
):
    with psycopg.connect(superuser_dsn) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute("update journal_line set debit = debit + 1 where debit > 0")
    said = command("drill", fails=1)
    assert not said["ok"]
    assert "entries_balance" in said["error"]
    assert json.loads(Path(said["report"]).read_text("utf-8"))["ok"] is False


# -- the scripts -----------------------------------------------------------------------------------


@pytest.fixture
def script(superuser_dsn: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script as an operator with the variables of PostgreSQL's images, and nothing else."""
    command = tmp_path / "sofinance"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sofinance "$@"\n', "utf-8")
    command.chmod(0o755)
    parts = urlsplit(superuser_dsn)
    environ = {name: text for name, text in os.environ.items() if not name.endswith("_URL")} | {
        "POSTGRES_HOST": parts.hostname or "", "POSTGRES_PORT": str(parts.port),
        "POSTGRES_DB": parts.path.strip("/"), "POSTGRES_USER": "postgres",
        "POSTGRES_PASSWORD": parts.password or "",
        "SOFINANCE": str(command), "PYTHONPATH": str(SCRIPTS.parent),
    }  # fmt: skip

    def run(name: str, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPTS / name, *words], env={**environ, **changes}, check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("beside", ["bin", ".venv/bin"])
def test_the_scripts_find_the_command_beside_them(tmp_path: Path, beside: str):
    """As in a crontab, whose PATH has nothing of ours; without one they say so."""
    bare = {"PATH": "/usr/bin:/bin"}
    scripts = shutil.copytree(SCRIPTS, tmp_path / "scripts")
    run = partial(subprocess.run, env=bare, check=False, capture_output=True, text=True)
    missing = run([scripts / "verify_database.sh"])
    assert (missing.returncode, "name it in SOFINANCE" in missing.stderr) == (2, True)
    (tmp_path / beside).mkdir(parents=True)
    command = tmp_path / beside / "sofinance"
    command.write_text('#!/bin/sh\necho ran "$@"\n', "utf-8")
    command.chmod(0o755)
    assert run([scripts / "verify_database.sh", "--json"]).stdout == "ran verify --json\n"
    assert run([scripts / "smoke_prod.sh", "http://x"]).stdout == "ran smoke http://x\n"


async def test_the_scripts_back_up_restore_and_verify(
    shop: Shop, folder: Path, script: Command, target: str, dsn: str
):
    made = script("backup_pg.sh")
    assert made.returncode == 0, made.stderr
    (backup,) = store.listing(Folder(folder))
    assert backup.name in made.stdout
    summed = subprocess.run(
        ["sha256sum", "-c", store.sum_name(backup.name)], cwd=folder, check=True
    )
    assert summed.returncode == 0

    new = target.rpartition("/")[2] + "_scripted"
    brought = script("restore_pg.sh", backup.location, new)
    assert brought.returncode == 0, brought.stderr
    there = role_url(target, "superuser", new)
    assert rows(there, "select count(*) > 2 from sale") == [(True,)]
    assert (
        script("verify_database.sh", DATABASE_URL=role_url(there, "sofinance_app")).returncode == 0
    )
    assert script("verify_database.sh", DATABASE_URL=dsn).returncode == 0

    # By the time that a person would write, into a database that is there and empty.
    minute = f"backup-{backup.taken_at:%Y%m%d-%H%M}"
    said = script("restore_database.sh", minute, RESTORE_URL=target)
    assert said.returncode == 0, said.stderr
    again = script("restore_database.sh", "latest", RESTORE_URL=target)
    assert again.returncode == 1
    assert "not empty, and nothing was done" in again.stderr
    assert script("restore_database.sh").returncode == 2


async def test_the_scripts_find_a_backup_that_is_damaged(shop: Shop, folder: Path, script: Command):
    assert script("verify_backups.sh").returncode == 1  # there is none
    assert script("backup_restore_drill.sh").returncode == 0
    whole = script("verify_backups.sh", "--json")
    assert whole.returncode == 0, whole.stderr
    (backup,) = store.listing(Folder(folder))
    path = folder / backup.name
    path.write_bytes(path.read_bytes()[:-100])
    assert script("verify_backups.sh").returncode == 1
    assert script("backup_pg.sh", POSTGRES_PASSWORD="").returncode == 2


def test_a_dump_that_creates_a_database_needs_a_word(tmp_path: Path, script: Command, target: str):
    """Of another program, in plain SQL; pg_dump --create writes such."""
    name = target.rpartition("/")[2]
    plain, creating = tmp_path / "plain.sql", tmp_path / "creating.sql"
    plain.write_text("create table of_a_dump (id int);\n", "utf-8")
    creating.write_text(f"CREATE DATABASE {name}_of_a_dump;\n", "utf-8")
    assert script("restore_pg.sh", str(plain), name).returncode == 0
    assert rows(target, "select count(*) from of_a_dump") == [(0,)]
    refused = script("restore_pg.sh", str(creating), name)
    assert refused.returncode == 1
    assert "ALLOW_CREATE_IN_DUMP=1" in refused.stderr
    assert f"{name}_of_a_dump" not in databases(target)
    allowed = script("restore_pg.sh", str(creating), name, ALLOW_CREATE_IN_DUMP="1")
    assert allowed.returncode == 0, allowed.stderr
    assert f"{name}_of_a_dump" in databases(target)


def test_passwords_stand_on_no_command_line(monkeypatch: pytest.MonkeyPatch):
    env = programs.environment("postgresql://me:pass%20word@db:5433/books?sslmode=require")
    assert env["PGPASSWORD"] == "pass word"
    assert (env["PGHOST"], env["PGPORT"], env["PGSSLMODE"]) == ("db", "5433", "require")
    monkeypatch.setenv("BACKUP_ENCRYPTION_KEY", KEY)
    assert KEY not in programs.environment("postgresql:///books").values()
    url = programs.with_database("postgresql:///books?host=/run/x", "other")
    assert url == "postgresql:///other?host=/run/x"


def test_programs_that_do_not_fit_the_server_are_refused(tmp_path: Path):
    for major in (14, 18):
        (tmp_path / str(major)).mkdir()
        program = tmp_path / str(major) / "pg_dump"
        program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {major}.3 (Debian)'\n")
        program.chmod(0o755)
    assert programs.fitting(18, str(tmp_path / "18")).major == 18
    assert programs.fitting(16, str(tmp_path / "18")).major == 18
    with pytest.raises(SetupError, match="The server is PostgreSQL 15 and pg_dump here is of 14"):
        programs.fitting(15, str(tmp_path / "14"))
    # A newer pg_restore sends settings that an older server refuses.
    with pytest.raises(SetupError, match="those of 15 are needed"):
        programs.fitting(15, str(tmp_path / "18"), restores=True)
    with pytest.raises(SetupError, match="There is no pg_dump in PG_BIN"):
        programs.fitting(15, str(tmp_path / "none"))


def test_a_drill_without_the_embedded_database_takes_the_machines_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "15" / "bin" / "pg_dump"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.3'\n")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "DEBIAN", tmp_path)
    assert drill.server_programs("", 15) is None
    monkeypatch.setattr(embedded, "is_installed", lambda: False)
    with pytest.raises(SetupError, match=r"clients alone: install postgresql-15, .* with --to"):
        drill.server_programs(str(program.parent), 15)
    (program.parent / "initdb").touch()
    assert drill.server_programs(str(program.parent), 15) == program.parent
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "installed_programs", lambda: tmp_path / "none")
    assert drill.server_programs("", 15) == program.parent


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_sealed_stream_opens_whole_or_not_at_all(length: int):
    key, plain = bytes(32), os.urandom(length)
    encrypted = b"".join(sealed.seal([plain[:700], plain[700:]], key))
    assert b"".join(sealed.unseal(io.BytesIO(encrypted), [b"x" * 32, key])) == plain
    chunk = sealed.CHUNK_BYTES + sealed.TAG_BYTES
    head, rest = encrypted[: sealed.HEAD_BYTES], encrypted[sealed.HEAD_BYTES :]
    changed = [encrypted[:-1], encrypted + b"x", head + rest[chunk:], encrypted[:-20] + bytes(20)]
    changed += [
        head[:place] + bytes([head[place] ^ 1]) + head[place + 1 :] + rest
        for place in range(8, len(head), 7)
    ]
    if length > 2 << 20:
        changed.append(head + rest[chunk : 2 * chunk] + rest[:chunk] + rest[2 * chunk :])
        changed.append(head + rest[: 2 * chunk])
    for each in changed:
        with pytest.raises(sealed.SealedError):
            b"".join(sealed.unseal(io.BytesIO(each), [key]))
