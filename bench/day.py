"""A day at the tills, under load: how long each kind of request takes, against what is promised."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench.measure import Effort, Result, percentile
from bench.sale import PATH, baskets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.world import Service, World

CLIENT_COUNT = 4
# A person at a till or a desk does something between two requests.
PAUSE_S = 0.02
# The strictest promise wins: 99 of 100 within this, whatever is asked.
PROMISED_MS = 200
# What is asked how often in a round, beside a sale for each two.
ASKED = {
    "GET /products": "/api/v1/products?size=20",
    "GET /sales": "/api/v1/sales?size=20",
    "GET /inventory/stock-levels": "/api/v1/inventory/stock-levels?size=20",
    "GET /customers": "/api/v1/customers?size=20",
    "GET /accounts": "/api/v1/accounts?size=50",
    "GET /auth/me": "/api/v1/auth/me",
    "GET /journal/trial-balance": "/api/v1/journal/trial-balance",
}
Durations = dict[str, list[float]]


def against_targets(world: World, service: Service, effort: Effort) -> list[Result]:
    """Ask for everything at once for a while; one line per endpoint, by its slowest hundredth."""
    durations_ms: Durations = defaultdict(list)
    until_s = time.monotonic() + max(effort.seconds, 1) * 2
    with ThreadPoolExecutor(CLIENT_COUNT) as clients:
        done = [
            clients.submit(ask, world, service.port, till, until_s, durations_ms)
            for till in range(CLIENT_COUNT)
        ]
    for one in done:
        one.result()
    return [
        Result(
            f"p99 of {name}", percentile(took, 0.99), "ms", goal=PROMISED_MS, at_most=True,
            figures={
                "p50 ms": percentile(took, 0.5), "p95 ms": percentile(took, 0.95),
                "requests": len(took),
            },
        )
        for name, took in durations_ms.items()
    ]  # fmt: skip


def day(world: World, till: int) -> Iterator[tuple[str, str, str | None]]:
    """Yield for ever what a till asks: the name, the path and the body."""
    bodies = itertools.cycle(baskets(world.shop, till))
    for number, (name, path) in enumerate(itertools.cycle(ASKED.items())):
        if number % 2:
            yield "POST /sales", PATH, next(bodies)
        yield name, path, None


def ask(world: World, port: int, till: int, until_s: float, durations_ms: Durations) -> None:
    """Be one client, on a connection that it keeps."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {world.token()}", "Content-Type": "application/json"}
    for number, (name, path, body) in enumerate(day(world, till)):
        if body is not None:
            headers["Idempotency-Key"] = f"day-{until_s}-{till}-{number}"
        began_s = time.perf_counter()
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        told = answer.read()
        durations_ms[name].append((time.perf_counter() - began_s) * 1000)
        if answer.status not in {200, 201}:
            raise RuntimeError(f"{name}: {json.loads(told)['error']}")
        if time.monotonic() > until_s:
            break
        time.sleep(PAUSE_S)
    connection.close()
