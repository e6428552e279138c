"""The organisation: everybody in it sees it, few change it, and its currency nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support import Answer, Api, Org, Psql

PATH = "/organisation"


async def change(api: Api, who: Any, body: Any, **options: Any) -> Answer:
    return await api.call("PATCH", PATH, who, body, **options)


async def test_everybody_sees_their_own(api: Api, org: Org, other_org: Org) -> None:
    for role in org.members:
        seen = (await api.get(PATH, org.member(role))).data
        assert seen.pop("created_at").endswith("Z")
        assert seen == {
            "id": org.id, "name": "Test", "currency": "USD", "time_zone": "UTC",
            "prices_include_tax": False, "default_credit_limit": "1000.00",
        }  # fmt: skip
    assert (await api.get(PATH, other_org)).data["name"] == "Other"


async def test_what_is_given_changes_and_the_rest_stays(api: Api, org: Org, psql: Psql) -> None:
    changed = await change(api, org, {"time_zone": "Africa/Nairobi"})
    assert (changed.data["time_zone"], changed.data["name"]) == ("Africa/Nairobi", "Test")
    await change(api, org, {"name": "Café", "default_credit_limit": "5.50"})
    seen = (await api.get(PATH, org)).data
    assert (seen["name"], seen["default_credit_limit"]) == ("Café", "5.50")
    branch = (await api.post("/branches", org, {"name": "New"})).data
    assert branch["time_zone"] == "Africa/Nairobi"
    before, after = psql(
        "select before ->> 'name', after ->> 'name' from audit_log"
        " where action = 'organisation.change_organisation' order by id desc limit 1", org=org,
    )[0]  # fmt: skip
    assert (before, after) == ("Test", "Café")


async def test_nobody_overwrites_what_they_have_not_seen(api: Api, org: Org) -> None:
    tag = (await api.get(PATH, org)).headers["ETag"]
    headers = {"If-Match": tag}
    assert (await change(api, org, {"name": "A"}, headers=headers)).status == 200
    refused = await change(api, org, {"name": "B"}, headers=headers)
    assert refused.refused == (412, "version_mismatch")
    assert (await api.get(PATH, org)).data["name"] == "A"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"name": ""}, "invalid_request"),
        ({"name": None}, "invalid_request"),
        ({"name": " "}, "organisation_name_not_empty"),
        ({"time_zone": "Mars/Olympus"}, "invalid_request"),
        ({"default_credit_limit": "-1"}, "invalid_request"),
        ({"currency": "EUR"}, "invalid_request"),
        ({"base_currency": "EUR"}, "invalid_request"),
        ({"prices_include_tax": True}, "invalid_request"),
        ({"id": 1}, "invalid_request"),
    ],
)
async def test_what_is_not_safe_to_change_is_refused(
    api: Api, org: Org, body: Any, code: str
) -> None:
    assert (await change(api, org, body)).refused == (422, code)


async def test_it_takes_the_permission_and_all_branches(api: Api, org: Org, psql: Psql) -> None:
    for role in ("MANAGER", "CASHIER", "ACCOUNTANT", "INVENTORY_CLERK"):
        answer = await change(api, org.member(role), {"name": "Mine"})
        assert answer.refused == (403, "forbidden")
    manager = org.member("MANAGER")
    psql(
        f"insert into user_permission values"
        f" ({org.id}, {manager.id}, 'organisation:write', 'ALLOW');"
        f"update app_user set all_branches = false where id = {manager.id}", org=org,
        role="sofinance_owner",
    )  # fmt: skip
    refused = await change(api, manager, {"name": "Mine"})
    assert refused.refused == (403, "all_branches_required")


def test_the_currency_is_fixed_for_the_owner_of_the_tables_too(psql: Psql, org: Org) -> None:
    statement = "update organisation set base_currency = 'EUR'"
    assert psql.refusal(statement, org=org) == "42501"
    refused = psql.refusal(statement, role="sofinance_owner", org=org)
    assert refused == "organisation_currency_is_fixed"
    psql("update organisation set base_currency = 'USD'", role="sofinance_owner", org=org)
