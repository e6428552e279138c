"""18: the owner, past every guard, edits, deletes and truncates; verify names what is broken."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING, Any

from chaos.checker import COMMAND_TIMEOUT_S
from chaos.database import dedicated
from chaos.processes import ROOT, python

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from chaos.database import Postgres
    from chaos.stage import Stage

# What is done, and undone, with all triggers silent; and what the first broken record has to say.
KEPT = "create table kept as select * from {table} where org_id = {org} and {which}"
BACK = "insert into {table} ({columns}) overriding system value select {columns} from kept"
HUSH = "set session_replication_role = replica"
CRIMES = (
    ("a debit raised", "journal_line", "entry_id = {entry} and line_no = 1",
     "update journal_line set debit = debit + 1 where org_id = {org} and {which}",
     "entries_balance"),
    ("an entry's lines deleted", "journal_line", "entry_id = {entry}",
     "delete from journal_line where org_id = {org} and {which}", "entries_balance"),
    ("a sale deleted", "sale", "id = {sale}",
     "delete from sale where org_id = {org} and {which}", "receipt_numbers_have_no_holes"),
    ("stock made up", "stock", "product_id = {product}",
     "update stock set quantity = quantity + 5 where org_id = {org} and {which}",
     "stock_is_its_movements"),
    ("all movements truncated", "stock_movement", "true", "truncate stock_movement",
     "stock_is_its_movements"),
)  # fmt: skip


def own_server(folder: Path) -> AbstractContextManager[Postgres]:
    """Make a server whose books may be ruined."""
    return dedicated(folder / "server")


async def rewrite(stage: Stage) -> str:
    """Commit a crime, look whether verify names it, put everything back; one after the other."""
    await stage.gunicorn()
    stage.begin()
    await stage.heal()
    await stage.pause(2, 3)
    await stage.settle()
    with stage.postgres.superuser() as conn:
        row = conn.execute(
            "select min(id) + (max(id) - min(id)) / 2 from sale where org_id = %s",
            [stage.shop.org_id],
        ).fetchall()[0]
        sale = conn.execute(
            "select sale.id, entry.id from sale"
            " inner join journal_entry as entry on entry.org_id = sale.org_id"
            " and entry.sale_id = sale.id"
            " where sale.org_id = %s and sale.id >= %s and exists (select from sale as later"
            " where later.org_id = sale.org_id and later.till_id = sale.till_id"
            " and later.receipt_no > sale.receipt_no) order by sale.id limit 1",
            [stage.shop.org_id, row[0]],
        ).fetchall()[0]
    names = {
        "org": stage.shop.org_id, "sale": sale[0], "entry": sale[1],
        "product": stage.shop.product_ids[0],
    }  # fmt: skip
    for crime in CRIMES:
        await asyncio.to_thread(_commit_and_undo, stage, crime, names)
    return f"{', '.join(crime[0] for crime in CRIMES)}: each named by verify, then put back"


def _commit_and_undo(stage: Stage, crime: tuple[str, ...], names: dict[str, Any]) -> None:
    what, table, which, statement, check = crime
    words = {**names, "table": table, "which": which.format(**names)}
    with stage.postgres.superuser() as conn:
        conn.execute(HUSH)
        words["columns"] = ", ".join(
            row[0]
            for row in conn.execute(
                "select column_name from information_schema.columns"
                " where table_name = %s and table_schema = 'public' and is_generated = 'NEVER'",
                [table],
            ).fetchall()
        )
        conn.execute(KEPT.format(**words))
        conn.execute(statement.format(**words))
        found = _broken(stage)
        stage.demand(f"{what}: verify found {[*found]}", holds=check in found)
        stage.demand(f"{what}: no record is named", holds=bool(found.get(check)))
        conn.execute(f"delete from {table} where org_id = {names['org']} and {words['which']}")
        conn.execute(BACK.format(**words))
        conn.execute("drop table kept")


def _broken(stage: Stage) -> dict[str, Any]:
    """Return the checks that fail, each with the first record it names."""
    done = subprocess.run(
        [*python("sofinance"), "verify", "--json", "--org", str(stage.shop.org_id)],
        cwd=ROOT, env=stage.environment(), capture_output=True, text=True, check=False,
        timeout=COMMAND_TIMEOUT_S,
    )  # fmt: skip
    findings = json.loads(done.stdout)["checks"]
    return {one["check"].rpartition(".")[2]: one["first"] for one in findings if one["broken"]}
