"""The figures of the business: counted by a job, told by every scrape."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from sofinance.infra.db import Database
from sofinance.jobs.business import count_business
from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql

    MakeOrg = Callable[..., Awaitable[Org]]

pytestmark = pytest.mark.empty_database
FIGURE = re.compile(r'^business_(\w+)\{currency="(\w*)",period="(\w+)"\} ([-\d.]+)$', re.MULTILINE)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


async def figures(api: Api) -> dict[tuple[str, str, str], float]:
    """Return what /metrics tells."""
    text = (await api.call("GET", "/metrics", prefix="")).text
    return {
        (name, period, currency): float(value)
        for name, currency, period, value in FIGURE.findall(text)
    }


async def test_sales_of_all_organisations_add_up_by_currency(
    api: Api, new_org: MakeOrg, psql: Psql, database: Database
) -> None:
    assert await figures(api) == {}
    totals: dict[str, float] = {}
    orgs = [await new_org(name=name) for name in ("One", "Two")]
    orgs.append(await new_org(name="Three", base_currency="EUR"))
    sold = []
    for org in orgs:
        shop = await open_shop(api, org)
        customer_id = await shop.customer()
        for number in range(2):
            sale = (await shop.sell(shop.item(number), customer_id=customer_id)).data
            sold.append((org, sale))
            totals[sale["currency"]] = totals.get(sale["currency"], 0.0) + float(sale["total"])
    org, sale = sold[0]
    voided = await api.post(f"/sales/{sale['id']}/void", org, {"reason": "Changed mind"})
    assert voided.status == 200
    await count_business(database)
    found = await figures(api)
    assert found["organisations", "now", ""] == 3
    assert found["sign_ups", "1h", ""] == found["sign_ups", "24h", ""] == 3
    for period in ("1h", "24h"):
        assert (found["sales", period, "USD"], found["sales", period, "EUR"]) == (4, 2)
        for currency, total in totals.items():
            assert found["sales_amount", period, currency] == pytest.approx(total)
        assert found["voids", period, "USD"] == 1
        assert found["voids_amount", period, "USD"] == pytest.approx(float(sale["total"]))
        assert found["active_users", period, ""] >= 3
    assert found["active_sessions", "now", ""] >= 3
    assert found["stock_outs", "now", ""] == 0

    # Two hours later, and with an empty shelf; any worker tells the same.
    psql(
        "set local session_replication_role = replica;"
        " update sale set sold_at = sold_at - interval '2 hours';"
        " update stock set quantity = 0, value = 0 where org_id = 1",
        role="superuser",
    )
    await count_business(database)
    later = await figures(api)
    assert (later["sales", "1h", "USD"], later["sales", "24h", "USD"]) == (0, 4)
    assert later["stock_outs", "now", ""] == 2  # of three products, two are asked for
    # Two days later nothing is left to be counted, and the figure is 0, not what it was.
    psql(
        "set local session_replication_role = replica;"
        " update sale set sold_at = sold_at - interval '3 days', sold_on = sold_on - 3",
        role="superuser",
    )
    await count_business(database)
    assert (await figures(api))["sales_amount", "24h", "EUR"] == 0


async def test_mails_that_wait_and_that_were_sent_are_told(
    api: Api, org: Org, database: Database, psql: Psql
) -> None:
    psql(
        "insert into mail (org_id, dedupe_key, kind, recipient, subject, body, status, sent_at)"
        " select %s, 'r:' || n, 'low_stock', n || '@example.com', 'Low', 'Tea', status, sent_at"
        " from (values (1, 'pending', null), (2, 'sent', now()),"
        " (3, 'sent', now() - interval '5 hours'), (4, 'sent', now() - interval '30 hours'),"
        " (5, 'dead', null)) as mail (n, status, sent_at)",
        [org.id], role="sofinance_owner", org=org,
    )  # fmt: skip
    await count_business(database)
    told = await figures(api)
    counted = {name: told[name] for name in told if name[0].startswith("mails_")}
    assert counted == {
        ("mails_pending", "now", ""): 1, ("mails_dead", "now", ""): 1,
        ("mails_sent", "1h", ""): 1, ("mails_sent", "24h", ""): 2,
    }  # fmt: skip


async def test_card_payments_that_are_not_in_the_books_are_told(
    api: Api, new_org: MakeOrg, psql: Psql, database: Database
) -> None:
    for org in [await new_org(name=name) for name in ("One", "Two")]:
        psql(  # without the sales that they are for
            "set local session_replication_role = replica;"
            " insert into stripe_event (org_id, event_id, type, payload_sha256, checkout_id,"
            " status, last_error, received_at, processed_at)"
            f" select {org.id}, 'evt_' || n, 'checkout.session.completed', sha256('x'), 1, status,"
            " error, now() - make_interval(mins => minutes),"
            " case when status <> 'processing' then now() end"
            " from (values (1, 'processing', null, 1), (2, 'processing', null, 60),"
            " (3, 'error', 'payment_within_total', 1), (4, 'succeeded', null, 60),"
            " (5, 'ignored', null, 60)) as event (n, status, error, minutes)",
            role="superuser",
        )
    await count_business(database)
    told = await figures(api)
    assert told["card_payments_unposted", "now", ""] == 4, "of each one stuck and one refused"
    psql(
        "set local session_replication_role = replica;"
        " update stripe_event set status = 'succeeded', processed_at = now(), last_error = null",
        role="superuser",
    )
    await count_business(database)
    assert (await figures(api))["card_payments_unposted", "now", ""] == 0
