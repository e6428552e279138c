"""Two real worker processes and one real Redis, which freezes and dies under load."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sofinance.config import Settings
    from tests.redis_server import RedisServer
    from tests.support import Org, User

START_TIMEOUT_S = 180
BURST = 20
PATH = "/api/v1/categories"
# Both ends have time to spare on a busy machine: what is asserted is who counted, not how fast.
LIMITS = {
    "RATE_LIMIT_PER_MINUTE": "1",
    "RATE_LIMIT_BURST": str(BURST),
    "REDIS_TIMEOUT_MS": "200",
    "LOG_LEVEL": "error",
}


class Worker:
    """A `sofinance serve` of its own."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings, redis_url: str) -> None:
        port = free_port()
        self.session, self.url = session, f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sofinance", "serve"],
            env={
                **os.environ, **LIMITS,
                "DATABASE_URL": settings.database_url,
                "DATABASE_PREPARED_STATEMENTS": str(settings.database_prepared_statements),
                "JWT_SECRET": settings.jwt_secret, "REDIS_URL": redis_url,
                "HOST": "127.0.0.1", "PORT": str(port),
            },
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    async def ask(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, float]:
        """Ask; returns the status, the text and the seconds."""
        began_s = time.perf_counter()
        async with self.session.get(self.url + path, headers=headers) as answer:
            text = await answer.text()
            return answer.status, text, time.perf_counter() - began_s

    async def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        _, text, _ = await self.ask("/metrics")
        line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        return float(line.split(" ")[1])

    async def shares(self) -> bool:
        """Say whether it counts together with the others."""
        return await self.metric("rate_limit_circuit_open") == 0

    async def start(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                try:
                    if (await self.ask("/livez"))[0] == 200:
                        return
                except aiohttp.ClientConnectionError:
                    assert self.process.poll() is None
                await asyncio.sleep(0.1)


@asynccontextmanager
async def two_workers(settings: Settings, redis_url: str) -> AsyncIterator[list[Worker]]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        workers = [Worker(session, settings, redis_url) for _ in range(2)]
        try:
            await asyncio.gather(*(worker.start() for worker in workers))
            yield workers
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                await asyncio.to_thread(worker.process.wait)


def bearer(user: User) -> dict[str, str]:
    """Return the header of a user."""
    return {"Authorization": f"Bearer {user.token}"}


async def until(condition: Callable[[], Any], timeout_s: float = 120) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - another process knows it
            await asyncio.sleep(0.1)


async def burst(workers: list[Worker], headers: dict[str, str], count: int) -> list[int]:
    asked = [workers[n % len(workers)].ask(PATH, headers) for n in range(count)]
    return [status for status, _, _ in await asyncio.gather(*asked)]


def show(what: str, seen: list[tuple[int, str, float]]) -> None:
    """Print what was measured; pytest -s shows it, and no assertion rests on it."""
    times_ms = sorted(seconds * 1000 for _, _, seconds in seen)
    middle, worst = times_ms[len(times_ms) // 2], times_ms[-1]
    sys.stdout.write(f"{what}: {len(seen)} requests, {middle:.0f} ms, {worst:.0f} ms at most\n")


async def load(workers: list[Worker], headers: list[dict[str, str]], seconds: float) -> list[Any]:
    """Ask from as many clients as there are headers, one request after the other."""
    until_s = time.monotonic() + seconds

    async def client(number: int) -> list[Any]:
        seen = []
        while time.monotonic() < until_s:
            seen.append(await workers[number % 2].ask(PATH, headers[number]))
            await asyncio.sleep(0.02)
        return seen

    found = await asyncio.gather(*(client(number) for number in range(len(headers))))
    return [one for seen in found for one in seen]


async def test_burst_and_one_more_over_both_give_exactly_one_429(
    settings: Settings, org: Org, own_redis: RedisServer
) -> None:
    own_redis.start()
    async with two_workers(settings, own_redis.url) as workers:
        for worker in workers:
            assert await worker.shares()
        before = [await worker.metric("rate_limit_fallbacks_total") for worker in workers]
        # One after the other: a busy machine cannot make Redis late for many at once.
        statuses = [
            (await workers[n % 2].ask(PATH, bearer(org.admin)))[0] for n in range(BURST + 1)
        ]
        after = [await worker.metric("rate_limit_fallbacks_total") for worker in workers]
        assert after == before
        assert statuses.count(429) == 1
        assert statuses.count(200) == BURST


async def test_redis_may_freeze_and_die_under_load(
    settings: Settings, org: Org, other_org: Org, own_redis: RedisServer
) -> None:
    """No 5xx, limits per worker meanwhile, shared again afterwards."""
    own_redis.start()
    async with two_workers(settings, own_redis.url) as workers:
        strangers = iter(other_org.members.values())
        clients = [bearer(user) for user in list(org.members.values())[:4]]
        show("with Redis", await load(workers, clients, 1.5))
        for name, break_it, mend_it in (
            ("frozen", own_redis.freeze, own_redis.thaw),
            ("killed", own_redis.kill, own_redis.start),
        ):
            during = asyncio.create_task(load(workers, clients, 2.0))
            await asyncio.sleep(0.5)
            break_it()
            seen = await during
            show(name, seen)
            assert {status for status, _, _ in seen} <= {200, 429}
            for worker in workers:
                assert not await worker.shares()
                # Its own whole burst for somebody new, and not one more.
                somebody = bearer(next(strangers))
                statuses = await burst([worker], somebody, BURST + 3)
                assert (statuses.count(200), statuses.count(429)) == (BURST, 3)
            mend_it()
            for worker in workers:
                await until(worker.shares)
        own_redis("FLUSHALL")
        own_redis("SCRIPT", "FLUSH")
        headers = bearer(next(strangers))
        statuses = [(await workers[n % 2].ask(PATH, headers))[0] for n in range(BURST + 1)]
        assert statuses.count(429) == 1
