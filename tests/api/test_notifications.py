"""Notifications over REST: each reads, marks and deletes their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sofinance.infra.db import Database
from sofinance.infra.notify import tell, tell_allowed
from sofinance.jobs import forgetting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql, User


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


async def send(api: Api, org: Org, *users: User, **changes: Any) -> Any:
    """Tell users something as the administrator."""
    body = {"user_ids": [user.id for user in users], "title": "Hello", **changes}
    return await api.post("/notifications/send", org, body)


async def test_somebody_is_told_reads_and_deletes(api: Api, org: Org) -> None:
    cashier = org.member("CASHIER")
    told = await send(api, org, cashier, message="The till is open.", data={"till_id": 7})
    assert told.data == {"sent_count": 1}
    listed = (await api.get("/notifications", cashier)).data
    (one,) = listed["items"]
    assert (listed["unread_count"], listed["next_cursor"]) == (1, None)
    assert (one["id"], one["type"], one["title"]) == (1, "message", "Hello")
    assert (one["message"], one["data"]) == ("The till is open.", {"till_id": 7})
    assert (one["sent_by"], one["read_at"]) == (org.admin.id, None)
    read = (await api.put("/notifications/1/read", cashier)).data
    assert read["read_at"] is not None
    assert (await api.put("/notifications/1/read", cashier)).data == read
    assert (await api.get("/notifications/1", cashier)).data == read
    assert (await api.get("/notifications/unread/count", cashier)).data == {"unread_count": 0}
    assert (await api.get("/notifications?unread_only=true", cashier)).data["items"] == []
    assert (await api.delete("/notifications/1", cashier)).status == 204
    for answer in (
        await api.get("/notifications/1", cashier),
        await api.put("/notifications/1/read", cashier),
        await api.delete("/notifications/1", cashier),
    ):
        assert answer.refused == (404, "not_found")
    # The number is not given again: whoever has seen up to 1 has not seen this.
    await send(api, org, cashier)
    assert [row["id"] for row in (await api.get("/notifications", cashier)).data["items"]] == [2]


async def test_pages_go_back_from_the_latest(api: Api, org: Org) -> None:
    cashier = org.member("CASHIER")
    for number in range(5):
        await send(api, org, cashier, title=f"No. {number}")
    await api.put("/notifications/4/read", cashier)
    seen, path = [], "/notifications?limit=2"
    while path:
        page = (await api.get(path, cashier)).data
        seen.append([row["id"] for row in page["items"]])
        cursor = page["next_cursor"]
        path = f"/notifications?limit=2&cursor={cursor}" if cursor else ""
    assert seen == [[5, 4], [3, 2], [1]]
    unread = (await api.get("/notifications?unread_only=true&limit=3", cashier)).data
    assert [row["id"] for row in unread["items"]] == [5, 3, 2]
    assert (await api.put("/notifications/mark-all-read", cashier)).data == {"marked_count": 4}
    assert (await api.put("/notifications/mark-all-read", cashier)).data == {"marked_count": 0}


async def test_nobody_sees_anybody_elses(api: Api, org: Org, other_org: Org) -> None:
    cashier, manager = org.member("CASHIER"), org.member("MANAGER")
    await send(api, org, cashier)
    for who in (manager, org.admin, other_org.admin):
        assert (await api.get("/notifications", who)).data["items"] == []
        assert (await api.get("/notifications/1", who)).refused == (404, "not_found")
        assert (await api.put("/notifications/1/read", who)).refused == (404, "not_found")
        assert (await api.delete("/notifications/1", who)).refused == (404, "not_found")
        assert (await api.put("/notifications/mark-all-read", who)).data["marked_count"] == 0
    assert (await api.get("/notifications/1", cashier)).data["read_at"] is None


async def test_who_may_sends_to_the_own_organisation_alone(
    api: Api, org: Org, other_org: Org
) -> None:
    manager, cashier = org.member("MANAGER"), org.member("CASHIER")
    body = {"user_ids": [cashier.id], "title": "Hello"}
    assert (await api.post("/notifications/send", manager, body)).status == 200
    assert (await api.post("/notifications/send", cashier, body)).refused == (403, "forbidden")
    theirs = {**body, "user_ids": [cashier.id, other_org.admin.id]}
    refused = (409, "notification_inbox_user_known")
    assert (await api.post("/notifications/send", manager, theirs)).refused == refused
    assert (await api.get("/notifications", cashier)).data["unread_count"] == 1  # all or none


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"user_ids": []}, "invalid_request"),
        ({"title": ""}, "invalid_request"),
        ({"title": " "}, "notification_title_not_empty"),
        ({"title": "x" * 201}, "invalid_request"),
        ({"message": "x" * 2001}, "invalid_request"),
        ({"type": "No"}, "invalid_request"),
        ({"data": {"x": "x" * 4_000}}, "notification_data_is_small"),
        ({"data": []}, "invalid_request"),
    ],
)
async def test_what_is_no_notification_is_refused_by_name(
    api: Api, org: Org, changes: dict[str, Any], refused: str
) -> None:
    answer = await send(api, org, org.admin, **changes)
    assert answer.refused == (422, refused)


async def test_the_latest_thousand_are_kept(
    api: Api, org: Org, database: Database, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    async with database.tenant(org.id) as conn:
        for number in range(1_005):
            await tell(
                conn, org_id=org.id, user_ids=[cashier.id], type="message", title=str(number)
            )
    count = f"select count(*), min(id), max(id) from notification where user_id = {cashier.id}"
    assert psql(count, org=org) == [(1_000, 6, 1_005)]
    assert (await api.get("/notifications/unread/count", cashier)).data == {"unread_count": 1_000}


async def test_what_is_told_twice_is_told_once(org: Org, database: Database) -> None:
    told = {"org_id": org.id, "type": "low_stock", "title": "Low", "dedupe_key": "low/1"}
    users = [org.admin.id, org.member("CASHIER").id, org.admin.id]
    async with database.tenant(org.id) as conn:
        assert await tell(conn, user_ids=users[:1], **told) == 1
        assert await tell(conn, user_ids=users, **told) == 1
    async with database.tenant(org.id) as conn:
        assert await tell(conn, user_ids=users, **told) == 0


async def test_whoever_may_is_told_and_nobody_else(api: Api, org: Org, database: Database) -> None:
    async with database.tenant(org.id) as conn:
        count = await tell_allowed(
            conn, org_id=org.id, permission="inventory:write", type="low_stock", title="Low"
        )
    told = {
        role: (await api.get("/notifications/unread/count", user)).data["unread_count"]
        for role, user in org.members.items()
    }
    assert told == {"ADMIN": 1, "MANAGER": 1, "INVENTORY_CLERK": 1, "CASHIER": 0, "ACCOUNTANT": 0}
    assert count == 3


async def test_many_at_once_are_numbered_without_a_hole(
    org: Org, database: Database, psql: Psql
) -> None:
    users = [user.id for user in org.members.values()]

    async def one(number: int) -> None:
        async with database.tenant(org.id) as conn:
            await tell(conn, org_id=org.id, user_ids=users, type="message", title=str(number))

    await asyncio.gather(*(one(number) for number in range(30)))
    numbers = psql(
        "select user_id, array_agg(id order by id) from notification group by 1", org=org
    )
    assert {tuple(ids) for _, ids in numbers} == {tuple(range(1, 31))}
    assert len(numbers) == len(users)


async def test_old_ones_are_forgotten(org: Org, database: Database, psql: Psql) -> None:
    async with database.tenant(org.id) as conn:
        for title in ("old", "new"):
            await tell(conn, org_id=org.id, user_ids=[org.admin.id], type="message", title=title)
    psql(
        "update notification set created_at = now() - interval '91 days' where title = 'old'",
        role="sofinance_owner", org=org,
    )  # fmt: skip
    gone = await forgetting.forget_expired(database)
    assert gone["notifications"] >= 1
    assert psql("select title from notification", org=org) == [("new",)]
