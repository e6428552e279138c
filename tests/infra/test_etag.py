"""Versions: what is known is not sent again, and nobody overwrites what they have not seen."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from marshmallow import Schema, fields

from sofinance import queries as q
from sofinance.infra import etag
from sofinance.infra.http import Call, Routes

if TYPE_CHECKING:
    from tests.support import Answer, Api, Org, Psql

FRUIT = {"name": "Fruit"}
PATH = "/categories"
MISMATCH = (412, "version_mismatch")


async def made(api: Api, org: Org) -> tuple[str, str]:
    """Return the path and the tag of a new category."""
    answer = await api.post(PATH, org, FRUIT)
    assert answer.status == 201
    return f"{PATH}/{answer.data['id']}", answer.headers["ETag"]


def seen(tag: str) -> dict[str, str]:
    return {"If-Match": tag}


async def versions(psql: Psql, org: Org, table: str) -> list[int]:
    return [row[0] for row in psql(f"select version from {table} order by version", org=org)]


# --- reading --------------------------------------------------------------------------------------


async def test_what_is_known_is_not_sent_again(api: Api, org: Org) -> None:
    path, _ = await made(api, org)
    first = await api.get(path, org)
    tag = first.headers["ETag"]
    assert tag.startswith('"1-')
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = await api.get(path, org, headers={"If-None-Match": known})
        assert (again.status, again.text) == (304, "")
        assert again.headers["ETag"] == tag
        assert "Content-Type" not in again.headers
    for other in ('"1-00"', '""', "nonsense"):
        assert (await api.get(path, org, headers={"If-None-Match": other})).data["name"] == "Fruit"
    head = await api.call("HEAD", path, org, headers={"If-None-Match": tag})
    assert head.status == 304


async def test_the_tag_changes_with_all_that_is_shown(api: Api, org: Org) -> None:
    """A product in it does not change a category's row, but what is shown of it."""
    path, _ = await made(api, org)
    before = (await api.get(path, org)).headers["ETag"]
    product = {
        "sku": "1", "name": "Apple", "cost": "1", "price": "2",
        "category_id": int(path.rpartition("/")[2]),
    }  # fmt: skip
    assert (await api.post("/products", org, product)).status == 201
    after = await api.get(path, org, headers={"If-None-Match": before})
    assert (after.status, after.data["product_count"]) == (200, 1)
    assert after.headers["ETag"].partition("-")[0] == before.partition("-")[0] == '"1'


async def test_lists_and_reports_have_tags_too(api: Api, org: Org, other_org: Org) -> None:
    await made(api, org)
    listed = await api.get(PATH, org)
    known = {"If-None-Match": listed.headers["ETag"]}
    assert (await api.get(PATH, org, headers=known)).status == 304
    assert (await api.get(PATH, other_org, headers=known)).data["items"] == []
    await api.post(PATH, org, {"name": "Meat"})
    assert (await api.get(PATH, org, headers=known)).status == 200
    # Whoever may not read it does not learn that it has not changed.
    assert (await api.get(PATH, headers=known)).refused == (401, "unauthorized")


# --- changing -------------------------------------------------------------------------------------


async def test_a_change_names_the_state_it_changes(api: Api, org: Org) -> None:
    path, first = await made(api, org)
    changed = await api.put(path, org, {"name": "Fruits"}, headers=seen(first))
    assert changed.status == 200
    second = changed.headers["ETag"]
    assert second.startswith('"2-')
    assert (await api.put(path, org, FRUIT, headers=seen(first))).refused == MISMATCH
    assert (await api.get(path, org)).data["name"] == "Fruits"
    assert (await api.put(path, org, FRUIT, headers=seen(f'"x", {second}'))).status == 200
    assert (await api.put(path, org, FRUIT, headers=seen("*"))).status == 200
    assert (await api.put(path, org, FRUIT)).status == 200
    last = (await api.get(path, org)).headers["ETag"]
    assert last.startswith('"5-')


async def test_a_refused_change_leaves_nothing_behind(api: Api, org: Org, psql: Psql) -> None:
    path, first = await made(api, org)
    await api.put(path, org, {"name": "Fruits"})
    refused = await api.put(path, org, {"name": "Lost"}, headers=seen(first), key="k")
    assert refused.refused == MISMATCH
    assert await versions(psql, org, "category") == [2]
    assert psql("select count(*) from audit_log", org=org) == [(2,)]
    assert psql("select count(*) from idempotency_key", org=org) == [(0,)]


@pytest.mark.parametrize("tag", ['W/"1-{0}"', '"1"', '"{0}"', '"01-{0}"', '"2-{0}"', '""'])
async def test_a_tag_that_is_not_the_thing_s_never_matches(api: Api, org: Org, tag: str) -> None:
    path, first = await made(api, org)
    given = tag.format(first.strip('"').partition("-")[2])
    assert (await api.put(path, org, FRUIT, headers=seen(given))).refused == MISMATCH


@pytest.mark.parametrize("header", ["1", '"1', "*, *", '"1" "2"', "W/1"])
async def test_what_is_no_tag_is_told_so(api: Api, org: Org, header: str) -> None:
    path, _ = await made(api, org)
    answer = await api.put(path, org, FRUIT, headers=seen(header))
    assert answer.refused == (422, "invalid_request")
    assert list(answer.details["fields"]) == ["If-Match"]


