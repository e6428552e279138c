"""`sofinance migrate lint`: what the release before could not live with is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sofinance import __version__
from sofinance.infra import migrate
from sofinance.infra.migration_lint import destructive, is_contract, lint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.setup.conftest import Sofinance

AWAY, RENAMES = "takes something away", "renames something"
TYPE, DEMANDS = "changes a column's type", "demands a value that older code does not give"
RIGHT, DELETES = "takes a right from the service", "deletes rows"


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("drop table customer", AWAY),
        ("DROP  TABLE\nif exists customer", AWAY),
        ("drop function post_sale(bigint)", AWAY),
        ("alter table customer drop column fax", AWAY),
        ("alter table customer drop fax", AWAY),
        ("alter table only customer add column a int, drop column fax cascade", AWAY),
        ("alter table customer rename to client", RENAMES),
        ("alter table customer rename column fax to telefax", RENAMES),
        ("alter table customer rename fax to telefax", RENAMES),
        ("alter type kind rename value 'A' to 'B'", RENAMES),
        ("alter table customer alter column fax type bigint", TYPE),
        ("alter table customer alter fax set data type text using fax::text", TYPE),
        ("alter table customer alter column fax set not null", DEMANDS),
        ("alter table customer add column fax text not null", DEMANDS),
        ("alter table customer add a int not null default 0, add column b int not null", DEMANDS),
        ("revoke insert on sale from sofinance_app", RIGHT),
        ("truncate sale", DELETES),
        ("delete from sale where true", DELETES),
        ("do $$ begin drop table customer; end $$", AWAY),
        ("do $x$ begin if true then alter table a rename to b; end if; end $x$", RENAMES),
    ],
)
def test_what_older_code_may_not_survive_is_found(sql: str, what: str):
    around = f"-- drop table in_a_comment;\nselect 'truncate sale';\n{sql};\nselect 1;"
    assert [found for found, _ in destructive(around)] == [what]


@pytest.mark.parametrize(
    "sql",
    [
        "create table fax (id bigint not null); alter table fax alter column id set not null",
        "alter table customer add column fax text",
        "alter table customer add column fax text not null default ''",
        "alter table customer add column n bigint not null generated always as identity",
        "alter table customer drop constraint customer_name_given",
        "alter table customer alter column fax drop not null, alter column fax drop default",
        "alter table customer add constraint fax_given check (fax is not null) not valid",
        "revoke all on sale from sofinance_readonly",
        "drop trigger t on sale; drop policy org on sale; drop index sale_by_day",
        "create function f() returns void language plpgsql as $$ begin delete from a; end $$",
        "create trigger t before truncate on sale execute function refuse()",
        "comment on table sale is 'drop table sale'",
        "/* drop table sale */ select $$ truncate sale $$",
    ],
)
def test_what_older_code_does_not_notice_is_not(sql: str):
    assert list(destructive(f"{sql};")) == []


def test_what_is_taken_away_waits_for_a_release_without_use_of_it(tmp_path: Path):
    path = tmp_path / "0001_fax.sql"
    drop = "alter table customer drop column fax;"
    path.write_text(f"-- No faxes.\n{drop}")
    (finding,) = lint(tmp_path, version="1.5.0")
    assert str(finding) == f"0001_fax {AWAY}: {drop.rstrip(';')}"
    path.write_text(f"-- No faxes.\n-- contract: 1.4.2 was the last release that read it\n{drop}")
    assert lint(tmp_path, version="1.5.0") == lint(tmp_path, version="1.4.10") == []
    assert len(lint(tmp_path, version="1.4.2")) == 1, "the release that it is part of"
    assert len(lint(tmp_path, version="1.4.0")) == 1
    assert not is_contract("-- contract: soon", version="1.5.0")
    assert not is_contract("-- contract: 1.4.2", version="1.5.0"), "it does not say of what"


def test_a_rollback_may_take_away_what_its_migration_gave(tmp_path: Path):
    (tmp_path / "0001_fax.rollback.sql").write_text("drop table fax;")
    assert lint(tmp_path, version="1.0.0") == []


def test_the_migrations_of_this_release_are_good():
    assert lint(migrate.MIGRATIONS, version=__version__) == []


def test_the_command_says_so(sofinance: Sofinance):
    ran = sofinance("migrate", "lint")
    assert (ran.returncode, ran.stdout) == (0, "the release before can live with all of them\n")
