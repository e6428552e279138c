"""`sofinance verify`: recompute the books from the rows, and look whether their guards still stand.

The triggers and constraints hold against the application; whoever owns the tables can switch them
off. So nothing here trusts them: every sum is made again from the rows, by named queries, and what
guards the books is compared with what the migrations made (sql/guards.json). One organisation at a
time, each in one read-only transaction that sees a single state, while postings go on.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import asyncpg

from sofinance import queries as q
from sofinance.infra.command import (
    EXIT_CANNOT_RUN,
    EXIT_FAILED,
    EXIT_GOOD,
    SetupError,
    database_options,
    row_number,
    settings_from,
)
from sofinance.infra.health import known_migrations
from sofinance.infra.sql import SQL_DIR, Row
from sofinance.tools.guard_text import differences, may_be_newer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

GUARDS = SQL_DIR / "guards.json"
IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*")
# Only a person who watches is shown progress, and not more often than this.
PROGRESS_EVERY_S = 0.2
# Broken records told per check; --json has the first one of every organisation.
TOLD_COUNT_MAX = 5


class Check(Protocol):
    """A query of integrity.sql that looks at one organisation and returns one row."""

    key: str

    async def __call__(self, conn: Any, /, *, org_id: int) -> Any:
        """Return how many rows were checked and broken, and the first broken one."""


CHECKS: tuple[Check, ...] = (
    q.integrity.entries_balance,
    q.integrity.lines_are_sound,
    q.integrity.entries_are_dated_in_their_period,
    q.integrity.entries_have_their_document,
    q.integrity.reversals_mirror,
    q.integrity.manual_entries_spare_control_accounts,
    q.integrity.sales_are_the_sum_of_their_lines,
    q.integrity.sale_lines_add_up,
    q.integrity.payments_are_a_chain,
    q.integrity.receivables_follow_sales,
    q.integrity.receivables_equal_their_account,
    q.integrity.receipts_are_the_sum_of_their_lines,
    q.integrity.movements_are_their_documents,
    q.integrity.stock_is_its_movements,
    q.integrity.stock_was_issued_at_cost,
    q.integrity.stock_equals_its_account,
    q.integrity.sales_match_their_entries,
    q.integrity.payments_match_their_entries,
    q.integrity.voids_match_their_entries,
    q.integrity.receipts_match_their_entries,
    q.integrity.receipt_numbers_have_no_holes,
    q.integrity.snapshots_are_the_journal,
    q.integrity.audit_archives_are_a_chain,
)
LINKS = "links_lead_to_rows_of_the_same_organisation"
GUARDS_STAND = "guards_stand"


@dataclass(frozen=True)
class Finding:
    """What a check says: rows looked at, rows broken, and the first broken one.

    Unknown is what only a newer release, which migrated this database, can judge.
    """

    check: str
    organisation_id: int | None
    checked: int
    broken: int
    first: dict[str, Any] | None
    seconds: float
    unknown: int = 0
    first_unknown: dict[str, Any] | None = None


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "verify",
        help="recompute everything from the rows; exit 1 if anything is broken, 3 if nothing is "
        "but a newer release migrated the database and has to judge what it added",
        description="Recompute entries, sales, payments, receivables, stock, numbers, snapshots "
        "and links from the rows, and compare what guards them with this release's. Names the "
        "first broken record of each kind. Runs as any of the roles, beside the service.",
    )
    database_options(parser)
    parser.add_argument(
        "--org", type=row_number, metavar="N", help="only the organisation of this number"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Verify all organisations or one; tell what was found."""
    settings = settings_from(args)
    began = time.monotonic()
    conn: Any = await asyncpg.connect(settings.database_url, record_class=Row)
    try:
        findings = await verify(conn, org_id=args.org, progress=sys.stderr.isatty())
    finally:
        await conn.close()
    seconds = time.monotonic() - began
    if args.json:
        print(json.dumps(document(findings, seconds), indent=2))
    else:
        print("\n".join(table(findings, seconds)))
    if any(finding.broken for finding in findings):
        return EXIT_FAILED
    return EXIT_CANNOT_RUN if any(finding.unknown for finding in findings) else EXIT_GOOD


