"""Jobs that a flag pauses: everywhere, or for one organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sofinance import queries as q
from sofinance.infra.db import Database, Mode
from sofinance.jobs import Job
from sofinance.jobs.organisations import whose
from sofinance.jobs.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Org

    MakeOrg = Callable[..., Awaitable[Org]]

pytestmark = pytest.mark.empty_database


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


async def test_while_the_flag_is_on_no_worker_runs_anything(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sofinance.infra.flags.AGE_MAX_S", 0)
    ran: list[str] = []

    async def work(_: Database) -> str:
        ran.append("once")
        return "done"

    worker = Worker(database, [Job("nap", "Sleeps.", work, every_s=86_400)])
    await worker.declare()

    async def request(percent: int | None) -> None:
        async with database.untenanted(mode=Mode.WRITE) as conn:
            await q.jobs.steer_job(conn, name="nap", action="run")
            await q.flags.set_flag(conn, name="pause_jobs", percent=percent, is_killed=False)

    await request(100)
    assert await worker.run_once()
    assert ran == []
    await request(None)
    assert await worker.run_once()
    assert ran == ["once"]


async def test_an_organisation_is_left_out(database: Database, new_org: MakeOrg) -> None:
    orgs = [await new_org() for _ in range(3)]
    async with database.tenant(orgs[1].id) as conn:
        await q.flags.set_override(
            conn, org_id=orgs[1].id, flag="pause_jobs", branch_id=None, user_id=None, percent=100,
            changed_by=None,
        )  # fmt: skip
    assert await whose(database) == [orgs[0].id, orgs[2].id]
