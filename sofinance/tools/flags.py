"""`sofinance flags`: which there are, which are due to be taken out; setting one for whomever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sofinance import queries as q
from sofinance.flags import FLAGS
from sofinance.infra.command import (
    EXIT_FAILED,
    EXIT_GOOD,
    EXIT_USAGE,
    SetupError,
    database_options,
)
from sofinance.infra.db import Mode
from sofinance.tools.operator_actions import name_operator
from sofinance.tools.orgs import connected, org_option, write_audit
from sofinance.tools.tables import tell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from sofinance.flags import Flag

# A flag that nobody asks for that long switches nothing any more.
UNUSED_DAYS = 30
ROW_COUNT_MAX = 500
ON, OFF, AS_DECLARED = "on", "off", "default"
COLUMNS = ("name", "default", "global", "owner", "sunset", "evaluation_count", "last_evaluated_at")


@dataclass(frozen=True, slots=True)
class Stale:
    """A flag to be taken out, and why."""

    name: str
    why: str


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "flags",
        help="list feature flags, find stale ones, set, kill or retire one",
        description="list: every flag, what holds globally, and how much it is asked for. stale: "
        "those past their sunset, unused or no longer declared; exit 1 if there are any. set: for "
        "everybody, or with --org for an organisation. kill, revive: off for everybody, whatever "
        "is set, and no longer. retire: forget one that no release declares any more.",
    )
    actions = ("list", "stale", "set", "kill", "revive", "retire")
    parser.add_argument("action", nargs="?", default="list", choices=actions)
    parser.add_argument("flag", nargs="?", help="the flag's name, for all but list and stale")
    parser.add_argument("value", nargs="?", help="for set: on, off, default or a percentage")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    org_option(parser, "everybody")
    database_options(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Tell, or change."""
    demand(args)
    async with connected(args) as database:
        if args.action in {"list", "stale"}:
            async with database.untenanted() as conn:
                rows = await q.flags.list_flags(conn, limit=ROW_COUNT_MAX)
            known = {row.name: row for row in rows}
            if args.action == "list":
                tell(args, [line(flag, known.get(flag.name)) for flag in by_name()], COLUMNS)
                return EXIT_GOOD
            found = list(stale(FLAGS, known, now=datetime.now(UTC)))
            tell(args, [{"name": one.name, "why": one.why} for one in found], ("name", "why"))
            return EXIT_FAILED if found else EXIT_GOOD
        if args.action == "retire":
            await retire(database, args.flag)
        elif args.org is not None:
            await set_for(database, args.org, args.flag, args.value)
        else:
            await set_globally(database, args)
    return EXIT_GOOD


def demand(args: argparse.Namespace) -> None:
    """Refuse words that do not belong together."""
    wants_flag = args.action not in {"list", "stale"}
    if wants_flag != (args.flag is not None) or (args.action == "set") != (args.value is not None):
        shape = {"set": " NAME on|off|default|0..100"}.get(args.action, " NAME" * wants_flag)
        raise SetupError(f"Say `sofinance flags {args.action}{shape}`.", exit_code=EXIT_USAGE)
    if args.org is not None and args.action != "set":
        raise SetupError("--org is for `flags set`.", exit_code=EXIT_USAGE)
    is_declared = args.flag in {flag.name for flag in FLAGS}
    if wants_flag and is_declared == (args.action == "retire"):
        told = "is still declared" if is_declared else "is not declared"
        raise SetupError(f"The flag {args.flag!r} {told} by this release.", exit_code=EXIT_USAGE)


def by_name() -> list[Flag]:
    """Return the flags of this release in their order."""
    return sorted(FLAGS, key=lambda flag: flag.name)


def line(flag: Flag, row: Any) -> dict[str, Any]:
    """Return a flag as it is listed."""
    percent = None if row is None else row.percent
    return {
        "name": flag.name,
        "default": ON if flag.default else OFF,
        "global": "killed" if row is not None and row.is_killed else percent,
        "owner": flag.owner,
        "sunset": flag.sunset.isoformat(),
        "evaluation_count": 0 if row is None else row.evaluation_count,
        "last_evaluated_at": None if row is None else row.last_evaluated_at,
    }


def stale(flags: Iterable[Flag], known: dict[str, Any], *, now: datetime) -> Iterable[Stale]:
    """Yield what is to be taken out: past its sunset, unused, or gone from the code."""
    long_ago = now - timedelta(days=UNUSED_DAYS)
    declared = set()
    for flag in flags:
        declared.add(flag.name)
        row = known.get(flag.name)
        if is_past(flag, now.date()):
            yield Stale(flag.name, f"past its sunset of {flag.sunset}: ask {flag.owner}")
        elif row is not None and (row.last_evaluated_at or row.declared_at) < long_ago:
            yield Stale(flag.name, f"not asked for in {UNUSED_DAYS} days: ask {flag.owner}")
    for name in sorted(known.keys() - declared):
        yield Stale(name, f"not declared by this release: `sofinance flags retire {name}`")


def is_past(flag: Flag, today: date) -> bool:
    """Say whether a flag should be gone by now."""
    return flag.sunset < today


def percent_of(value: str) -> int | None:
    """Read on, off, default or a percentage."""
    words = {ON: 100, OFF: 0, AS_DECLARED: None}
    if value in words:
        return words[value]
    if value.isascii() and value.isdecimal() and int(value) <= 100:
        return int(value)
    raise SetupError(
        f"A flag is set to on, off, default or 0 to 100, not {value!r}.", exit_code=EXIT_USAGE
    )


async def set_globally(database: Any, args: argparse.Namespace) -> None:
    """Set a flag for everybody, kill it or revive it."""
    async with database.untenanted(mode=Mode.WRITE) as conn:
        rows = await q.flags.list_flags(conn, limit=ROW_COUNT_MAX)
        found = next((row for row in rows if row.name == args.flag), None)
        percent = None if found is None else found.percent
        is_killed = found is not None and found.is_killed
        if args.action == "set":
            percent = percent_of(args.value)
        else:
            is_killed = args.action == "kill"
        await name_operator(conn)
        await q.flags.set_flag(conn, name=args.flag, percent=percent, is_killed=is_killed)


async def set_for(database: Any, org_id: int, flag: str, value: str) -> None:
    """Set a flag for an organisation."""
    percent = percent_of(value)
    key: Any = {"org_id": org_id, "flag": flag, "branch_id": None, "user_id": None}
    async with database.tenant(org_id) as conn:
        row: Any = await q.flags.find_override(conn, **key)
        if percent is None and row is None:
            return  # it is as declared
        if percent is None:
            action, row = b"flags.delete_override", await q.flags.delete_override(conn, **key)
        else:
            action = b"flags.set_override"
            row = await q.flags.set_override(conn, percent=percent, changed_by=None, **key)
        await write_audit(
            conn, org_id, action, b"flags", row.id, {"flag": flag, "percent": percent}
        )


async def retire(database: Any, flag: str) -> None:
    """Forget a flag and all that is set for it."""
    async with database.untenanted() as conn:
        org_ids = [row.org_id for row in await q.orgs.list_organisation_ids(conn)]
    for org_id in org_ids:
        async with database.tenant(org_id) as conn:
            if await q.flags.delete_overrides(conn, org_id=org_id, flag=flag):
                await write_audit(
                    conn, org_id, b"flags.delete_overrides", b"flags", None, {"flag": flag}
                )
    async with database.untenanted(mode=Mode.WRITE) as conn:
        await name_operator(conn)
        if not await q.flags.retire_flag(conn, name=flag):
            raise SetupError(f"There is no flag {flag!r}.", exit_code=EXIT_USAGE)
