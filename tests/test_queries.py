"""Query files keep their promises; that each one prepares, the generated stub proves."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from sofinance.infra.sql import COMMENT, QUERIES_DIR, Query, load
from tools.catalog import Catalog

ROOT = Path(__file__).resolve().parents[1]
CALLERS = ("sofinance", "bench", "tools", "tests")
QUERIES = [query for path in sorted(QUERIES_DIR.glob("*.sql")) for query in load(path).values()]

# Lists that are bounded by something else than a limit.
BOUNDED = {
    "auth.list_permissions": "what endpoints ask for",
    "bulk.post_entries": "one row for each entry that is posted",
    "business.count_sales": "one row for each currency",
    "business.list_figures": "a handful for each currency",
    "deliveries.count_dead_of_endpoints": "one row for each endpoint",
    "integrity_events.count_integrity_events": "the checks that found something",
    "integrity_events.record_integrity": "what a verification found",
    "jobs.list_jobs": "the jobs of this release and of those before",
    "integrity.list_guards": "the schema",
    "request.list_newer_migrations": "migrations of releases after this one",
    "flags.list_organisations": "the organisations, for jobs that a flag pauses for some",
    "orgs.list_organisation_ids": "the organisations, for jobs that visit each",
    "receivables.age_receivables": "one row for each bucket",
    "request.list_vocabulary": "the schema",
}
WHERE = re.compile(r"(?<!filter \()\bwhere\s+(?P<condition>[^\n]*\n?[^\n]*)")
OF_TENANT = re.compile(r"\(?(\w+\.)?org_id = (:org_id|\w+\.org_id)\b")


@cache
def used() -> set[str]:
    """Return every ``file.query`` that some code names: q.sales.post_sale or queries.sales..."""
    found = set()
    for folder in CALLERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                    found.add(f"{node.value.attr}.{node.attr}")
    return found


def sql_of(query: Query) -> str:
    return COMMENT.sub("", query.text)


def test_every_query_is_called_somewhere():
    assert [query.key for query in QUERIES if query.key not in used()] == []


def test_every_query_says_what_it_is_for():
    for query in QUERIES:
        lines = re.findall(r"(?m)^-- (?!nullable:|not null:)(.*)$", query.text)
        assert lines, query.key
        assert lines[0][0].isupper(), query.key


def test_columns_are_named():
    star = re.compile(r"select\s+(\w+\.)?\*|[,\n]\s*\w+\.\*")
    assert [query.key for query in QUERIES if star.search(sql_of(query))] == []


def test_the_organisation_is_the_first_condition(superuser_dsn: str):
    """Row security would refuse other rows anyway; the condition is what finds ours by index."""
    tenant_tables = {table.name for table in Catalog(superuser_dsn).tables if table.is_tenant}
    for query in QUERIES:
        for part in parts_of(sql_of(query)):
            tables = set(re.findall(r"\b(?:from|update)\s+(\w+)", part.partition("where")[0]))
            if not tables & tenant_tables:
                continue
            where = WHERE.search(part)
            if where is None and part.count("(") > part.count(")"):
                continue  # its WHERE comes after a subquery, which is a part of its own
            assert where, (query.key, part)
            assert OF_TENANT.match(" ".join(where["condition"].split())), (query.key, where[0])


def parts_of(text: str) -> list[str]:
    """Cut at every SELECT, UPDATE and DELETE, so that each part has its own FROM and WHERE."""
    parts = re.split(r"(?=\bselect\b|\bupdate\s+\w+\s+set\b|\bdelete from\b)", text)
    return [part for part in parts if re.match(r"select|update|delete", part)]


def test_every_list_has_a_bound():
    lists = {query.key for query in QUERIES if query.mode == "many"}
    limited = {query.key for query in QUERIES if re.search(r"\blimit\b", sql_of(query))}
    assert lists - limited == set(BOUNDED)


def test_every_query_file_says_what_it_is_about():
    for path in QUERIES_DIR.glob("*.sql"):
        assert re.match(r"-- [A-Z].*\.", path.read_text("utf-8")), path.name
