"""The one checker: what every fault ends in.

`sofinance verify` recomputes the books from the rows. Then the clients' journal is held against
the database: what was acknowledged is there exactly once and as it was acknowledged; what was
refused is not there; what was answered 5xx or cut is there at most once, and after it was asked
again exactly once; nothing is there that nobody asked for. Numbers of receipts have no holes and
no stock is below zero. Last, hledger and beancount recompute the exported journal, and agree with
each other, with the lines and with the trial balance that the service reports.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from chaos import strangers
from chaos.processes import ROOT, python
from chaos.writers import PREFIX

if TYPE_CHECKING:
    from chaos.journal import Line
    from chaos.stage import Stage

COMMAND_TIMEOUT_S = 180
# What each kind of order leaves behind: the text it was marked with, what it is, and its worth.
TRACES = """
select notes, 'sale', id, total from sale where org_id = %(org)s
union all
select reference, 'payment', id, amount from payment
where org_id = %(org)s and reference is not null
union all
select reason, 'void', sale_id, null from sale_void where org_id = %(org)s
union all
select reference, 'receipt', id, total from goods_receipt
where org_id = %(org)s and reference is not null
"""
# How the answer names what was made, and its worth.
SAID = {"payment": ("payment_id", "amount"), "void": ("sale_id", None)}
HOLES = """
select till_id, max(receipt_no), count(*), count(distinct receipt_no) from sale
where org_id = %(org)s group by till_id
having max(receipt_no) <> count(*) or count(*) <> count(distinct receipt_no)
"""
BELOW_ZERO = """
select branch_id, product_id, quantity from stock
where org_id = %(org)s and (quantity < 0 or value < 0)
"""
MOVED = """
select stock.branch_id, stock.product_id, stock.quantity, sum(moved.quantity) from stock
inner join stock_movement as moved using (org_id, branch_id, product_id)
where stock.org_id = %(org)s
group by stock.branch_id, stock.product_id, stock.quantity
having stock.quantity <> sum(moved.quantity)
"""
OFF = """
select entry_id, currency, sum(debit) - sum(credit) from journal_line
where org_id = %(org)s group by entry_id, currency having sum(debit) <> sum(credit)
"""
LINES = """
select account_id, currency, sum(debit) - sum(credit) from journal_line
where org_id = %(org)s group by account_id, currency
having sum(debit) <> sum(credit)
"""
SOUND = {
    "receipt numbers with a hole": HOLES,
    "stock below zero": BELOW_ZERO,
    "stock that is not the sum of its movements": MOVED,
    "entries that do not balance": OFF,
}


@dataclass(slots=True)
class Verdict:
    """What the checker found."""

    acknowledged: int = 0
    retried: int = 0
    replayed: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def check_open(stage: Stage) -> list[str]:
    """Before anything is asked again: return keys of no answer that are there more than once."""
    traces = await asyncio.to_thread(_traces, stage)
    return [key for key, found in traces.items() if len(found) > 1]


async def check(stage: Stage) -> Verdict:
    """Check everything; the writers have stopped and nothing is open any more."""
    verdict = Verdict()
    compare(verdict, stage.journal.read(), await asyncio.to_thread(_traces, stage))
    await _recompute(stage, verdict)
    return verdict


async def check_as_of(stage: Stage, lines: dict[str, Line]) -> Verdict:
    """Check books of an earlier moment against what the clients' journal said just then."""
    verdict = Verdict()
    compare(verdict, lines, await asyncio.to_thread(_traces, stage), is_over=False)
    await _recompute(stage, verdict)
    return verdict


async def _recompute(stage: Stage, verdict: Verdict) -> None:
    await asyncio.to_thread(_ask_database, stage, verdict)
    await asyncio.to_thread(_verify, stage, verdict)
    reported = await _trial_balance(stage)
    await asyncio.to_thread(_ask_strangers, stage, verdict, reported)


