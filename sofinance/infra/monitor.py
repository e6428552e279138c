"""What a process without an API says of itself over HTTP: its own metrics, and that it lives.

What the database tells (told.py) is told by every instance of the service, and not here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

from sofinance.infra import metrics
from sofinance.infra.listening import listen

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sofinance.config import Settings

SHUTDOWN_TIMEOUT_S = 1


@contextlib.asynccontextmanager
async def monitored(settings: Settings, port: int) -> AsyncGenerator[int]:
    """Answer /metrics and /livez for as long as a block runs; yields the port, 0 for none.

    Raises SetupError where the address cannot be had.
    """
    if not port:
        yield 0
        return
    runner = web.AppRunner(_app(settings), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    with listen(settings.host, port) as taken:
        await runner.setup()
        try:
            await web.SockSite(runner, taken).start()
            yield taken.getsockname()[1]
        finally:
            await runner.cleanup()


def _app(settings: Settings) -> web.Application:
    async def tell_metrics(request: web.Request) -> web.Response:
        if not metrics.may_read(settings.metrics_token, request.headers.get("Authorization")):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        body, content_type = metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def tell_life(_request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    app = web.Application()
    app.router.add_get("/livez", tell_life)
    if settings.metrics_enabled:
        app.router.add_get("/metrics", tell_metrics)
    return app
