"""9: five thousand clients at once on a pool of twenty connections; and PgBouncer is killed."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.journal import UNSURE, Order
from chaos.processes import resident_bytes
from chaos.writers import LATER, NO_ANSWER, PATIENT_S_MAX, PREFIX, RETRY_S, UNIT
from tests.pgbouncer_server import PgBouncer

if TYPE_CHECKING:
    from chaos.stage import Stage

CLIENTS, POOL = 5_000, 20
SELLERS = 50  # one in so many sells, the others look at the catalogue
SECONDS = 30.0
MEMORY_MIB_MAX = 512
SAMPLE_S = 0.1
# Before the storm, so many look at the catalogue, again and again, for so long.
CALM_CLIENTS, CALM_S = 32, 4.0
MOST = 0.9
POOLER_KILLS = 4
# What the crowd's clients do with what they are told: they never come back before it.
WAIT_MIN, WAIT_MAX = 1.0, 1.2


@dataclass(slots=True)
class Told:
    """What those who look at the catalogue were told, and when they were served."""

    counts: Counter[int] = field(default_factory=Counter)
    served_s: list[float] = field(default_factory=list)


async def connection_storm(stage: Stage, *, clients: int = CLIENTS) -> str:
    """Let everybody come at once, and again when told: who cannot wait is told so at once."""
    service = await stage.serve(DATABASE_POOL_SIZE=str(POOL))
    stage.begin()
    await stage.heal()
    calm_rate, calm_ms = await _calm(stage)
    memory = [resident_bytes(service.pid)]
    sampling = asyncio.create_task(_sample(service.pid, memory))
    told = Told()
    began_s = time.monotonic()
    until_s = began_s + SECONDS
    await asyncio.gather(*(
        _sell(stage, number, until_s) if number % SELLERS == 0 else _look(stage, told, until_s)
        for number in range(clients)
    ))  # fmt: skip
    over_s = time.monotonic()
    await stage.heal(over_s)
    after_rate, after_ms = await _calm(stage)
    sampling.cancel()
    served = sorted(told.served_s)
    most_s = served[int(len(served) * MOST) - 1] - began_s if served else SECONDS
    rate = len(served) * MOST / most_s
    stage.figures |= {
        "told": dict(told.counts),
        "served per s": [round(calm_rate), round(rate), round(after_rate)],
        "before ms": round(calm_ms, 1), "after ms": round(after_ms, 1),
        "memory MiB": [memory[0] >> 20, max(memory) >> 20],
    }  # fmt: skip
    stage.demand(f"it told {dict(told.counts)}", holds=set(told.counts) <= {0, 200, *LATER})
    stage.demand(f"it took {max(memory) >> 20} MiB", holds=max(memory) >> 20 < MEMORY_MIB_MAX)
    stage.demand("nobody was told to come back", holds=told.counts[503] > 0)
    stage.demand("it ended", holds=service.runs)
    later = sum(told.counts[status] for status in LATER) + sum(
        count for code, count in stage.crowd.codes.items() if code in {"try_again", "unavailable"}
    )
    return (
        f"{clients} clients on a pool of {POOL}: {len(served)} of {clients - clients // SELLERS} "
        f"readers served in {SECONDS:.0f} s, 9 of 10 of these in {most_s:.1f} s ({rate:.0f}/s; "
        f"{calm_rate:.0f}/s without a storm), {later} times told to come back, {told.counts[0]} "
        f"unanswered; {max(memory) >> 20} MiB at most"
    )


async def kill_pooler(stage: Stage, *, kills: int = POOLER_KILLS) -> str:
    """Kill PgBouncer between the service and PostgreSQL, and start it again."""
    server = stage.postgres.server
    pooler = PgBouncer(
        stage.postgres.url(), pool_size=POOL, password=server.secrets["sofinance_app"]
    )
    stage.at_end(pooler.close)
    service = await stage.gunicorn(
        DATABASE_URL=stage.postgres.url(port=pooler.port), DATABASE_PREPARED_STATEMENTS="false"
    )
    pids = service.children()
    stage.begin()
    await stage.heal()
    for _ in range(kills):
        await stage.pause(0.5, 1.5)
        await asyncio.to_thread(pooler.kill)
        await stage.pause(0.1, 1.0)
        mended_s = time.monotonic()
        await asyncio.to_thread(pooler.start)
        await stage.heal(mended_s)
    await stage.pause(0.5, 1.0)
    stage.demand("the service's processes are others", holds=service.children() == pids)
    stage.demand("nobody was cut", holds=stage.crowd.codes.get("unavailable", 0) > 0)
    return f"kill -9 of PgBouncer in transaction mode {kills} times"


async def _calm(stage: Stage) -> tuple[float, float]:
    """Return how many readers are served in a second when few come, and a till's median in ms."""
    told, began_s = Told(), time.monotonic()
    until_s = began_s + CALM_S

    async def keep_looking() -> None:
        while time.monotonic() + RETRY_S < until_s:
            await _look(stage, told, until_s)

    await asyncio.gather(*(keep_looking() for _ in range(CALM_CLIENTS)))
    return len(told.served_s) / CALM_S, _median_ms(stage, began_s)


async def _sell(stage: Stage, number: int, until_s: float) -> None:
    crowd = stage.crowd
    branch_id, till_id = crowd.shop.place(number % len(crowd.shop.till_ids))
    key = f"{stage.seed}-storm-{number}"
    order = Order(key, "sale", "/sales", {
        "branch_id": branch_id, "till_id": till_id, "notes": key,
        "items": [{"product_id": stage.chance.choice(crowd.shop.product_ids), "quantity": "1"}],
        "payments": [{"amount": str(UNIT)}],
    })  # fmt: skip
    crowd.journal.begin(order)
    pause_s = RETRY_S
    while (attempt := await crowd.send(order)).outcome == UNSURE:
        pause_s = max(pause_s, attempt.retry_after_s)
        if time.monotonic() + pause_s > until_s:
            crowd.open.append(order)  # it comes again when the storm is over
            return
        await asyncio.sleep(pause_s * stage.chance.uniform(WAIT_MIN, WAIT_MAX))
        pause_s = min(pause_s * 2, PATIENT_S_MAX)


async def _look(stage: Stage, told: Told, until_s: float) -> None:
    """Read a product till it is answered, coming back when told."""
    crowd = stage.crowd
    url = f"{crowd.urls[0]}{PREFIX}/products/{stage.chance.choice(crowd.shop.product_ids)}"
    pause_s = RETRY_S
    while time.monotonic() + pause_s < until_s:
        try:
            async with crowd.session.get(url) as answer:
                await answer.read()
        except NO_ANSWER:
            told.counts[0] += 1
        else:
            told.counts[answer.status] += 1
            if answer.status == 200:
                told.served_s.append(time.monotonic())
            if answer.status not in LATER:
                return
            pause_s = max(pause_s, float(answer.headers.get("Retry-After", "0")))
        await asyncio.sleep(pause_s * stage.chance.uniform(WAIT_MIN, WAIT_MAX))
        pause_s = min(pause_s * 2, PATIENT_S_MAX)


async def _sample(pid: int, memory: list[int]) -> None:
    while True:
        memory.append(resident_bytes(pid))
        await asyncio.sleep(SAMPLE_S)


def _median_ms(stage: Stage, since_s: float) -> float:
    return statistics.median(stage.crowd.durations_since(since_s) or [0.0]) * 1000
