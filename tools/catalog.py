"""What the generated documents read from pg_catalog: tables, columns, rules and their comments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import class_row

from sofinance.infra.migrate import BOOKKEEPING, MIGRATIONS

if TYPE_CHECKING:
    from pathlib import Path

TABLES = """
select c.oid::int as oid, c.relname as name, obj_description(c.oid, 'pg_class') as comment,
    c.relrowsecurity and c.relforcerowsecurity as is_tenant
from pg_class as c
where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and c.relname <> all (%s)
order by c.oid
"""
COLUMNS = """
select a.attrelid::int as table_oid, a.attname as name,
    format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as required,
    col_description(a.attrelid, a.attnum) as comment,
    case
        when a.attidentity <> '' then 'identity'
        when a.attgenerated <> '' then 'always ' || pg_get_expr(d.adbin, d.adrelid)
        else pg_get_expr(d.adbin, d.adrelid)
    end as fallback,
    has_column_privilege('sofinance_app', a.attrelid, a.attnum, 'insert') as may_insert,
    has_column_privilege('sofinance_app', a.attrelid, a.attnum, 'update') as may_update
from pg_attribute as a
inner join pg_class as c on a.attrelid = c.oid and c.relkind = 'r'
left join pg_attrdef as d on a.attrelid = d.adrelid and a.attnum = d.adnum
where c.relnamespace = 'public'::regnamespace and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum
"""
# A rule is what can refuse under a name of its own: a constraint, a unique index, or a trigger
# that raises. Their functions' texts say which triggers raise, and as what.
RULES = """
select con.conrelid::int as table_oid, con.conname as name, con.contype::text as kind,
    obj_description(con.oid, 'pg_constraint') as comment,
    coalesce(trigger_function.prosrc, '') as source, pg_get_constraintdef(con.oid) as definition,
    array(
        select attname::text from unnest(con.conkey) with ordinality as key (number, place)
        inner join pg_attribute on attrelid = con.conrelid and attnum = key.number
        order by key.place
    ) as columns,
    con.confrelid::int as other_oid,
    array(
        select attname::text from unnest(con.confkey) with ordinality as key (number, place)
        inner join pg_attribute on attrelid = con.confrelid and attnum = key.number
        order by key.place
    ) as other_columns
from pg_constraint as con
left join pg_trigger as trigger on con.oid = trigger.tgconstraint and con.contype = 't'
left join pg_proc as trigger_function on trigger.tgfoid = trigger_function.oid
where con.connamespace = 'public'::regnamespace and con.conrelid <> 0 and con.contype <> 'n'
union all
select i.indrelid::int, c.relname, 'i', obj_description(c.oid, 'pg_class'), '',
    pg_get_indexdef(c.oid), array[]::text[], 0, array[]::text[]
from pg_index as i
inner join pg_class as c on i.indexrelid = c.oid
where c.relnamespace = 'public'::regnamespace and i.indisunique
    and not exists (
        select from pg_constraint where conindid = i.indexrelid and contype in ('p', 'u')
    )
union all
select t.tgrelid::int, t.tgname, 'g', obj_description(t.oid, 'pg_trigger'), p.prosrc,
    pg_get_triggerdef(t.oid), array[]::text[], 0, array[]::text[]
from pg_trigger as t
inner join pg_proc as p on t.tgfoid = p.oid
inner join pg_class as c on t.tgrelid = c.oid
where not t.tgisinternal and t.tgconstraint = 0 and c.relnamespace = 'public'::regnamespace
order by 1, 2
"""
INDEXES = """
select i.indrelid::int as table_oid, c.relname as name, i.indisunique as is_unique,
    obj_description(c.oid, 'pg_class') as comment, pg_get_indexdef(c.oid) as definition,
    array(
        select pg_get_indexdef(c.oid, place, true) from generate_series(1, i.indnkeyatts) as place
    ) as columns,
    i.indpred is not null as is_partial,
    exists (
        select from pg_constraint where conindid = i.indexrelid and contype in ('p', 'u', 'x')
    ) as is_constraint
from pg_index as i
inner join pg_class as c on i.indexrelid = c.oid
inner join pg_class as t on i.indrelid = t.oid
where c.relnamespace = 'public'::regnamespace and t.relname <> all (%s)
order by i.indrelid, c.relname
"""
FUNCTIONS = """
select p.proname as name, pg_get_function_identity_arguments(p.oid) as arguments,
    pg_get_function_result(p.oid) as returns, p.prosecdef as is_definer,
    p.prorettype = 'trigger'::regtype as is_trigger, p.prosrc as source,
    coalesce(array_to_string(p.proconfig, ', '), '') as settings,
    obj_description(p.oid, 'pg_proc') as comment,
    has_function_privilege('sofinance_app', p.oid, 'execute') as app_may,
    has_function_privilege('sofinance_readonly', p.oid, 'execute') as readonly_may,
    has_function_privilege('public', p.oid, 'execute') as everybody_may
