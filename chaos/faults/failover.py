"""4: the primary dies under load and its synchronous standby takes its place."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from chaos.database import Postgres, dedicated
from sofinance.infra import embedded
from tests.standby import Standby, both

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from chaos.stage import Stage


def primary(folder: Path) -> AbstractContextManager[Postgres]:
    """Make the server that will die."""
    return dedicated(folder / "primary")


async def promote(stage: Stage) -> str:
    """Kill the primary for good, promote the standby; the service finds it by its URL of two."""
    old = stage.postgres
    standby = Standby(
        old.server.url(embedded.SUPERUSER, "postgres"), stage.folder.parent / "standby"
    )
    stage.at_end(standby.stop)
    await asyncio.to_thread(standby.start)
    standby.secrets.update(old.server.secrets)  # roles and keys are the primary's
    await asyncio.to_thread(standby.make_synchronous)
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
