"""10: a hot branch: 200 tills and one product of which ten units are left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bench.world import COST, PRICE
from chaos.journal import DONE, Order
from chaos.writers import UNIT

if TYPE_CHECKING:
    from chaos.stage import Stage

TILLS = 200
UNITS = 10
WAIT_S = 60
SOLD_OUT = "stock_not_negative"


async def hot_branch(stage: Stage, *, tills: int = TILLS) -> str:
    """Let all tills of a branch sell the same last units at once: as many as there are are sold."""
    await stage.gunicorn(3)
    crowd = stage.crowd
    product = await stage.post("/products", {
        "sku": "HOT", "name": "The last ten", "price": str(PRICE), "cost": str(COST),
    })  # fmt: skip
    branch_id = crowd.shop.branch_ids[0]
    lines = [{"product_id": product["id"], "quantity": str(UNITS), "unit_cost": str(COST)}]
    await stage.post("/inventory/receipts", {"branch_id": branch_id, "lines": lines})
    crowd.expected.add(SOLD_OUT)
    stage.begin()
    await stage.heal()

    async def sell(till_id: int) -> bool:
        key = f"{stage.seed}-hot-{till_id}"
        order = Order(key, "sale", "/sales", {
            "branch_id": branch_id, "till_id": till_id, "notes": key,
            "items": [{"product_id": product["id"], "quantity": "1"}],
            "payments": [{"amount": str(UNIT)}],
        })  # fmt: skip
        crowd.journal.begin(order)
        attempt = await crowd.insist(order, WAIT_S)
        return attempt is not None and attempt.outcome == DONE

    sold = sum(await asyncio.gather(*(sell(till_id) for till_id in crowd.shop.till_ids[:tills])))
    stage.demand(f"{sold} of {UNITS} were sold", holds=sold == UNITS)
    stage.demand("nobody was refused", holds=crowd.codes.get(SOLD_OUT, 0) >= tills - UNITS)
    await stage.heal()
    return f"{tills} tills of one branch sell a product with {UNITS} units left: {sold} sold"
