"""Migrations: whole or not at all, once though started twice, back and forth without a trace."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING

import psycopg
import pytest

from sofinance.infra import embedded, migrate
from sofinance.infra.command import SetupError
from tests.support import role_url
from tools import dump_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.empty_database


@pytest.fixture
def bare_dsn(superuser_dsn: str) -> Iterator[str]:
    """A database without anything in it, as the superuser."""
    name = "sofinance_bare_" + superuser_dsn.rpartition("_")[2]
    with psycopg.connect(superuser_dsn, autocommit=True) as conn:
        conn.execute(f"create database {name}")
        yield role_url(superuser_dsn, "superuser", name)
        conn.execute(f"drop database {name} with (force)")


@pytest.fixture
def migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of migrations to write into."""
    monkeypatch.setattr(migrate, "MIGRATIONS", tmp_path)
    return tmp_path


def test_migrated_twice_is_migrated_once(superuser_dsn, owner_dsn):
    assert migrate.apply(superuser_dsn) == ()
    assert migrate.apply(owner_dsn) == ()  # from the second time on the owner is enough
    status = migrate.status(owner_dsn)
    assert status.pending == status.unknown == ()
    assert status.applied[0] == "0001_roles"


def test_two_at_once_apply_each_migration_once(bare_dsn):
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(migrate.apply, [bare_dsn, bare_dsn])
    known = migrate.status(bare_dsn).applied
    assert sorted([first, second], key=len) == [(), known]


def test_back_and_forth_leaves_no_trace(superuser_dsn):
    """Functions of post-apply files stay behind; they are replaced on the way forth."""
    programs = embedded.installed_programs()
    before = dump_schema.dump(superuser_dsn, programs)
    applied = migrate.status(superuser_dsn).applied
    assert migrate.rollback(superuser_dsn) == tuple(reversed(applied))
    with psycopg.connect(superuser_dsn) as conn:
        left = conn.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace"
        ).fetchall()
    assert {name for (name,) in left if "yoyo" not in name} == set()
    assert migrate.apply(superuser_dsn) == applied
    assert dump_schema.dump(superuser_dsn, programs) == before


def test_the_application_may_see_what_is_applied(dsn, superuser_dsn):
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("select migration_id from _yoyo_migration").fetchall()
    assert {row[0] for row in rows} == set(migrate.status(superuser_dsn).applied)


def test_a_backup_may_read_every_table(superuser_dsn):
    with psycopg.connect(role_url(superuser_dsn, "sofinance_backup")) as conn:
        unread = conn.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and"
            " case relkind when 'r' then not has_table_privilege(oid, 'select')"
            " when 'S' then not has_sequence_privilege(oid, 'select') end"
        ).fetchall()
    assert unread == []


def test_a_migration_that_fails_leaves_nothing_and_says_why(bare_dsn, migrations):
    (migrations / "0001_good.sql").write_text("create table good (id int);")
    (migrations / "0002_bad.sql").write_text(
        "-- depends: 0001_good\ncreate table half (id int);\ncreate table good (id int);"
    )
    with pytest.raises(SetupError) as caught:
        migrate.apply(bare_dsn)
    assert caught.value.message == (
        'Migration 0002_bad could not be applied: relation "good" already exists (SQLSTATE 42P07).'
    )
    assert migrate.status(bare_dsn).applied == ("0001_good",)
    with psycopg.connect(bare_dsn) as conn:
        assert conn.execute("select to_regclass('half')").fetchone() == (None,)


def test_a_migration_that_depends_on_nothing_known_is_not_passed_over(bare_dsn, migrations):
    (migrations / "0002_late.sql").write_text("-- depends: 0001_gone\nselect 1;")
    with pytest.raises(SetupError, match=r"A migration cannot be read: .*0002_late"):
        migrate.apply(bare_dsn)


def test_post_apply_files_are_applied_every_time(bare_dsn, migrations):
    (migrations / "0001_good.sql").write_text("create table good (id int);")
    hook = migrations / "post-apply.answer.sql"
    for answer in (1, 2):
        hook.write_text(
            f"create or replace function answer() returns int language sql return {answer};"
            "comment on function answer() is 'a second statement';"
        )
        migrate.apply(bare_dsn)
        with psycopg.connect(bare_dsn) as conn:
            assert conn.execute("select answer()").fetchone() == (answer,)