async def verify(conn: Any, *, org_id: int | None = None, progress: bool = False) -> list[Finding]:
    """Return what every check says, of all organisations or of one."""
    release = Release.load()
    listed = [row.org_id for row in await q.orgs.list_organisation_ids(conn)]
    if org_id is not None and org_id not in listed:
        raise SetupError(f"There is no organisation {org_id}.")
    org_ids = listed if org_id is None else [org_id]
    told = Progress(len(org_ids) * (len(CHECKS) + 2)) if progress else None
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        findings = [await verify_guards(conn, release)]
    for number in org_ids:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            findings += await verify_organisation(conn, number, release, told)
    if told:
        told.done()
    return findings


async def verify_organisation(
    conn: Any, org_id: int, release: Release, told: Progress | None = None
) -> list[Finding]:
    """Return what every check says of one organisation, within the transaction that is open."""
    await q.integrity.set_audit(conn, org_id=org_id)
    findings = []
    checks = [*CHECKS]
    if await q.integrity.may_ask_for_addresses(conn):
        checks.append(q.integrity.users_sign_in_where_they_belong)
    for check in checks:
        if told:
            told.step(org_id, check.key)
        findings.append(await ask(conn, check, org_id))
    if told:
        told.step(org_id, LINKS)
    findings.append(await _check_links(conn, org_id, release.links))
    return findings


async def ask(conn: Any, check: Check, org_id: int) -> Finding:
    """Return what a check says of an organisation, within the transaction that is open."""
    began = time.monotonic()
    row = await check(conn, org_id=org_id)
    return Finding(
        check.key.partition(".")[2],
        org_id,
        row.checked,
        row.broken,
        None if row.example is None else json.loads(row.example),
        time.monotonic() - began,
    )


# -- what guards the books ---------------------------------------------------------------------


@dataclass(frozen=True)
class Release:
    """What a database fresh from this release's migrations has: guards by kind and name, links."""

    guards: dict[str, dict[str, str]]
    links: list[Link]

    @classmethod
    def load(cls) -> Release:
        """Read sql/guards.json."""
        try:
            guards: dict[str, dict[str, str]] = json.loads(GUARDS.read_text("utf-8"))
        except FileNotFoundError:
            raise SetupError(f"{GUARDS} is missing: the installation is broken.") from None
        return cls(guards, [*_links(guards)])

    def columns(self, table: str) -> set[str]:
        """Return the columns of a table that guards speak of."""
        found = {
            name.partition(".")[2]
            for name in self.guards["not null"]
            if name.startswith(f"{table}.")
        }
        for name, rights in self.guards["right"].items():
            if name.startswith(f"{table} (columns) "):
                found |= {right.partition(" ")[0] for right in rights.split(", ")}
        return found


async def verify_guards(conn: Any, release: Release) -> Finding:
    """Compare what guards the books with the release, within the transaction that is open."""
    began = time.monotonic()
    await q.integrity.set_audit(conn, org_id=0)
    found: dict[str, dict[str, str]] = {}
    for row in await q.integrity.list_guards(conn):
        found.setdefault(row.kind, {})[row.name] = row.definition
    newer = await newer_migrations(conn)
    unknown = []
    broken = []
    for each in differences(release.guards, found):
        if newer and may_be_newer(each, release.columns):
            unknown.append({**each, "should_be": f"known to the release with {newer[-1]}"})
        else:
            broken.append(each)
    return Finding(
        GUARDS_STAND,
        None,
        sum(len(of_kind) for of_kind in release.guards.values()),
        len(broken),
        broken[0] if broken else None,
        time.monotonic() - began,
        len(unknown),
        unknown[0] if unknown else None,
    )


async def newer_migrations(conn: Any) -> list[str]:
    """Return the migrations that a newer release made; none for a role that may not ask."""
    if not await q.request.may_read_migrations(conn):
        return []
    last_known_id = known_migrations()[-1]
    rows = await q.request.list_newer_migrations(conn, last_known_id=last_known_id)
    return [row.migration_id for row in rows]


# -- links -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """A foreign key, as the query that finds the rows whose link leads nowhere."""

    name: str
    sql: str


