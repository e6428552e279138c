"""Behind a PgBouncer in transaction mode: connections are shared within a request's pauses."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from tests.api.conftest import open_shop
from tests.pgbouncer_server import PgBouncer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

SALES = 30
CONNECTIONS = 2


@pytest.fixture
def bouncer() -> Iterator[PgBouncer]:
    """A PgBouncer that has two connections."""
    started = PgBouncer(os.environ["TEST_SERVER"], pool_size=CONNECTIONS)
    yield started
    started.close()


@pytest.mark.empty_database  # where nobody else has connections
async def test_two_organisations_sell_over_two_shared_connections(
    api_with: MakeApi, org: Org, other_org: Org, bouncer: PgBouncer, dsn: str, psql: Psql
) -> None:
    api = await api_with(
        database_url=bouncer.through(dsn),
        database_prepared_statements=False,
        database_pool_size=20,
        # All come at once, and on a busy machine the last waits for longer than a till would.
        database_acquire_timeout_s=60,
        database_statement_timeout_ms=60_000,
    )
    shops = [await open_shop(api, each) for each in (org, other_org)]
    sales = await asyncio.gather(*(shop.sell(paid="11.00") for shop in shops for _ in range(SALES)))
    assert {sale.status for sale in sales} == {201}
    for shop in shops:
        assert await shop.stock() == ("70", "420.00")
        listed = (await api.get("/sales?size=100", shop.org)).data
        assert listed["pagination"]["total"] == SALES
    backends = psql(
        "select count(*) from pg_stat_activity where usename = 'sofinance_app'"
        " and datname = current_database() and application_name like 'sofinance - %'",
        role="superuser",
    )
    assert 1 <= backends[0][0] <= CONNECTIONS, "they went around it"
