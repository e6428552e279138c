"""Flags: set for whom, seen by whom, killed by whom, and counted."""

from __future__ import annotations

import ast
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sofinance import cli, flags
from sofinance.infra.command import SetupError
from sofinance.infra.db import Database
from sofinance.infra.flags import Flags
from sofinance.tools import flags as command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql, User

    MakeApi = Callable[..., Awaitable[Api]]

NAME = "pause_jobs"
PATH = f"/flags/{NAME}"
PACKAGE = Path(flags.__file__).parent
TODAY = datetime.now(UTC).date()


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


async def evaluate(api: Api, who: Org | User, **options: Any) -> tuple[bool, str]:
    """Return whether the flag is on for somebody, and why."""
    data = (await api.get(f"{PATH}/evaluate", who, **options)).data
    return data["is_on"], data["reason"]


# -- the release's own -------------------------------------------------------------------------


def test_no_flag_is_past_its_sunset():
    """Take the flag out with what it switches, or say in sofinance/flags.py why it stays."""
    assert [flag.name for flag in flags.FLAGS if command.is_past(flag, TODAY)] == []


def test_every_flag_is_declared_well():
    names = [flag.name for flag in flags.FLAGS]
    assert len(names) == len(set(names))
    for flag in flags.FLAGS:
        assert flag.default is False, "a new flag is off"
        assert flag.owner
        assert flag.description.endswith(".")


def test_every_flag_that_is_asked_for_is_declared_and_the_other_way_round():
    asked = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"flag", "is_on"}
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                asked.add(node.args[0].value)
    assert asked == {flag.name for flag in flags.FLAGS}


# -- over the API ------------------------------------------------------------------------------


async def test_the_nearest_scope_decides_and_deleting_brings_back_what_is_around(
    api: Api, org: Org
) -> None:
    branch_id = (await api.post("/branches", org, {"name": "Side"})).data["id"]
    there = {"headers": {"X-Branch-Id": str(branch_id)}}
    assert await evaluate(api, org, **there) == (False, "default")
    for scope, percent, expected in (
        ({}, 100, (True, "organisation")),
        ({"branch_id": branch_id}, 0, (False, "branch")),
        ({"user_id": org.admin.id}, 100, (True, "user")),
    ):
        made = await api.put(PATH, org, {"percent": percent, **scope})
        assert made.data["percent"] == percent
        assert await evaluate(api, org, **there) == expected
    cashier = org.member("CASHIER")
    assert await evaluate(api, cashier, **there) == (False, "branch")
    assert await evaluate(api, cashier) == (True, "organisation")
    listed = (await api.get(f"{PATH}/overrides", org)).data
    assert [(row["branch_id"], row["user_id"], row["percent"]) for row in listed["items"]] == [
        (None, None, 100), (branch_id, None, 0), (None, org.admin.id, 100),
    ]  # fmt: skip
    assert listed["pagination"]["total"] == 3
    for query, expected in (
        (f"?user_id={org.admin.id}", (False, "branch")),
        (f"?branch_id={branch_id}", (True, "organisation")),
        ("", (False, "default")),
    ):
        assert (await api.delete(PATH + query, org)).status == 204
        assert await evaluate(api, org, **there) == expected
    assert (await api.delete(PATH, org)).refused == (404, "not_found")


async def test_setting_it_again_changes_it_and_both_are_in_the_audit_log(
    api: Api, org: Org
) -> None:
    first = (await api.put(PATH, org, {"percent": 25})).data
    again = (await api.put(PATH, org, {"percent": 50})).data
    assert (again["id"], again["changed_by"]) == (first["id"], org.admin.id)
    assert (await api.delete(PATH, org)).status == 204
    logs = (await api.get("/audit/logs?limit=100", org)).data["items"]
    deeds = [
        (row["action"], (row["before"] or {}).get("percent"), (row["after"] or {}).get("percent"))
        for row in logs
        if row["entity_type"] == "flags"
    ]
    assert deeds == [
        ("flags.delete_override", 50, None),
        ("flags.set_override", 25, 50),
        ("flags.set_override", None, 25),
    ]


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"percent": 101}, (422, "invalid_request")),
        ({"percent": -1}, (422, "invalid_request")),
        ({"percent": "25"}, (422, "invalid_request")),
        ({}, (422, "invalid_request")),
        ({"percent": 50, "user_id": "admin"}, (422, "flag_override_all_or_none")),
        ({"percent": 0, "user_id": "admin", "branch_id": 1}, (422, "flag_override_one_scope")),
        ({"percent": 0, "user_id": 1}, (409, "flag_override_user_known")),
        ({"percent": 0, "branch_id": 1}, (409, "flag_override_branch_known")),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(
    api: Api, org: Org, body: dict[str, Any], refused: tuple[int, str]
) -> None:
    if body.get("user_id") == "admin":
        body = {**body, "user_id": org.admin.id}
    assert (await api.put(PATH, org, body)).refused == refused