async def test_a_delete_names_the_state_too(api: Api, org: Org) -> None:
    path, first = await made(api, org)
    second = (await api.put(path, org, FRUIT)).headers["ETag"]
    assert (await api.delete(path, org, headers=seen(first))).refused == MISMATCH
    assert (await api.delete(path, org, headers=seen(second))).status == 204
    assert (await api.delete(path, org, headers=seen(second))).refused == (404, "not_found")


async def test_a_command_names_the_state_too(api: Api, org: Org) -> None:
    period = await api.post("/periods", org, {"starts_on": "2020-01-01", "ends_on": "2020-01-31"})
    path, open_tag = f"/periods/{period.data['id']}", period.headers["ETag"]
    closed = await api.post(f"{path}/close", org, headers=seen(open_tag))
    assert closed.data["is_closed"]
    assert (await api.post(f"{path}/reopen", org, headers=seen(open_tag))).refused == MISMATCH
    reopened = await api.post(f"{path}/reopen", org, headers=seen(closed.headers["ETag"]))
    assert not reopened.data["is_closed"]


async def test_of_many_that_saw_the_same_exactly_one_wins(api: Api, org: Org, psql: Psql) -> None:
    path, first = await made(api, org)
    answers: list[Answer] = await asyncio.gather(*(
        api.put(path, org, {"name": f"Fruit {number}"}, headers=seen(first)) for number in range(30)
    ))  # fmt: skip
    assert Counter(answer.status for answer in answers) == {200: 1, 412: 29}
    (winner,) = (answer for answer in answers if answer.status == 200)
    assert (await api.get(path, org)).data["name"] == winner.data["name"]
    assert await versions(psql, org, "category") == [2]


async def test_a_replay_has_the_first_answer_s_tag(api: Api, org: Org) -> None:
    path, first = await made(api, org)
    changed = await api.put(path, org, FRUIT, headers=seen(first), key="k")
    await api.put(path, org, {"name": "Fruits"})
    again = await api.put(path, org, FRUIT, headers=seen(first), key="k")
    assert (again.status, again.headers["ETag"]) == (200, changed.headers["ETag"])
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await api.put(path, org, FRUIT, headers=seen(changed.headers["ETag"]), key="k")
    assert other.refused == (422, "idempotency_key_reused")


async def test_where_nothing_has_a_version_it_cannot_be_named(api: Api, org: Org) -> None:
    answer = await api.post(PATH, org, FRUIT, headers=seen('"1-00"'))
    assert answer.refused == (400, "if_match_not_supported")


# --- declaring it ---------------------------------------------------------------------------------


class Toy(Schema):
    """What is answered."""

    name = fields.String()


async def test_it_can_be_demanded(api_with: Any, org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = Routes()

    @routes.endpoint(
        "PUT", "/toys/{id}", permission="categories:write", returns=Toy(), if_match="required"
    )
    async def change_toy(call: Call) -> Any:
        """Change a toy."""
        key = {"org_id": call.org_id, "id": call.path["id"]}
        columns = {"name": "Toy", "description": None, "is_active": True}
        return await q.catalog.change_category(call.conn, **key, **columns)

    monkeypatch.setattr("sofinance.api.catalog.routes", [*routes])
    toys = await api_with()
    monkeypatch.undo()
    api = await api_with()
    path, tag = await made(api, org)
    path = path.replace("categories", "toys")
    assert (await toys.put(path, org)).refused == (428, "if_match_required")
    assert (await toys.put(path, org, headers=seen('"9-0"'))).refused == MISMATCH
    assert (await toys.put(path, org, headers=seen(tag))).data == {"name": "Toy"}
    assert (await toys.put(path, org, headers=seen("*"))).status == 200


def test_only_what_changes_something_can_ask_for_it() -> None:
    with pytest.raises(TypeError, match="GET /toys: if_match"):
        Routes().endpoint(
            "GET", "/toys", permission="toys:read", returns=Toy(), if_match="optional"
        )


def test_a_row_without_its_version_is_our_bug() -> None:
    with pytest.raises(RuntimeError, match="version"):
        etag.Precondition("optional", "PUT").check(frozenset({1}), {"name": "x"})


# --- in the database ------------------------------------------------------------------------------

VERSIONED = (
    "organisation", "app_user", "branch", "till", "tax_code", "category", "product", "customer",
    "account", "accounting_period",
)  # fmt: skip


@pytest.mark.parametrize("table", VERSIONED)
def test_the_application_cannot_write_a_version(psql: Psql, org: Org, table: str) -> None:
    assert psql.refusal(f"update {table} set version = 7", org=org) == "42501"
    assert psql.refusal(f"insert into {table} (version) values (7)", org=org) == "42501"
    # Even the owner's number does not stay.
    before = psql(f"select version from {table}", org=org)
    psql(f"update {table} set version = 7", role="sofinance_owner", org=org)
    assert psql(f"select version from {table}", org=org) == [(row[0] + 1,) for row in before]


def test_a_version_counts_once_for_a_transaction(psql: Psql, org: Org) -> None:
    change = "update branch set address = concat(address, 'x')"
    psql("insert into branch (org_id, name, time_zone) values (%s, 'B', 'UTC')", [org.id], org=org)
    psql(f"{change}; {change}; {change}", org=org)
    assert psql("select version, address from branch", org=org) == [(2, "xxx")]
    made_and_changed = f"insert into category (org_id, name) values ({org.id}, 'C')"
    psql(f"{made_and_changed}; update category set name = 'D'", org=org)
    assert psql("select version from category", org=org) == [(1,)]
