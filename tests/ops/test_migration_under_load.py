"""A migration of the tables that sales are written to, while tills sell: no request is lost."""

from __future__ import annotations

import shutil
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psycopg
import pytest

from sofinance.infra import migrate
from tests.ops import live
from tests.ops.load import Load
from tests.ops.test_rolling import assert_nothing_was_lost, instance, shop

if TYPE_CHECKING:
    from pathlib import Path

    from sofinance.config import Settings
    from tests.api.conftest import Shop
    from tests.support import Psql

__all__ = ["shop"]
pytestmark = [pytest.mark.empty_database, pytest.mark.once]
CLIENTS = 4
# What a release adds, each with the strongest lock on a table that every sale writes or reads.
ADDITIONS = {
    "note": "alter table sale add column note_inside text;"
    " alter table sale_line add column weight_g bigint not null default 0;",
    "rank": "alter table customer add column rank int;"
    " alter table product add column shelf text, add column is_new boolean not null default false;",
    "rule": "alter table journal_entry add constraint entry_is_dated check (posted_on is not null)"
    " not valid; alter table journal_entry validate constraint entry_is_dated;",
    "index": "create index sale_by_note on sale (org_id, id) where note_inside is not null;",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The migrations of this release, to add to."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, folder)
    monkeypatch.setattr(migrate, "MIGRATIONS", folder)
    return folder


def test_migrating_fails_no_request(
    settings: Settings,
    owner_dsn: str,
    shop: Shop,
    psql: Psql,
    folder: Path,
) -> None:
    newest = migrate.known()[-1]
    port = live.free_port()
    with instance(settings, port), Load(port, shop, clients=CLIENTS).running() as load:
        load.wait_for(40)
        for number, (name, sql) in enumerate(ADDITIONS.items(), 1):
            this = f"{9000 + number}_{name}"
            (folder / f"{this}.sql").write_text(
                f"-- Something more.\n-- depends: {newest}\nset local lock_timeout = '4s';\n"
                f"set local role sofinance_owner;\n{sql}\n"
            )
            # With it, all functions are replaced while they are called.
            assert migrate.apply(owner_dsn) == (this,)
            newest = this
            load.wait_for(20)
            # Code of before, on the schema of after.
            assert live.ask(port, "/health/ready")[0] == 200
        assert migrate.apply(owner_dsn) == ()
    assert_nothing_was_lost(load, psql)


def test_a_long_report_keeps_a_migration_waiting_and_nobody_else(
    settings: Settings,
    owner_dsn: str,
    shop: Shop,
    psql: Psql,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Requests queue behind the migration that waits; it gives way before they give up."""
    (folder / "9001_note.sql").write_text(
        f"-- Something more.\n-- depends: {migrate.known()[-1]}\nset local lock_timeout = '4s';\n"
        f"set local role sofinance_owner;\n{ADDITIONS['note']}\n"
    )
    pauses: list[float] = []
    port = live.free_port()
    with (
        instance(settings, port),
        psycopg.connect(psql.superuser_url) as reader,
        Load(port, shop, clients=CLIENTS).running() as load,
    ):
        load.wait_for(20)
        reader.execute("select count(*) from sale")

        def pause(pause_s: float) -> None:
            pauses.append(pause_s)
            if len(pauses) == 2:
                reader.rollback()
            load.wait_for(10)
            time.sleep(pause_s)

        patience = SimpleNamespace(monotonic=time.monotonic, sleep=pause)
        monkeypatch.setattr(migrate, "time", patience)
        assert migrate.apply(owner_dsn) == ("9001_note",)
        load.wait_for(20)
    assert len(pauses) == 2
    assert_nothing_was_lost(load, psql)
