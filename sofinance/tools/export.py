"""`sofinance export`: the ledger as text that other programs read and recompute.

Figures leave as they are stored, entry by entry, so that a stranger's arithmetic can contradict
ours. Memory is bounded: a page of entries at a time, all pages from one state of the books.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import unicodedata
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from sofinance import queries as q
from sofinance.infra.command import (
    EXIT_FAILED,
    EXIT_GOOD,
    EXIT_USAGE,
    SetupError,
    database_options,
)
from sofinance.rules import money
from sofinance.tools.orgs import connected, one_organisation, org_option

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
    from decimal import Decimal

    from sofinance.infra.sql import Connection

# An entry has at most some 500 lines, so a page has at most 100,000; usually it has 1,000.
ENTRIES_PER_PAGE = 200
ACCOUNTS_PER_PAGE = 1_000
# How long whoever reads our output may pause: PostgreSQL keeps old rows for us meanwhile.
PAUSE_MS_MAX = 600_000
# umask as everybody else's files have it: mkstemp alone would make the export private.
FILE_MODE = 0o666

# The kind of an entry in words, where it has no memo.
KINDS = {
    "MANUAL": "Manual entry",
    "REVERSAL": "Reversal",
    "SALE": "Sale",
    "PAYMENT": "Payment",
    "VOID": "Void",
    "GOODS_RECEIPT": "Goods receipt",
}


class Account(NamedTuple):
    """An account of the chart."""

    id: int
    code: str
    name: str
    type: str
    currency: str


class Line(NamedTuple):
    """A line of an entry; the amount is debits less credits, as text."""

    account_id: int
    amount: str
    currency: str
    description: str | None


class Entry(NamedTuple):
    """An entry with what it says and the numbers that it links to."""

    id: int
    posted_on: date
    kind: str
    memo: str | None
    notes: dict[str, str]
    links: dict[str, int]
    lines: list[Line]


class Format(Protocol):
    """How one program wants to read a ledger."""

    def __init__(self, title: str, currency: str, as_of: date, accounts: list[Account]) -> None: ...

    def head(self, first_on: date) -> Iterator[str]:
        """Yield what stands before the first entry."""

    def entry(self, entry: Entry) -> str:
        """Return an entry, with an empty line in front."""


# -- hledger -------------------------------------------------------------------------------------


class Hledger:
    """The journal format of hledger.

    It has no escapes, so characters that mean something where a text stands become their nearest
    neighbours; a bracketed date in a comment, say, would move a posting to another day.
    """

    ROOTS = {  # noqa: RUF012 - read only
        "ASSET": ("assets", "A"),
        "LIABILITY": ("liabilities", "L"),
        "EQUITY": ("equity", "E"),
        "REVENUE": ("revenues", "R"),
        "EXPENSE": ("expenses", "X"),
    }
    IN_NAME = str.maketrans({":": "-", ";": ","})
    IN_DESCRIPTION = str.maketrans({";": ",", "|": "/"})
    IN_COMMENT = str.maketrans({",": ";", "[": "(", "]": ")"})

    def __init__(self, title: str, currency: str, as_of: date, accounts: list[Account]) -> None:
        self._title = f"{clean(title)}: the ledger to {as_of}, kept in {currency}"
        self._accounts = accounts
        # A code has no space in it and is unique: so is code and name with a space between.
        self.names = {account.id: self._name(account) for account in accounts}

    def _name(self, account: Account) -> str:
        name = clean(f"{account.code} {account.name}").translate(self.IN_NAME)
        return f"{self.ROOTS[account.type][0]}:{name}"

    def head(self, first_on: date) -> Iterator[str]:  # noqa: ARG002 - accounts have no date here
        """Yield declarations, so that `hledger check --strict` accepts the file and no other."""
        yield f"; {self._title}\n\ndecimal-mark .\n"
        for currency in sorted({account.currency for account in self._accounts}):
            decimals = money.minor_units(currency)
            yield f"commodity 1000.{'0' * decimals} {currency}\n"
        yield "\n"
        for account in self._accounts:
            kind = self.ROOTS[account.type][1]
            yield f"account {self.names[account.id]}  ; type:{kind}, account:{account.id}\n"

    def entry(self, entry: Entry) -> str:
        """Return an entry: date, number, description, tags, then a posting per line."""
        description = clean(entry.memo or "") or KINDS.get(entry.kind, entry.kind)
        tags = {"entry": entry.id, "kind": entry.kind, **entry.links, **entry.notes}
        parts = [
            f"\n{entry.posted_on} * ({entry.id}) {description.translate(self.IN_DESCRIPTION)}\n",
            "    ; ",
            ", ".join(f"{tag}:{self._comment(str(value))}" for tag, value in tags.items()),
            "\n",
        ]
        names = self.names
        for line in entry.lines:
            parts.append(f"    {names[line.account_id]}  {line.amount} {line.currency}")
            note = self._comment(line.description or "")
            parts.append(f"  ; note:{note}\n" if note else "\n")
        return "".join(parts)

    def _comment(self, text: str) -> str:
        return clean(text).translate(self.IN_COMMENT)


# -- beancount -----------------------------------------------------------------------------------


class Beancount:
    """The format of beancount 3 (and 2, but for the name of the tolerance option).

    Amounts must balance exactly: by default half of the last decimal is forgiven.
    """

    ROOTS = {  # noqa: RUF012 - read only
        "ASSET": "Assets",
        "LIABILITY": "Liabilities",
        "EQUITY": "Equity",
        "REVENUE": "Income",
        "EXPENSE": "Expenses",
    }
    IN_STRING = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"})

    def __init__(self, title: str, currency: str, as_of: date, accounts: list[Account]) -> None:
        self._title, self._currency, self._as_of = title, currency, as_of
        self._accounts = accounts
        self.names: dict[int, str] = {}
        taken: set[str] = set()
        # In the order in which accounts were made: a new one never changes an older one's name.
        for account in sorted(accounts, key=lambda account: account.id):
            name = self._name(account)
            while name in taken:  # only dots and hyphens, or accents, were different
                name = f"{name}-{account.id}"
            taken.add(name)
            self.names[account.id] = name

    def _name(self, account: Account) -> str:
        text = unicodedata.normalize("NFC", f"{account.code}-{account.name}")
        kept = (char if _is_letter_or_digit(char) else "-" for char in text)
        words = "".join(kept).split("-")
        return f"{self.ROOTS[account.type]}:A{'-'.join(word for word in words if word)}"

    def head(self, first_on: date) -> Iterator[str]:
        """Yield options and accounts, opened on the day of the first entry."""
        yield f";; The ledger to {self._as_of}\n"
        yield f'option "title" {self._string(self._title)}\n'
        yield f'option "operating_currency" "{self._currency}"\n'
        yield 'option "inferred_tolerance_default" "*:0"\n'
        yield 'option "tolerance_multiplier" "0"\n\n'
        for account in self._accounts:
            yield f"{first_on} open {self.names[account.id]} {account.currency}\n"
            yield f"  account: {account.id}\n"
            yield f"  code: {self._string(account.code)}\n"
            yield f"  name: {self._string(account.name)}\n"

    def entry(self, entry: Entry) -> str:
        """Return a transaction: date, memo, links, metadata, then a posting per line."""
        links = "".join(f" ^{what.replace('_', '-')}-{id_}" for what, id_ in entry.links.items())
        memo = self._string(entry.memo or KINDS.get(entry.kind, entry.kind))
        parts = [
            f"\n{entry.posted_on} * {memo}{links}\n",
            f'  entry: {entry.id}\n  kind: "{entry.kind}"\n',
        ]
        parts += [f"  {key}: {self._string(text)}\n" for key, text in entry.notes.items()]
        names = self.names
        for line in entry.lines:
            parts.append(f"  {names[line.account_id]}  {line.amount} {line.currency}\n")
            if line.description:
                parts.append(f"    note: {self._string(line.description)}\n")
        return "".join(parts)

    def _string(self, text: str) -> str:
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        shown = "".join(c for c in lines if c in "\n\t" or not _is_control(c))
        return f'"{shown.translate(self.IN_STRING)}"'


FORMATS: dict[str, type[Format]] = {"hledger": Hledger, "beancount": Beancount}


def clean(text: str) -> str:
    """Return a text as one line without control characters and with single spaces."""
    words = text.split()
    joined = " ".join(words)
    if joined.isprintable():
        return joined
    # Again, because between two spaces there may have been nothing that shows.
    return " ".join("".join(char for char in joined if not _is_control(char)).split())


def _is_control(char: str) -> bool:
    return unicodedata.category(char).startswith("C")


def _is_letter_or_digit(char: str) -> bool:
    category = unicodedata.category(char)
    return category.startswith("L") or category == "Nd"


# -- reading -------------------------------------------------------------------------------------


async def read_accounts(conn: Connection, org_id: int) -> list[Account]:
    """Return the chart of accounts by code."""
    accounts: list[Account] = []
    while True:
        page = await q.export.list_accounts(
            conn,
            org_id=org_id,
            after_id=accounts[-1].id if accounts else 0,
            limit=ACCOUNTS_PER_PAGE,
        )
        accounts += [Account(row.id, row.code, row.name, row.type, row.currency) for row in page]
        if len(page) < ACCOUNTS_PER_PAGE:
            return sorted(accounts, key=lambda account: (account.code, account.id))


async def read_entries(conn: Connection, org_id: int, as_of: date) -> AsyncGenerator[Entry]:
    """Yield the entries up to a date, by date and number."""
    after_on, after_id = date.min, 0
    while True:
        rows = await q.export.list_entry_lines(
            conn,
            org_id=org_id,
            as_of=as_of,
            after_on=after_on,
            after_id=after_id,
            limit=ENTRIES_PER_PAGE,
        )
        for _, group in groupby(rows, key=lambda row: row.id):
            yield _entry(list(group))
        if not rows:
            return
        after_on, after_id = rows[-1].posted_on, rows[-1].id


def _entry(rows: Sequence[q.export.ListEntryLinesRow]) -> Entry:
    first = rows[0]
    links = {
        "sale": first.sale_id or first.void_sale_id,
        "payment": first.payment_id,
        "goods_receipt": first.goods_receipt_id,
        "reverses": first.reverses_id,
    }
    notes = {"reference_type": first.reference_type, "reference": first.reference_id}
    return Entry(
        id=first.id,
        posted_on=first.posted_on,
        kind=first.kind,
        memo=first.memo,
        notes={name: text for name, text in notes.items() if text},
        links={name: id_ for name, id_ in links.items() if id_ is not None},
        lines=[
            Line(row.account_id, _amount(first.id, row.amount, row.currency), row.currency,
                 row.description)
            for row in rows
            if row.account_id is not None and row.amount is not None and row.currency is not None
        ],
    )  # fmt: skip


def _amount(entry_id: int, amount: Decimal, currency: str) -> str:
    """Write an amount; more decimals than the currency has would be rounded away by hledger."""
    text = money.text(amount, currency)
    _, _, decimals = text.partition(".")
    if len(decimals) > money.minor_units(currency):
        raise SetupError(
            f"Entry {entry_id} has the amount {text} {currency}, which is no whole number of the "
            "currency's smallest unit: the books are broken, see `sofinance verify`.",
            exit_code=EXIT_FAILED,
        )
    return text


# -- the command ---------------------------------------------------------------------------------


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    export = subparsers.add_parser("export", help="write the ledger for other programs")
    exports = export.add_subparsers(title="exports", metavar="WHAT", required=True)
    ledger = exports.add_parser(
        "ledger",
        help="write the journal for hledger or beancount",
        description="Write every entry of the journal up to a date, for hledger or beancount to "
        "recompute. See docs/export.md.",
    )
    database_options(ledger)
    org_option(ledger, "the only one")
    ledger.add_argument("--format", required=True, choices=sorted(FORMATS))
    ledger.add_argument(
        "--as-of", type=_date, metavar="DATE", help="the last date, as 2025-12-31 (today)"
    )
    ledger.add_argument(
        "--output", type=Path, metavar="FILE", help="replace this file, when all is written"
    )
    ledger.set_defaults(run=run)


def _date(text: str) -> date:
    return date.fromisoformat(text)


_date.__name__ = "date"  # argparse: "invalid date value: ..."


async def run(args: argparse.Namespace) -> int:
    """Export the ledger of one organisation, to a file or to stdout."""
    with _output(args.output) as stream:
        async with connected(args) as database:
            org_id = await one_organisation(database, args.org)
            async with database.report(org_id) as conn:
                await export_ledger(conn, org_id, FORMATS[args.format], args.as_of, stream.write)
    return EXIT_GOOD


async def export_ledger(
    conn: Connection,
    org_id: int,
    made_for: type[Format],
    as_of: date | None,
    write: Callable[[bytes], object],
) -> None:
    """Write the ledger up to a date, or to today where the organisation is.

    The connection is in a repeatable-read transaction of the organisation.
    """
    await q.export.allow_pauses(conn, pause_ms=PAUSE_MS_MAX)
    org = await q.orgs.get_organisation(conn, org_id=org_id)
    if as_of is None:
        as_of = await q.branches.get_business_date(conn, org_id=org_id, branch_id=None)
    accounts = await read_accounts(conn, org_id)
    ledger = made_for(org.name, org.base_currency, as_of, accounts)
    first_on = await q.export.find_first_date(conn, org_id=org_id, as_of=as_of)
    _write_all(write, ledger.head(first_on or as_of))
    async for entry in read_entries(conn, org_id, as_of):
        write(ledger.entry(entry).encode())


def _write_all(write: Callable[[bytes], object], texts: Iterable[str]) -> None:
    for text in texts:
        write(text.encode())


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes]]:
    """Yield stdout, or a new file that takes the other's place when it is whole."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise SetupError(f"Cannot write {path}: {error.strerror}.", exit_code=EXIT_USAGE) from error
    half = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        umask = os.umask(0)
        os.umask(umask)
        half.chmod(FILE_MODE & ~umask)
        half.replace(path)
    except BaseException:
        half.unlink()
        raise
