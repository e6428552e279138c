"""3: the service is killed at every step of a request, one after the other; and in a loop."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from hashlib import sha256
from typing import TYPE_CHECKING

from chaos.journal import UNSURE, Order
from chaos.processes import owner_of_port
from chaos.proxy import DatabaseProxy, Fate
from chaos.writers import UNIT

if TYPE_CHECKING:
    from chaos.processes import Running
    from chaos.proxy import Link
    from chaos.stage import Stage

WORKERS = 3
STEPS_MAX = 60
KINDS = ("sale", "payment", "void", "receipt")
KILLS = 6
WAIT_S = 30
# Each exchange with the database has two moments in which nobody may be there any more.
MOMENTS = ("amid", "after")


class Hunter:
    """Kills the process that serves one request, at one of its steps."""

    def __init__(self) -> None:
        self.service: Running
        self.hit = False
        self._marks = b""
        self._step = self._seen = 0
        self._link: Link | None = None

    def aim(self, order: Order, step: int) -> None:
        """Choose a request, known by the hash of its key, and the step."""
        self._marks = sha256(order.key.encode()).hexdigest().encode()
        self._step, self._seen, self._link, self.hit = step, 0, None, False

    def rest(self) -> None:
        """Choose nothing: what is sent again is let through."""
        self._marks, self._link = b"", None

    async def judge(self, link: Link, turn: bytes) -> Fate:
        """Look at a message to the database; strike, if it is the one."""
        if self._marks and self._marks in turn:
            self._link, self._seen = link, 0
        if link is not self._link or self.hit:
            return Fate.PASS
        exchange, moment = divmod(self._step, len(MOMENTS))
        self._seen += 1
        if self._seen <= exchange:
            return Fate.PASS
        self.hit = True
        pid = owner_of_port(link.client_port, self.service.children())
        if MOMENTS[moment] == "amid":
            await self._kill(pid)
            return Fate.PASS  # the message goes on without its sender
        link.is_done = functools.partial(self._kill, pid)
        return Fate.CUT_AFTER

    async def _kill(self, pid: int | None) -> None:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


async def kill_at_each_step(stage: Stage, *, kinds: tuple[str, ...] = KINDS) -> str:
    """Kill the worker that serves a request at its step N, then N+1, until none is left.

    A step is a moment of an exchange with the database, as SQLite's tests fail each allocation.
    """
    hunter = Hunter()
    async with DatabaseProxy(stage.postgres.port, hunter.judge) as database:
        hunter.service = await stage.gunicorn(
            WORKERS, DATABASE_URL=stage.postgres.url(port=database.port)
        )
        stage.begin()
        await stage.heal()
        steps = [await _kill_along(stage, hunter, kind) for kind in kinds]
        await _full_strength(stage, hunter.service, at_least=WORKERS)
        await stage.heal()
        await stage.settle()
    await stage.gunicorn()
    stage.crowd.urls = stage.crowd.urls[-1:]
    return f"kill -9 of gunicorn's worker at each of {sum(steps)} steps of {', '.join(kinds)}"


async def _kill_along(stage: Stage, hunter: Hunter, kind: str) -> int:
    """Kill at each step of one kind of request; returns how many it has."""
    crowd = stage.crowd
    for step in range(STEPS_MAX):
        await _full_strength(stage, hunter.service, at_least=WORKERS - 1)
        order = await _order(stage, kind, step)
        crowd.journal.begin(order)
        hunter.aim(order, step)
        attempt = await crowd.send(order)
        hunter.rest()
        if attempt.outcome == UNSURE:
            await crowd.insist(order, WAIT_S)
        if not hunter.hit:
            stage.demand(f"{kind}: it failed unhit", holds=attempt.outcome != UNSURE)
            stage.demand(f"{kind}: no step was hit", holds=step > 0)
            return step
    stage.demand(f"{kind}: there is no end of steps", holds=False)
    return STEPS_MAX


async def kill_services(stage: Stage, *, kills: int = KILLS) -> str:
    """Kill a service of one process, a worker of gunicorn's and its master, again and again."""
    alone = await stage.serve()
    many = await stage.gunicorn(workers=WORKERS)
    stage.begin()
    await stage.heal()
    for number in range(kills):
        await stage.pause(0.3, 1.5)
        if number % 3 == 1:
            os.kill(stage.chance.choice(many.children()), signal.SIGKILL)
            await stage.heal()  # gunicorn replaces it by itself
            continue
        victim = many if number % 3 else alone
        victim.kill()
        killed_s = time.monotonic()
        await asyncio.to_thread(victim.again)
        await stage.ready(int(victim.settings["PORT"]), victim)
        await stage.heal(killed_s)
    await _full_strength(stage, many, at_least=WORKERS)
    return f"kill -9 of `sofinance serve`, a worker of gunicorn's and its master: {kills} times"


async def _order(stage: Stage, kind: str, step: int) -> Order:
    """Return an order of a kind, with what it needs before it already done."""
    key = f"{stage.seed}-step-{kind}-{step}"
    shop = stage.crowd.shop
    branch_id, till_id = shop.place(0)
    items = [{"product_id": shop.product_ids[0], "quantity": "1"}]
    sale = {"branch_id": branch_id, "till_id": till_id, "items": items}
    paid = [{"amount": str(UNIT)}]
    if kind == "sale":  # and before it, in a statement of its own, the customer
        body = {**sale, "notes": key, "customer_name": key, "payments": paid}
        return Order(key, kind, "/sales", body)
    if kind == "receipt":
        lines = [{"product_id": shop.product_ids[0], "quantity": "3", "unit_cost": "1.50"}]
        body = {"branch_id": branch_id, "reference": key, "lines": lines}
        return Order(key, kind, "/inventory/receipts", body)
    before = Order(f"{key}-before", "sale", "/sales", {**sale, "notes": f"{key}-before"})
    if kind == "payment":
        before.body["customer_id"] = stage.crowd.customer_id
    else:
        before.body["payments"] = paid
    stage.crowd.journal.begin(before)
    made = await stage.crowd.insist(before, WAIT_S)
    if made is None:
        raise RuntimeError("nothing could be sold")
    path = f"/sales/{made.data['id']}"
    if kind == "payment":
        return Order(key, kind, f"{path}/payments", {"amount": "1.00", "reference": key})
    return Order(key, kind, f"{path}/void", {"reason": key})


async def _full_strength(stage: Stage, service: Running, *, at_least: int) -> None:
    """Wait till gunicorn has its workers again, and they answer."""
    until_s = time.monotonic() + WAIT_S
    while len(service.children()) < at_least:
        if time.monotonic() > until_s:
            stage.problems.append("gunicorn did not replace its workers")
            return
        await asyncio.sleep(0.02)
