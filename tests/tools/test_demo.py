"""The demo organisation, and `make demo` through the kills that it must survive."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from sofinance.infra import embedded
from sofinance.tools import demo
from sofinance.tools.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sofinance.config import Settings
    from tests.support import Api

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 180  # of a machine that does much else; it takes a few seconds
BASKETS = 150
RECEIVED = Decimal("4323.90")  # for the first 150 baskets, as any spreadsheet adds up


# -- the demo organisation -----------------------------------------------------------------------


async def look(api: Api, accounts: demo.DemoAccounts) -> dict[str, Any]:
    """Return what an administrator sees of the whole organisation."""
    who = accounts.admin
    async with Client(api.base_url, email=who.email, password=who.password) as client:
        balance = await client.get("/journal/trial-balance")
        return {
            "balance": {line["account_code"]: line for line in balance["lines"]},
            "is_balanced": balance["is_balanced"],
            "branches": await client.list_all("/branches"),
            "products": await client.list_all("/products"),
            "customers": await client.list_all("/customers"),
            "sales": await client.list_all("/sales", include_voided="true"),
            "entries": await client.list_all("/journal/entries"),
        }


@pytest.mark.empty_database
async def test_a_demo_that_was_cut_short_is_completed_and_then_left_alone(
    api: Api, settings: Settings
) -> None:
    for cut_after_s in (0.2, 0.4, 0.6):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(cut_after_s):
                await demo.create_demo(settings, api.base_url, empty=False)
    accounts = await demo.create_demo(settings, api.base_url, empty=False)
    seen = await look(api, accounts)
    assert len(seen["branches"]) == 3
    assert len(seen["products"]) == len(demo.catalogue())
    assert len(seen["customers"]) == len(demo.CUSTOMERS)
    assert len({sale["till_id"] for sale in seen["sales"]}) == 5
    assert len(seen["sales"]) == 5 * demo.SALES_PER_TILL
    assert {sale["payment_type"] for sale in seen["sales"]} == {"FULL", "PARTIAL", "UNPAID"}
    assert [sale["status"] for sale in seen["sales"]].count("VOIDED") == 1
    assert seen["is_balanced"]
    assert await demo.create_demo(settings, api.base_url, empty=False) == accounts
    assert await look(api, accounts) == seen


@pytest.mark.empty_database
async def test_the_demos_sales_are_the_cashiers(api: Api, settings: Settings) -> None:
    accounts = await demo.create_demo(settings, api.base_url, empty=False)
    who = accounts.cashier
    async with Client(api.base_url, email=who.email, password=who.password) as client:
        me = await client.get("/auth/me")
        sales = await client.list_all("/sales", include_voided="true")
    assert me["role"] == "CASHIER"
    assert {sale["cashier_id"] for sale in sales} == {me["id"]}


@pytest.mark.empty_database
async def test_an_empty_demo_has_its_users_and_its_accounts_only(
    api: Api, settings: Settings
) -> None:
    accounts = await demo.create_demo(settings, api.base_url, empty=True)
    seen = await look(api, accounts)
    assert (seen["branches"], seen["products"], seen["sales"]) == ([], [], [])
    assert "1200" in seen["balance"]


# -- make demo -----------------------------------------------------------------------------------


@pytest.fixture
def data() -> Iterator[Path]:
    """A path for a data directory that PostgreSQL's own account can pass into."""
    directory = Path(tempfile.mkdtemp(prefix="sofinance-data-"))
    directory.chmod(0o711)
    yield directory / "data"
    server = embedded.Server(directory / "data")
    if server.running():
        server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def start(data: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start `make demo` on the first 150 baskets, in a process group of its own."""
    running: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.demo", "--data", data, "--weeks", "1-2", "--json",
             "--baskets", str(BASKETS)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield begin
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(data: Path, table: str, count: int) -> int:
    """Wait until the table has so many rows; return how many it has then."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        server = embedded.Server(data)
        with contextlib.suppress(psycopg.Error, OSError):
            if server.running():
                with psycopg.connect(server.url(embedded.SUPERUSER), connect_timeout=5) as conn:
                    while time.monotonic() < until:
                        (found,) = conn.execute(f"select count(*) from {table}").fetchone() or (0,)
                        conn.commit()
                        if found >= count:
                            return int(found)
                        time.sleep(0.005)
        time.sleep(0.02)
    pytest.fail(f"{table} did not come to {count} rows in {TIMEOUT_S} s")


def kill_server(process: subprocess.Popen[str]) -> None:
    """Kill the service, and the importer with it, which would only wait for another one."""
    process.kill()
    process.wait(TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.once  # on the embedded PostgreSQL, whatever the others run on
def test_make_demo_killed_half_way_and_run_again_ends_the_same(
    data: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    process = start()
    wait_for(data, "product", 300)
    kill_server(process)

    process = start()
    posted = wait_for(data, "sale", 40)
    process.kill()
    os.kill(int((data / "pgdata" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    kill_server(process)
    assert posted < BASKETS

    process = start()
    told, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, said
    result = json.loads(told)
    assert result["equal"]
    assert result["verify"]["clean"]
    assert result["data"]["baskets"] == result["sales"]["baskets"] == BASKETS
    assert result["sales"]["already_there"] >= posted
    received = ("received_per_data", "received_per_ledger")
    assert {Decimal(result[name]) for name in received} == {RECEIVED}
    books = {
        line["account_code"]: Decimal(line["debit_balance"]) - Decimal(line["credit_balance"])
        for line in result["trial_balance"]["lines"]
    }
    assert books["1000"] + books["1020"] == RECEIVED
    # Opening stock is what the sales take, so nothing is left: none of it came in twice.
    assert books["1200"] == 0
    assert books["5000"] == -books["3900"] > 0
    assert books["4000"] + books["4100"] == -RECEIVED
