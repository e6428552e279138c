"""A gunicorn worker that leaves politely: it is missed by nobody.

SIGTERM means one of two things. gunicorn stops: then readiness says 503 at once, so that whoever
balances the load sends requests elsewhere. Or this worker alone is replaced, on a reload: then the
instance stays ready, for its other workers take what comes. Either way it leaves as leaving.py
says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.worker import GunicornUVLoopWebWorker

from sofinance.infra import gunicorn_state
from sofinance.infra.leaving import leave

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from aiohttp import web

    from sofinance.infra.machine import Machine


class Worker(GunicornUVLoopWebWorker):
    """aiohttp's worker, with a delay between the signal and the end."""

    app_runner: web.AppRunner | None = None
    leaving: asyncio.Task[None] | None = None

    def load_wsgi(self) -> None:
        """Keep the application that the factory makes."""
        super().load_wsgi()
        make: Callable[[], Awaitable[web.AppRunner]] = self.wsgi  # type: ignore[has-type]

        async def made() -> web.AppRunner:
            self.app_runner = runner = await make()
            return runner

        self.wsgi = made

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave; a second signal only says that all of gunicorn does."""
        runner = self.app_runner
        if runner is None or runner.server is None:  # it has not begun to answer
            super().handle_exit(sig, frame)
            return
        # Not in the arbiter, which reads the name of this class: it stays without our code.
        from sofinance.app import MACHINE  # noqa: PLC0415

        machine = runner.app[MACHINE]
        if gunicorn_state.is_stopping():
            machine.draining = True
        if self.leaving is None:
            self.leaving = self.loop.create_task(self._leave(runner, machine))

    async def _leave(self, runner: web.AppRunner, machine: Machine) -> None:
        await leave(runner, machine, machine.settings.drain_delay_s)
        self.alive = False
        self._notify_waiter_done()
