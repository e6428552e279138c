"""`sofinance verify`: what it says, to whom. What it finds: tests/attacks/test_owner.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sofinance import cli
from sofinance import queries as q
from sofinance.infra.command import SetupError
from sofinance.infra.db import Database
from sofinance.infra.sql import Row
from sofinance.jobs.integrity import verify_books
from sofinance.tools import verify
from sofinance.tools.guard_text import canonical, differences
from sofinance.tools.verify import Finding, Progress, Release, document, table
from tests.api.conftest import open_shop
from tests.support import role_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql

CLEAN = Finding("entries_balance", 1, 1200, 0, None, 0.5)
BROKEN = Finding("entries_balance", 2, 300, 7, {"entry_id": 41}, 0.25)
GUARDS = {
    "row security": {"sale": "FORCED"},
    "constraint": {"sale.sale_pk": "PRIMARY KEY (org_id, id)"},
    "trigger": {"sale.sale_is_final": "CREATE TRIGGER"},
    "policy": {"sale.org": "USING"},
    "right": {"sale sofinance_app": "SELECT"},
    "function": {"is_final()": "md5 1"},
}


def found(**changed: dict[str, str]) -> list[Any]:
    there = {kind: dict(guards) for kind, guards in GUARDS.items()}
    for kind, guards in changed.items():
        there[kind.replace("_", " ")].update(guards)
    return [(each["name"], each["is"]) for each in differences(GUARDS, there)]


async def test_a_busy_shop_verifies_clean_as_json(
    api: Api, org: Org, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop(api, org)
    customer_id = await shop.customer()
    for number in range(3):
        assert (await shop.sell(shop.item(number), customer_id=customer_id)).status == 201
    printed: list[str] = []
    monkeypatch.setattr("builtins.print", lambda *words, **_: printed.append(*words))
    args = cli.parser(["verify"]).parse_args(
        ["verify", "--database-url", dsn, "--json", "--org", str(org.id)]
    )
    assert await verify.run(args) == 0
    said = json.loads(printed[0])
    assert (said["ok"], said["organisations"]) == (True, 1)
    rows = {check["check"]: check["checked"] for check in said["checks"]}
    assert rows["sales_are_the_sum_of_their_lines"] == 3
    assert rows["receivables_follow_sales"] == 3
    assert {check["broken"] for check in said["checks"]} == {0}


async def test_no_check_compares_each_row_with_each_other(org: Org, dsn: str) -> None:
    # As far as the statistics know, this organisation has no rows.
    conn: Any = await asyncpg.connect(dsn, record_class=Row)
    checks: tuple[Any, ...] = verify.CHECKS
    async with conn.transaction():
        await q.integrity.set_audit(conn, org_id=org.id)
        plans = [
            await conn.fetchval(f"explain (format json) {check.literal(org_id=org.id)}")
            for check in checks
        ] + [
            await conn.fetchval(f"explain (format json) {link.sql}", org.id)
            for link in Release.load().links
        ]
    await conn.close()
    assert len(plans) > 80
    for plan in plans:
        nodes = [*nodes_of(json.loads(plan)[0]["Plan"])]
        assert not [n for n in nodes if n["Node Type"] == "Nested Loop" and "Join Filter" in n]


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes_of(inner)


def test_a_missing_and_a_changed_guard_are_told() -> None:
    assert found() == []
    gone = {kind: {} if kind == "trigger" else guards for kind, guards in GUARDS.items()}
    assert [each["is"] for each in differences(GUARDS, gone)] == ["missing"]
    assert found(function={"is_final()": "md5 2"}) == [("is_final()", "md5 2")]


def test_a_door_more_is_told_and_a_lock_more_is_not() -> None:
    assert found(policy={"sale.open": "USING (true)"}) == [("sale.open", "USING (true)")]
    assert found(right={"sale public": "SELECT"}) == [("sale public", "SELECT")]
    assert found(trigger={"sale.cover": "X"}) == [("sale.cover", "X")]
    assert found(function={"open_sesame()": "X"}) == [("open_sesame()", "X")]
    assert found(constraint={"sale.ours": "CHECK (true)"}) == []
    # A table of the operator's own is none of ours.
    assert found(policy={"loot.open": "X"}, right={"loot public": "SELECT"}) == []


def test_the_table_adds_up_and_names_the_first_broken_record() -> None:
    lines = [*table([CLEAN, BROKEN], 1.0)]
    assert lines[1].split() == ["✗", "entries_balance", "1,500", "7", "0.75", "s"]
    assert lines[2].strip() == 'organisation 2, first broken: {"entry_id": 41}'
    assert lines[3] == "2 organisations, 1.0 s: 1 of 1 checks failed"
    assert [*table([CLEAN], 1.0)][-1] == "1 organisation, 1.0 s: all is well"


def test_the_table_tells_a_few_organisations_and_counts_the_rest() -> None:
    many = [Finding("entries_balance", number, 1, 1, {"entry_id": 1}, 0.1) for number in range(9)]
    lines = [*table(many, 1.0)]
    assert sum("first broken" in line for line in lines) == verify.TOLD_COUNT_MAX
    assert lines[-2].strip() == "and 4 more organisations: see --json"


def test_the_document_has_every_finding() -> None:
    said = document([CLEAN, BROKEN], 1.23456)
    assert (said["ok"], said["organisations"], said["seconds"]) == (False, 2, 1.235)
    assert said["checks"][1]["first"] == {"entry_id": 41}


def test_progress_is_one_line_that_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    told = Progress(2)
    told.step(7, "integrity.entries_balance")
    told.step(7, "integrity.lines_are_sound")  # too soon after the first to be told
    told.done()
    said = capsys.readouterr().err
    assert "1/2 organisation 7: integrity.entries_balance" in said
    assert "2/2" not in said
    assert said.endswith("\r\x1b[K")


def test_an_installation_without_its_guards_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(verify, "GUARDS", tmp_path / "guards.json")
    with pytest.raises(SetupError, match="the installation is broken"):
        Release.load()


def test_a_name_that_is_none_never_gets_into_a_statement(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guards = json.loads(verify.GUARDS.read_text("utf-8"))
    guards["link"]["sale.bad"] = json.dumps(
        {"table": 'sale"; --', "columns": ["id"], "other_table": "till", "other_columns": ["id"]}
    )
    (tmp_path / "guards.json").write_text(json.dumps(guards), "utf-8")
    monkeypatch.setattr(verify, "GUARDS", tmp_path / "guards.json")
    with pytest.raises(SetupError, match="is not a name"):
        Release.load()


def test_without_a_database_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://sofinance_app:x@127.0.0.1:1/none"
    assert cli.main(["verify", "--database-url", url]) == 3
    assert "does not answer" in capsys.readouterr().err


def test_a_rule_that_went_through_pg_dump_is_the_same_rule() -> None:
    before = "CHECK ((((a >= 1) AND (a <= 9)) AND ((b >= 1) AND (b <= 9))))"
    after = "CHECK (((a >= 1) AND (a <= 9) AND ((b >= 1) AND (b <= 9))))"
    assert canonical(before) == canonical(after)
    assert canonical("WHEN (((a OR b) OR c))") == canonical("WHEN ((a OR b OR c))")
    changed = {"sale.sale_pk": "PRIMARY KEY ((org_id, id))"}
    assert found(constraint=changed) == []


@pytest.mark.parametrize(
    ("rule", "other"),
    [
        ("CHECK (((a OR b) AND c))", "CHECK ((a OR (b AND c)))"),
        ("CHECK ((a AND (b OR c)))", "CHECK ((a AND b OR c))"),
        ("CHECK ((NOT (a AND b)))", "CHECK ((NOT a AND b))"),
        ("CHECK ((a = '(b AND c)'))", "CHECK ((a = 'b AND c'))"),
        ("CHECK ((f(a) > 1))", "CHECK ((f(a, b) > 1))"),
        ("CHECK ((a > 1))", "CHECK ((a > 1)"),
    ],
)
def test_parentheses_that_mean_something_count(rule: str, other: str) -> None:
    assert canonical(rule) != canonical(other)


# -- a database that a newer release migrated ----------------------------------------------------

LATER = "create function later() returns trigger language plpgsql as $$ begin return new; end $$"
OPEN = LATER.replace("later()", "is_final()").replace("create ", "create or replace ")
LISTEN = (
    "create trigger sale_told_later before insert on sale for each row execute function later()"
)
MIGRATED = (
    "insert into _yoyo_migration (migration_hash, migration_id, applied_at_utc)"
    " values (md5('{0}'), '{0}', now())"
)
OWNER = "sofinance_owner"


async def verdict(dsn: str, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it said."""
    words = ("verify", "--database-url", dsn, *words)
    return await verify.run(cli.parser(["verify"]).parse_args(words)), capsys.readouterr().out


