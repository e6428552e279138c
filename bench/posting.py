"""The sale as one function call against the same sale as one plain statement per row."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import uvloop

from bench.measure import Effort, Result, median, ratio, take_turns
from bench.sale import CLIENT_COUNT, ITEM_COUNT, paid, set_tenant
from sofinance import queries as q
from sofinance.infra.sql import load

if TYPE_CHECKING:
    from bench.world import Shop, World

CENT = Decimal("0.01")
PLAIN: Any = load(Path(__file__).parent / "sql" / "plain.sql")
# What a till leaves out of a line or a payment.
NOTHING: list[Any] = [None]
# As long as a real answer.
ANSWER = json.dumps({"data": {"id": 1, "notes": "x" * 700}}).encode()


@dataclass(slots=True)
class Till:
    """One client: its connection, its place and what it draws its baskets with."""

    conn: Any
    shop: Shop
    number: int
    draw: Random

    def basket(self) -> list[int]:
        """Return the products of the next sale."""
        return self.draw.sample(self.shop.product_ids, ITEM_COUNT)


Post = Callable[[Till], Awaitable[int]]


async def by_function(till: Till) -> int:
    """Post a sale by q.sales.post_sale; return its id."""
    shop = till.shop
    branch_id, till_id = shop.place(till.number)
    sale = await q.sales.post_sale(
        till.conn,
        org_id=shop.org_id,
        user_id=shop.user_id,
        branch_id=branch_id,
        till_id=till_id,
        customer_id=None,
        client_sale_id=None,
        sold_on=None,
        till_at=None,
        notes=None,
        discount=Decimal(0),
        may_override=False,
        product_ids=till.basket(),
        quantities=[Decimal(1)] * ITEM_COUNT,
        unit_prices=NOTHING * ITEM_COUNT,
        discounts=[Decimal(0)] * ITEM_COUNT,
        methods=["CASH"],
        currencies=NOTHING,
        account_ids=NOTHING,
        amounts=[paid()],
        references=NOTHING,
    )
    return sale.id


async def by_rows(till: Till) -> int:
    """Post the same sale by one plain statement per row; return its id."""
    conn, org_id, user_id = till.conn, till.shop.org_id, till.shop.user_id
    branch_id, till_id = till.shop.place(till.number)
    place = await PLAIN["find_place"](conn, org_id=org_id, branch_id=branch_id, till_id=till_id)
    today = datetime.now(UTC).date()
    basket = sorted(till.basket())
    priced = []
    for product_id in basket:
        product = await PLAIN["find_product"](conn, org_id=org_id, product_id=product_id)
        tax = (product.price * product.rate_percent / 100).quantize(CENT, ROUND_HALF_UP)
        priced.append((product_id, product, tax))
    costs = {}
    for product_id in basket:
        stock = await PLAIN["lock_stock"](
            conn, org_id=org_id, branch_id=branch_id, product_id=product_id
        )
        costs[product_id] = (stock.value / stock.quantity).quantize(CENT, ROUND_HALF_UP)
    subtotal = sum((product.price for _, product, _ in priced), Decimal(0))
    taxes = sum((tax for *_, tax in priced), Decimal(0))
    total = subtotal + taxes
    receipt_no = await PLAIN["draw_receipt_no"](conn, org_id=org_id, till_id=till_id)
    sale_id: int = await PLAIN["add_sale"](
        conn, org_id=org_id, branch_id=branch_id, till_id=till_id, receipt_no=receipt_no,
        user_id=user_id, currency=place.currency, prices_include_tax=place.prices_include_tax,
        line_count=len(basket), subtotal=subtotal, tax=taxes, total=total, sold_on=today,
    )  # fmt: skip
    for line_no, (product_id, product, tax) in enumerate(priced, 1):
        await PLAIN["add_line"](
            conn, org_id=org_id, sale_id=sale_id, line_no=line_no, line_count=len(basket),
            currency=place.currency, prices_include_tax=place.prices_include_tax,
            product_id=product_id, quantity=Decimal(1), price=product.price,
            subtotal=product.price, tax_code=product.tax_code, rate_percent=product.rate_percent,
            tax=tax, total=product.price + tax,
        )  # fmt: skip
    accounts = {row.role: row.id for row in await PLAIN["list_roles"](conn, org_id=org_id)}
    await PLAIN["add_payment"](
        conn, org_id=org_id, sale_id=sale_id, currency=place.currency, amount=total,
        account_id=accounts["cash"], received_on=today, user_id=user_id,
    )  # fmt: skip
    for product_id in basket:
        await PLAIN["add_movement"](
            conn, org_id=org_id, branch_id=branch_id, product_id=product_id,
            currency=place.currency, quantity=Decimal(1), cost=costs[product_id], sale_id=sale_id,
        )  # fmt: skip
    cost = sum(costs.values(), Decimal(0))
    amounts = {
        "cash": total, "revenue": -subtotal, "tax_payable": -taxes, "cogs": cost,
        "inventory": -cost,
    }  # fmt: skip
    entry_id = await PLAIN["add_entry"](
        conn, org_id=org_id, posted_on=today, line_count=len(amounts), sale_id=sale_id,
        user_id=user_id,
        period_id=await PLAIN["find_period"](conn, org_id=org_id, posted_on=today),
    )  # fmt: skip
    for line_no, (role, amount) in enumerate(amounts.items(), 1):
        await PLAIN["add_entry_line"](
            conn, org_id=org_id, entry_id=entry_id, line_no=line_no, line_count=len(amounts),
            account_id=accounts[role], currency=place.currency, debit=max(amount, Decimal(0)),
            credit=max(-amount, Decimal(0)),
        )  # fmt: skip
    return sale_id


async def sell(world: World, post: Post, seconds: float) -> float:
    """Sell on CLIENT_COUNT connections for a while; return the sales per second."""
    tills = [
        Till(await world.connect(), world.shop, number, Random(number))  # noqa: S311 - no secret
        for number in range(CLIENT_COUNT)
    ]
    begin = f"{q.request.begin_write.literal()};\n{set_tenant(world)}"
    until_s = 0.0

    async def run(till: Till) -> int:
        count = 0
        while time.perf_counter() < until_s:
            await sale(till, post, begin)
            count += 1
        return count

    try:
        for till in tills:
            await sale(till, post, begin)  # prepares the statements
        began_s = time.perf_counter()
        until_s = began_s + seconds
        counts = await asyncio.gather(*map(run, tills))
        return sum(counts) / (time.perf_counter() - began_s)
    finally:
        for till in tills:
            await till.conn.close()


async def sale(till: Till, post: Post, begin: str) -> None:
    """Run a sale's transaction as the service does: key first, audit row and answer last."""
    shop, key = till.shop, os.urandom(32)
    reserve = q.request.reserve_key.literal(
        org_id=shop.org_id, key_hash=key, fingerprint=key, expires_at_s=2**33
    )
    await till.conn.execute(f"{begin};\n{reserve}")
    sale_id = await post(till)
    audit = q.request.write_audit.literal(
        org_id=shop.org_id, user_id=shop.user_id, session_id=shop.session_id, api_key_id=None,
        action=b"sales.post_sale",
        entity_type=b"sales", entity_id=sale_id, before=None, after=ANSWER,
        request_id=b"0" * 32, ip=b"127.0.0.1", user_agent=b"till",
        severity=b"INFO",
    )  # fmt: skip
    store = q.request.store_answer.literal(
        org_id=shop.org_id, key_hash=key, status=201, body=ANSWER, etag=None
    )
    await till.conn.execute(f"{audit};\n{store};\n{q.request.commit_work.literal()}")


def against_rows(world: World, effort: Effort) -> list[Result]:
    """Compare the posting function with one statement per row, both from Python."""

    def runner(post: Post) -> Callable[[], float]:
        def run() -> float:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
                return loop.run(sell(world, post, effort.seconds))

        return run

    rates = take_turns({"function": runner(by_function), "rows": runner(by_rows)}, effort.rounds)
    return [
        Result(
            "posting function against one statement per row",
            ratio(rates["function"], rates["rows"]), goal=2,
            figures={
                "function/s": median(rates["function"]), "rows/s": median(rates["rows"]),
                "round trips": "3 and 28", "clients": CLIENT_COUNT,
            },
        )
    ]  # fmt: skip
