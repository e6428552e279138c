"""The audit log: what it says, what it hides, who reads it, and that nobody rewrites it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from marshmallow import Schema, fields

from sofinance.app import find_endpoints
from sofinance.infra.http import Paged
from sofinance.infra.masking import kind_of_field

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.api.conftest import Shop
    from tests.support import Api, Org, Psql

LOGS = "/audit/logs"
PERSON = {
    "name": "Wilhelmina Quux", "email": "wilhelmina@quux.example", "phone": "+254 700 123456",
    "address": "7 Quux Lane", "notes": "knows Quux",
}  # fmt: skip
# Field names that look like a person's or a secret's, and why they are neither.
HARMLESS = {"ip_address", "is_code", "must_change_password", "password_changed_at"}


async def logs(api: Api, who: Any, query: str = "") -> list[Any]:
    items: list[Any] = (await api.get(f"{LOGS}?{query}", who)).data["items"]
    return items


async def test_a_deed_is_told_with_who_what_and_from_where(api: Api, org: Org) -> None:
    headers = {"X-Request-ID": "r-77", "User-Agent": "till/1.0"}
    made = (await api.post("/categories", org, {"name": "Fruit"}, headers=headers)).data
    changed = (await api.put(f"/categories/{made['id']}", org, {"name": "Fruits"})).data
    second, first = await logs(api, org)
    moment = datetime.fromisoformat(first.pop("timestamp"))
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)
    assert first.pop("id") < second["id"]
    assert first.pop("session_id") > 0
    assert first == {
        "action": "catalog.create_category", "entity_type": "categories",
        "entity_id": made["id"], "user_id": org.admin.id, "user_name": "Ada Admin",
        "api_key_id": None, "before": None, "after": made, "request_id": "r-77",
        "ip": "127.0.0.1", "user_agent": "till/1.0", "severity": "INFO",
    }  # fmt: skip
    assert (second["before"], second["after"]) == (made, changed)


async def test_a_webhook_s_url_is_told_without_the_values_of_its_query(api: Api, org: Org) -> None:
    url = "https://hooks.example.com/x?key="
    assert (await api.post("/webhooks", org, {"url": f"{url}hidden"})).status == 201
    (deed,) = await logs(api, org)
    assert deed["after"]["url"] == f"{url}[secret]"


async def test_filters_find_what_they_name(api: Api, org: Org) -> None:
    cashier = org.member("CASHIER")
    headers = {"X-Request-ID": "needle-1", "User-Agent": "odd/100%"}
    made = (await api.post("/categories", org, {"name": "A"}, headers=headers)).data
    await api.post("/customers", cashier, {"name": "B"})
    assert (await api.post("/categories", cashier, {"name": "C"})).status == 403
    for query, actions in (
        ("", ["catalog.create_category", "customers.create_customer", "catalog.create_category"]),
        ("action=customers.create_customer", ["customers.create_customer"]),
        ("entity_type=customers", ["customers.create_customer"]),
        (f"entity_type=categories&entity_id={made['id']}", ["catalog.create_category"]),
        (f"user_id={org.admin.id}", ["catalog.create_category"]),
        (f"user_id={cashier.id}", ["catalog.create_category", "customers.create_customer"]),
        ("severity=WARNING", ["catalog.create_category"]),
        ("severity=CRITICAL", []),
        ("search=NEEDLE", ["catalog.create_category"]),
        ("search=odd/1", ["catalog.create_category"]),
        ("start=2020-01-01T00:00:00Z&end=2020-02-01T00:00:00Z", []),
        ("start=2020-01-01T00:00:00Z&end=2021-01-01T00:00:00Z", []),
    ):
        assert [row["action"] for row in await logs(api, org, query)] == actions, query
    (denial,) = await logs(api, org, "severity=WARNING")
    assert denial["after"] == {
        "code": "forbidden", "details": {"permission": "categories:write"},
    }  # fmt: skip


async def test_pages_follow_each_other_without_a_gap(api: Api, org: Org) -> None:
    for name in "ABCDE":
        assert (await api.post("/categories", org, {"name": name})).status == 201
    seen: list[str] = []
    path: str | None = f"{LOGS}?limit=2"
    while path:
        answer = await api.get(path, org)
        seen += [row["after"]["name"] for row in answer.data["items"]]
        link = answer.headers.get("Link", "")
        path = link[link.index("/audit") : link.index(">")] if link else None
    assert seen == ["E", "D", "C", "B", "A"]
    assert await logs(api, org, "cursor=999999999999") == []


@pytest.mark.parametrize(
    "query",
    [
        "start=2024-01-01T00:00:00Z&end=2025-12-31T00:00:00Z",
        "start=2025-01-01T00:00:00Z&end=2025-03-01T00:00:00Z&search=abc",
        "start=2025-01-02T00:00:00Z&end=2025-01-01T00:00:00Z",
        "start=0001-01-01T00:00:00Z",
        "limit=101", "severity=LOUD", "search=ab", "start=yesterday", "who=me",
    ],
)  # fmt: skip
async def test_what_would_read_too_much_is_refused(api: Api, org: Org, query: str) -> None:
    assert (await api.get(f"{LOGS}?{query}", org)).refused == (422, "invalid_request")


async def test_the_earliest_and_the_latest_moment_are_no_trouble(api: Api, org: Org) -> None:
    for query in ("end=0001-01-02T00:00:00Z", "end=9999-12-31T00:00:00Z"):
        assert (await api.get(f"{LOGS}?{query}", org)).status in {200, 422}, query


async def test_only_who_may_audit_reads_it(api: Api, org: Org, other_org: Org, psql: Psql) -> None:
    await api.post("/categories", org, {"name": "Fruit"})
    for role in ("MANAGER", "CASHIER", "ACCOUNTANT", "INVENTORY_CLERK"):
        assert (await api.get(LOGS, org.member(role))).refused == (403, "forbidden")
    assert await logs(api, other_org) == []
    manager = org.member("MANAGER")
    psql(
        f"insert into user_permission values ({org.id}, {manager.id}, 'audit:read', 'ALLOW')",
        org=org,
        role="sofinance_owner",
    )
    assert len(await logs(api, manager)) > 0
    psql(f"update app_user set all_branches = false where id = {manager.id}", org=org)
    assert (await api.get(LOGS, manager)).refused == (403, "all_branches_required")


# -- what it hides -----------------------------------------------------------------------------


async def test_personal_data_is_masked_and_a_change_still_shows(
    api: Api, org: Org, psql: Psql
) -> None:
    made = (await api.post("/customers", org, PERSON)).data
    path = f"/customers/{made['id']}"
    await api.put(path, org, {**PERSON, "phone": "+254 700 654321", "credit_limit": "5.00"})
    await api.put(path, org, {**PERSON, "address": None, "credit_limit": "5.00"})
    third, second, first = await logs(api, org)
    assert first["after"] == made | dict.fromkeys(PERSON, "[personal]")
    assert second["before"]["phone"] == "[personal]"
    assert second["after"]["phone"] == "[personal, changed]"
    assert second["after"]["email"] == "[personal]"
    assert (second["before"]["credit_limit"], second["after"]["credit_limit"]) == (
        "1000.00",
        "5.00",
    )
    assert (third["before"]["address"], third["after"]["address"]) == ("[personal]", None)
    stored = psql("select before::text, after::text from audit_log", org=org)
    assert "uux" not in str(stored)
    assert "254" not in str(stored)


async def test_a_sale_names_nobody_in_the_log(shop: Shop, psql: Psql) -> None:
    who = {"customer_name": "Xaver Quux", "customer_phone": "+49 89 1234567"}
    sale = await shop.sell(paid="5.00", **who, customer_email="x@quux.example")
    assert sale.status == 201
    ((after,),) = psql(
        "select after::text from audit_log where action = 'sales.post_sale'", org=shop.org
    )
    row = orjson.loads(after)
    assert (row["customer_name"], row["cashier_name"]) == ("[personal]", "[personal]")
    assert row["total"] == "11.00"
    assert "uux" not in after
    assert "Ada" not in after
    ((entity_id, after),) = psql(
        "select entity_id, after::text from audit_log where action = 'customers.create_customer'",
        org=shop.org,
    )
    assert entity_id == sale.data["customer_id"]
    assert "uux" not in after


async def test_rows_of_earlier_releases_are_masked_when_they_are_read(
    api: Api, org: Org, psql: Psql
) -> None:
    psql(
        "insert into audit_log (org_id, action, entity_type, before, after) values"
        " (%s, 'users.change_user', 'users', '{\"email\": \"a@b.example\", \"role\": \"CASHIER\"}',"
        " '{\"email\": \"c@d.example\", \"role\": \"MANAGER\", \"password\": \"hunter2\"}')",
        [org.id], org=org,
    )  # fmt: skip
    (row,) = await logs(api, org)
    assert row["before"] == {"email": "[personal]", "role": "CASHIER"}
    assert row["after"] == {
        "email": "[personal, changed]", "role": "MANAGER", "password": "[secret]",
    }  # fmt: skip


def named_fields(schema: Schema, kind: str, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield each field of a schema: its path, its name and what it is a field of."""
    for name, field in schema.dump_fields.items():
        key = field.data_key or name
        yield f"{path}.{key}", key, kind
        inner = field.inner if isinstance(field, fields.List) else field
        if isinstance(inner, fields.Nested):
            yield from named_fields(inner.schema, key, f"{path}.{key}")


