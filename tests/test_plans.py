"""No query reads more than it needs, on any supported PostgreSQL.

The exact plans of the embedded PostgreSQL are in sql/plans; that they are current, the test of
generated files says. Here are the budgets that also hold where another version plans otherwise.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sofinance.infra.sql import QUERIES_DIR
from tools import gen_plans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tools.gen_plans import Explained, Run

PLANS = Path(__file__).resolve().parents[1] / "sql" / "plans"
# A table of more rows in the plan data grows with the business: it is never read from end to end.
BIG_TABLE_ROWS = 1_000
# What a condition may throw away, and what a query may look at (pages of 8 kB) in the plan data.
REMOVED_ROWS_MAX = 500
BUFFERS_MAX = 1_200
# Another version may do with a little more than the pinned one.
SLACK = 1.5
SLACK_BUFFERS = 60
# Those that read all of an organisation, because that is what they are for.
READ_MUCH = {
    "export.list_entry_lines": "a page of 500 entries and their lines",
    "journal.list_snapshot_differences": "compares the snapshots with the whole journal",
    "journal.rebuild_balances": "makes the snapshots again from the whole journal",
    # An index over quantities would cost every sale; this costs one read a day.
    "mail.list_low_stock": "looks through an organisation's stock for the digest of a day",
    "sales.list_top_products": "sums up the lines of all sales of the days asked for",
}
WHOLE_FILES = {"integrity": "verification reads whole tables, once each"}
# PostgreSQL 15 looks the lines since the snapshot up entry by entry, and events to be forgotten one
# by one: more pages, but of these only.
OLDER = {"journal.trial_balance": 2_500, "outbox.forget_events": 1_500}
# Filters that throw away much, all within the rows they are asked about.
REMOVE_MUCH = {
    "integrity_events.keys_are_answered": "the nightly verification looks at every key, once",
    "retention.empty_mails": "looks for a person in all mail that is kept, once, at night",
    "receivables.age_receivables": "compares each open receivable with each bound",
}


@pytest.mark.empty_database
def test_no_query_reads_more_than_it_needs(superuser_dsn: str):
    with gen_plans.planner(superuser_dsn) as session:
        big = session.tables_above(BIG_TABLE_ROWS)
        runs = [
            session.run(query)
            for path in sorted(QUERIES_DIR.glob("*.sql"))
            if path.stem not in WHOLE_FILES
            for query in gen_plans.planned(path)
        ]
    assert {"journal_line", "sale", "stock_movement", "payment", "product"} <= big
    assert [complaint for run in runs for complaint in complaints(run, big)] == []
    assert {run.query.key for run in runs} >= set(READ_MUCH)


def complaints(run: Run, big: set[str]) -> Iterator[str]:
    """Yield what is wrong with how a query runs, what it sets off included."""
    limit = max(pinned(run) * SLACK + SLACK_BUFFERS, OLDER.get(run.query.key, 0))
    if run.top.buffers > limit:
        yield f"{run.query.key}: {run.top.buffers} buffers; its plan file allows {limit:.0f}"
    if run.query.key in READ_MUCH:
        return
    if run.top.buffers > max(BUFFERS_MAX, OLDER.get(run.query.key, 0)):
        yield f"{run.query.key}: {run.top.buffers} buffers"
    for statement in run.statements:
        for node in statement.nodes:
            table = node.get("Relation Name")
            if node["Node Type"] == "Seq Scan" and table in big:
                yield f"{told(run, statement)}: reads all of {table}"
            away = sum(gen_plans.removed(node, condition) for condition in gen_plans.DETAILS)
            if away > REMOVED_ROWS_MAX and run.query.key not in REMOVE_MUCH:
                yield f"{told(run, statement)}: throws {away} rows away"


def pinned(run: Run) -> int:
    """Return the buffers that stand in the plan file."""
    file, _, name = run.query.key.partition(".")
    text = (PLANS / f"{file}.txt").read_text("utf-8")
    found = re.search(rf"(?m)^-- name: {name}\n-- with: .*\n-- .*, (\d+) buffers$", text)
    assert found, f"sql/plans/{file}.txt has no {name}: run `make generate`"
    return int(found[1])


def told(run: Run, statement: Explained) -> str:
    """Name a statement."""
    inside = f" in {statement.inside}" if statement.inside else ""
    return f"{run.query.key}{inside}: {' '.join(statement.text.split())[:80]}"


def test_there_is_a_plan_file_for_each_query_file():
    files = {path.stem for path in QUERIES_DIR.glob("*.sql")}
    assert {path.stem for path in PLANS.glob("*")} == files
