"""What a sale costs, counted, not timed: round trips, and rows that others wait for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.bench.wire import relaying

if TYPE_CHECKING:
    from tests.api.conftest import Shop
    from tests.conftest import MakeApi
    from tests.support import Org, Psql

# Of the rows that were there before, a sale changes its own till's and those of the stock it takes.
CHANGED = {"stock", "till"}


async def test_a_sale_takes_three_round_trips(shop: Shop, api_with: MakeApi, dsn: str) -> None:
    async with relaying(dsn) as relay:
        api = await api_with(database_url=relay.url, database_pool_size=1)
        through = replace(shop, api=api)
        sale = {"items": [shop.item(0), shop.item(1), shop.item(2)], "payments": []}
        customer_id = await shop.customer(credit_limit="900.00")
        warm_up = await through.sell(**{**sale, "customer_id": customer_id}, key="first")
        assert warm_up.status == 201
        relay.asked.clear()

        answer = await through.sell(**{**sale, "customer_id": customer_id}, key="second")

        assert answer.status == 201
        opened, posted, closed = relay.asked
    assert opened.startswith("/* request.begin_write */")
    assert opened.count("/* request.") == 4
    assert posted.startswith("/* sales.post_sale */")
    assert closed.count("/* request.") == 3
    assert closed.endswith("/* request.commit_work */ commit")


async def test_a_sale_updates_nothing_that_other_sales_update(
    shop: Shop, org: Org, psql: Psql
) -> None:
    before = versions(psql, org)

    answer = await shop.sell(shop.item(0), shop.item(1), paid="16.49")

    assert answer.status == 201
    after = versions(psql, org)
    changed = {row for row in before if row not in after}
    assert {table for table, _, _ in changed} == CHANGED
    assert sum(table == "till" for table, _, _ in changed) == 1
    assert sum(table == "stock" for table, _, _ in changed) == 2
    assert {table for table, _, _ in after - before} >= {"sale", "payment", "journal_line"}


def versions(psql: Psql, org: Org) -> set[tuple[Any, ...]]:
    """Return table, place and writing transaction of every row of an organisation.

    A row that is only locked keeps all three; one that is updated does not.
    """
    tables = psql(
        "select relname from pg_class join pg_attribute on attrelid = pg_class.oid"
        " where attname = 'org_id' and relkind = 'r' and relnamespace = 'public'::regnamespace",
        role="superuser",
    )
    return {
        (table, *row)
        for (table,) in tables
        for row in psql(
            f"select ctid::text, xmin::text from {table} where org_id = %s", [org.id],
            role="superuser",
        )
    }  # fmt: skip