def compare(
    verdict: Verdict,
    lines: dict[str, Line],
    traces: dict[str, list[tuple[str, int, Any]]],
    *,
    is_over: bool = True,
) -> None:
    """Hold the clients' journal against what the database has of each key.

    While it is not over, something is on its way: that may be there, once.
    """
    for key, line in lines.items():
        found = traces.pop(key, [])
        verdict.retried += len(line.attempts) > 1
        verdict.replayed += any(attempt.replayed for attempt in line.attempts)
        if len(found) > 1:
            verdict.doubled.append(key)
        if line.done is not None:
            verdict.acknowledged += 1
            if not found:
                verdict.lost.append(key)
            elif not _is_as_said(line, found[0]):
                verdict.problems.append(f"{key}: said {line.done.data}, has {found[0]}")
        elif line.refused is not None:
            if found:
                verdict.problems.append(f"{key}: refused ({line.refused.code}), and yet there")
        elif is_over:
            verdict.problems.append(f"{key}: nobody knows, even now")
    verdict.problems += [f"{key}: there, and nobody asked for it" for key in traces]


def _is_as_said(line: Line, found: tuple[str, int, Any]) -> bool:
    _kind, id_, worth = found
    said: dict[str, Any] = line.done.data if line.done is not None else {}
    named, amount = SAID.get(line.order.kind, ("id", "total"))
    return bool(said[named] == id_ and (amount is None or Decimal(said[amount]) == worth))


def _traces(stage: Stage) -> dict[str, list[tuple[str, int, Any]]]:
    traces: dict[str, list[tuple[str, int, Any]]] = {}
    with stage.postgres.superuser() as conn:
        for key, kind, id_, worth in conn.execute(TRACES, {"org": stage.shop.org_id}).fetchall():
            traces.setdefault(key or f"unmarked {kind} {id_}", []).append((kind, id_, worth))
    return traces


def _ask_database(stage: Stage, verdict: Verdict) -> None:
    with stage.postgres.superuser() as conn:
        for what, question in SOUND.items():
            found = conn.execute(question, {"org": stage.shop.org_id}).fetchall()
            if found:
                verdict.problems.append(f"{what}: {found[:3]}")


def _command(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*python("sofinance"), *words, "--org", str(stage.shop.org_id)],
        cwd=ROOT, env={**stage.environment(), "DATABASE_URL": stage.postgres.url()},
        capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S,
    )  # fmt: skip


def _verify(stage: Stage, verdict: Verdict) -> None:
    done = _command(stage, "verify", "--json")
    if done.returncode == 0:
        return
    try:
        broken = [one for one in json.loads(done.stdout)["checks"] if one["broken"]]
    except (json.JSONDecodeError, KeyError):
        broken = [done.stderr.strip() or done.stdout[:200]]
    verdict.problems.append(f"verify: {broken[:3]}")


async def _trial_balance(stage: Stage) -> strangers.Balances:
    """Return what the service reports."""
    async with stage.crowd.session.get(
        f"{stage.crowd.urls[0]}{PREFIX}/journal/trial-balance"
    ) as answer:
        report = (await answer.json())["data"]
    balances = {}
    for line in report["lines"]:
        debit, credit = line["debit_balance"], line["credit_balance"]
        if Decimal(debit) or Decimal(credit):
            signed = debit if Decimal(debit) else f"-{credit}"
            balances[line["account_id"]] = (line["currency"], signed)
    return balances


def _ask_strangers(stage: Stage, verdict: Verdict, reported: strangers.Balances) -> None:
    with stage.postgres.superuser() as conn:
        rows = conn.execute(LINES, {"org": stage.shop.org_id}).fetchall()
    expected = {account: (currency, amount) for account, currency, amount in rows}
    counts = {"the trial balance": reported}
    for name, balances in strangers.COUNTED_BY.items():
        done = _command(stage, "export", "ledger", "--format", name)
        if done.returncode != 0:
            verdict.problems.append(f"export for {name}: {done.stderr.strip()}")
            continue
        try:
            counts[name] = balances(done.stdout)
        except strangers.WrongBooksError as error:
            verdict.problems.append(f"{name} refuses the books: {error}")
    for name, counted in counts.items():
        exact = {id_: (currency, Decimal(text)) for id_, (currency, text) in counted.items()}
        if exact != expected:
            off = Counter(exact.keys()) - Counter(expected.keys()) or "amounts"
            verdict.problems.append(f"{name} disagrees with the lines: {off}")