def _links(expected: dict[str, dict[str, str]]) -> Iterator[Link]:
    """Yield a query per foreign key of this release, whether or not the database still has it.

    The only statements that are put together from names: there are some sixty foreign keys, all
    looked at in the same way, and a list of them kept by hand would miss the next one. The names
    come from our own file and must look like names.
    """
    tenants = {name.partition(".")[0] for name in expected["policy"] if name.endswith(".org")}
    for name, definition in expected["link"].items():
        link = json.loads(definition)
        table, other = link["table"], link["other_table"]
        pairs = [*zip(link["columns"], link["other_columns"], strict=True)]
        for word in (table, other, *(column for pair in pairs for column in pair)):
            if not IDENTIFIER.fullmatch(word):
                raise SetupError(f"{GUARDS}: {word!r} is not a name.")
        if table not in tenants or other not in tenants:
            continue  # sign_in_address, which has a check of its own
        columns = [column for column, _ in pairs]
        filled = " and ".join(f'child."{column}" is not null' for column in columns)
        same = " and ".join(f'parent."{theirs}" = child."{ours}"' for ours, theirs in pairs)
        row = ", ".join(f"'{column}', child.\"{column}\"" for column in columns)
        yield Link(
            name,
            f"/* integrity.links */ with broken as materialized ("  # noqa: S608 - checked above
            f'select json_build_object({row})::text as details from "{table}" as child '
            f"where child.org_id = $1 and {filled} "
            f'and not exists (select from "{other}" as parent where {same})) '
            f'select (select count(*) from "{table}" where org_id = $1) as checked, '
            f"(select count(*) from broken) as broken, "
            f"(select min(details) from broken) as example",
        )


async def _check_links(conn: Any, org_id: int, links: list[Link]) -> Finding:
    began = time.monotonic()
    checked = broken = 0
    first = None
    for link in links:
        row = await conn.fetchrow(link.sql, org_id)
        checked, broken = checked + row.checked, broken + row.broken
        if first is None and row.broken:
            first = {"link": link.name, **json.loads(row.example)}
    return Finding(LINKS, org_id, checked, broken, first, time.monotonic() - began)


# -- telling -----------------------------------------------------------------------------------


class Progress:
    """One line on stderr that says where the verification is."""

    def __init__(self, step_count: int) -> None:
        self._steps, self._step, self._told_at = step_count, 0, 0.0

    def step(self, org_id: int, check: str) -> None:
        """Say what begins now."""
        self._step += 1
        if time.monotonic() - self._told_at > PROGRESS_EVERY_S:
            self._told_at = time.monotonic()
            line = f"{self._step}/{self._steps} organisation {org_id}: {check}"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def done(self) -> None:
        """Take the line away."""
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def document(findings: list[Finding], seconds: float) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "ok": not any(finding.broken or finding.unknown for finding in findings),
        "organisations": len({f.organisation_id for f in findings} - {None}),
        "seconds": round(seconds, 3),
        "checks": [asdict(f) | {"seconds": round(f.seconds, 4)} for f in findings],
    }


def table(findings: list[Finding], seconds: float) -> Iterator[str]:
    """Yield the lines of the table for people: a row per check, its broken records below it."""
    by_check: dict[str, list[Finding]] = {}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    width = max(map(len, by_check))
    yield f"  {'check':<{width}}  {'rows':>12}  {'broken':>8}  {'time':>8}"
    for check, of_check in by_check.items():
        broken = sum(f.broken for f in of_check)
        mark = "✗" if broken else "?" if any(f.unknown for f in of_check) else "✓"
        yield (
            f"{mark} {check:<{width}}  {sum(f.checked for f in of_check):>12,}"
            f"  {broken:>8,}  {sum(f.seconds for f in of_check):>6.2f} s"
        )
        bad = [f for f in of_check if f.broken]
        for finding in bad[:TOLD_COUNT_MAX]:
            where = (
                ""
                if finding.organisation_id is None
                else f"organisation {finding.organisation_id}, "
            )
            yield f"    {where}first broken: {json.dumps(finding.first)}"
        if len(bad) > TOLD_COUNT_MAX:
            yield f"    and {len(bad) - TOLD_COUNT_MAX} more organisations: see --json"
        for finding in of_check:
            if finding.unknown:
                yield f"    {finding.unknown:,} unknown, first: {json.dumps(finding.first_unknown)}"
    org_count = len({f.organisation_id for f in findings} - {None})
    failed = sum(any(f.broken for f in of_check) for of_check in by_check.values())
    verdict = f"{failed} of {len(by_check)} checks failed" if failed else "all is well"
    if any(finding.unknown for finding in findings):
        verdict += (
            "; a newer release migrated this database, and what it added is unknown to this one: "
            "verify with the newer"
        )
    yield f"{org_count} organisation{'' if org_count == 1 else 's'}, {seconds:.1f} s: {verdict}"
