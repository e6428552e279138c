"""The layers of a request, each alone in this process: microseconds, to inform."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

from bench.measure import Effort, Result, median
from bench.sale import baskets, sample
from sofinance import queries as q
from sofinance.api.sales import NewSale, PostedSale
from sofinance.infra import parse
from sofinance.infra.guard import Guard
from sofinance.infra.shapes import compile_dump, compile_load

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.world import Service, World

CALL_COUNT = 2_000


def each(world: World, service: Service, effort: Effort) -> list[Result]:
    """Measure what a sale passes through on its way, one layer at a time."""
    sample(world, service)  # there is a sale to write an answer of
    count, rounds = effort.sized(CALL_COUNT, least=20), effort.rounds
    token = f"Bearer {world.token()}"
    settings = world.settings()
    guard = Guard(
        secret=settings.jwt_secret,
        algorithm=settings.jwt_algorithm,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        token_minutes=settings.access_token_minutes,
    )

    def verify_anew() -> None:
        guard.forget()
        guard.authenticate(token)

    raw = baskets(world.shop, 0, 1)[0].encode()
    fit = compile_load(NewSale())
    schema = NewSale()
    dump = compile_dump(PostedSale())
    answer = asyncio.run(_answer(world))
    layers: dict[str, Callable[[], Any]] = {
        "access token, seen for the first time": verify_anew,
        "access token, known": lambda: guard.authenticate(token),
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
    results.append(Result("layer: a query's round trip through asyncpg", call_us, "us"))
    return results


def _time_us(work: Callable[[], Any], count: int, rounds: int) -> float:
    times = []
    work()
    for _ in range(rounds):
        began_s = time.perf_counter()
        for _ in range(count):
            work()
        times.append((time.perf_counter() - began_s) / count * 1e6)
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
                conn, org_id=shop.org_id, user_id=shop.user_id, statement_timeout_ms=5_000,
                lock_timeout_ms=3_000,
            )  # fmt: skip
            sales = await q.sales.list_sales(
                conn, org_id=shop.org_id, branch_id=None, customer_id=None, start_date=None,
                end_date=None, payment_type=None, include_voided=True, limit=1, offset=0,
            )  # fmt: skip
            sale = await q.sales.get_sale(conn, org_id=shop.org_id, id=sales[0].id)
    finally:
        await conn.close()
    return {**sale, "receipt_number": f"{sale.till_name}-{sale.receipt_no:06}"}
