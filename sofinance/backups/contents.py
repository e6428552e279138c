"""What a database holds, in figures small enough to keep: rows and a hash per table, the ledger.

Taken from the snapshot that is dumped, and again from what was restored: equal figures are equal
rows, to the last letter. A table's hash is a sum over its rows, in any order and in no memory; the
journal's is a SHA-256 over all its rows in their order.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

# How values are written, whatever the server's own settings; and an error, not fewer rows, where
# row security would hide some.
SETTINGS = {
    "timezone": "UTC", "datestyle": "ISO, YMD", "intervalstyle": "postgres",
    "extra_float_digits": "1", "bytea_output": "hex", "row_security": "off",
    "search_path": "public", "statement_timeout": "0", "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0", "enable_seqscan": "on",
}  # fmt: skip
TABLES = """
select namespace.nspname, class.relname
from pg_class as class
join pg_namespace as namespace on namespace.oid = class.relnamespace
where class.relkind = 'r' and class.relpersistence = 'p'
    and namespace.nspname not like 'pg\\_%' and namespace.nspname <> 'information_schema'
    and not exists (
        select from pg_depend
        where classid = 'pg_class'::regclass and objid = class.oid and deptype = 'e'
    )
order by 1, 2"""
TABLE = "select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) from {} as t"
LEDGER = """
select org_id, currency, count(*), sum(debit)::text, sum(credit)::text
from journal_line group by org_id, currency order by org_id, currency"""
JOURNAL = (
    "copy (select * from journal_entry order by org_id, id) to stdout",
    "copy (select * from journal_line order by org_id, entry_id, line_no) to stdout",
)
TRIAL_BALANCE = """
copy (
    select org_id, account_id, currency, sum(debit), sum(credit)
    from journal_line group by org_id, account_id, currency order by 1, 2, 3
) to stdout"""
MIGRATIONS = "select migration_id from _yoyo_migration order by migration_id"


def begin_snapshot(conn: psycopg.Connection[Any]) -> None:
    """Begin the transaction that sees one state; the connection is in autocommit."""
    conn.execute("begin isolation level repeatable read read only")
    for name, value in SETTINGS.items():
        conn.execute("select set_config(%s, %s, true)", [name, value])


def contents(
    conn: psycopg.Connection[Any], told: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Return the figures of the snapshot that is open."""
    tables = {}
    for schema, table in conn.execute(TABLES).fetchall():
        told(f"counting {table}")
        query = sql.SQL(TABLE).format(sql.Identifier(schema, table))
        rows, total = _row(conn, query)
        tables[f"{schema}.{table}"] = {"rows": rows, "hash": str(total)}
    ledger = [
        {"org_id": org_id, "currency": currency, "lines": lines, "debit": debit, "credit": credit}
        for org_id, currency, lines, debit, credit in conn.execute(LEDGER).fetchall()
    ]
    told("hashing the journal")
    return {
        "tables": tables,
        "ledger": ledger,
        "journal_sha256": _sha256(conn, *JOURNAL),
        "trial_balance_sha256": _sha256(conn, TRIAL_BALANCE),
    }


def migrations(conn: psycopg.Connection[Any]) -> list[str]:
    """Return the migrations that the database has, in order."""
    return [row[0] for row in conn.execute(MIGRATIONS).fetchall()]


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each figure that is not the same."""
    was, now = before["tables"], after["tables"]
    for table in sorted({*was, *now}):
        if table not in now:
            yield f"{table} is missing"
        elif table not in was:
            yield f"{table} is there, and was not"
        elif was[table] != now[table]:
            counts = f"{was[table]['rows']:,} rows then, {now[table]['rows']:,} now"
            yield f"{table} differs: {counts}"
    for figure in ("ledger", "journal_sha256", "trial_balance_sha256"):
        if before[figure] != after[figure]:
            yield f"{figure} differs"


def _row(conn: psycopg.Connection[Any], query: sql.Composed) -> Any:
    return conn.execute(query).fetchone()


def _sha256(conn: psycopg.Connection[Any], *copies: str) -> str:
    digest = hashlib.sha256()
    for copy in copies:
        with conn.cursor().copy(copy.encode()) as rows:
            for block in rows:
                digest.update(block)
    return digest.hexdigest()
