"""1: PostgreSQL is killed, whole, its first process alone, or a single backend of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.stage import Stage

SERVER_KILLS, BACKEND_KILLS = 4, 6


async def kill_postgres(stage: Stage, *, kills: int = SERVER_KILLS) -> str:
    """Kill the server in a loop and start it again, while the same service goes on."""
    service = await stage.gunicorn()
    pids = service.children()
    stage.begin()
    await stage.heal()
    for number in range(kills):
        await stage.pause(0.5, 1.5)
        stage.postgres.kill(whole=number % 2 == 0)
        await stage.pause(0.1, 0.6)
        mended_s = time.monotonic()
        await asyncio.to_thread(stage.postgres.start)
        await stage.heal(mended_s)
    stage.demand("the service's processes are others", holds=service.children() == pids)
    stage.demand("nobody was cut", holds=stage.crowd.codes.get("unavailable", 0) > 0)
    return f"kill -9 of the postmaster {kills} times, with its children and without"


async def kill_backends(stage: Stage, *, kills: int = BACKEND_KILLS) -> str:
    """Kill single backends: PostgreSQL then ends all sessions and recovers by itself."""
    service = await stage.gunicorn()
    pids = service.children()
    stage.begin()
    await stage.heal()
    for _ in range(kills):
        await stage.pause(0.5, 1.2)
        victims = await asyncio.to_thread(stage.postgres.backends)
        with contextlib.suppress(ProcessLookupError):
            os.kill(stage.chance.choice(victims), signal.SIGKILL)
        await stage.heal()
    stage.demand("the service's processes are others", holds=service.children() == pids)
    stage.demand("nobody was cut", holds=stage.crowd.codes.get("unavailable", 0) > 0)
    return f"kill -9 of {kills} backends at work"
