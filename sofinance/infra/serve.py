"""Run the application in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

import asyncpg
import uvloop
from aiohttp import web

from sofinance.app import MACHINE, create_app
from sofinance.infra.command import SetupError
from sofinance.infra.db import NO_DATABASE
from sofinance.infra.leaving import leave

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from sofinance.config import Settings

BACKLOG = 1_024
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def serve(
    settings: Settings,
    taken: socket.socket,
    ready: Callable[[], Awaitable[None]],
    beside: AbstractAsyncContextManager[None] | None = None,
) -> None:
    """Answer requests until a signal; ``ready`` is awaited once the first can be answered.

    What is `beside` is entered before that, and left after the signal.
    On SIGTERM readiness says 503 at once; for DRAIN_DELAY_S requests are still answered, each of
    them with the end of its connection. Then, or at once on another signal, no new connection is
    taken, requests that have begun are answered, and the pool is closed. A second signal stops at
    once.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    app = create_app(settings)
    delays_s: list[int] = []

    def stop(signal_number: int) -> None:
        # Nobody balances the load of who presses Ctrl-C.
        delays_s.append(settings.drain_delay_s if signal_number == signal.SIGTERM else 0)
        app[MACHINE].draining = True
        stopped.set()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)

    runner = web.AppRunner(app, access_log=None, shutdown_timeout=settings.shutdown_timeout_s)
    try:
        await _set_up(runner)
        await web.SockSite(runner, taken, backlog=BACKLOG).start()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, stop, number)
        async with beside or contextlib.nullcontext():
            await _first(ready(), stopped.wait())
            await stopped.wait()
            await leave(runner, app[MACHINE], delays_s[0])
    finally:
        await runner.cleanup()


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop, which takes about a third off a request's share of the processor."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


async def _set_up(runner: web.AppRunner) -> None:
    """Start the application; say what is wrong with the database if that is what it is."""
    try:
        await runner.setup()
    except asyncpg.UndefinedTableError:
        raise SetupError("The database is not migrated: run `sofinance migrate`.") from None
    except NO_DATABASE as error:
        why = str(error).strip().rstrip(".") or "no answer in time"
        raise SetupError(f"The database cannot be used: {why}.") from None


async def _first(*works: Coroutine[Any, Any, Any] | Awaitable[Any]) -> None:
    """Wait till one is done and drop the others; what it raises is raised here."""
    tasks = [asyncio.ensure_future(work) for work in works]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()
