"""Where a fault happens: an organisation, services on real processes, writers, their journal."""

from __future__ import annotations

import asyncio
import random
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from bench.world import Shop, open_shop, set_tenant
from chaos.journal import Journal
from chaos.processes import Running, python
from chaos.writers import PREFIX, Crowd
from sofinance import queries as q
from sofinance.config import Settings
from sofinance.infra.db import Database
from sofinance.infra.guard import Guard
from sofinance.infra.sql import Row
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.database import Postgres

START_TIMEOUT_S = 60
HEAL_TIMEOUT_S = 60
SETTLE_TIMEOUT_S = 60
POLL_S = 0.02
DAY_MINUTES = 1_440
WRITER_COUNT = 16
BRANCH_COUNT, TILL_COUNT, PRODUCT_COUNT = 2, 16, 50
WORKER_COUNT = 2
CREDIT_LIMIT = Decimal(1_000_000_000)


class Stage:
    """All that a fault needs, and all that is ended and removed after it."""

    def __init__(self, name: str, seed: int, folder: Path, postgres: Postgres) -> None:
        folder.mkdir(parents=True)
        self.name, self.folder, self.postgres = name, folder, postgres
        self.seed = f"{seed}/{name}"
        self.chance = random.Random(self.seed)
        self.journal = Journal(folder / "journal.jsonl")
        self.problems: list[str] = []
        self.figures: dict[str, Any] = {}
        self.heal_s: float | None = None
        self.shop: Shop
        self.crowd: Crowd
        self._running: list[Running] = []
        self._ends: list[Callable[[], object]] = []
        self._log_count = 0

    # -- the organisation ------------------------------------------------------------------

    async def open(self, *, branches: int = BRANCH_COUNT, tills: int = TILL_COUNT) -> None:
        """Found the organisation whose tills will write."""
        self.shop = await open_shop(
            await self.connect(),
            f"{self.name}-{time.time_ns()}",
            PRODUCT_COUNT,
            branches=branches,
            tills=tills,
        )
        conn = await self.connect()
        try:
            async with conn.transaction():
                await set_tenant(conn, self.shop.org_id, self.shop.user_id)
                customer = await q.customers.create_customer(
                    conn, org_id=self.shop.org_id, name="Carla", email=None, phone=None,
                    address=None, customer_type="INDIVIDUAL", credit_limit=CREDIT_LIMIT,
                    status="ACTIVE", notes=None,
                )  # fmt: skip
        finally:
            await conn.close()
        self.crowd = Crowd(self.shop, customer.id, self.token(), self.journal)

    async def connect(self) -> Any:
        """Open a connection as the service does."""
        return await asyncpg.connect(self.postgres.url(), record_class=Row)

    def token(self, shop: Shop | None = None) -> str:
        """Return an access token of the administrator, or of another organisation's."""
        shop = shop or self.shop
        settings = Settings(
            database_url=self.postgres.url(), jwt_secret=self.postgres.server.jwt_secret,
            access_token_minutes=DAY_MINUTES,
        )  # fmt: skip
        return Guard(settings, Database(settings)).issue_token(
            org_id=shop.org_id, user_id=shop.user_id, session_id=shop.session_id,
            now=datetime.now(UTC),
        )[0]  # fmt: skip

    # -- processes -------------------------------------------------------------------------

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the settings of everything of ours here."""
        return {
            "DATABASE_URL": self.postgres.url(),
            "JWT_SECRET": self.postgres.server.jwt_secret,
            # The limiter is at work, and does not refuse the one user who sells everything.
            "RATE_LIMIT_PER_MINUTE": "10000000", "RATE_LIMIT_BURST": "1000000",
            "RATE_LIMIT_ORG_PER_MINUTE": "10000000", "RATE_LIMIT_ORG_BURST": "1000000",
            "LOG_LEVEL": "error",
            **changes,
        }  # fmt: skip

    def at_end(self, end: Callable[[], object]) -> None:
        """Have something ended with everything else, after the processes."""
        self._ends.append(end)

    def run(self, command: list[str], environment: dict[str, str]) -> Running:
        """Run a program till the fault is over."""
        self._log_count += 1
        running = Running(command, self.folder / f"{self._log_count}.log", environment)
        self._running.append(running)
        return running

    async def serve(self, **changes: str) -> Running:
        """Run `sofinance serve`, one process; writers may ask it from now on."""
        return await self._service(python("sofinance", "serve"), changes)

    async def gunicorn(self, workers: int = WORKER_COUNT, **changes: str) -> Running:
        """Run gunicorn; writers may ask it from now on."""
        metrics = self.folder / f"metrics-{self._log_count}"
        metrics.mkdir()
        changes = {
            "WEB_CONCURRENCY": str(workers), "PROMETHEUS_MULTIPROC_DIR": str(metrics), **changes
        }  # fmt: skip
        return await self._service(python("gunicorn", "-c", "gunicorn.conf.py"), changes)

    async def _service(self, command: list[str], changes: dict[str, str]) -> Running:
        port = free_port()
        environment = self.environment(HOST="127.0.0.1", PORT=str(port), **changes)
        running = self.run(command, environment)
        await self.ready(port, running)
        self.crowd.urls.append(f"http://127.0.0.1:{port}")
        return running

    async def ready(self, port: int, running: Running) -> None:
        """Wait till a service says that it is ready."""
        until_s = time.monotonic() + START_TIMEOUT_S
        url = f"http://127.0.0.1:{port}/readyz"
        while not await asyncio.to_thread(_answers, url):
            if not running.runs or time.monotonic() > until_s:
                raise RuntimeError(f"it does not serve: {running.log.read_text('utf-8')[-500:]}")
            await asyncio.sleep(POLL_S)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make something that the fault needs; returns it."""
        url = f"{self.crowd.urls[-1]}{PREFIX}{path}"
        async with self.crowd.session.post(url, data=orjson.dumps(body)) as answer:
            said = await answer.json()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {said}")
        made: dict[str, Any] = said["data"]
        return made

    async def get(self, path: str) -> Any:
        """Return what is there."""
        async with self.crowd.session.get(f"{self.crowd.urls[-1]}{PREFIX}{path}") as answer:
            said = await answer.json()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {said}")
        return said["data"]

    # -- what happens ----------------------------------------------------------------------

    def begin(self, writers: int = WRITER_COUNT) -> None:
        """Let the writers begin."""
        self.crowd.start(writers, self.seed)

    async def pause(self, low_s: float, high_s: float) -> None:
        """Let them work for a while, drawn from the seed."""
        await asyncio.sleep(self.chance.uniform(low_s, high_s))

    async def heal(self, since_s: float | None = None) -> float:
        """Wait till something that was begun since then, or now, succeeds; keep the longest time.

        Since when is the moment in which what is broken was mended, or begins to mend itself.
        """
        began_s = time.monotonic() if since_s is None else since_s
        while (done_s := self.crowd.worked_since(began_s)) is None:
            if time.monotonic() - began_s > HEAL_TIMEOUT_S:
                self.problems.append(f"nothing succeeded for {HEAL_TIMEOUT_S} s")
                return float(HEAL_TIMEOUT_S)
            await asyncio.sleep(POLL_S)
        took_s = done_s - began_s
        self.heal_s = max(self.heal_s or 0.0, took_s)
        return took_s

    def demand(self, what: str, *, holds: bool) -> None:
        """Keep what should hold and does not, for the verdict."""
        if not holds:
            self.problems.append(what)

    async def settle(self) -> None:
        """Let the writers leave, then ask again for all that nobody knows the end of."""
        await self.crowd.stop()
        await self.crowd.settle(SETTLE_TIMEOUT_S)

    async def close(self) -> None:
        """End what runs."""
        if hasattr(self, "crowd"):
            await self.crowd.close()
        for running in reversed(self._running):
            await asyncio.to_thread(running.end)
        for end in reversed(self._ends):
            await asyncio.to_thread(end)
        self.journal.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError, OSError):
        return False
