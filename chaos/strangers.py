"""Programs of strangers recompute the books: hledger and beancount read an export.

Beancount is imported when it is asked, because its parser takes a moment to load.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import subprocess
from typing import Any

HLEDGER_TIMEOUT_S = 60
# Currency and balance, as texts, of each account that has one, by its id.
Balances = dict[int, tuple[str, str]]


class WrongBooksError(AssertionError):
    """A stranger found something wrong with the books."""


def hledger(*words: str, ledger: str) -> subprocess.CompletedProcess[str]:
    """Run hledger on a ledger; raises WrongBooksError without it: then nobody checks the books."""
    program = shutil.which("hledger")
    if program is None:
        raise WrongBooksError(
            "hledger is not installed; on Debian and Ubuntu: apt-get install hledger"
        )
    return subprocess.run(
        [program, "-f", "-", *words], input=ledger, text=True, encoding="utf-8",
        capture_output=True, check=False, timeout=HLEDGER_TIMEOUT_S,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip


def hledger_balances(ledger: str, *words: str) -> Balances:
    """Return what hledger makes of a ledger; raises WrongBooksError if it complains."""
    checked = hledger("check", "--strict", "ordereddates", ledger=ledger)
    summed = hledger("bal", "-N", "--flat", "-O", "csv", "--layout=bare", *words, ledger=ledger)
    for done in (checked, summed):
        if done.returncode != 0:
            raise WrongBooksError(done.stderr)
    declared = re.findall(r"^account (.+?)  ; type:[ALERX], account:(\d+)$", ledger, re.MULTILINE)
    ids = {name: int(id_) for name, id_ in declared}
    if len(ids) != len(declared) or {name.count(":") for name in ids} != {1}:
        raise WrongBooksError("names of accounts are not unique, or not of two parts")
    return {
        ids[row["account"]]: (row["commodity"], row["balance"])
        for row in csv.DictReader(io.StringIO(summed.stdout))
    }


def load(ledger: str) -> tuple[list[Any], list[str]]:
    """Return beancount's entries and complaints, as bean-check has them."""
    from beancount import loader  # noqa: PLC0415 - see above
    from beancount.ops import validation  # noqa: PLC0415

    entries, errors, _ = loader.load_string(
        ledger, extra_validations=validation.HARDCORE_VALIDATIONS
    )
    return entries, [error.message for error in errors]


def beancount_balances(ledger: str) -> Balances:
    """Return what beancount makes of a ledger; raises WrongBooksError if it complains."""
    from beancount.core import data, realization  # noqa: PLC0415 - see above

    entries, errors = load(ledger)
    if errors:
        raise WrongBooksError("\n".join(errors))
    opened = {e.account: e.meta for e in entries if isinstance(e, data.Open)}
    balances = {}
    for account in realization.iter_children(realization.realize(entries)):
        for position in account.balance:
            units = position.units
            id_ = int(opened[account.account]["account"])
            balances[id_] = (units.currency, str(units.number))
    return balances


COUNTED_BY = {"hledger": hledger_balances, "beancount": beancount_balances}