def test_a_migration_may_do_without_a_transaction(bare_dsn, migrations):
    (migrations / "0001_good.sql").write_text("create table good (id int);")
    (migrations / "0002_index.sql").write_text(
        "-- transactional: false\n-- depends: 0001_good\n"
        "create index concurrently good_id on good (id);"
    )
    assert migrate.apply(bare_dsn) == ("0001_good", "0002_index")


def test_a_database_of_a_newer_release_is_noticed(bare_dsn, migrations):
    (migrations / "0001_good.sql").write_text("create table good (id int);")
    (migrations / "0002_new.sql").write_text("-- depends: 0001_good\ncreate table new (id int);")
    migrate.apply(bare_dsn)
    (migrations / "0002_new.sql").unlink()
    assert migrate.status(bare_dsn).unknown == ("0002_new",)


def test_a_file_that_was_changed_after_it_was_applied_is_noticed(bare_dsn, migrations):
    file = migrations / "0001_good.sql"
    file.write_text("create table good (id int);")
    (migrations / "0001_good.rollback.sql").write_text("drop table good;")
    migrate.apply(bare_dsn)
    assert migrate.status(bare_dsn).changed == ()
    with psycopg.connect(bare_dsn) as conn:
        row = conn.execute("select migration_id, comment from _yoyo_log").fetchone()
    assert row == ("0001_good", f"sha256:{sha256(file.read_bytes()).hexdigest()}")
    file.write_text("create table good (id bigint);")
    assert migrate.status(bare_dsn).changed == ("0001_good",)
    assert migrate.rollback(bare_dsn) == ("0001_good",)
    migrate.apply(bare_dsn)
    assert migrate.status(bare_dsn).changed == (), "the latest time counts"


@pytest.mark.parametrize("what", ["migration", "post-apply"])
def test_who_has_to_wait_for_a_lock_gives_way_and_tries_again(
    bare_dsn, migrations, monkeypatch, what
):
    monkeypatch.setattr(migrate, "TRY_PAUSE_S", 0.1)
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT_S", 0.1)
    (migrations / "0001_good.sql").write_text("create table good (id int);")
    migrate.apply(bare_dsn)
    change = "set local lock_timeout = '100ms'; alter table good add column if not exists n int;"
    name = "0002_more.sql" if what == "migration" else "post-apply.more.sql"
    text = f"-- depends: 0001_good\n{change}" if what == "migration" else change
    (migrations / name).write_text(text)
    waits: list[float] = []

    def sleep(pause_s: float) -> None:
        waits.append(pause_s)
        if len(waits) == 3:
            reader.rollback()

    monkeypatch.setattr(migrate.time, "sleep", sleep)
    with psycopg.connect(bare_dsn) as reader:
        reader.execute("select count(*) from good")  # its lock lasts till the transaction's end
        migrate.apply(bare_dsn)
    assert waits == [0.1] * 3
    with psycopg.connect(bare_dsn) as conn:
        conn.execute("select n from good")


def test_one_that_never_gets_its_lock_says_so(bare_dsn, migrations, monkeypatch):
    monkeypatch.setattr(migrate, "TRY_PAUSE_S", 0)
    monkeypatch.setattr(migrate, "TRY_COUNT_MAX", 3)
    (migrations / "0001_good.sql").write_text("create table good (id int);")
    migrate.apply(bare_dsn)
    (migrations / "0002_more.sql").write_text(
        "-- depends: 0001_good\nset local lock_timeout = '50ms'; alter table good add column n int;"
    )
    with psycopg.connect(bare_dsn) as reader:
        reader.execute("select count(*) from good")
        with pytest.raises(SetupError, match=r"0002_more could not be applied: .* lock timeout"):
            migrate.apply(bare_dsn)
    assert migrate.status(bare_dsn).pending == ("0002_more",)


def test_who_may_not_migrate_is_told_who_may(bare_dsn, dsn):
    url = role_url(bare_dsn, "sofinance_app")
    with pytest.raises(SetupError, match=r"permission denied .* Use the URL of a superuser"):
        migrate.apply(url)


def test_a_database_that_does_not_answer_is_named_in_a_sentence():
    with pytest.raises(SetupError, match=r"The database does not answer: .*\.$"):
        migrate.apply("postgresql://nobody@127.0.0.1:1/nothing")
