"""What is changed for everybody is written down: by commands, over the API and in psql."""

from __future__ import annotations

import json
import os
import pwd
import socket
from typing import TYPE_CHECKING, Any

import pytest

from sofinance import cli
from sofinance.tools import operator_actions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

pytestmark = pytest.mark.empty_database
FLAG = "low_stock_notices"
KILLED = {"percent": None, "is_killed": True}
UNSET = {"percent": None, "is_killed": False}
DECLARE = (
    "select declare_job('nap', 'Naps.', 86400, 0, 60);"
    "select note_flags('{low_stock_notices}', '{0}')"
)
MACHINE = socket.gethostname()
ACCOUNT = f"{pwd.getpwuid(os.getuid()).pw_name}@{MACHINE}"
SELF = operator_actions.operator(os.environ.get("SUDO_USER"))


async def run(dsn: str, *words: str) -> int:
    """Run a command of sofinance."""
    args = cli.parser([words[0]]).parse_args([*words, "--database-url", dsn])
    return int(await args.run(args))


async def listed(api: Api, org: Org) -> list[tuple[Any, ...]]:
    """Return what was done, the first first."""
    answer = await api.get("/admin/operator-actions", org)
    return [
        (one["who"], one["action"], one["subject"], one["before"], one["after"])
        for one in reversed(answer.data["items"])
    ]


async def test_what_a_command_changes_for_everybody_is_written_down(
    api: Api, org: Org, dsn: str, psql: Psql, capsys: pytest.CaptureFixture[str]
) -> None:
    psql(DECLARE)
    for words in (
        ("jobs", "pause", "nap"), ("jobs", "pause", "nap"), ("jobs", "resume", "nap"),
        ("jobs", "run", "nap"), ("flags", "kill", FLAG), ("flags", "revive", FLAG),
        ("flags", "set", FLAG, "25"), ("flags", "set", FLAG, "on", "--org", str(org.id)),
    ):  # fmt: skip
        assert await run(dsn, *words) == 0
    rest = {"is_paused": False, "is_requested": False}
    assert await listed(api, org) == [
        (SELF, "jobs.change", "nap", rest, {**rest, "is_paused": True}),
        (SELF, "jobs.change", "nap", {**rest, "is_paused": True}, rest),
        (SELF, "jobs.change", "nap", rest, {**rest, "is_requested": True}),
        (SELF, "flags.change", FLAG, UNSET, KILLED),
        (SELF, "flags.change", FLAG, KILLED, UNSET),
        (SELF, "flags.change", FLAG, UNSET, {"percent": 25, "is_killed": False}),
    ]
    known = psql("select distinct database_role, org_id, user_id from operator_action")
    assert known == [("sofinance_app", None, None)], "what an organisation has is in its audit log"
    capsys.readouterr()
    assert await run(dsn, "operator-actions", "--limit", "1", "--json") == 0
    (latest,) = json.loads(capsys.readouterr().out)
    assert (latest["who"], latest["subject"]) == (SELF, FLAG)
    assert await run(dsn, "operator-actions") == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


async def test_a_worker_that_runs_a_job_is_no_operator(psql: Psql) -> None:
    psql(f"{DECLARE}; select steer_job('nap', 'run')")
    assert psql("select claim_no from claim_job('worker', '{nap}')") == [(1,)]
    assert psql("select is_requested from job") == [(False,)]
    psql("select finish_job('nap', 1, 'failed', 'no')")
    assert psql("select who, after->>'is_requested' from operator_action") == [
        ("sofinance_app", "true")
    ]


async def test_over_the_api_it_is_the_user_who_did_it(
    api_with: MakeApi, org: Org, other_org: Org, psql: Psql
) -> None:
    api = await api_with(operator_org_id=org.id)
    for body in ({"is_killed": True}, {"is_killed": False}, {"is_killed": False}):
        assert (await api.call("PUT", f"/flags/{FLAG}/global", org, json=body)).status == 200
    page = (await api.get("/admin/operator-actions?limit=1", org)).data
    (latest,) = page["items"]
    assert (latest["organisation_id"], latest["user_id"]) == (org.id, org.admin.id)
    assert (latest["before"], latest["after"]) == (KILLED, UNSET)
    assert latest["database_role"] == "sofinance_app"
    path = f"/admin/operator-actions?limit=1&cursor={page['next_cursor']}"
    last = (await api.get(path, org)).data
    assert (last["items"][0]["after"], last["next_cursor"]) == (KILLED, None)
    assert psql("select count(*) from operator_action") == [(2,)], "the third changed nothing"
    refused = await api.get("/admin/operator-actions", other_org)
    assert refused.refused == (403, "forbidden")


async def test_what_the_owner_does_in_psql_is_written_down_and_stays(
    dsn: str, org: Org, psql: Psql
) -> None:
    psql("select note_flags('{old_one}', '{5}')")
    psql("update flag set evaluation_count = 6 where name = 'old_one'", role="sofinance_owner")
    assert psql("select count(*) from operator_action") == [(0,)], "that switches nothing"
    psql("select set_flag('new_one', 5, false)")
    psql("update flag set percent = 5 where name = 'new_one'", role="sofinance_owner")
    psql("update flag set percent = 5 where name = 'old_one'", role="sofinance_owner")
    psql(
        "insert into flag_override (org_id, flag, percent) values (%s, 'old_one', 100)",
        [org.id],
        org=org,
    )
    assert await run(dsn, "flags", "retire", "old_one") == 0
    set_to = {"percent": 5, "is_killed": False}
    assert psql(
        "select who, action, database_role, before, after from operator_action order by id"
    ) == [
        ("sofinance_app", "flags.change", "sofinance_app", None, set_to),
        ("sofinance_owner", "flags.change", "sofinance_owner", UNSET, set_to),
        (SELF, "flags.retire", "sofinance_app", set_to, None),
    ]  # fmt: skip
    assert psql("select action, after->>'flag' from audit_log where entity_type = 'flags'",
                org=org) == [("flags.delete_overrides", "old_one")]  # fmt: skip


def test_who_became_another_account_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert operator_actions.operator(None) == ACCOUNT
    assert operator_actions.operator("ada") == f"{ACCOUNT}, for ada"
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    assert operator_actions.operator(None) == f"{2**31 - 7}@{MACHINE}"
