"""The journal: what its guards cost, a balance column on a hot account, and entries in bulk."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import pgbench
from bench.measure import Effort, Result, median, ratio, take_turns
from bench.sale import set_tenant
from bench.world import set_tenant as set_bulk_tenant
from sofinance import queries as q

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psycopg

    from bench.world import World

TABLES = ("journal_entry", "journal_line")
# Balance and immutability; the slots are in the tables themselves.
GUARDS = ("journal_entry_balances", "journal_entry_is_final", "journal_line_is_final")
# As many lines as the entry of a sale has, on accounts that anything may be posted to.
ACCOUNTS = ("cash", "bank", "6000", "6100", "6200", "6300")
CLIENT_COUNT = 8
HOT_CLIENT_COUNT = 32
BULK_LINE_COUNT = 6_000
PARAMETER = re.compile(r"\$([0-9]+)")
# The balance rows of the schema `stored`.
STORED = Path(__file__).parent / "sql" / "stored.sql"


def clone(
    conn: psycopg.Connection[Any],
    schema: str,
    triggers: Iterable[str] | None,
    *,
    slots: bool = True,
) -> None:
    """Copy the journal's tables into a schema, empty, with these of its triggers (None: all).

    Columns, checks, indexes, foreign keys, row security and grants are the journal's own. Without
    slots an entry's lines refer to it by its number alone.
    """
    conn.execute(f"create schema {schema}")
    conn.execute(f"grant usage on schema {schema} to sofinance_app, sofinance_owner")
    for name in TABLES:
        conn.execute(f"create table {schema}.{name} (like public.{name} including all)")
        conn.execute(f"alter table {schema}.{name} enable row level security")
        conn.execute(f"alter table {schema}.{name} force row level security")
        conn.execute(
            f"create policy org on {schema}.{name}"
            " using (org_id = current_setting('app.org_id')::bigint)"
        )
        conn.execute(f"grant select, insert on {schema}.{name} to sofinance_app")
        conn.execute(f"alter table {schema}.{name} owner to sofinance_owner")
    if not slots:
        (index,) = conn.execute(
            "select conname from pg_constraint where contype = 'u' and conrelid = %s::regclass",
            [f"{schema}.journal_entry"],
        ).fetchall()
        conn.execute(f"alter table {schema}.journal_entry drop constraint {index[0]}")
    for name, table, definition in conn.execute(
        "select conname, conrelid::regclass::text, pg_get_constraintdef(oid) from pg_constraint"
        " where contype = 'f' and conrelid = any (%s::regclass[]) order by 1",
        [list(TABLES)],
    ).fetchall():
        if not slots:
            definition = definition.replace("entry_id, line_count)", "entry_id)")  # noqa: PLW2901
            definition = definition.replace("(org_id, id, line_count)", "(org_id, id)")  # noqa: PLW2901
        where = _moved(definition, schema)
        conn.execute(f"alter table {schema}.{table} add constraint {name} {where}")
    for name, function, definition, body in conn.execute(
        "select tgname, proname, pg_get_triggerdef(t.oid), pg_get_functiondef(p.oid)"
        " from pg_trigger as t join pg_proc as p on p.oid = tgfoid"
        " where not tgisinternal and tgrelid = any (%s::regclass[]) order by 1",
        [list(TABLES)],
    ).fetchall():
        if triggers is not None and name not in triggers:
            continue
        conn.execute(_moved(body, schema).replace(f"public.{function}(", f"{schema}.{function}("))
        conn.execute(f"alter function {schema}.{function}() owner to sofinance_owner")
        conn.execute(_moved(definition, schema).replace(f"{function}()", f"{schema}.{function}()"))


def _moved(definition: str, schema: str) -> str:
    """Let a definition speak of a schema's copies of the journal's tables."""
    for name in TABLES:
        definition = re.sub(rf"\b(?:public\.)?{name}\b", f"{schema}.{name}", definition)
    return definition


def script(world: World, schema: str) -> str:
    """Return an entry for pgbench: q.journal.post_entry on a schema's tables, three round trips."""
    half = len(ACCOUNTS) // 2
    values = {
        "org_id": f"{world.shop.org_id}",
        "user_id": f"{world.shop.user_id}",
        "posted_on": "current_date",
        "account_ids": f"array[{', '.join(str(world.shop.account_ids[a]) for a in ACCOUNTS)}]",
        "debits": f"array[{', '.join([':amount'] * half + ['0'] * half)}]::numeric[]",
        "credits": f"array[{', '.join(['0'] * half + [':amount'] * half)}]::numeric[]",
    }
    query = q.journal.post_entry
    statement = PARAMETER.sub(
        lambda found: values.get(query.params[int(found[1]) - 1], "null"), query.sql
    )
    for name in TABLES:
        statement = statement.replace(f"insert into {name} ", f"insert into {schema}.{name} ")
    return "\n".join([
        "\\set amount random(1, 1000)",
        pgbench.pipelined("begin", set_tenant(world)),
        f"{statement};",
        "commit;",
    ])  # fmt: skip


