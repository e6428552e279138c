"""Maintenance: in its window, as the owner, in time, beside those who sell."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from sofinance import cli
from sofinance.infra.command import SetupError
from sofinance.infra.db import Database
from sofinance.jobs import maintaining
from sofinance.jobs.maintaining import bloat, maintain, window

if TYPE_CHECKING:
    from sofinance.config import Settings
    from tests.support import Psql

pytestmark = pytest.mark.empty_database


@pytest.mark.parametrize(
    ("moment", "is_in"),
    [
        ("2026-12-06T02:00:00Z", True),
        ("2026-12-06T02:59:59Z", True),
        ("2026-12-06T03:00:00Z", False),
        ("2026-12-06T01:59:59Z", False),
        ("2026-12-13T02:30:00Z", False),
        ("2026-12-07T02:30:00Z", False),
        ("2026-12-06T03:30:00+01:00", True),
    ],
)
def test_the_window_is_the_first_sunday_from_two_to_three(moment: str, *, is_in: bool) -> None:
    found = window(datetime.fromisoformat(moment))
    assert (found is not None) == is_in
    if found is not None:
        assert found[1] - found[0] == timedelta(hours=1)


def swell(psql: Psql) -> None:
    """Let an index grow far beyond what is in it."""
    psql(
        "create table public.swollen (id bigint, word text);"
        "alter table public.swollen owner to sofinance_owner;"
        "create index swollen_by_id on public.swollen (id);"
        "insert into swollen select n, 'x' from generate_series(1, 200000) as n;"
        "delete from swollen where id % 100 <> 0", role="superuser",
    )  # fmt: skip


def soon(minutes: float = 5) -> datetime:
    """Return a moment to come."""
    return datetime.now(UTC) + timedelta(minutes=minutes)


async def test_tables_are_vacuumed_and_bloated_indexes_rebuilt_once(
    owner_dsn: str, psql: Psql
) -> None:
    swell(psql)
    since = datetime.now(UTC)
    first = await maintain(owner_dsn, since=since, ends_at=soon())
    assert {"swollen", "sale", "journal_line"} <= set(first.vacuumed)
    assert first.rebuilt == ["swollen_by_id"]
    assert first.is_complete
    size = psql("select pg_relation_size('swollen_by_id')", role="superuser")[0][0]
    assert size < 200_000
    again = await maintain(owner_dsn, since=since, ends_at=soon())
    assert (again.vacuumed, again.rebuilt) == ([], [])  # it would have gone on where it was


async def test_it_ends_with_its_window_and_goes_on_in_the_next(owner_dsn: str, psql: Psql) -> None:
    since = datetime.now(UTC)
    late = await maintain(owner_dsn, since=since, ends_at=soon(-1))
    assert (late.vacuumed, late.is_complete) == ([], False)
    assert "window ended" in str(late)
    assert (await maintain(owner_dsn, since=since, ends_at=soon())).is_complete


async def test_what_somebody_holds_is_skipped_and_the_rest_is_done(
    owner_dsn: str, superuser_dsn: str, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintaining, "LOCK_TIMEOUT_MS", 200)
    with psycopg.connect(superuser_dsn) as holder:
        holder.execute("lock table customer in share update exclusive mode")
        report = await asyncio.wait_for(
            maintain(owner_dsn, since=datetime.now(UTC), ends_at=soon()), 120
        )
        holder.rollback()
    assert report.skipped == ["customer"]
    assert "sale" in report.vacuumed


async def test_a_rebuild_that_was_broken_off_is_cleared_away(owner_dsn: str, psql: Psql) -> None:
    psql(
        "create table public.half (id bigint);"
        "alter table public.half owner to sofinance_owner;"
        "create index half_by_id_ccnew on public.half (id);"
        "update pg_index set indisvalid = false"
        " where indexrelid = 'half_by_id_ccnew'::regclass", role="superuser",
    )  # fmt: skip
    await maintain(owner_dsn, since=datetime.now(UTC), ends_at=soon())
    assert psql("select to_regclass('half_by_id_ccnew')", role="superuser") == [(None,)]


async def test_the_job_waits_for_its_window_and_needs_the_owner(
    settings: Settings, owner_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace  # noqa: PLC0415

    monkeypatch.setattr(maintaining, "window", lambda _: None)
    assert "first Sunday" in await maintaining.maintain_in_window(Database(settings))
    now = datetime.now(UTC)
    monkeypatch.setattr(maintaining, "window", lambda _: (now, soon()))
    assert "OWNER_URL" in await maintaining.maintain_in_window(Database(settings))
    told = await maintaining.maintain_in_window(Database(replace(settings, owner_url=owner_dsn)))
    assert told.startswith("vacuumed ")


async def test_who_owns_nothing_is_told_so_and_has_not_maintained(dsn: str) -> None:
    with pytest.raises(SetupError, match="owns no table there"):
        await maintain(dsn, since=datetime.now(UTC), ends_at=soon())
    with pytest.raises(SetupError, match="owns no table there"):
        await bloat(dsn)


async def test_the_command_reports_and_maintains(
    owner_dsn: str, psql: Psql, capsys: pytest.CaptureFixture[str]
) -> None:
    swell(psql)
    _, indexes = await bloat(owner_dsn)
    assert [index.name for index in indexes] in ([], ["swollen_by_id"])  # counted by a vacuum
    words = ["maintenance", "--json", "--owner-url", owner_dsn]
    assert await asyncio.to_thread(cli.main, words) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["rebuilt"] == ["swollen_by_id"]
    assert done["is_complete"] is True
    assert await asyncio.to_thread(cli.main, [*words, "--report"]) == 0
    assert json.loads(capsys.readouterr().out)["indexes"] == []


@pytest.mark.parametrize(
    ("job", "environment", "is_told"),
    [
        ("maintenance", "staging", True),
        ("maintenance", "development", False),
        ("balances-roll-up", "staging", False),
    ],
)
def test_a_worker_that_may_not_maintain_says_so_when_it_starts(
    dsn: str, job: str, environment: str, *, is_told: bool
) -> None:
    words = ("worker", "--once", "--job", job, "--database-url", dsn)
    ran = subprocess.run(
        [sys.executable, "-m", "sofinance", *words], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], "ENVIRONMENT": environment},
    )  # fmt: skip
    assert ("tables are not maintained" in ran.stdout + ran.stderr) == is_told
