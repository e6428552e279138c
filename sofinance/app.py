"""Read this first: what the service is made of, and what happens when it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import pkgutil
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING

from aiohttp import web, web_urldispatcher

from sofinance import __version__, api, config
from sofinance.infra import (
    circuit,
    gunicorn_state,
    health,
    logs,
    metrics,
    openapi,
    proxies,
    secret_ages,
    telemetry,
)
from sofinance.infra.caches import Caches
from sofinance.infra.db import NO_DATABASE, opening
from sofinance.infra.deprecation import announced
from sofinance.infra.machine import Machine
from sofinance.infra.middleware import answer_unreadable, meet_expectation, surround
from sofinance.infra.route import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sofinance.infra.http import Endpoint

MACHINE: web.AppKey[Machine] = web.AppKey("machine", Machine)
WATCH_INTERVAL_S = 5
LAG_INTERVAL_S = 0.1
# What one connection may send, and how long it may take.
CONNECTION = {
    "max_line_size": 8_190,  # bytes of the request line
    "max_field_size": 8_190,  # bytes of a header
    "max_headers": 100,
    "keepalive_timeout": 75,  # seconds for the whole head of a request, and between requests
    "lingering_time": 5,  # seconds to read what is left of a body that was refused
    "auto_decompress": False,  # compressed bodies are refused, so nothing is ever inflated
}


def create_app(settings: config.Settings) -> web.Application:
    """Make the application; its database is opened when it starts and closed when it stops."""
    machine = Machine(settings)
    app = web.Application(
        middlewares=[surround(machine)],
        client_max_size=settings.max_body_bytes,
        handler_args=CONNECTION,
    )
    app[MACHINE] = machine
    # What is no HTTP at all, or expects what we do not do, never reaches a middleware; aiohttp has
    # no setting for its answer.
    web.RequestHandler.handle_error = answer_unreadable  # type: ignore[assignment,method-assign]
    web_urldispatcher._default_expect_handler = meet_expectation  # type: ignore[assignment] # noqa: SLF001
    endpoints = find_endpoints()
    paths = {endpoint.path for endpoint in endpoints}
    for endpoint in endpoints:
        answer = announced(
            Route(endpoint, machine).answer, endpoint.deprecated, endpoint.method, endpoint.path
        )
        path = unambiguous(endpoint.path, paths)
        app.router.add_route(endpoint.method, path, answer)
        if endpoint.method == "GET":
            app.router.add_route("HEAD", path, answer)
    openapi.add_documents(app, endpoints, mirrors=settings.enable_key_mirroring)
    app.cleanup_ctx.append(observe)
    app.cleanup_ctx.append(run_machine)
    app.on_shutdown.append(drain)
    return app


async def gunicorn_app() -> web.AppRunner:
    """Make the application, for a worker of gunicorn."""
    settings = gunicorn_state.settings()
    logs.configure(level=settings.log_level, environment=settings.environment)
    return web.AppRunner(
        create_app(settings), access_log=None, shutdown_timeout=settings.shutdown_timeout_s
    )


def unambiguous(path: str, paths: Iterable[str]) -> str:
    """Keep a path's last placeholder from the words that stand in its place in other paths.

    Else a method that `/notifications/send` does not know would be one that `{id}` does.
    """
    start, _, last = path.rpartition("/")
    if not (last.startswith("{") and last.endswith("}")):
        return path
    words = (other.rpartition("/") for other in paths)
    taken = sorted(word for before, _, word in words if before == start and "{" not in word)
    if not taken:
        return path
    return f"{start}/{{{last[1:-1]}:(?!(?:{'|'.join(taken)})$)[^{{}}/]+}}"


def find_endpoints() -> list[Endpoint]:
    """Import every slice and return what their `routes` declare, in the order of their names."""
    endpoints: list[Endpoint] = []
    for module in sorted(pkgutil.iter_modules(api.__path__), key=lambda found: found.name):
        endpoints += importlib.import_module(f"{api.__name__}.{module.name}").routes
    return endpoints


async def observe(app: web.Application) -> AsyncIterator[None]:
    """Tell others about this process, where the settings say so; first of all, and to the end."""
    async with telemetry.observed(app[MACHINE].settings):
        yield


async def run_machine(app: web.Application) -> AsyncIterator[None]:
    """Open the database and load what it knows; at the end let what runs finish and close it."""
    machine = app[MACHINE]
    await machine.db.open()
    await machine.limiter.open()
    try:
        await machine.learn()
        metrics.BUILD.labels(
            __version__, machine.settings.git_commit, health.known_migrations()[-1]
        ).set(1)
        machine.mailer.start()
        await machine.flags.flush()
        machine.hub.start()
        watching = [watch(machine), watch_loop()]
        if machine.db.replica is not None:
            watching.append(machine.db.replica.watch())
        watchers = [asyncio.create_task(each) for each in watching]
        yield
        for watcher in watchers:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
    finally:
        await machine.hub.stop()
        await machine.mailer.stop()
        await machine.limiter.close()
        await machine.storage.aclose()
        await machine.db.close()


async def drain(app: web.Application) -> None:
    """Tell whoever asks for readiness to send requests elsewhere."""
    app[MACHINE].draining = True
    await app[MACHINE].hub.drain()


async def watch(machine: Machine) -> None:
    """Keep the gauges of the pool and of the database current."""
    given = config.layers(os.environ)
    caches = Caches()
    caches.add("credentials", lambda: machine.guard)
    caches.add("openings", opening.cache_info)
    caches.add("addresses", proxies.plain.cache_info)
    while True:
        if machine.guard.keys.refresh():
            machine.guard.forget()  # what a key that is gone signed
        caches.publish()
        circuit.publish()
        metrics.EXEMPLARS.write()
        metrics.POOL_SIZE.set(machine.db.size_max)
        metrics.POOL_OPEN.set(machine.db.pool.open_count)
        metrics.POOL_IN_USE.set(machine.db.pool.in_use_count)
        metrics.POOL_WAITING.set(machine.db.pool.waiting_count)
        secret_ages.publish(given, machine.guard.keys, now=datetime.now(UTC))
        try:
            await machine.db.ping()
            metrics.DATABASE_UP.set(1)
            await machine.flags.flush_when_due()
        except NO_DATABASE:
            metrics.DATABASE_UP.set(0)
        await asyncio.sleep(WATCH_INTERVAL_S)


async def watch_loop() -> None:
    """Measure how late the event loop runs what is due: the worst of each interval."""
    while True:
        worst_s = 0.0
        for _ in range(int(WATCH_INTERVAL_S / LAG_INTERVAL_S)):
            due_s = perf_counter() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            worst_s = max(worst_s, perf_counter() - due_s)
        metrics.LOOP_LAG.set(worst_s)
