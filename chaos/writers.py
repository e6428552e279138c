"""Tills that write at once, and never give a key up before they know what became of it."""

from __future__ import annotations

import asyncio
import random
import time
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from bench.world import COST, PRICE, TAX_PERCENT
from chaos.journal import DONE, REFUSED, UNSURE, Attempt, Order

if TYPE_CHECKING:
    from bench.world import Shop
    from chaos.journal import Journal

PREFIX = "/api/v1"
TIMEOUT_S = 15
# What a client may be told while something is broken: come back later.
LATER = frozenset({429, 503})
KEY_IN_USE = "idempotency_key_in_use"
# The wait before the next attempt, doubled each time. Writers wait less than Retry-After asks for,
# so that they see at once that all is well again; a crowd has to be patient.
RETRY_S, RETRY_S_MAX, PATIENT_S_MAX = 0.05, 1.0, 16.0
# How often somebody goes on without knowing, and asks again at the end.
LEFT_OPEN = 0.25
ITEM_COUNT_MAX = 3
KINDS = {"sale": 70, "credit": 12, "payment": 8, "void": 5, "receipt": 5}
# One unit with its tax, as the service rounds it.
UNIT = PRICE + (PRICE * TAX_PERCENT / 100).quantize(Decimal("0.01"), ROUND_HALF_UP)
PART = Decimal("1.00")
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)


