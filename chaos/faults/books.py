"""13: a till sends its offline batch again; 14: a period is closed while all post into it."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from chaos.journal import DONE, REFUSED, Order
from chaos.writers import UNIT

if TYPE_CHECKING:
    from chaos.stage import Stage

BATCH = 60
POSTERS = 50
WAIT_S = 60
TAKEN, CLOSED = "sale_client_sale_taken", "journal_entry_period_open"


async def offline_batch(stage: Stage) -> str:
    """Send a batch whole, in reverse, by half and both ends at once, each time under new keys.

    A till that lost its keys has its own number of each sale (client_sale_id), which is unique.
    """
    await stage.gunicorn()
    stage.crowd.expected.add(TAKEN)
    stage.begin()
    await stage.heal()
    numbers = [str(uuid.UUID(int=stage.chance.getrandbits(128))) for _ in range(BATCH)]
    half = numbers[: BATCH // 2]
    done = await asyncio.gather(_batch(stage, "a", numbers), _batch(stage, "b", numbers[::-1]))
    again = [await _batch(stage, "c", half), await _batch(stage, "d", numbers[::-1])]
    stage.demand(f"{sum(done)} of {BATCH} were posted", holds=sum(done) == BATCH)
    stage.demand(f"{sum(again)} were posted again", holds=sum(again) == 0)
    return f"{BATCH} sales of a till sent 3.5 times, forwards and backwards: {sum(done)} posted"


async def _batch(stage: Stage, name: str, numbers: list[str]) -> int:
    """Send sales one after the other; returns how many were posted."""
    done = 0
    for number in numbers:
        order = _sale(stage, f"{stage.seed}-{name}-{number}", client_sale_id=number)
        attempt = await stage.crowd.insist(order, WAIT_S)
        done += attempt is not None and attempt.outcome == DONE
    return done


async def close_period(stage: Stage) -> str:
    """Close last month while fifty post into it; what is reported of it never changes again."""
    await stage.gunicorn()
    stage.crowd.expected.add(CLOSED)
    last_month = datetime.now(UTC).date().replace(day=1) - timedelta(days=1)
    first = _sale(stage, f"{stage.seed}-first", sold_on=str(last_month))
    await stage.crowd.insist(first, WAIT_S)
    stage.begin()
    await stage.heal()
    periods = await stage.get("/periods?size=100")
    (period,) = [one for one in periods["items"] if one["ends_on"] == str(last_month)]
    posters = [
        asyncio.create_task(_post_into(stage, f"{stage.seed}-poster-{n}", str(last_month)))
        for n in range(POSTERS)
    ]
    await stage.pause(1, 2)
    closed = await stage.post(f"/periods/{period['id']}/close", {})
    stage.demand("it is not closed", holds=bool(closed["is_closed"]))
    report = f"/journal/trial-balance?as_of_date={last_month}"
    sealed = await stage.get(report)
    posted = sum(await asyncio.gather(*posters))
    await stage.pause(0.5, 1)
    stage.demand("a closed month's report changed", holds=await stage.get(report) == sealed)
    stage.demand("nobody was refused", holds=stage.crowd.codes.get(CLOSED, 0) > 0)
    stage.demand("nobody came in time", holds=posted > 0)
    return f"a month closed under {POSTERS} posters: {posted} postings in it, then none"


async def _post_into(stage: Stage, name: str, day: str) -> int:
    """Sell on a day of the month until it is closed."""
    until_s, count = time.monotonic() + WAIT_S, 0
    while time.monotonic() < until_s:
        order = _sale(stage, f"{name}-{count}", sold_on=day)
        attempt = await stage.crowd.insist(order, WAIT_S)
        if attempt is None or attempt.outcome == REFUSED:
            return count
        count += 1
    stage.demand("the month was never closed", holds=False)
    return count


def _sale(stage: Stage, key: str, **changes: Any) -> Order:
    branch_id, till_id = stage.shop.place(0)
    order = Order(key, "sale", "/sales", {
        "branch_id": branch_id, "till_id": till_id, "notes": key,
        "items": [{"product_id": stage.chance.choice(stage.shop.product_ids), "quantity": "1"}],
        "payments": [{"amount": str(UNIT)}], **changes,
    })  # fmt: skip
    stage.crowd.journal.begin(order)
    return order