async def test_another_organisation_sets_nothing_here(api: Api, org: Org, other_org: Org) -> None:
    await api.put(PATH, other_org, {"percent": 100})
    assert await evaluate(api, org) == (False, "default")
    theirs = {"percent": 100, "user_id": other_org.admin.id}
    assert (await api.put(PATH, org, theirs)).refused == (409, "flag_override_user_known")
    assert (await api.get(f"{PATH}/overrides", org)).data["items"] == []


async def test_a_flag_that_the_release_does_not_have_is_none(api: Api, org: Org) -> None:
    for answer in (
        await api.get("/flags/no_such/evaluate", org),
        await api.get("/flags/no_such/overrides", org),
        await api.put("/flags/no_such", org, {"percent": 0}),
        await api.delete("/flags/no_such", org),
        await api.put("/flags/no_such/global", org, {}),
    ):
        assert answer.refused == (404, "not_found")


async def test_only_who_may_sets_flags(api: Api, org: Org) -> None:
    manager = org.member("MANAGER")
    assert (await api.get("/flags", manager)).refused == (403, "forbidden")
    assert (await api.put(PATH, manager, {"percent": 0})).refused == (403, "forbidden")
    assert (await api.put(f"{PATH}/global", manager, {})).refused == (403, "forbidden")


async def test_what_is_the_operators_is_not_for_tenants(
    api_with: MakeApi, org: Org, other_org: Org
) -> None:
    api = await api_with(operator_org_id=other_org.id)
    for answer in (
        await api.put(PATH, org, {"percent": 100}),
        await api.delete(PATH, org),
        await api.put(f"{PATH}/global", org, {"is_killed": True}),
    ):
        assert answer.refused == (403, "forbidden")
    assert (await api.put(PATH, other_org, {"percent": 100})).status == 200


@pytest.mark.empty_database
async def test_globally_set_and_killed(api: Api, org: Org) -> None:
    where = f"{PATH}/global"
    assert (await api.put(where, org, {"percent": 100})).data["global_percent"] == 100
    assert await evaluate(api, org) == (True, "global")
    await api.put(PATH, org, {"percent": 100, "user_id": org.admin.id})
    killed = (await api.put(where, org, {"percent": 100, "is_killed": True})).data
    assert killed["is_killed"] is True
    assert await evaluate(api, org) == (False, "killed")
    assert [flag["is_killed"] for flag in (await api.get("/flags", org)).data] == [
        flag.name == NAME for flag in sorted(flags.FLAGS, key=lambda flag: flag.name)
    ]
    assert (await api.put(where, org, {})).data["is_killed"] is False
    assert await evaluate(api, org) == (True, "user")


# -- the machine -------------------------------------------------------------------------------


@pytest.mark.empty_database
async def test_asking_costs_no_write_and_no_second_read(database: Database, psql: Psql) -> None:
    asked = Flags(database)
    for _ in range(1_000):
        await asked.is_on(NAME, org_id=1)
    assert database.pool.open_count <= 2
    counted = "select evaluation_count, last_evaluated_at is null from flag where name = %s"
    await asked.flush_when_due()
    assert psql(counted, [NAME]) == []  # a minute has not passed
    await asked.flush()
    assert psql(counted, [NAME]) == [(1_000, False)]
    await asked.flush()
    assert psql(counted, [NAME]) == [(1_000, False)]


@pytest.mark.empty_database
async def test_what_could_not_be_written_is_written_later(database: Database, psql: Psql) -> None:
    asked = Flags(database)
    await asked.is_on(NAME)
    rename = "alter function {}(text[], bigint[]) rename to {}"
    psql(rename.format("note_flags", "gone"), role="sofinance_owner")
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await asked.flush()
    psql(rename.format("gone", "note_flags"), role="sofinance_owner")
    await asked.flush()
    assert psql("select evaluation_count from flag where name = %s", [NAME]) == [(1,)]


