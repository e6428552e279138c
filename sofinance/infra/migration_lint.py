"""Refuse migrations that the release before cannot live with.

While a release is rolled out, and after it was rolled back, code of the release before runs on the
new schema. So a migration adds; what it takes away, renames or narrows waits for the release after
the one whose code stopped needing it. Such a migration says so:

    -- contract: 1.4.0 was the last release that read customer.fax

and is refused unless that release is older than this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTRACT = re.compile(r"^-- contract: (\d+)\.(\d+)\.(\d+)\b.*\w", re.MULTILINE)
SHORT = 120  # characters of a statement that are told
# What is no statement: comments, texts, and the bodies of functions, which run later.
NOISE = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|(?P<body>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)",
    re.DOTALL,
)
DO = re.compile(r"\bdo\s*$", re.IGNORECASE)
ALTER_TABLE = r"alter table\b"
# What can be dropped of a table so that it takes more than before.
LOOSENED = "(constraint|default|not|expression|identity)"
CREATED = re.compile(r"^create (?:unlogged )?table (?:if not exists )?([\w.\"]+)")
ALTERED = re.compile(r"^alter table (?:if exists )?(?:only )?([\w.\"]+) ")
DEMANDS = "demands a value that older code does not give"
RULES = {
    "takes something away": re.compile(
        r"\bdrop (table|schema|type|domain|sequence|view|materialized view|function|procedure)\b"
        rf"|^{ALTER_TABLE}.*\bdrop (?!{LOOSENED}\b)\w"
    ),
    "renames something": re.compile(r"\brename (to|column|constraint|value)\b|\brename \w+ to\b"),
    "changes a column's type": re.compile(
        rf"^{ALTER_TABLE}.*\balter (column )?\w+ (set data )?type\b"
    ),
    DEMANDS: re.compile(
        rf"^{ALTER_TABLE}.*\bset not null\b"
        rf"|^{ALTER_TABLE}.*\badd (column )?(?!constraint\b)(if not exists )?\w+ [^,]*\bnot null\b"
    ),
    "takes a right from the service": re.compile(r"^revoke\b.*\bfrom\b.*\bsofinance_app\b"),
    "deletes rows": re.compile(r"^(truncate|delete from)\b"),
}
FILLED = re.compile(r"\bdefault\b|\bgenerated\b")


@dataclass(frozen=True, slots=True)
class Finding:
    """A statement that older code may not survive."""

    migration: str
    what: str
    statement: str

    def __str__(self) -> str:
        return f"{self.migration} {self.what}: {self.statement}"


def lint(folder: Path, *, version: str) -> list[Finding]:
    """Return what is wrong with the migrations of a folder, for a release of this version."""
    found = []
    for path in sorted(folder.glob("[0-9]*.sql")):
        if path.name.endswith(".rollback.sql"):
            continue
        text = path.read_text("utf-8")
        if is_contract(text, version=version):
            continue
        found += [Finding(path.stem, what, short) for what, short in destructive(text)]
    return found


def is_contract(text: str, *, version: str) -> bool:
    """Say whether a migration names the last release that needed what it takes away."""
    named = CONTRACT.search(text)
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if named is None or numbers is None:
        return False
    return [int(part) for part in named.groups()] < [int(part) for part in numbers.groups()]


def destructive(text: str) -> Iterator[tuple[str, str]]:
    """Yield what each destructive statement does, and the statement in short."""
    made: set[str] = set()
    for statement in statements(text):
        if created := CREATED.match(statement):
            made.add(created.group(1))
        altered = ALTERED.match(statement)
        if altered and altered.group(1) in made:
            continue  # no older code knows the table
        # One statement may change a table in several ways; each is looked at by itself.
        first, *more = re.split(r",\s*(?=(?:add|alter|drop)\b)", statement)
        parts = [first, *(f"{altered.group() if altered else ''}{part}" for part in more)]
        for what, rule in RULES.items():
            if any(rule.search(part) and not _fills_itself(part, what) for part in parts):
                yield what, statement[:SHORT]


def _fills_itself(part: str, what: str) -> bool:
    """Say whether a new column asks nothing of code that does not know it."""
    return what == DEMANDS and FILLED.search(part) is not None


def statements(text: str) -> Iterator[str]:
    """Yield statements in lower case on one line, without comments, texts and functions' bodies."""

    def quiet(found: re.Match[str]) -> str:
        body = found.group("body")
        if body and DO.search(text[: found.start()]):
            # `do $$ ... $$` runs now; what it runs is looked at like the rest.
            return ";" + NOISE.sub(quiet, body.strip("$")).replace("begin ", "; ") + ";"
        return " "

    for statement in NOISE.sub(quiet, text).split(";"):
        line = " ".join(statement.split()).lower()
        line = re.sub(r"^(begin|declare|then|else|loop) ", "", line)
        if line:
            yield line
