"""Snapshots of balances: they change no figure, whatever is posted while they are made."""

from __future__ import annotations

import asyncio
import random
import threading
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from sofinance import cli
from sofinance.jobs import balances
from tests.api.conftest import Shop, open_shop
from tests.support import role_url, today

if TYPE_CHECKING:
    from tests.support import Api, Org, Psql

POSTINGS = 20
DAYS = 5


@pytest.fixture
async def shop(api: Api, org: Org) -> Shop:
    """A shop with 100 of each product; tax is 10 % on top of prices."""
    return await open_shop(api, org)


async def run(dsn: str, action: str, shop: Shop) -> int:
    """Run the command in this process, beside the loop that the tests run in."""
    words = ["balances", action, "--org", str(shop.org.id), "--database-url", dsn]
    return await asyncio.to_thread(cli.main, words)


async def trial_balances(shop: Shop) -> list[Any]:
    """Return the trial balance as of every day of the test, and one before and after."""
    return [
        (await shop.api.get(
            f"/journal/trial-balance?as_of_date={today() - timedelta(days_ago)}", shop.org
        )).data["lines"]
        for days_ago in range(-1, DAYS + 2)
    ]  # fmt: skip


def sums(psql: Psql, shop: Shop, days_ago: int) -> dict[int, Decimal]:
    """Return every account's balance, summed by PostgreSQL from nothing but the lines."""
    rows = psql(
        "select account_id, sum(debit - credit) from journal_line join journal_entry"
        " on journal_entry.org_id = journal_line.org_id and journal_entry.id = entry_id"
        " where journal_line.org_id = %s and posted_on <= %s group by account_id"
        " having sum(debit - credit) <> 0",
        [shop.org.id, today() - timedelta(days_ago)],
        role="superuser",
    )
    return dict(rows)


async def reported(shop: Shop, days_ago: int) -> dict[int, Decimal]:
    path = f"/journal/trial-balance?as_of_date={today() - timedelta(days_ago)}"
    lines = (await shop.api.get(path, shop.org)).data["lines"]
    balance = {
        line["account_id"]: Decimal(line["debit_balance"]) - Decimal(line["credit_balance"])
        for line in lines
    }
    return {account_id: amount for account_id, amount in balance.items() if amount}


async def sell(shop: Shop, number: int) -> None:
    """Sell something on one of the last days, so that days fill up in any order."""
    sold_on = str(today() - timedelta(number % DAYS))
    answer = await shop.sell(shop.item(number % 2, "1"), customer_name="Carla", sold_on=sold_on)
    assert answer.status == 201, answer.text