def runner(world: World, schema: str, *, clients: int, seconds: float) -> Callable[[], float]:
    """Return what posts entries into a schema's tables and returns the rate."""
    text = script(world, schema)
    return lambda: pgbench.run(world, text, clients=clients, seconds=seconds)


def guards(world: World, effort: Effort) -> list[Result]:
    """Compare the journal's guards with the same tables under foreign keys and checks only."""
    with world.superuser() as conn:
        clone(conn, "bare", (), slots=False)
        clone(conn, "guarded", GUARDS)
        clone(conn, "whole", None)
    rates = take_turns(
        {
            schema: runner(world, schema, clients=CLIENT_COUNT, seconds=effort.seconds)
            for schema in ("bare", "guarded", "whole")
        },
        effort.rounds,
    )
    return [
        Result(
            "guards (balance, immutability) added to a bare entry",
            100 * (1 - ratio(rates["guarded"], rates["bare"])), "%", goal=15, at_most=True,
            figures={
                "bare/s": median(rates["bare"]), "guarded/s": median(rates["guarded"]),
                "lines": len(ACCOUNTS), "clients": CLIENT_COUNT,
            },
        ),
        Result(
            "all rules of the journal added to a bare entry",
            100 * (1 - ratio(rates["whole"], rates["bare"])), "%",
            figures={"all rules/s": median(rates["whole"])},
        ),
    ]  # fmt: skip


def hot(world: World, effort: Effort) -> list[Result]:
    """Compare one busy organisation with the same one that stores its balances."""
    with world.superuser() as conn:
        clone(conn, "summed", None)
        clone(conn, "stored", None)
        conn.execute(STORED.read_text("utf-8"))
    rates = take_turns(
        {
            schema: runner(world, schema, clients=HOT_CLIENT_COUNT, seconds=effort.seconds)
            for schema in ("summed", "stored")
        },
        effort.rounds,
    )
    return [
        Result(
            "one hot organisation: ours against a stored balance row",
            ratio(rates["summed"], rates["stored"]), goal=5,
            figures={
                "ours/s": median(rates["summed"]), "stored/s": median(rates["stored"]),
                "clients": HOT_CLIENT_COUNT,
            },
        )
    ]  # fmt: skip


def bulk(world: World, effort: Effort) -> list[Result]:
    """Post entries by q.bulk.post_entries on one connection, every guard on."""
    rates = asyncio.run(_bulk(world, effort))
    return [
        Result(
            "bulk import of entries, guarded, one connection", median(rates[len(ACCOUNTS)]),
            "lines/s", goal=100_000,
            figures={
                "lines an entry": len(ACCOUNTS), "lines a transaction": BULK_LINE_COUNT,
                "lines/s at two lines an entry": median(rates[2]),
            },
        )
    ]  # fmt: skip


async def _bulk(world: World, effort: Effort) -> dict[int, list[float]]:
    conn = await world.connect()
    try:
        rates: dict[int, list[float]] = {2: [], len(ACCOUNTS): []}
        for width in rates:
            await _post_bulk(conn, world, width)  # prepares the statement
        for _ in range(effort.rounds):
            for width, seen in rates.items():
                began_s, count = time.perf_counter(), 0
                while time.perf_counter() < began_s + effort.seconds / 2:
                    count += await _post_bulk(conn, world, width)
                seen.append(count / (time.perf_counter() - began_s))
        return rates
    finally:
        await conn.close()


async def _post_bulk(conn: Any, world: World, width: int) -> int:
    """Post one transaction of entries with so many lines each; return the number of lines."""
    count, half = BULK_LINE_COUNT // width, width // 2
    shop, amount, nothing = world.shop, Decimal("12.34"), Decimal(0)
    async with conn.transaction():
        await set_bulk_tenant(conn, shop.org_id, shop.user_id)
        await q.bulk.post_entries(
            conn,
            org_id=shop.org_id,
            user_id=shop.user_id,
            dates=[datetime.now(UTC).date()] * count,
            memos=None,
            entry_nos=[number for number in range(1, count + 1) for _ in range(width)],
            account_ids=[shop.account_ids[name] for name in ACCOUNTS[:width]] * count,
            debits=([amount] * half + [nothing] * half) * count,
            credits=([nothing] * half + [amount] * half) * count,
            descriptions=None,
        )
    return count * width
