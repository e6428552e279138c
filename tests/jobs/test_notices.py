"""What users are told that they did not ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sofinance import queries as q
from sofinance.infra.db import Database, Mode
from sofinance.jobs import Job, JobFailedError, notices
from sofinance.jobs.worker import Worker
from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Api, Org, User

    MakeOrg = Callable[..., Awaitable[Org]]

FLAG = "/flags/low_stock_notices"


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


async def told(api: Api, who: Org | User) -> list[Any]:
    """Return what somebody was told."""
    return list((await api.get("/notifications", who)).data["items"])


async def test_what_a_sale_makes_low_is_told_once_a_day_where_the_flag_is_on(
    api: Api, org: Org, other_org: Org, database: Database
) -> None:
    shop, other = await open_shop(api, org, "12"), await open_shop(api, other_org, "12")
    for each in (shop, other):
        credit = {"customer_id": await each.customer()}
        assert (await each.sell(each.item(0, "2"), **credit)).status == 201
    await notices.tell_low_stock(database)
    assert await told(api, org) == []  # off, as all new flags are
    on = {"percent": 100, "branch_id": shop.branch_id}
    assert (await api.put(FLAG, org, on)).status == 200
    for _ in range(2):
        await notices.tell_low_stock(database)
        (one,) = await told(api, org)
    assert (one["type"], one["title"]) == ("low_stock", "Product 1 is low in Main Street")
    assert one["data"] == {
        "branch_id": shop.branch_id, "product_id": shop.product_ids[0], "quantity": "10",
        "reorder_level": "10",
    }  # fmt: skip
    assert len(await told(api, org.member("INVENTORY_CLERK"))) == 1
    assert await told(api, org.member("CASHIER")) == []
    assert await told(api, other_org) == []
    again = {"customer_id": await shop.customer()}
    assert (await shop.sell(shop.item(1, "3"), **again)).status == 201
    await notices.tell_low_stock(database)
    assert [row["data"]["quantity"] for row in await told(api, org)] == ["9", "10"]


async def fail(_: Database) -> str:
    """Find something wrong."""
    raise JobFailedError("2 of 9 checks failed")


@pytest.mark.empty_database
async def test_a_job_that_fails_is_told_to_the_operators_administrators(
    api: Api, new_org: MakeOrg, database: Database
) -> None:
    org = await new_org()
    alone = Worker(database, [Job("books", "Looks.", fail, every_s=86_400)])
    await alone.declare()
    await request_run(database, alone)
    (one,) = await told(api, org)
    assert (one["type"], one["title"]) == ("job_failed", "The job books failed")
    assert (one["message"], one["data"]) == ("2 of 9 checks failed", {"job": "books"})
    await request_run(database, alone)
    assert len(await told(api, org)) == 1  # once a day
    assert await told(api, org.member("MANAGER")) == []
    other = await new_org()
    jobs = [Job("other", "Looks.", fail, every_s=86_400)]
    # Two organisations, and none of them said to be the operator's: nobody's business.
    several = Worker(database, jobs)
    await several.declare()
    await request_run(database, several, "other")
    assert (len(await told(api, org)), len(await told(api, other))) == (1, 0)
    await request_run(database, Worker(database, jobs, operator_org_id=other.id), "other")
    assert (len(await told(api, org)), len(await told(api, other))) == (1, 1)


async def request_run(database: Database, worker: Worker, name: str = "books") -> None:
    """Have a job run, and fail."""
    async with database.untenanted(mode=Mode.WRITE) as conn:
        await q.jobs.steer_job(conn, name=name, action="run")
    assert not await worker.run_once()


async def test_a_sign_in_from_elsewhere_and_a_stolen_token_are_told(api: Api, org: Org) -> None:
    admin = org.admin
    body = {"email": admin.email, "password": admin.password}
    first = (await api.post("/auth/login", json=body)).data
    (one,) = await told(api, org)  # the test's own session is of no device that signs in
    assert (one["type"], one["data"]["ip"]) == ("sign_in", "127.0.0.1")
    await api.post("/auth/login", json=body)
    assert len(await told(api, org)) == 1  # from here is no news any more
    for _ in range(2):
        await api.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert [row["type"] for row in await told(api, org)] == ["refresh_token_reused", "sign_in"]


async def test_a_paired_till_is_told_to_whoever_issued_the_code(api: Api, org: Org) -> None:
    branch = (await api.post("/branches", org, {"name": "Side"})).data
    manager = org.member("MANAGER")
    path = f"/tills/{branch['till_id']}/pairing-code"
    code = (await api.post(path, manager)).data["pairing_code"]
    assert (await api.post("/tills/pair", json={"code": code})).status == 201
    (one,) = await told(api, manager)
    assert (one["type"], one["data"]) == (
        "till_paired", {"till_id": branch["till_id"], "branch_id": branch["id"]},
    )  # fmt: skip
