"""How a process that serves ends without anybody noticing.

First nothing changes but that readiness may say 503 and that each answer closes its connection:
whoever balances the load has time to send requests elsewhere, and a client that keeps a connection
is told, instead of finding it closed under a request that it is just sending. Then no connection is
taken any more, and what has begun is answered. aiohttp alone would do only this last step, and drop
the rest of a body that is still arriving.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

    from sofinance.infra.machine import Machine

POLL_S = 0.02


async def leave(runner: web.AppRunner, machine: Machine, delay_s: float) -> None:
    """Wait, take no more connections, and wait till nothing is under way or it takes too long."""
    machine.leaving = True
    await asyncio.sleep(delay_s)
    for site in list(runner.sites):
        await site.stop()
    loop = asyncio.get_running_loop()
    until_s = loop.time() + machine.settings.shutdown_timeout_s
    while machine.under_way_count and loop.time() < until_s:  # noqa: ASYNC110 - only now
        await asyncio.sleep(POLL_S)
