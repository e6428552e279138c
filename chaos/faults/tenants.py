"""17: two organisations on two connections, which fail, are refused and are left in the middle."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp

from bench.world import open_shop
from chaos.writers import NO_ANSWER, PREFIX, UNIT

if TYPE_CHECKING:
    from bench.world import Shop
    from chaos.stage import Stage

SECONDS = 8.0
CLIENTS = 12
HURRY_S = 0.004
POOL = 2


async def share(stage: Stage, *, seconds: float = SECONDS) -> str:
    """Mix good, refused, failing and abandoned requests of two tenants on a pool of two."""
    await stage.serve(DATABASE_POOL_SIZE=str(POOL))
    other = await open_shop(
        await stage.connect(), f"neighbour-{time.time_ns()}", 10, branches=1, tills=1
    )
    stage.begin(4)
    await stage.heal()
    seen: Counter[str] = Counter()
    until_s = time.monotonic() + seconds
    pairs = [(stage.shop, other), (other, stage.shop)]
    await asyncio.gather(*(
        _neighbour(stage, *pairs[number % 2], seen, until_s, number) for number in range(CLIENTS)
    ))  # fmt: skip
    await stage.heal()
    for what in ("left", "refused", "hidden", "own"):
        stage.demand(f"nothing was {what}", holds=seen[what] > 0)
    return (
        f"two tenants on {POOL} connections: {seen['refused']} refused, {seen['left']} left in the "
        f"middle, {seen['hidden']} times the other's hidden, {seen['own']} lists of one's own only"
    )


async def _neighbour(
    stage: Stage, own: Shop, theirs: Shop, seen: Counter[str], until_s: float, number: int
) -> None:
    """Ask for one's own things and for the other's, and break off."""
    chance = random.Random(f"{stage.seed}/neighbour/{number}")
    headers = {"Authorization": f"Bearer {stage.token(own)}"}
    url, session = f"{stage.crowd.urls[0]}{PREFIX}", stage.crowd.session
    branch_id, till_id = own.place(0)
    body: dict[str, Any] = {
        "branch_id": branch_id, "till_id": till_id,
        "items": [{"product_id": own.product_ids[0], "quantity": "1"}],
        "payments": [{"amount": str(UNIT + 1)}],  # too much: refused, at the latest by COMMIT
    }  # fmt: skip
    foreign = {**body, "items": [{"product_id": theirs.product_ids[0], "quantity": "1"}]}
    while time.monotonic() < until_s:
        draw = chance.randrange(5)
        try:
            if draw == 0:
                hurry = aiohttp.ClientTimeout(total=HURRY_S * chance.random() * 3)
                async with session.post(
                    f"{url}/sales", json=body, headers=headers, timeout=hurry
                ) as answer:
                    await answer.read()
            elif draw in (1, 2):
                sent = body if draw == 1 else foreign
                async with session.post(f"{url}/sales", json=sent, headers=headers) as answer:
                    stage.demand(f"sold: {answer.status}", holds=answer.status in (404, 409, 422))
                seen["refused"] += 1
            elif draw == 3:
                theirs_url = f"{url}/products/{chance.choice(theirs.product_ids)}"
                async with session.get(theirs_url, headers=headers) as answer:
                    stage.demand(f"the other's is {answer.status}", holds=answer.status == 404)
                seen["hidden"] += 1
            else:
                async with session.get(f"{url}/products?size=100", headers=headers) as answer:
                    found = await answer.json()
                ids = {item["id"] for item in found["data"]["items"]}
                stage.demand("a list has others' rows", holds=ids == set(own.product_ids))
                seen["own"] += 1
        except NO_ANSWER:
            seen["left"] += 1
