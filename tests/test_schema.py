"""The schema keeps to what sql/README.md says of it: read from pg_catalog, so nobody is left out.

Back and forth through all migrations is in tests/setup/test_migrate.py; that sql/schema.sql is
current, in tests/setup/test_packaging.py; who may do what to which table, in tests/attacks.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from sofinance.infra.migrate import MIGRATIONS
from tools.catalog import Catalog, Rule, Table

README = Path(__file__).resolve().parents[1] / "sql" / "README.md"
# What constraints of each kind are called, after the name of their table.
ENDINGS = {
    "p": r"_pk|_taken",
    "u": r"_taken|_key|_slots",
    "f": r"_known|_follows|_currency_is_base",
    "x": r"_overlaps",
    "c": r"",
}
FINAL = re.compile(r"_is_final$")


@pytest.fixture
def catalog(superuser_dsn: str) -> Catalog:
    """The schema of the test's database."""
    return Catalog(superuser_dsn)


def test_everything_has_a_comment(catalog: Catalog):
    silent = [
        f"{table.name}.{part.name}"
        for table in catalog.tables
        for part in [*table.columns, *table.rules, *table.indexes]
        if not part.comment and not getattr(part, "is_constraint", False)
    ]
    silent += [table.name for table in catalog.tables if not table.comment]
    silent += [f"{function.name}()" for function in catalog.functions if not function.comment]
    assert silent == []


def test_what_a_client_reads_is_a_sentence(catalog: Catalog):
    odd = [rule.name for rule in catalog.rules() if not re.match(r"[A-Z].*\.$", rule.comment or "")]
    assert odd == []


def test_a_code_means_one_rule(catalog: Catalog):
    names = Counter(rule.name for rule in catalog.rules())
    assert [name for name, count in names.items() if count > 1] == []


def test_every_raise_in_a_function_names_a_rule_with_a_message(catalog: Catalog):
    """A code that is nowhere in the catalogue would reach the client as a 500."""
    rules = {rule.name for table in catalog.tables for rule in table.rules}
    for function in catalog.functions:
        raised = set(re.findall(r"constraint = '(\w+)'", function.source))
        assert raised <= rules, function.name


def test_constraints_are_named_by_table_and_rule(catalog: Catalog):
    wrong = [
        rule.name
        for table in catalog.tables
        for rule in table.rules
        if rule.kind in ENDINGS
        and not re.fullmatch(rf"{table.name}_\w*?({ENDINGS[rule.kind]})", rule.name)
        and not re.fullmatch(rf"{table.name}({ENDINGS[rule.kind]})", rule.name)
    ]
    assert wrong == []


def test_indexes_are_named_by_table_and_use(catalog: Catalog):
    wrong = [
        index.name
        for table in catalog.tables
        for index in table.indexes
        if not index.is_constraint
        and not re.fullmatch(rf"{table.name}_(by_\w+|open|\w+_once)", index.name)
    ]
    assert wrong == []


def test_tables_are_singular_and_money_is_numeric(catalog: Catalog):
    for table in catalog.tables:
        assert not re.search(r"[^s]s$", table.name), table.name
        kinds = {column.type for column in table.columns}
        assert not kinds & {"real", "double precision", "money", "timestamp without time zone"}


def test_every_key_between_tenants_begins_with_the_organisation(catalog: Catalog):
    """So that no row can refer to one of another organisation, whatever the application does."""
    for table in catalog.tables:
        if table.is_tenant:
            for rule in table.rules:
                if rule.kind in {"p", "u"}:
                    assert rule.columns[0] == "org_id", rule.name
                if rule.kind == "f" and catalog.table(rule.other_oid).is_tenant:
                    assert (rule.columns[0], rule.other_columns[0]) == ("org_id", "org_id"), (
                        rule.name
                    )
            for index in table.indexes:
                assert index.columns[0] == "org_id" or not index.is_unique, index.name


def test_a_foreign_key_whose_parent_may_go_has_an_index(catalog: Catalog, psql):
    """Where nobody can delete the parent or change its key, nothing ever looks from that side."""
    deletable = {name for (name,) in psql(
        "select relname from pg_class where relkind = 'r'"
        " and has_table_privilege('sofinance_app', oid, 'delete')", role="superuser",
    )}  # fmt: skip
    for table in catalog.tables:
        for rule in table.foreign_keys:
            other = catalog.table(rule.other_oid)
            if other.name in deletable or changes(other, rule):
                assert any(
                    index.columns[: len(rule.columns)] == rule.columns for index in table.indexes
                ), rule.name


def changes(other: Table, rule: Rule) -> bool:
    """Say whether the application may change what a foreign key refers to."""
    return any(column.may_update for column in other.columns if column.name in rule.other_columns)


def test_a_final_table_has_its_trigger_and_no_rights(catalog: Catalog):
    final = [t for t in catalog.tables if any(FINAL.search(rule.name) for rule in t.rules)]
    assert {"journal_entry", "journal_line", "sale", "sale_line", "payment", "stock_movement",
            "audit_log"} <= {table.name for table in final}  # fmt: skip
    for table in final:
        assert not any(column.may_update for column in table.columns), table.name


def test_definers_look_only_where_they_were_told_to(catalog: Catalog):
    for function in catalog.functions:
        assert not function.everybody_may, function.name
        if function.is_definer:
            assert re.match(r"search_path=pg_catalog(, public)?, pg_temp$", function.settings), (
                function.name
            )


def test_rules_at_commit_look_as_the_row_s_own_organisation(catalog: Catalog):
    """At COMMIT the application could have set another app.org_id: the row's is the right one."""
    functions = {function.source: function for function in catalog.functions}
    for table in catalog.tables:
        for rule in table.rules:
            if rule.kind == "t" and "DEFERRABLE" in rule.definition.upper():
                source = functions[rule.source]
                assert source.is_definer, rule.name
                assert "set_config('app.org_id', new.org_id::text, true)" in rule.source, rule.name


def test_functions_that_an_application_calls_with_the_owner_s_rights_are_listed(catalog: Catalog):
    told = README.read_text("utf-8")
    callable_definers = [
        function.name for function in catalog.functions
        if function.is_definer and not function.is_trigger
        and (function.app_may or function.readonly_may)
    ]  # fmt: skip
    assert [name for name in callable_definers if f"`{name}`" not in told] == []


def test_migrations_are_written_as_agreed():
    files = sorted(path for path in MIGRATIONS.glob("[0-9]*.sql") if ".rollback" not in path.name)
    before = None
    for number, path in enumerate(files, 1):
        text = path.read_text("utf-8")
        assert re.fullmatch(rf"{number:04}_[a-z0-9_]+", path.stem)
        assert re.match(r"-- [A-Z].*[.,]\n", text), path.name
        assert "set local lock_timeout = '4s';" in text, path.name
        assert (f"-- depends: {before}\n" in text) is (before is not None), path.name
        back = path.with_name(f"{path.stem}.rollback.sql")
        assert back.exists() is not text.startswith("-- irreversible:"), back.name
        before = path.stem
    again = [path.name for path in MIGRATIONS.glob("post-apply*.sql")]
    assert again
    for path in MIGRATIONS.glob("post-apply*.sql"):
        made = re.findall(r"(?m)^create (?!or replace )\w+ \w+", path.read_text("utf-8"))
        assert made == [], path.name  # it runs after every migration, on what is there already
