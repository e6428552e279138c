"""The world of a run: a PostgreSQL of its own, an organisation with stock, services on it.

Durability is on: PostgreSQL's defaults for fsync, full_page_writes and synchronous_commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg

from sofinance import queries as q
from sofinance.config import Settings
from sofinance.infra import embedded, migrate
from sofinance.infra.db import Database
from sofinance.infra.guard import Guard
from sofinance.infra.sql import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
# What differs from `sofinance dev`: no checkpoint falls into one contestant's turn only.
OPTIONS = {"max_wal_size": "8GB", "checkpoint_timeout": "30min", "log_min_duration_statement": "-1"}
BRANCH_COUNT = 4
TILL_COUNT = 32
PRODUCT_COUNT = 1_000
LINES_PER_RECEIPT = 500
STOCK_QUANTITY = Decimal(1_000_000)
# One price, so that a script which draws its products knows what is to be paid.
PRICE, COST, TAX_PERCENT = Decimal("9.99"), Decimal("1.50"), Decimal("7.5")
START_TIMEOUT_S = 60
DAY_MINUTES = 1_440


@dataclass(slots=True)
class Shop:
    """An organisation that can sell: ids, without holes, so that a script can draw one."""

    org_id: int
    user_id: int
    session_id: int
    branch_ids: list[int]
    till_ids: list[int]
    product_ids: list[int]
    account_ids: dict[str, int]

    def place(self, till: int) -> tuple[int, int]:
        """Return the branch and the till of a client; every client has a till of its own."""
        return self.branch_ids[till % len(self.branch_ids)], self.till_ids[till]


@dataclass(slots=True)
class World:
    """The database and what is in it."""

    server: embedded.Server
    jwt_secret: str
    shop: Shop = field(init=False)

    @property
    def programs(self) -> Path:
        """The directory of pgbench and the like."""
        return embedded.installed_programs()

    def url(self, role: str, database: str = embedded.DATABASE) -> str:
        """Return the database's URL over the Unix socket."""
        return self.server.socket_url(role, database)

    @contextlib.contextmanager
    def superuser(self, database: str = embedded.DATABASE) -> Iterator[psycopg.Connection[Any]]:
        """Open a session as superuser; every statement commits."""
        with psycopg.connect(self.url(embedded.SUPERUSER, database), autocommit=True) as conn:
            yield conn

    async def connect(self) -> Any:
        """Open a connection as the service does."""
        return await asyncpg.connect(self.url("sofinance_app"), record_class=Row)

    def settings(self) -> Settings:
        """Return the settings of a service on this database."""
        return Settings(database_url=self.url("sofinance_app"), jwt_secret=self.jwt_secret)

    def token(self) -> str:
        """Return an access token of the shop's administrator."""
        settings = replace(self.settings(), access_token_minutes=DAY_MINUTES)
        return Guard(settings, Database(settings)).issue_token(
            org_id=self.shop.org_id,
            user_id=self.shop.user_id,
            session_id=self.shop.session_id,
            now=datetime.now(UTC),
        )[0]

    def analyze(self) -> None:
        """Give the planner its statistics."""
        with self.superuser() as conn:
            conn.execute("vacuum analyze")

    @contextlib.contextmanager
    def service(self) -> Iterator[Service]:
        """Run `sofinance serve`, one process, as it is shipped; its log goes nowhere."""
        settings = self.settings()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {
            **os.environ,
            "DATABASE_URL": settings.database_url,
            "JWT_SECRET": settings.jwt_secret,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            # The limiter is at work, and never refuses the one user who sells everything.
            "RATE_LIMIT_PER_MINUTE": "10000000",
            "RATE_LIMIT_BURST": "1000000",
            "RATE_LIMIT_ORG_PER_MINUTE": "10000000",
            "RATE_LIMIT_ORG_BURST": "1000000",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "sofinance", "serve"],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            service = Service(process, port)
            service.wait()
            yield service
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True, slots=True)
class Service:
    """A service process."""

    process: subprocess.Popen[bytes]
    port: int

    def wait(self) -> None:
        """Wait until it answers."""
        wait_for(f"http://127.0.0.1:{self.port}/health", self.process)

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(url: str, process: subprocess.Popen[Any]) -> None:
    """Wait until a URL answers 200."""
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own http URL
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{url} does not answer") from None
            time.sleep(0.01)