@pytest.mark.empty_database
async def test_what_a_newer_release_added_is_unknown_and_not_broken(
    psql: Psql, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    psql(LATER, role=OWNER)
    psql(LISTEN, role=OWNER)
    psql("alter table sale add column told_later boolean", role=OWNER)
    psql("grant insert (told_later) on sale to sofinance_app", role=OWNER)
    assert (await verdict(dsn, capsys))[0] == 1  # nobody said that a release made it
    psql(MIGRATED.format("0001_not_after_ours"), role=OWNER)
    assert (await verdict(dsn, capsys))[0] == 1
    psql(MIGRATED.format("9999_told_later"), role=OWNER)
    code, said = await verdict(dsn, capsys)
    assert code == 3
    assert "? guards_stand" in said
    assert "3 unknown, first: " in said
    assert '"guard": "right", "name": "sale (columns) sofinance_app"' in said
    assert said.endswith(
        "all is well; a newer release migrated this database, and what it added is unknown to this"
        " one: verify with the newer\n"
    )
    _, said = await verdict(dsn, capsys, "--json")
    told = json.loads(said)
    (guards,) = [check for check in told["checks"] if check["check"] == "guards_stand"]
    assert (told["ok"], guards["broken"], guards["unknown"]) == (False, 0, 3)
    assert guards["first_unknown"]["should_be"] == "known to the release with 9999_told_later"


@pytest.mark.empty_database
@pytest.mark.parametrize(
    ("forgery", "name"),
    [
        ("alter table journal_line disable trigger journal_line_is_final", "is_final"),
        ("alter table sale no force row level security", "sale"),
        ("alter table sale drop constraint sale_tax_not_negative", "sale_tax_not_negative"),
        ("grant update on journal_line to public", "journal_line public"),
        ("grant update (debit) on journal_line to sofinance_app", "journal_line (columns)"),
        (OPEN, "is_final()"),
    ],
)  # fmt: skip
async def test_what_this_release_knows_is_not_excused_by_a_newer_one(
    psql: Psql, dsn: str, capsys: pytest.CaptureFixture[str], forgery: str, name: str
) -> None:
    psql(MIGRATED.format("9999_told_later"), role=OWNER)
    psql(forgery, role=OWNER)
    code, said = await verdict(dsn, capsys)
    assert code == 1
    assert name in next(line for line in said.splitlines() if "first broken" in line)


@pytest.mark.empty_database
async def test_whoever_may_not_ask_for_migrations_takes_additions_for_broken(
    psql: Psql, superuser_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    psql(LATER, role=OWNER)
    psql(MIGRATED.format("9999_told_later"), role=OWNER)
    dsn = role_url(superuser_dsn, "sofinance_readonly")
    assert (await verdict(dsn, capsys))[0] == 1


@pytest.mark.empty_database
async def test_the_nightly_run_suspects_what_it_does_not_know(
    psql: Psql, settings: Settings
) -> None:
    psql(LATER, role=OWNER)
    psql(MIGRATED.format("9999_told_later"), role=OWNER)
    database = Database(settings)
    await database.open()
    await verify_books(database)
    await database.close()
    told = psql("select check_name, severity, broken_count from integrity_event", role=OWNER)
    assert told == [("guards_are_known", "WARNING", 1)]
