"""What the nightly verification finds: an event, while it is so, for whoever may see it."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from sofinance.infra.db import Database
from sofinance.infra.logs import JOURNAL
from sofinance.jobs import JobFailedError
from sofinance.jobs.integrity import verify_books
from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Answer, Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

pytestmark = pytest.mark.empty_database
PATH = "/admin/integrity-events"
HUSH = "set local session_replication_role = replica;\n"
RAISE = HUSH + "update journal_line set debit = debit + {} where line_no = 1 and org_id = {}"
GUARD = "alter table journal_line {} trigger journal_line_is_final"


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


async def events(api: Api, org: Org, query: str = "") -> list[Any]:
    answer: Answer = await api.get(f"{PATH}{query}", org)
    assert answer.status == 200
    found: list[Any] = answer.data
    return found


async def verified(database: Database) -> str:
    """Verify, and return what the job said."""
    try:
        return await verify_books(database)
    except JobFailedError as error:
        return str(error)


async def test_a_corrupted_row_is_an_event_until_it_is_put_right(
    api: Api, org: Org, other_org: Org, psql: Psql, database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stream = io.StringIO()
    monkeypatch.setattr(JOURNAL, "stream", stream)
    monkeypatch.setattr(JOURNAL, "level", logging.INFO)
    shop = await open_shop(api, org)
    assert (await shop.sell(shop.item(0), paid="11.00")).status == 201
    await verify_books(database)
    assert await events(api, org) == []

    psql(RAISE.format(1, org.id), role="superuser")
    for _ in range(2):
        assert "checks failed: entries_balance of organisation" in await verified(database)
    first = next(e for e in await events(api, org) if e["check"] == "entries_balance")
    assert (first["severity"], first["seen_count"]) == ("ERROR", 2)
    assert first["organisation_id"] == org.id
    assert first["first_broken"]["is_balanced"] is False
    assert first["first_seen_at"] < first["last_seen_at"]
    assert (first["resolved_at"], first["acknowledged_at"]) == (None, None)
    # Nobody else's.
    assert await events(api, other_org) == []
    answer = await api.post(f"{PATH}/{first['id']}/acknowledge", other_org, {})
    assert answer.refused == (404, "not_found")
    assert (await api.get(PATH, org.member("CASHIER"))).refused == (403, "forbidden")

    text = (await api.call("GET", "/metrics", prefix="")).text
    assert 'integrity_events_open{check="entries_balance",severity="ERROR"} 1.0' in text
    told = [
        line for line in map(orjson.loads, stream.getvalue().splitlines())
        if line["message"] == "integrity broken"
    ]  # fmt: skip
    assert {line["level"] for line in told} == {"ERROR"}
    assert "entries_balance" in {line["metadata"]["check"] for line in told}
    assert len(told) == len(await events(api, org))  # once each, not at each verification

    # Somebody takes it on; that puts nothing right.
    note = {"note": "A disk that lies; restoring."}
    answer = await api.post(f"{PATH}/{first['id']}/acknowledge", org, note)
    assert answer.status == 200
    assert (answer.data["acknowledged_by"], answer.data["note"]) == (org.admin.id, note["note"])
    assert answer.data["resolved_at"] is None
    refused = await api.post(f"{PATH}/{first['id']}/acknowledge", org, {"note": "x" * 501})
    assert refused.refused == (422, "invalid_request")

    psql(RAISE.format(-1, org.id), role="superuser")
    await verify_books(database)
    assert await events(api, org, "?open=true") == []
    ended = await events(api, org, "?open=false&limit=500")
    assert {event["resolved_at"] is None for event in ended} == {False}
    assert "integrity_events_open{" not in (await api.call("GET", "/metrics", prefix="")).text
    # The same again is another event.
    psql(RAISE.format(1, org.id), role="superuser")
    await verified(database)
    again = next(e for e in await events(api, org, "?open=true") if e["check"] == "entries_balance")
    assert again["id"] != first["id"]
    assert again["acknowledged_at"] is None


async def test_a_guard_that_is_gone_is_the_operator_s_event(
    api_with: MakeApi, org: Org, other_org: Org, psql: Psql, database: Database
) -> None:
    api = await api_with(operator_org_id=org.id)
    psql(GUARD.format("disable"), role="sofinance_owner")
    assert "guards_stand" in await verified(database)
    (event,) = await events(api, org)
    assert (event["check"], event["organisation_id"]) == ("guards_stand", None)
    assert event["first_broken"]["name"] == "journal_line.journal_line_is_final"
    assert await events(api, other_org) == []
    answer = await api.post(f"{PATH}/{event['id']}/acknowledge", other_org, {})
    assert answer.refused == (404, "not_found")
    assert (await api.post(f"{PATH}/{event['id']}/acknowledge", org, {})).status == 200
    psql(GUARD.format("enable"), role="sofinance_owner")
    await verify_books(database)
    assert await events(api, org, "?open=true") == []


async def test_what_only_looks_odd_is_a_warning_and_fails_nothing(
    api: Api, org: Org, psql: Psql, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(JOURNAL, "stream", stream)
    chart = (await api.get("/accounts?size=100", org)).data["items"]
    rent, cash = (next(a["id"] for a in chart if a["code"] == code) for code in ("6000", "1010"))
    lines = [{"account_id": rent, "debit": "5.00"}, {"account_id": cash, "credit": "5.00"}]
    posted = [
        (await api.post("/journal/entries", org, {"memo": "Rent", "lines": lines})).data["id"]
        for _ in range(2)
    ]
    psql(
        "insert into idempotency_key (org_id, key_hash, fingerprint, expires_at, created_at)"
        f" values ({org.id}, sha256('a'), sha256('b'), now() + interval '1 day',"
        " now() - interval '2 hours')",
        role="superuser",
    )
    await verify_books(database)
    found = {event["check"]: event for event in await events(api, org)}
    assert found.keys() == {"manual_entries_are_not_twice", "keys_are_answered"}
    assert {event["severity"] for event in found.values()} == {"WARNING"}
    assert found["manual_entries_are_not_twice"]["first_broken"] == {
        "entry_id": posted[1], "same_as_entry_id": posted[0],
    }  # fmt: skip
    lines_told = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["level"] for line in lines_told if line["message"] == "integrity broken"] == [
        "WARNING", "WARNING",
    ]  # fmt: skip