@contextlib.contextmanager
def new_world(*, products: int = PRODUCT_COUNT) -> Iterator[World]:
    """Make a database server, migrate it and open a shop in it; all goes at the end."""
    directory = Path(tempfile.mkdtemp(prefix="sofinance-bench-"))
    directory.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
    server = embedded.Server(directory / "data", options=OPTIONS)
    try:
        server.start()
        migrate.apply(server.url(embedded.SUPERUSER))
        world = World(server, server.jwt_secret)
        world.shop = asyncio.run(open_first_shop(world, products))
        world.analyze()
        yield world
    finally:
        server.stop()
        shutil.rmtree(directory)


async def open_first_shop(world: World, products: int) -> Shop:
    """Open the shop of a run."""
    return await open_shop(await world.connect(), "Bench", products)


async def open_shop(
    conn: Any, name: str, products: int, *, branches: int = BRANCH_COUNT, tills: int = TILL_COUNT
) -> Shop:
    """Make an organisation with branches, tills, products and stock; closes the connection."""
    try:
        made = await q.orgs.create_organisation(
            conn,
            name=name,
            base_currency="EUR",
            time_zone="UTC",
            prices_include_tax=False,
            standard_tax_percent=TAX_PERCENT,
            default_credit_limit=Decimal(0),
            admin_email=f"{name.lower()}@example.com",
            admin_password_hash="nobody signs in",  # noqa: S106 - not a hash, so nobody can
            admin_first_name="Bench",
            admin_last_name="Mark",
        )
        org_id, user_id = made.org_id, made.admin_id
        async with conn.transaction():
            await set_tenant(conn, org_id, user_id)
            session = await q.auth.begin_session(
                conn, org_id=org_id, user_id=user_id, kind="token", till_id=None,
                has_second_factor=False, device="bench", ip=None, idle_minutes=DAY_MINUTES,
                life_minutes=DAY_MINUTES, token_hash=os.urandom(32),
            )  # fmt: skip
            branch_ids = [
                (
                    await q.branches.create_branch(
                        conn, org_id=org_id, name=f"Branch {number}", address=None, phone=None,
                        email=None, time_zone=None, is_active=True,
                    )
                ).id
                for number in range(branches)
            ]  # fmt: skip
            till_ids = [
                (
                    await q.branches.create_till(
                        conn, org_id=org_id, branch_id=branch_ids[number % branches],
                        name=f"Bench {number}",
                    )
                ).id
                for number in range(tills)
            ]  # fmt: skip
            product_ids = [
                (
                    await q.catalog.create_product(
                        conn, org_id=org_id, sku=f"P{number}", barcode=None,
                        name=f"Product {number}", description=None, category_id=None,
                        tax_code_id=None, cost=COST, price=PRICE, is_active=True,
                    )
                ).id
                for number in range(products)
            ]  # fmt: skip
            for branch_id in branch_ids:
                for at in range(0, products, LINES_PER_RECEIPT):
                    ids = product_ids[at : at + LINES_PER_RECEIPT]
                    await q.inventory.receive_goods(
                        conn,
                        org_id=org_id,
                        user_id=user_id,
                        branch_id=branch_id,
                        kind="OPENING",
                        reference=None,
                        supplier_name=None,
                        received_on=None,
                        product_ids=ids,
                        quantities=[STOCK_QUANTITY] * len(ids),
                        unit_costs=[COST] * len(ids),
                    )
        async with conn.transaction():
            await set_tenant(conn, org_id, user_id)
            accounts = await q.accounts.list_accounts(
                conn, org_id=org_id, type=None, search=None, is_active=True, limit=100, offset=0,
            )  # fmt: skip
        return Shop(
            org_id, user_id, session.id, branch_ids, till_ids, product_ids,
            {account.role or account.code: account.id for account in accounts},
        )  # fmt: skip
    finally:
        await conn.close()


async def set_tenant(conn: Any, org_id: int, user_id: int) -> None:
    """Say whose rows this transaction sees, with generous time limits."""
    await q.request.set_tenant(
        conn, org_id=org_id, user_id=user_id, branch_ids=b"all", statement_timeout_ms=600_000,
        lock_timeout_ms=60_000,
    )  # fmt: skip
