"""9: five thousand clients at once, and a pool of twenty connections."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING

from chaos.journal import UNSURE, Order
from chaos.processes import resident_bytes
from chaos.writers import LATER, NO_ANSWER, PATIENT_S_MAX, PREFIX, RETRY_S, UNIT

if TYPE_CHECKING:
    from chaos.stage import Stage

CLIENTS, POOL = 5_000, 20
SELLERS = 50  # one in so many sells, the others look at the catalogue
SECONDS = 20.0
MEMORY_MIB_MAX = 512
SAMPLE_S = 0.1
CALM_S = 3.0


async def connection_storm(stage: Stage, *, clients: int = CLIENTS) -> str:
    """Let everybody come at once, and again when told: who cannot wait is told so at once."""
    service = await stage.serve(DATABASE_POOL_SIZE=str(POOL))
    stage.begin()
    await stage.heal()
    before_s = time.monotonic()
    await asyncio.sleep(CALM_S)
    calm_ms = _median_ms(stage, before_s)
    memory = [resident_bytes(service.pid)]
    sampling = asyncio.create_task(_sample(service.pid, memory))
    told: Counter[int] = Counter()
    until_s = time.monotonic() + SECONDS
    await asyncio.gather(*(
        _sell(stage, number, until_s) if number % SELLERS == 0 else _look(stage, told, until_s)
        for number in range(clients)
    ))  # fmt: skip
    over_s = time.monotonic()
    await stage.heal(over_s)
    await asyncio.sleep(CALM_S)
    sampling.cancel()
    stage.figures |= {
        "told": dict(told),
        "before ms": round(calm_ms, 1), "after ms": round(_median_ms(stage, over_s), 1),
        "memory MiB": [memory[0] >> 20, max(memory) >> 20],
    }  # fmt: skip
    stage.demand(f"it told {dict(told)}", holds=set(told) <= {0, 200, *LATER})
    stage.demand(f"it took {max(memory) >> 20} MiB", holds=max(memory) >> 20 < MEMORY_MIB_MAX)
    stage.demand("nobody was told to come back", holds=told[503] > 0)
    stage.demand("it ended", holds=service.runs)
    later = sum(told[status] for status in LATER) + sum(
        count for code, count in stage.crowd.codes.items() if code in {"try_again", "unavailable"}
    )
    return (
        f"{clients} clients on a pool of {POOL} for {SECONDS:.0f} s: {told[200]} served, {later} "
        f"times told to come back, {told[0]} unanswered; {max(memory) >> 20} MiB at most"
    )


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
        await asyncio.sleep(pause_s * (0.5 + stage.chance.random()))
        pause_s = min(pause_s * 2, PATIENT_S_MAX)


async def _look(stage: Stage, told: Counter[int], until_s: float) -> None:
    """Read a product till it is answered, coming back when told."""
    crowd = stage.crowd
    url = f"{crowd.urls[0]}{PREFIX}/products/{stage.chance.choice(crowd.shop.product_ids)}"
    pause_s = RETRY_S
    while time.monotonic() + pause_s < until_s:
        try:
            async with crowd.session.get(url) as answer:
                await answer.read()
        except NO_ANSWER:
            told[0] += 1
        else:
            told[answer.status] += 1
            if answer.status not in LATER:
                return
            pause_s = max(pause_s, float(answer.headers.get("Retry-After", "0")))
        await asyncio.sleep(pause_s * (0.5 + stage.chance.random()))
        pause_s = min(pause_s * 2, PATIENT_S_MAX)


async def _sample(pid: int, memory: list[int]) -> None:
    while True:
        memory.append(resident_bytes(pid))
        await asyncio.sleep(SAMPLE_S)


def _median_ms(stage: Stage, since_s: float) -> float:
    return statistics.median(stage.crowd.durations_since(since_s) or [0.0]) * 1000
