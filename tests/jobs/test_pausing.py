"""Jobs that a flag pauses: everywhere, or for one organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sofinance import queries as q
from sofinance.infra.db import Database, Mode
from sofinance.jobs import Job
from sofinance.jobs.organisations import whose
from sofinance.jobs.tasks import JOBS
from sofinance.jobs.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Any

    from sofinance.config import Settings
    from tests.support import Org

    MakeOrg = Callable[..., Awaitable[Org]]

VISITING = {
    "balances-roll-up",
    "storage-janitor",
    "storage-orphans",
    "business-figures",
    "mail-scan",
    "low-stock-notices",
    "forget-expired",
    "retention",
}
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


async def test_what_is_set_for_all_is_asked_in_the_same_order(
    database: Database, new_org: MakeOrg
) -> None:
    orgs = [await new_org() for _ in range(2)]
    async with database.tenant(orgs[0].id) as conn:
        await q.flags.set_override(
            conn, org_id=orgs[0].id, flag="pause_jobs", branch_id=None, user_id=None, percent=0,
            changed_by=None,
        )  # fmt: skip

    async def left(percent: int | None, *, is_killed: bool) -> list[int]:
        async with database.untenanted(mode=Mode.WRITE) as conn:
            await q.flags.set_flag(conn, name="pause_jobs", percent=percent, is_killed=is_killed)
        return await whose(database)

    both = [orgs[0].id, orgs[1].id]
    assert await left(None, is_killed=False) == both
    assert await left(100, is_killed=False) == [orgs[0].id]
    assert await left(100, is_killed=True) == both


@pytest.mark.parametrize(
    "job", [job for job in JOBS if job.name in VISITING], ids=lambda job: job.name
)
async def test_every_job_that_visits_organisations_leaves_it_out(
    database: Database, new_org: MakeOrg, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, paused = await new_org(), await new_org()
    async with database.tenant(paused.id) as conn:
        await q.flags.set_override(
            conn, org_id=paused.id, flag="pause_jobs", branch_id=None, user_id=None, percent=100,
            changed_by=None,
        )  # fmt: skip
    visited = set()
    tenant = Database.tenant

    def noted(self: Database, org_id: int, **rest: Any) -> Any:
        visited.add(org_id)
        return tenant(self, org_id, **rest)

    monkeypatch.setattr(Database, "tenant", noted)
    await job.work(database)
    assert visited == {seen.id}