def test_every_field_that_looks_personal_or_secret_is_declared() -> None:
    """So that a new endpoint's answer does not bring people into the log unseen."""
    suspects = (
        "email", "phone", "address", "first_name", "last_name", "password", "token", "secret",
        "birth",
    )  # fmt: skip
    missed = set()
    for endpoint in find_endpoints():
        schema = (
            endpoint.returns.schema if isinstance(endpoint.returns, Paged) else endpoint.returns
        )
        if schema is None or endpoint.method == "GET" or endpoint.public:
            continue
        for path, name, kind in named_fields(schema, endpoint.entity, endpoint.name):
            looks = any(word in name for word in suspects) and not name.startswith(("has_", "is_"))
            if looks and name not in HARMLESS and kind_of_field(name, kind) is None:
                missed.add(path)
    assert missed == set()


# -- append-only -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "update audit_log set action = 'nothing'",
        "delete from audit_log",
        "truncate audit_log",
        (
            "insert into audit_log (org_id, action, entity_type, created_at)"
            " values (:org, 'a', 'b', '2001-01-01')"
        ),
    ],
)
def test_the_application_adds_to_the_log_and_nothing_else(
    psql: Psql, org: Org, statement: str
) -> None:
    assert psql.refusal(statement.replace(":org", str(org.id)), org=org) == "42501"


@pytest.mark.parametrize(
    "statement",
    ["update audit_log set action = 'x'", "delete from audit_log", "truncate audit_log"],
)
def test_not_even_the_owner_rewrites_the_log(psql: Psql, org: Org, statement: str) -> None:
    psql(
        "insert into audit_log (org_id, action, entity_type) values (%s, 'a', 'b')",
        [org.id], org=org,
    )  # fmt: skip
    refused = psql.refusal(statement, role="sofinance_owner", org=org)
    assert refused == "audit_log_is_final"


async def test_a_deed_without_its_row_is_not_done(
    api: Api, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sofinance.infra.audit.Auditor.of_change", lambda *_: "select 1 / 0 as nothing"
    )
    assert (await api.post("/categories", org, {"name": "Fruit"})).status == 500
    monkeypatch.undo()
    assert (await api.get("/categories", org)).data["items"] == []
