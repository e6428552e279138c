"""A connection that comes back from whatever went wrong knows nobody's organisation any more.

The pool has one connection, so the one that is looked at afterwards is the one that was used; and
nobody else asks the primary anything, as who reads from a replica does.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from sofinance import queries as q
from sofinance.app import MACHINE
from sofinance.infra import route
from sofinance.infra.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

SETTINGS = ("app.org_id", "app.user_id", "app.branch_ids", "plan_cache_mode", "lock_timeout")
PATH = "/categories"
WRONG = {
    "a refusal of ours": ApiError("too_ripe", "Too ripe.", status=409),
    "a bug": ZeroDivisionError("a bug"),
    "a lost connection": asyncpg.ConnectionDoesNotExistError("gone"),
    "a deadlock": asyncpg.DeadlockDetectedError("40P01"),
    "a time limit": TimeoutError(),
    "a request that is given up": asyncio.CancelledError(),
}


@pytest.fixture
async def lone(api_with: MakeApi) -> Api:
    """A service whose pool has one connection."""
    return await api_with(database_pool_size=1, database_replica_url="")


async def known(api: Api) -> dict[str, str | None]:
    """Return what the pool's connection knows, as it comes out of the pool."""
    pool = api.app[MACHINE].db.pool
    async with pool.lend() as conn:
        assert not conn.is_in_transaction()
        asked = ", ".join(f"current_setting('{name}', true)" for name in SETTINGS)
        row = await conn.fetchrow(f"select {asked}")
        with pytest.raises((asyncpg.UndefinedObjectError, asyncpg.InvalidTextRepresentationError)):
            await conn.fetch("select id from category")
    assert pool.open_count <= 1
    assert pool.in_use_count == 0
    return dict(zip(SETTINGS, row.values(), strict=True))


async def ask(api: Api, org: Org) -> None:
    # A request that is given up has no answer.
    with suppress(aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        answer = await api.post(PATH, org, {"name": "Fruit"})
        assert answer.status >= 400


async def check(api: Api, org: Org, psql: Psql) -> None:
    """See that nothing is left, nothing was done, and the next request works."""
    found = await known(api)
    assert {found[name] for name in SETTINGS[:3]} <= {None, ""}
    assert found["lock_timeout"] == "5s"  # the role's; a request sets another
    assert psql("select count(*) from category", org=org) == [(0,)]
    assert (await api.post(PATH, org, {"name": "Next"})).status == 201
    assert {(await known(api))[name] for name in SETTINGS[:3]} <= {None, ""}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("what", WRONG)
async def test_what_goes_wrong_in_a_handler(
    lone: Api, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch, what: str, place: str
) -> None:
    real = q.catalog.create_category

    async def create_category(conn: Any, **args: Any) -> Any:
        if place == "after":
            await real(conn, **args)
        raise WRONG[what]

    with monkeypatch.context() as patch:
        patch.setattr(q.catalog, "create_category", create_category)
        await ask(lone, org)
    await check(lone, org, psql)


@pytest.mark.parametrize(
    "statement",
    ["select 1 / 0", "select pg_sleep(9)", "selec 1", "savepoint a", "set local app.org_id = '7'"],
)
async def test_what_goes_wrong_in_a_statement(
    api_with: MakeApi, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    lone = await api_with(
        database_pool_size=1, database_replica_url="", database_statement_timeout_ms=2_000
    )

    async def create_category(conn: Any, **_: Any) -> Any:
        await conn.execute(statement)
        raise ApiError("too_ripe", "Too ripe.", status=409)

    with monkeypatch.context() as patch:
        patch.setattr(q.catalog, "create_category", create_category)
        await ask(lone, org)
    await check(lone, org, psql)


@pytest.mark.parametrize("what", WRONG)
async def test_what_goes_wrong_around_the_commit(
    lone: Api, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async def commit(*_: Any) -> None:
        raise WRONG[what]

    with monkeypatch.context() as patch:
        patch.setattr(route, "commit", commit)
        await ask(lone, org)
    await check(lone, org, psql)


async def test_what_the_rules_refuse_at_commit(lone: Api, org: Org, psql: Psql) -> None:
    accounts = psql("select id from account order by code limit 2", org=org)
    lines = [
        {"account_id": accounts[0][0], "debit": "5.00"},
        {"account_id": accounts[1][0], "credit": "4.99"},
    ]
    answer = await lone.post("/journal/entries", org, {"lines": lines})
    assert answer.refused == (422, "journal_entry_balances")
    await check(lone, org, psql)


async def test_who_is_not_let_in(lone: Api, org: Org, psql: Psql) -> None:
    assert (await lone.get(PATH, org)).status == 200  # and is remembered
    psql("update user_session set revoked_at = now(), revoked_why = 'sign_out'", org=org)
    assert (await lone.post(PATH, org, {"name": "Fruit"})).refused == (401, "unauthorized")
    assert {(await known(lone))[name] for name in SETTINGS[:3]} <= {None, ""}


@pytest.mark.parametrize("sent", [b"{", b'{"name": 1}'])
async def test_what_is_refused_before_the_transaction(
    lone: Api, org: Org, psql: Psql, sent: bytes
) -> None:
    assert (await lone.call("POST", PATH, org, content=sent)).status in {400, 422}
    await check(lone, org, psql)


@pytest.mark.parametrize("pause_s", [0.0, 0.001, 0.01, 0.1])
async def test_a_task_that_is_cancelled_in_the_middle(
    lone: Api, org: Org, psql: Psql, pause_s: float
) -> None:
    db = lone.app[MACHINE].db

    async def work() -> None:
        async with db.tenant(org.id, user_id=org.admin.id) as conn:
            await conn.execute("select pg_sleep(5)")

    task = asyncio.create_task(work())
    await asyncio.sleep(pause_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await check(lone, org, psql)


async def test_a_client_that_hangs_up_in_the_middle(
    lone: Api, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def create_category(conn: Any, **_: Any) -> Any:
        begun.set()
        await conn.execute("select pg_sleep(0.3)")
        raise ApiError("too_ripe", "Too ripe.", status=409)

    with monkeypatch.context() as patch:
        patch.setattr(q.catalog, "create_category", create_category)
        asking = asyncio.create_task(lone.post(PATH, org, {"name": "Fruit"}))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await known(lone)
    await check(lone, org, psql)


async def test_the_next_organisation_sees_its_own(
    lone: Api, org: Org, other_org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await lone.post(PATH, org, {"name": "Fruit"})).status == 201

    async def create_category(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(q.catalog, "create_category", create_category)
        await ask(lone, org)
    assert (await lone.get(PATH, other_org)).data["items"] == []