from pg_proc as p
where p.pronamespace = 'public'::regnamespace
    and not exists (select from pg_depend where objid = p.oid and deptype = 'e')
order by p.proname
"""
STATES = {"c": "23514", "f": "23503", "u": "23505", "p": "23505", "x": "23P01", "i": "23505"}
CONDITIONS = {
    "check_violation": "23514",
    "foreign_key_violation": "23503",
    "unique_violation": "23505",
    "no_data_found": "P0002",
    "SF403": "SF403",
}
RAISED = re.compile(r"errcode\s*=\s*'(\w+)',\s*constraint\s*=\s*('(?P<name>\w+)'|tg_\w*name)")


@dataclass
class Column:
    """A column."""

    table_oid: int
    name: str
    type: str
    required: bool
    comment: str | None
    fallback: str | None
    may_insert: bool
    may_update: bool


@dataclass
class Rule:
    """Something that refuses, by name."""

    table_oid: int
    name: str
    kind: str
    comment: str | None
    source: str
    definition: str
    columns: list[str]
    other_oid: int
    other_columns: list[str]

    @property
    def sqlstate(self) -> str | None:
        """What it raises; None for a trigger that refuses nothing a client could ask for."""
        if self.kind in STATES:
            return STATES[self.kind]
        for raised in RAISED.finditer(self.source):
            # Some functions speak in the name of the trigger that calls them.
            if raised["name"] in {self.name, None}:
                return CONDITIONS.get(raised[1])
        return None


@dataclass
class Index:
    """An index."""

    table_oid: int
    name: str
    is_unique: bool
    comment: str | None
    definition: str
    columns: list[str]
    is_partial: bool
    is_constraint: bool


@dataclass
class Function:
    """A function of ours."""

    name: str
    arguments: str
    returns: str
    is_definer: bool
    is_trigger: bool
    source: str
    settings: str
    comment: str | None
    app_may: bool
    readonly_may: bool
    everybody_may: bool


@dataclass
class Table:
    """A table and what belongs to it."""

    oid: int
    name: str
    comment: str | None
    is_tenant: bool
    columns: list[Column] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    indexes: list[Index] = field(default_factory=list)

    @property
    def foreign_keys(self) -> list[Rule]:
        """What it refers to."""
        return [rule for rule in self.rules if rule.kind == "f"]

    @property
    def key(self) -> list[str]:
        """The columns of the primary key."""
        return next(rule.columns for rule in self.rules if rule.kind == "p")


class Catalog:
    """The schema as PostgreSQL knows it."""

    def __init__(self, url: str) -> None:
        with psycopg.connect(url) as conn:
            ours = [list(BOOKKEEPING)]

            def read(kind: type, query: str, values: Any = None) -> list[Any]:
                return conn.cursor(row_factory=class_row(kind)).execute(query, values).fetchall()

            self.tables: list[Table] = read(Table, TABLES, ours)
            self.functions: list[Function] = read(Function, FUNCTIONS)
            found = {table.oid: table for table in self.tables}
            for kind, query, values in (
                ("columns", COLUMNS, None), ("rules", RULES, None), ("indexes", INDEXES, ours),
            ):  # fmt: skip
                made = {"columns": Column, "rules": Rule, "indexes": Index}[kind]
                for part in read(made, query, values):
                    if part.table_oid in found:
                        getattr(found[part.table_oid], kind).append(part)

    def table(self, oid: int) -> Table:
        """Return a table by its number."""
        return next(table for table in self.tables if table.oid == oid)

    def rules(self) -> list[Rule]:
        """Return everything that can refuse."""
        return [rule for table in self.tables for rule in table.rules if rule.sqlstate]


def domains(catalog: Catalog, directory: Path = MIGRATIONS) -> dict[str, list[Table]]:
    """Return the tables by the migration that made them: ``journal`` for 0007_journal.sql."""
    found: dict[str, list[Table]] = {}
    for file in sorted(directory.glob("[0-9]*.sql")):
        if not file.name.endswith(".rollback.sql"):
            made = re.findall(r"(?m)^create table (\w+)", file.read_text("utf-8"))
            here = [table for table in catalog.tables if table.name in made]
            if here:
                found[file.stem.partition("_")[2]] = here
    return found


def cell(text: str | None) -> str:
    """Return text as it can stand in a Markdown table."""
    return (text or "").replace("|", "\\|").replace("\n", " ")
