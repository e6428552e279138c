"""4: the primary dies and its synchronous standby takes its place; or the standby freezes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from chaos.database import Postgres, dedicated
from sofinance.infra import embedded
from tests.standby import Standby, both, freeze, thaw

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from chaos.stage import Stage

# Longer than the service waits for the end of a statement: this and 5 s more.
STATEMENT_TIMEOUT_MS, FROZEN_S = 1_000, 9.0
ON_THEIR_WAY_S = 0.5


def primary(folder: Path) -> AbstractContextManager[Postgres]:
    """Make the server that will die."""
    return dedicated(folder / "primary")


async def promote(stage: Stage) -> str:
    """Kill the primary for good, promote the standby; the service finds it by its URL of two."""
    old, standby = stage.postgres, await _synchronous(stage)
    new = Postgres.of(standby)
    service = await stage.gunicorn(DATABASE_URL=both(old.url(), new.port))
    pids = service.children()
    stage.begin()
    await stage.heal()
    await stage.pause(2, 4)
    killed_s = time.monotonic()
    old.kill(whole=True)  # it never comes back: that is the fence
    await asyncio.to_thread(standby.promote)
    stage.figures["promoted_after_s"] = round(time.monotonic() - killed_s, 2)
    with new.superuser() as conn:
        conn.execute("alter system set synchronous_standby_names = ''")
        conn.execute("select pg_reload_conf()")
    await stage.heal(killed_s)
    await stage.pause(1, 2)
    stage.postgres = new
    stage.demand("the service's processes are others", holds=service.children() == pids)
    return "the primary killed for good, its synchronous standby promoted"


async def freeze_standby(stage: Stage) -> str:
    """Freeze the synchronous standby: nothing is said to be done that only the primary has."""
    standby = await _synchronous(stage)
    service = await stage.gunicorn(DATABASE_STATEMENT_TIMEOUT_MS=str(STATEMENT_TIMEOUT_MS))
    pids = service.children()
    stage.begin()
    await stage.heal()
    await stage.pause(1, 2)
    frozen_s = time.monotonic()
    freeze(standby)
    try:
        await asyncio.sleep(FROZEN_S)
    finally:
        mended_s = time.monotonic()
        thaw(standby)
    sold = stage.crowd.done_between(frozen_s + ON_THEIR_WAY_S, mended_s)
    await stage.heal(mended_s)
    await stage.pause(1, 2)
    stage.demand("the service's processes are others", holds=service.children() == pids)
    stage.demand(f"{sold} orders were done without the standby", holds=sold == 0)
    stage.demand("nobody was cut", holds=stage.crowd.codes.get("unavailable", 0) > 0)
    return (
        f"the synchronous standby frozen for {FROZEN_S:.0f} s: no order was called done meanwhile"
    )


async def _synchronous(stage: Stage) -> Standby:
    """Give the server a standby that each commit waits for."""
    url = stage.postgres.server.url(embedded.SUPERUSER, "postgres")
    standby = Standby(url, stage.folder.parent / "standby")
    stage.at_end(standby.stop)
    await asyncio.to_thread(standby.start)
    standby.secrets.update(stage.postgres.server.secrets)  # roles and keys are the primary's
    await asyncio.to_thread(standby.make_synchronous)
    return standby
