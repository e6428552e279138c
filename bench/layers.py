"""The layers of a request, each alone in this process: microseconds, to inform."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

from bench.measure import Effort, Result, median
from bench.sale import CLIENT_COUNT, baskets, post, sample
from sofinance import queries as q
from sofinance.api.sales import NewSale, PostedSale
from sofinance.infra import parse
from sofinance.infra.db import Database
from sofinance.infra.guard import Guard
from sofinance.infra.rate_limit import Limiter
from sofinance.infra.shapes import compile_dump, compile_load
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.world import Service, World
    from sofinance.config import Settings

CALL_COUNT = 2_000


def each(world: World, service: Service, effort: Effort) -> list[Result]:
    """Measure what a sale passes through on its way, one layer at a time."""
    sample(world, service)  # there is a sale to write an answer of
    count, rounds = effort.sized(CALL_COUNT, least=20), effort.rounds
    token = f"Bearer {world.token()}"
    settings = world.settings()
    database = Database(settings)
    guard = Guard(settings, database)

    raw = baskets(world.shop, 0, 1)[0].encode()
    fit = compile_load(NewSale())
    schema = NewSale()
    dump = compile_dump(PostedSale())
    answer = asyncio.run(_answer(world))
    resolve_us = asyncio.run(_resolve_us(guard, database, token, count, rounds))
    layers: dict[str, Callable[[], Any]] = {
        "access token, known": lambda: guard.recall(token),
        "body, parsed and validated": lambda: parse.load(fit, parse.loads(raw)),
        "body, by marshmallow alone": lambda: schema.load(json.loads(raw)),
        "answer, written": lambda: orjson.dumps(dump(answer, None)),
    }
    results = [
        Result(f"layer: {name}", _time_us(work, count, rounds), "us")
        for name, work in layers.items()
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        call_us = loop.run(_round_trip_us(world, count, rounds))
    results.append(Result("layer: access token, seen for the first time", resolve_us, "us"))
    results.append(Result("layer: a query's round trip through asyncpg", call_us, "us"))
    return results


def identity(world: World, service: Service, effort: Effort) -> list[Result]:
    """Compare what knowing and limiting the caller costs with what a whole sale costs.

    In processor time, of the whole service for a sale and of this process for the layers, with as
    many callers at once in both.
    """
    count, rounds = effort.sized(CALL_COUNT, least=20), effort.rounds
    settings = replace(
        world.settings(), rate_limit_per_minute=10_000_000, rate_limit_burst=1_000_000,
        rate_limit_org_per_minute=10_000_000, rate_limit_org_burst=1_000_000,
        redis_timeout_ms=1_000,
    )  # fmt: skip
    redis = RedisServer()
    redis.start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            alone_us = loop.run(_admission_us(settings, count, rounds))
            settings = replace(settings, redis_url=redis.url)
            shared_us = loop.run(_admission_us(settings, count, rounds))
    finally:
        redis.close()
    database = Database(world.settings())
    guard = Guard(settings, database)
    token = f"Bearer {world.token()}"
    asyncio.run(_resolve_us(guard, database, token, 1, 1))
    known_us = _time_us(lambda: guard.recall(token), count, rounds)
    sales = [
        post(world, service, clients=CLIENT_COUNT, seconds=effort.seconds) for _ in range(rounds)
    ]
    sale_us = median(one["service_cpu_s"] / one["count"] * 1e6 for one in sales)
    return [
        Result("layer: rate limit, in the process", alone_us, "us"),
        Result("layer: rate limit, shared through Redis", shared_us, "us"),
        Result(
            "identity: access token and shared rate limit, of Python's time per sale",
            (known_us + shared_us) / sale_us * 100, "%", goal=15, at_most=True,
            figures={"token us": known_us, "limit us": shared_us, "sale us": sale_us},
        ),
    ]  # fmt: skip


async def _admission_us(settings: Settings, count: int, rounds: int) -> float:
    limiter = Limiter(settings)
    await limiter.open()

    async def ask() -> None:
        for _ in range(count // CLIENT_COUNT + 1):
            await limiter.admit_caller(1, "user:1")

    times = []
    try:
        await ask()
        for _ in range(rounds):
            began_s = time.process_time()
            await asyncio.gather(*(ask() for _ in range(CLIENT_COUNT)))
            asked = (count // CLIENT_COUNT + 1) * CLIENT_COUNT
            times.append((time.process_time() - began_s) / asked * 1e6)
    finally:
        await limiter.close()
    return median(times)


def _time_us(work: Callable[[], Any], count: int, rounds: int) -> float:
    times = []
    work()
    for _ in range(rounds):
        began_s = time.perf_counter()
        for _ in range(count):
            work()
        times.append((time.perf_counter() - began_s) / count * 1e6)
    return median(times)


async def _resolve_us(
    guard: Guard, database: Database, token: str, count: int, rounds: int
) -> float:
    times = []
    await guard.resolve(token)
    for _ in range(rounds):
        began_s = time.perf_counter()
        for _ in range(count):
            guard.forget()
            await guard.resolve(token)
        times.append((time.perf_counter() - began_s) / count * 1e6)
    await database.close()
    return median(times)


async def _round_trip_us(world: World, count: int, rounds: int) -> float:
    conn = await world.connect()
    times = []
    try:
        await q.request.ping(conn)
        for _ in range(rounds):
            began_s = time.perf_counter()
            for _ in range(count):
                await q.request.ping(conn)
            times.append((time.perf_counter() - began_s) / count * 1e6)
    finally:
        await conn.close()
    return median(times)


async def _answer(world: World) -> Any:
    """Return a posted sale as the handler returns it."""
    conn = await world.connect()
    try:
        async with conn.transaction():
            shop = world.shop
            await q.request.set_tenant(
                conn, org_id=shop.org_id, user_id=shop.user_id, branch_ids=b"all",
                statement_timeout_ms=5_000, lock_timeout_ms=3_000,
            )  # fmt: skip
            sales = await q.sales.list_sales(
                conn, org_id=shop.org_id, branch_id=None, customer_id=None, start_date=None,
                end_date=None, payment_type=None, include_voided=True, limit=1, offset=0,
            )  # fmt: skip
            sale = await q.sales.get_sale(conn, org_id=shop.org_id, id=sales[0].id)
    finally:
        await conn.close()
    return {**sale, "receipt_number": f"{sale.till_name}-{sale.receipt_no:06}"}
