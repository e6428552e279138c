"""Forgetting: what has expired, what was kept long enough, and who asked for it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from sofinance.infra.db import Database
from sofinance.jobs.retaining import apply_everywhere
from tests.attacks.scene import attach

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sofinance.config import Settings
    from tests.api.conftest import Shop
    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

BOTH = ["/api/v1/admin", "/v1/admin"]
PERSON = {
    "name": "Petra Personal", "email": "petra@private.example", "phone": "+43 660 1234567",
    "address": "Secret Lane 1", "notes": "likes tea", "credit_limit": "500",
}  # fmt: skip
TRACES = ("Petra", "petra@private", "660 1234567", "Secret Lane", "likes tea", "asked by letter")


async def customer_of(shop: Shop, psql: Psql) -> int:
    """Return a customer who bought, owes, has a file, and was written to."""
    customer_id = int((await shop.api.post("/customers", shop.org, PERSON)).data["id"])
    assert (await shop.sell(customer_id=customer_id)).status == 201
    assert (await shop.sell(customer_id=customer_id, paid="11.00")).status == 201
    await attach(shop.api, shop.org, customer_id, "a file of hers")
    psql(
        "insert into mail (org_id, dedupe_key, kind, recipient, subject, body) values"
        f" ({shop.org.id}, 'receivable:1', 'receivable_reminder', 'petra@private.example', 'Open',"
        " 'Dear Petra Personal')", org=shop.org,
    )  # fmt: skip
    return customer_id


async def test_mail_to_an_address_of_before_is_forgotten_too(
    api: Api, shop: Shop, psql: Psql
) -> None:
    made = (await api.post("/customers", shop.org, PERSON)).data
    sale_id = (await shop.sell(customer_id=made["id"], paid="11.00")).data["id"]
    psql(
        "insert into mail (org_id, dedupe_key, kind, recipient, subject, body) values"
        f" ({shop.org.id}, 'receivable:{sale_id}:1', 'receivable_reminder', 'old@private.example',"
        f" 'Open', 'Dear Petra Personal'), ({shop.org.id}, 'receivable:1{sale_id}:1',"
        " 'receivable_reminder', 'bob@private.example', 'Open', 'Dear Bob')", org=shop.org,
    )  # fmt: skip
    body = {"customer_id": made["id"], "reason": "asked by letter"}
    assert (await api.post("/admin/data-deletion/requests", shop.org, body)).status == 201
    assert (await api.post("/admin/retention/cleanup", shop.org)).data["mails_emptied"] == 1
    assert psql("select recipient, body from mail order by id", org=shop.org) == [
        ("deleted@invalid", "deleted"), ("bob@private.example", "Dear Bob"),
    ]  # fmt: skip


# -- what a person may ask -------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["customer_id", "email"])
async def test_a_person_gets_all_that_is_kept_and_the_audit_only_counts(
    api: Api, shop: Shop, psql: Psql, by: str
) -> None:
    customer_id = await customer_of(shop, psql)
    psql(
        "insert into portal_link (org_id, customer_id, slot, token_hash, expires_at)"
        " values (%s, %s, 1, sha256('link'), now() + '30 minutes')",
        [shop.org.id, customer_id], org=shop.org,
    )  # fmt: skip
    who = {"customer_id": customer_id} if by == "customer_id" else {"email": PERSON["email"]}
    bundle = (await api.post("/admin/data/export", shop.org, who)).data
    assert bundle["customer"]["name"] == "Petra Personal"
    kinds = ("sales", "payments", "attachments", "mails", "portal_links")
    assert [len(bundle[kind]) for kind in kinds] == [2, 1, 1, 1, 1]
    assert bundle["is_complete"] is True
    ((entity_id, after),) = psql(
        "select entity_id, after from audit_log where action = 'retention.export_subject'",
        org=shop.org,
    )
    assert entity_id == customer_id
    assert after == {"sales": 2, "payments": 1, "attachments": 1, "mails": 1, "portal_links": 1}


async def test_who_is_not_there_is_not_exported(api: Api, org: Org, other_org: Org) -> None:
    theirs = (await api.post("/customers", other_org, PERSON)).data["id"]
    for who in ({"customer_id": theirs}, {"email": "nobody@example.com"}, PERSON):
        body = {name: value for name, value in who.items() if name in {"customer_id", "email"}}
        assert (await api.post("/admin/data/export", org, body)).refused == (404, "not_found")
        request = {**body, "reason": "asked"}
        path = "/admin/data-deletion/requests"
        assert (await api.post(path, org, request)).refused == (404, "not_found")
    for wrong in ({}, {"customer_id": theirs, "email": "a@b.example"}):
        answer = await api.post("/admin/data/export", org, wrong)
        assert answer.refused == (422, "invalid_request")


async def test_a_person_is_forgotten_and_the_sums_stay(api: Api, shop: Shop, psql: Psql) -> None:
    customer_id = await customer_of(shop, psql)
    body = {"email": "Petra@private.example", "reason": "asked by letter"}
    asked = await api.post("/admin/data-deletion/requests", shop.org, body)
    assert (asked.status, asked.data["status"]) == (201, "pending")
    again = await api.post("/admin/data-deletion/requests", shop.org, body)
    assert again.refused == (409, "data_deletion_request_open_once")
    # She owes 11.00 still.
    counts = (await api.post("/admin/retention/cleanup", shop.org)).data
    assert (counts["requests_processed"], counts["requests_waiting"]) == (0, 1)
    (owed,) = psql("select sale_id from receivable where outstanding > 0", org=shop.org)
    paid = await api.post(f"/sales/{owed[0]}/payments", shop.org, {"amount": "11.00"})
    assert paid.status == 201
    before = await shop.balances()
    done = await api.post("/v1/admin/retention/cleanup", shop.org, prefix="")
    assert (done.status, done.data) == (200, {
        "idempotency_keys_deleted": 0, "sessions_deleted": 0, "signed_url_uses_deleted": 0,
        "notifications_deleted": 0, "portal_links_deleted": 0,
        "mails_deleted": 0, "events_deleted": 0,
        "requests_processed": 1, "requests_waiting": 0,
        "attachments_deleted": 1, "mails_emptied": 1,
    })  # fmt: skip
    left = (await api.get(f"/customers/{customer_id}", shop.org)).data
    assert (left["name"], left["email"], left["status"]) == ("Deleted contact", None, "INACTIVE")
    assert await shop.balances() == before
    assert psql("select count(*), sum(total) from sale where customer_id = %s", [customer_id],
                org=shop.org)[0][0] == 2  # fmt: skip
    assert psql("select count(*) from storage_tombstone", org=shop.org) == [(1,)]
    assert psql("select recipient, body, status from mail", org=shop.org) == [
        ("deleted@invalid", "deleted", "skipped")
    ]
    assert psql("select attachments_deleted, mails_emptied from data_deletion_request",
                org=shop.org) == [(1, 1)]  # fmt: skip
    for table in ("customer", "mail", "audit_log", "sale", "data_deletion_request", "attachment"):
        rows = json.dumps(psql(f"select to_jsonb(t) from {table} t", org=shop.org), default=str)
        assert [trace for trace in TRACES if trace in rows] == [], table
    counts = (await api.post("/admin/retention/cleanup", shop.org)).data
    assert counts["requests_processed"] == 0


@pytest.mark.empty_database
async def test_the_job_forgets_in_every_organisation(
    api: Api, new_org: Callable[..., Awaitable[Org]], settings: Settings, psql: Psql
) -> None:
    orgs = [await new_org(), await new_org(name="Other")]
    for org in orgs:
        customer = (await api.post("/customers", org, PERSON)).data["id"]
        body = {"customer_id": customer, "reason": "asked"}
        assert (await api.post("/admin/data-deletion/requests", org, body)).status == 201
        psql(
            "insert into mail (org_id, dedupe_key, kind, recipient, subject, body, status)"
            f" select {org.id}, 'low-stock:' || n, 'low_stock', 'a@b.example', 'L', 'L', 'dead'"
            " from generate_series(1, 1500) as n", org=org,
        )  # fmt: skip
    psql("update mail set created_at = now() - interval '91 days'", role="superuser")
    psql(
        "insert into mail (org_id, dedupe_key, kind, recipient, subject, body)"
        f" values ({orgs[0].id}, 'low-stock:young', 'low_stock', 'a@b.example', 'L', 'L')",
        org=orgs[0],
    )
    database = Database(settings)
    await database.open()
    assert await apply_everywhere(database) == (
        "forgot 3000 mails, 0 events and 2 persons; 0 requests wait"
    )
    assert await apply_everywhere(database) == (
        "forgot 0 mails, 0 events and 0 persons; 0 requests wait"
    )
    await database.close()
    assert psql("select count(*) from mail", role="superuser") == [(1,)]


# -- endpoints for cron ----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", BOTH)
async def test_cleanup_forgets_what_has_expired_of_the_callers_organisation(
    api: Api, org: Org, other_org: Org, psql: Psql, prefix: str
) -> None:
    for whose in (org, other_org):
        psql(
            "insert into idempotency_key (org_id, key_hash, fingerprint, expires_at)"
            f" select {whose.id}, sha256(n::text::bytea), sha256('f'), now() - interval '1 s'"
            " from generate_series(1, 7) as n", org=whose,
        )  # fmt: skip
    first = await api.post("/cleanup", org, prefix=prefix)
    assert (first.status, first.data) == (202, {"deleted": 7})
    assert (await api.post("/cleanup", org, prefix=prefix)).data == {"deleted": 0}
    assert psql("select count(*) from idempotency_key", org=other_org) == [(7,)]
    refused = await api.post("/cleanup", org.member("MANAGER"), prefix=prefix)
    assert refused.refused == (403, "forbidden")


OLD = {
    "retention_session_days": (
        "update user_session set created_at = now() - interval '{days} days' - interval '1 hour',"
        " idle_until = now() - interval '{days} days', expires_at = now() - interval '{days} days'"
        " where id = (select min(id) from user_session where user_id <> {admin})"
    ),
    "retention_notification_days": (
        "insert into notification (org_id, user_id, type, title, created_at)"
        " values ({org}, {admin}, 'message', 'Old', now() - interval '{days} days')"
    ),
    "retention_mail_days": (
        "insert into mail (org_id, dedupe_key, kind, recipient, subject, body, status, created_at)"
        " values ({org}, 'low-stock:1', 'low_stock', 'a@b.example', 'L', 'L', 'dead',"
        " now() - interval '{days} days')"
    ),
    "retention_event_days": (
        "insert into event (org_id, id, type, aggregate, aggregate_id, subject_id, occurred_at)"
        " values ({org}, 1, 'customer.created', 'customer', 1, 1, now() - interval '{days} days')"
    ),
}


@pytest.mark.parametrize("setting", OLD)
async def test_each_period_is_as_long_as_its_setting_says(
    api_with: MakeApi, org: Org, psql: Psql, setting: str
) -> None:
    api = await api_with(**{setting: 35})
    await api.get("/organisation", org.member("CASHIER"))
    count = f"{setting.removeprefix('retention_').removesuffix('_days')}s_deleted"
    for days, gone in ((34, 0), (36, 1)):
        text = OLD[setting].format(org=org.id, admin=org.admin.id, days=days)
        if days == 36:
            psql("delete from mail", org=org)
            psql("delete from event", org=org, role="sofinance_owner")
        psql(text, org=org, role="sofinance_owner")
        answer = (await api.post("/admin/retention/cleanup", org)).data
        assert answer[count] == gone, days
        assert sum(answer.values()) == gone


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of Basic credentials."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


async def test_basic_credentials_carry_an_api_key_to_administration_alone(
    api: Api, api_with: MakeApi, org: Org, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"name": "cron", "permissions": ["system:manage"]}
    made = (await api.post("/api-keys", org, body)).data
    key = str(made["secret"])
    legacy = await api_with(legacy_basic_auth_enabled=True)
    caplog.clear()
    for name, status in (("cleanup", 202), ("email-scan", 202), ("retention/cleanup", 200)):
        path = f"/v1/admin/{name}"
        answer = await legacy.post(path, prefix="", headers=basic("admin", key))
        assert answer.status == status
        for wrong in (basic("admin", "guess"), basic(key, ""), {"Authorization": "Basic %%%"}):
            refused = await legacy.post(path, prefix="", headers=wrong)
            assert refused.refused == (401, "unauthorized")
        off = await api.post(path, prefix="", headers=basic("admin", key))
        assert off.refused == (401, "unauthorized")
    elsewhere = await legacy.post("/admin/cleanup", headers=basic("admin", key))
    assert elsewhere.refused == (401, "unauthorized")
    assert "WWW-Authenticate" not in elsewhere.headers or (
        "Basic" not in elsewhere.headers["WWW-Authenticate"]
    )
    assert key not in caplog.text
    assert (await api.delete(f"/api-keys/{made['id']}", org)).status == 204
    revoked = await legacy.post("/v1/admin/cleanup", prefix="", headers=basic("admin", key))
    assert revoked.refused == (401, "unauthorized")


async def test_guesses_at_basic_credentials_are_limited(api_with: MakeApi) -> None:
    api = await api_with(
        legacy_basic_auth_enabled=True, rate_limit_enabled=True, rate_limit_per_minute=1,
        rate_limit_burst=3,
    )  # fmt: skip
    answers = [
        await api.post("/v1/admin/cleanup", prefix="", headers=basic("admin", f"guess{n}"))
        for n in range(8)
    ]
    assert answers[0].status == 401
    assert answers[-1].refused == (429, "rate_limited")