async def test_a_change_elsewhere_is_seen_within_seconds(
    database: Database, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Flags(database)
    assert not await asked.is_on(NAME, org_id=org.id)
    psql(
        "insert into flag_override (org_id, flag, percent) values (%s, %s, 100)",
        [org.id, NAME],
        org=org,
    )
    assert not await asked.is_on(NAME, org_id=org.id)
    monkeypatch.setattr("sofinance.infra.flags.AGE_MAX_S", 0)
    assert await asked.is_on(NAME, org_id=org.id)


async def test_an_undeclared_flag_is_a_mistake_in_the_program(database: Database) -> None:
    with pytest.raises(KeyError):
        await Flags(database).is_on("no_such")


async def test_the_metric_counts(api: Api, org: Org) -> None:
    line = f'flag_evaluations_total{{flag="{NAME}",outcome="off"}}'

    async def count() -> float:
        text = (await api.get("/metrics", prefix="")).text
        found = [each for each in text.splitlines() if each.startswith(line)]
        return float(found[0].split()[-1]) if found else 0.0

    before = await count()
    for _ in range(3):
        await evaluate(api, org)
    assert await count() == before + 3


# -- the command -------------------------------------------------------------------------------


async def run(dsn: str, *words: str) -> int:
    """Run the command."""
    return await command.run(
        cli.parser(["flags"]).parse_args(["flags", *words, "--database-url", dsn])
    )


@pytest.mark.empty_database
async def test_the_command_sets_kills_and_lists(
    dsn: str, org: Org, database: Database, psql: Psql, capsys: pytest.CaptureFixture[str]
) -> None:
    async def is_on() -> bool:
        return await Flags(database).is_on(NAME, org_id=org.id)

    for words, expected in (
        (("set", NAME, "on"), True),
        (("kill", NAME), False),
        (("revive", NAME), True),
        (("set", NAME, "default"), False),
        (("set", NAME, "on", "--org", str(org.id)), True),
        (("set", NAME, "default", "--org", str(org.id)), False),
        (("set", NAME, "default", "--org", str(org.id)), False),
    ):
        assert await run(dsn, *words) == 0
        assert await is_on() is expected, words
    written = "select action, after->>'percent' from audit_log where entity_type = 'flags'"
    assert psql(f"{written} order by id", org=org) == [
        ("flags.set_override", "100"), ("flags.delete_override", None),
    ]  # fmt: skip
    assert await run(dsn, "set", NAME, "25") == 0
    assert await run(dsn, "list", "--json") == 0
    (listed,) = [row for row in json.loads(capsys.readouterr().out) if row["name"] == NAME]
    assert (listed["default"], listed["global"], listed["owner"]) == ("off", 25, "operations")


@pytest.mark.parametrize(
    "words",
    [
        ("set", NAME), ("set", NAME, "maybe"), ("set", NAME, "101"), ("kill",), ("list", NAME),
        ("kill", "no_such"), ("retire", NAME), ("kill", NAME, "--org", "1"),
    ],
)  # fmt: skip
async def test_the_command_refuses_in_a_sentence(dsn: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SetupError) as refused:
        await run(dsn, *words)
    assert refused.value.exit_code == 2


@pytest.mark.empty_database
async def test_a_flag_of_an_earlier_release_is_stale_until_it_is_retired(
    api: Api, dsn: str, org: Org, psql: Psql, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await api.get("/flags", org)).status == 200
    assert await run(dsn, "stale", "--json") == 0
    psql("select note_flags('{old_one}', '{0}')")
    psql(
        "insert into flag_override (org_id, flag, percent) values (%s, 'old_one', 100)",
        [org.id],
        org=org,
    )
    capsys.readouterr()
    assert await run(dsn, "stale", "--json") == 1
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["old_one"]
    assert await run(dsn, "retire", "old_one") == 0
    assert await run(dsn, "stale") == 0
    assert psql("select count(*) from flag_override", org=org) == [(0,)]
    with pytest.raises(SetupError):
        await run(dsn, "retire", "old_one")


def test_what_is_past_its_sunset_or_unused_is_stale():
    now = datetime.now(UTC)
    today = now.date()  # of the same moment: a run may go on past midnight

    class Row:
        def __init__(self, declared_days: int, used_days: int | None) -> None:
            self.declared_at = now - timedelta(days=declared_days)
            self.last_evaluated_at = None if used_days is None else now - timedelta(days=used_days)

    def flag(name: str, sunset: date) -> flags.Flag:
        return flags.Flag(name=name, description="D.", owner="me", sunset=sunset)

    later = today + timedelta(days=9)
    declared = [
        flag("past", today - timedelta(days=1)), flag("last_day", today), flag("used", later),
        flag("unused", later), flag("forgotten", later), flag("new", later),
    ]  # fmt: skip
    known = {
        "used": Row(90, 1), "unused": Row(31, None), "forgotten": Row(90, 31), "new": Row(1, None),
    }  # fmt: skip
    found = command.stale(declared, known, now=now)
    assert {one.name for one in found} == {"past", "unused", "forgotten"}