class Crowd:
    """All writers of a fault, what they saw, and when it last went well."""

    def __init__(self, shop: Shop, customer_id: int, token: str, journal: Journal) -> None:
        self.shop, self.customer_id, self.journal = shop, customer_id, journal
        self.urls: list[str] = []
        self.open: list[Order] = []
        self.problems: list[str] = []
        self.codes: dict[str, int] = {}
        self.expected: set[str] = set()  # refusals that are right here
        self.stopping = asyncio.Event()
        self._successes: list[tuple[float, float]] = []  # began, ended
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def session(self) -> aiohttp.ClientSession:
        """The clients' connections."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                headers=self._headers,
            )
        return self._session

    def start(self, count: int, seed: str) -> None:
        """Let so many of them begin."""
        self.stopping.clear()
        first = len(self._tasks)
        for number in range(first, first + count):
            writer = Writer(self, number, random.Random(f"{seed}/{number}"), seed)
            self._tasks.append(asyncio.create_task(writer.run()))

    async def stop(self) -> None:
        """Let them finish what they are at, and leave."""
        self.stopping.set()
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Close the connections; whoever still works is stopped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def worked_since(self, moment_s: float) -> float | None:
        """Return when the first order was done that began after a moment; None if none was."""
        ended = [end for begin, end in self._successes if begin >= moment_s]
        return min(ended, default=None)

    def done_between(self, begin_s: float, end_s: float) -> int:
        """Count the orders that were done in a stretch of time."""
        return sum(begin_s <= end <= end_s for _, end in self._successes)

    def durations_since(self, moment_s: float) -> list[float]:
        """Return how long each order took that was begun since then and is done, in seconds."""
        return [end - begin for begin, end in self._successes if begin >= moment_s]

    async def send(self, order: Order) -> Attempt:
        """Send an order once; what comes of it is in the journal when this returns."""
        began_s = time.monotonic()
        attempt = await self._send(order)
        self.journal.end(order, attempt)
        self.codes[attempt.code] = self.codes.get(attempt.code, 0) + 1
        if attempt.outcome == DONE:
            self._successes.append((began_s, time.monotonic()))
        return attempt

    async def _send(self, order: Order) -> Attempt:
        url = random.choice(self.urls)
        try:
            async with self.session.post(
                f"{url}{PREFIX}{order.path}", data=orjson.dumps(order.body),
                headers={"Idempotency-Key": order.key},
            ) as answer:  # fmt: skip
                body = await answer.read()
        except NO_ANSWER as error:
            return Attempt(UNSURE, 0, type(error).__name__, replayed=False, data={})
        try:
            said = orjson.loads(body)
            code = "" if said["success"] else str(said["error"]["code"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self.problems.append(f"{answer.status} without the envelope: {body[:200]!r}")
            return Attempt(UNSURE, answer.status, "unreadable", replayed=False, data={})
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        if answer.status < 300:
            return Attempt(DONE, answer.status, "", replayed, said["data"])
        if answer.status in LATER or code == KEY_IN_USE:
            if "Retry-After" not in answer.headers:
                self.problems.append(f"{answer.status} {code} without Retry-After")
            asked_s = float(answer.headers.get("Retry-After", "0"))
            return Attempt(UNSURE, answer.status, code, replayed, {}, asked_s)
        if answer.status >= 500:
            self.problems.append(f"{order.kind}: {answer.status} {code}")
            return Attempt(UNSURE, answer.status, code, replayed, {})
        return Attempt(REFUSED, answer.status, code, replayed, {})

    async def insist(self, order: Order, timeout_s: float) -> Attempt | None:
        """Send an order till it is answered; None, and a problem, if it is not in time."""
        until_s = time.monotonic() + timeout_s
        pause_s = RETRY_S
        while (attempt := await self.send(order)).outcome == UNSURE:
            if time.monotonic() > until_s:
                self.problems.append(f"{order.key}: no answer in {timeout_s:.0f} s")
                return None
            await asyncio.sleep(pause_s * (0.5 + random.random()))
            pause_s = min(pause_s * 2, RETRY_S_MAX)
        if attempt.outcome == REFUSED and attempt.code not in self.expected:
            self.problems.append(f"{order.kind} refused: {attempt.status} {attempt.code}")
        return attempt

    async def settle(self, timeout_s: float) -> None:
        """Ask again for everything that nobody knows the end of."""
        while self.open:
            await self.insist(self.open.pop(), timeout_s)


class Writer:
    """One till: an order at a time, of any kind, retried under its key."""

    def __init__(self, crowd: Crowd, number: int, chance: random.Random, seed: str) -> None:
        self._crowd, self._number, self._chance, self._seed = crowd, number, chance, seed
        self._count = 0
        self._owed: list[int] = []  # sales on credit, not paid in full
        self._paid: list[int] = []  # sales in cash, not voided

    async def run(self) -> None:
        """Work until told to stop."""
        while not self._crowd.stopping.is_set():
            await self.place(self.draw())

    async def place(self, order: Order) -> None:
        """Send an order till it is answered, or leave it open for the end."""
        crowd = self._crowd
        crowd.journal.begin(order)
        pause_s = RETRY_S
        while True:
            attempt = await crowd.send(order)
            if attempt.outcome != UNSURE:
                self._remember(order, attempt)
                return
            if crowd.stopping.is_set() or self._chance.random() < LEFT_OPEN:
                crowd.open.append(order)
                await asyncio.sleep(pause_s)
                return
            await asyncio.sleep(pause_s * (0.5 + self._chance.random()))
            pause_s = min(pause_s * 2, RETRY_S_MAX)

    def _remember(self, order: Order, attempt: Attempt) -> None:
        if attempt.outcome == REFUSED and attempt.code not in self._crowd.expected:
            self._crowd.problems.append(f"{order.kind} refused: {attempt.status} {attempt.code}")
        elif order.kind == "credit":
            self._owed.append(attempt.data["id"])
        elif order.kind == "sale":
            self._paid.append(attempt.data["id"])

    def draw(self) -> Order:
        """Think of something to do."""
        kind = self._chance.choices([*KINDS], [*KINDS.values()])[0]
        if (kind == "payment" and not self._owed) or (kind == "void" and not self._paid):
            kind = "sale"
        self._count += 1
        key = f"{self._seed}-{self._number}-{self._count}"
        path, body = getattr(self, f"_{kind}")(key)
        return Order(key, kind, path, body)

    def _sale(self, key: str, *, on_credit: bool = False) -> tuple[str, dict[str, Any]]:
        shop = self._crowd.shop
        branch_id, till_id = shop.place(self._number)
        count = self._chance.randint(1, ITEM_COUNT_MAX)
        body: dict[str, Any] = {
            "branch_id": branch_id, "till_id": till_id, "notes": key,
            "items": [
                {"product_id": product_id, "quantity": "1"}
                for product_id in self._chance.sample(shop.product_ids, count)
            ],
        }  # fmt: skip
        if on_credit:
            body["customer_id"] = self._crowd.customer_id
        else:
            body["payments"] = [{"amount": str(count * UNIT)}]
        return "/sales", body

    def _credit(self, key: str) -> tuple[str, dict[str, Any]]:
        return self._sale(key, on_credit=True)

    def _payment(self, key: str) -> tuple[str, dict[str, Any]]:
        sale_id = self._owed.pop(self._chance.randrange(len(self._owed)))
        return f"/sales/{sale_id}/payments", {"amount": str(PART), "reference": key}

    def _void(self, key: str) -> tuple[str, dict[str, Any]]:
        sale_id = self._paid.pop(self._chance.randrange(len(self._paid)))
        return f"/sales/{sale_id}/void", {"reason": key}

    def _receipt(self, key: str) -> tuple[str, dict[str, Any]]:
        shop = self._crowd.shop
        lines = [
            {"product_id": product_id, "quantity": "7", "unit_cost": str(COST)}
            for product_id in self._chance.sample(shop.product_ids, 2)
        ]
        body = {"branch_id": shop.place(self._number)[0], "reference": key, "lines": lines}
        return "/inventory/receipts", body