async def test_rolling_up_and_rebuilding_change_no_figure(
    shop: Shop, psql: Psql, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(POSTINGS):
        await sell(shop, number)
    before = await trial_balances(shop)
    assert await run(dsn, "roll-up", shop) == 0
    assert "rolled up to entry" in capsys.readouterr().out
    ((through, safe),) = psql(
        "select through_entry_id, safe_entry_id from balance_roll_up", org=shop.org
    )
    assert through == safe == psql("select max(id) from journal_entry", org=shop.org)[0][0]
    assert await trial_balances(shop) == before

    # Entries above the mark, dated before and after what is rolled up already.
    for number in range(DAYS):
        await sell(shop, number)
    lines = await trial_balances(shop)
    assert lines != before
    for action in ("roll-up", "roll-up", "rebuild", "check", "rebuild"):
        assert await run(dsn, action, shop) == 0
        assert await trial_balances(shop) == lines
    assert "the snapshots equal the journal" in capsys.readouterr().out
    for days_ago in range(-1, DAYS + 2):
        assert await reported(shop, days_ago) == sums(psql, shop, days_ago)


async def test_roll_ups_while_sales_are_posted_lose_nothing(
    shop: Shop, psql: Psql, dsn: str
) -> None:
    done = asyncio.Event()
    roll_ups = 0

    async def keep_rolling_up() -> None:
        nonlocal roll_ups
        while not done.is_set():
            assert await run(dsn, random.choice(["roll-up", "roll-up", "rebuild"]), shop) == 0  # noqa: S311
            roll_ups += 1

    async def keep_asking() -> None:
        # Whatever is in which snapshot just now, debits equal credits.
        while not done.is_set():
            report = (await shop.api.get("/journal/trial-balance", shop.org)).data
            assert report["is_balanced"]

    background = [asyncio.create_task(keep_rolling_up()) for _ in range(2)]
    background.append(asyncio.create_task(keep_asking()))
    for _ in range(3):
        await asyncio.gather(*(sell(shop, number) for number in range(POSTINGS)))
    done.set()
    await asyncio.gather(*background)
    assert roll_ups > 3

    ((in_snapshots,),) = psql(
        "select count(*) from journal_entry where id <= ("
        " select through_entry_id from balance_roll_up)",
        org=shop.org,
    )
    assert in_snapshots > POSTINGS
    for _ in range(2):  # with a tail, and without
        assert await run(dsn, "check", shop) == 0
        for days_ago in range(-1, DAYS + 2):
            assert await reported(shop, days_ago) == sums(psql, shop, days_ago)
        assert await run(dsn, "roll-up", shop) == 0


@pytest.mark.parametrize(
    "damage",
    [
        "update account_day set debit = debit + 0.01 where org_id = {org} and debit > 0",
        "update account_day set debit = debit + 1, credit = credit + 1 where org_id = {org}",
        "delete from account_day where org_id = {org}",
        "update account_day set posted_on = posted_on - 40 where org_id = {org}",
        "update balance_roll_up set through_entry_id = 0 where org_id = {org}",
        "update balance_roll_up set through_entry_id = through_entry_id - 1 where org_id = {org}",
    ],
)
async def test_a_snapshot_that_is_wrong_is_found_and_rebuilt(
    shop: Shop, psql: Psql, dsn: str, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    await sell(shop, 0)
    assert await run(dsn, "roll-up", shop) == 0
    psql(damage.format(org=shop.org.id), role="superuser")
    assert psql.refusal(damage.format(org=shop.org.id), org=shop.org) == "42501"
    capsys.readouterr()
    assert await run(dsn, "check", shop) == 1
    assert f"organisation {shop.org.id}: account " in capsys.readouterr().out
    assert await run(dsn, "rebuild", shop) == 0
    assert await run(dsn, "check", shop) == 0
    assert await reported(shop, 0) == sums(psql, shop, 0)


@pytest.mark.empty_database
async def test_without_an_organisation_it_is_all_of_them(
    shop: Shop, other_org: Org, psql: Psql, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run_all(action: str) -> int:
        return await asyncio.to_thread(cli.main, ["balances", action, "--database-url", dsn])

    await sell(shop, 0)
    assert await run_all("roll-up") == 0
    assert await run_all("check") == 0
    printed = capsys.readouterr().out
    assert f"organisation {shop.org.id}: rolled up to entry" in printed
    assert f"organisation {other_org.id}: rolled up to entry 0\n" in printed
    assert f"organisation {other_org.id}: the snapshots equal the journal" in printed
    psql("delete from account_day", role="superuser")
    assert await run_all("check") == 1
    printed = capsys.readouterr().out
    assert f"organisation {shop.org.id}: account " in printed
    assert f"organisation {other_org.id}: the snapshots equal the journal" in printed


POST = """
with entry as (
    insert into journal_entry (org_id, period_id, posted_on, kind, line_count, created_by)
    select org_id, id, current_date, 'MANUAL', 2, %(user_id)s
    from accounting_period where current_date between starts_on and ends_on
    returning id
)
insert into journal_line (
    org_id, entry_id, line_no, line_count, account_id, currency, debit, credit
)
select %(org_id)s, entry.id, line_no, 2, account.id, 'USD', debit, credit
from entry
cross join (values (1, '6000', 7, 0), (2, '1010', 0, 7)) as line (line_no, code, debit, credit)
join account on account.code = line.code
"""


async def test_a_posting_under_way_is_waited_for_and_holds_no_other_up(
    shop: Shop, superuser_dsn: str, psql: Psql, dsn: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    await sell(shop, 0)
    assert await run(dsn, "roll-up", shop) == 0
    monkeypatch.setattr(balances, "MARK_TRIES_MAX", 2)
    under_way = threading.Event()
    end = threading.Event()

    def post_slowly() -> None:
        who = {"org_id": shop.org.id, "user_id": shop.org.admin.id}
        with psycopg.connect(role_url(superuser_dsn, "sofinance_app")) as conn:
            conn.execute("select set_config('app.org_id', %(org_id)s::text, true)", who)
            conn.execute(POST, who)
            under_way.set()
            assert end.wait(30)

    slow = asyncio.create_task(asyncio.to_thread(post_slowly))
    assert await asyncio.to_thread(under_way.wait, 30)
    try:
        # Sales with higher numbers commit meanwhile: were they rolled up, the slow one were lost.
        rolling_up = asyncio.create_task(run(dsn, "roll-up", shop))
        while not rolling_up.done():
            await sell(shop, 1)
            await asyncio.sleep(0.05)  # a fast machine would sell the shop out
        assert rolling_up.result() == 3
        assert "has a posting under way that does not end" in capsys.readouterr().err
        monkeypatch.setattr(balances, "MARK_TRIES_MAX", 25)
        rolling_up = asyncio.create_task(run(dsn, "roll-up", shop))
        await asyncio.sleep(balances.MARK_LOCK_TIMEOUT_MS / 1000)
    finally:
        end.set()
        await slow
    assert await rolling_up == 0
    assert await run(dsn, "check", shop) == 0
    assert await reported(shop, 0) == sums(psql, shop, 0)
