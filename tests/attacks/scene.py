"""The scene of the attacks: two organisations, each with one of everything, made over the API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from tests.api.conftest import open_shop
from tests.attacks.forgery import SEALED
from tests.support import role_url

if TYPE_CHECKING:
    from tests.support import Api, Org, Psql

NAME = re.compile(r"(?<![:\w]):([a-z_]\w*)")
ROW_SECURITY = "row security"
PRIVILEGE = "privilege"
NO_TENANT = "no tenant"
# What makes the cashier and the till known to each other: an authenticator used in step 100,
# recovery codes of which the first is used, a pairing code that is used, a credential, a PIN.
IDENTITY = (
    f"insert into user_totp (org_id, user_id, secret) values ({{org}}, {{clerk}}, {SEALED});"
    "update user_totp set confirmed_at = now(), last_step = 100;"
    "insert into recovery_code (org_id, user_id, code_no, code_hash)"
    " values ({org}, {clerk}, 1, sha256('1')), ({org}, {clerk}, 2, sha256('2'));"
    "update recovery_code set used_at = now() where code_no = 1;"
    "insert into till_pairing_code (org_id, till_id, code_hash, issued_by, expires_at)"
    " values ({org}, {till}, sha256('p'), {user}, now() + '1 minute');"
    "update till_pairing_code set used_at = now();"
    "insert into till_credential (org_id, till_id, secret_hash, paired_by)"
    " values ({org}, {till}, sha256('c'), {user});"
    "insert into user_pin (org_id, user_id, pin_hash) values ({org}, {cashier}, '$argon2id$x')"
)
# An upload under way, a link that was used; room for a mebibyte.
FILES = (
    "insert into storage_tombstone (org_id, object_key, due_at)"
    " values ({org}, 'org/{org}/attachments/' || repeat('b', 32), now() + '1 hour');"
    "insert into signed_url_use (org_id, token_id, expires_at)"
    " values ({org}, decode(repeat('00', 16), 'hex'), now() + '1 minute');"
    "update attachment_usage set quota_bytes = 1048576;"
    # Mail that waits, mail that was sent, mail that was given up, and somebody who wants none.
    "insert into mail (org_id, dedupe_key, kind, recipient, subject, body, status, sent_at,"
    " attempt_count) values"
    " ({org}, 'low-stock:1', 'low_stock', 'm@example.com', 'Low', 'Low.', 'pending', null, 0),"
    " ({org}, 'low-stock:0', 'low_stock', 'm@example.com', 'Low', 'Low.', 'sent', now(), 1),"
    " ({org}, 'low-stock:3', 'low_stock', 'm@example.com', 'Low', 'Low.', 'dead', null, 5);"
    "insert into mail_block (org_id, address, reason)"
    " values ({org}, 'no@example.com', 'unsubscribed');"
    "insert into data_deletion_request (org_id, customer_id, reason, requested_by)"
    " values ({org}, {customer}, 'asked by mail', {user})"
)
# What was done in January and February 2020: January is archived, February waits for it.
OLD_AUDIT = (
    "insert into audit_log (org_id, created_at, action, entity_type) values"
    " ({org}, '2020-01-15', 'old', 'scene'), ({org}, '2020-02-15', 'old', 'scene'),"
    " ({org}, '2020-02-29 23:59:59Z', 'old', 'scene');"
    "insert into storage_tombstone (org_id, object_key, due_at) values"
    " ({org}, 'org/{org}/audit/' || repeat('a', 32), now()),"
    " ({org}, 'org/{org}/audit/' || repeat('b', 32), now() + '1 hour');"
    "insert into audit_archive (org_id, archive_no, month, first_id, last_id, row_count,"
    " lines_sha256, chain, object_key, size_bytes, object_sha256)"
    " select {org}, 1, '2020-01-01', id, id, 1, digest, sha256(digest),"
    " 'org/{org}/audit/' || repeat('a', 32), 100, sha256('object')"
    " from audit_log, sha256(convert_to(audit_line(audit_log) || chr(10), 'utf8')) as digest"
    " where created_at < '2020-02-01'"
)
# An open link to the portal, and one that was used, with its session.
PORTAL = (
    "insert into portal_link (org_id, customer_id, slot, token_hash, expires_at) values"
    " ({org}, {customer}, 1, sha256('open'), now() + '30 minutes'),"
    " ({org}, {customer}, 2, sha256('used'), now() + '30 minutes');"
    "update portal_link set used_at = now() where slot = 2;"
    "insert into portal_session (org_id, customer_id, link_id, secret_hash, expires_at)"
    " select org_id, customer_id, id, sha256('in'), now() + '1 hour' from portal_link"
    " where slot = 2"
)
CARDS = (
    "insert into stripe_checkout (org_id, sale_id, currency, amount, created_by, expires_at)"
    " values ({org}, {open_sale}, 'USD', 10, {user}, now() + '1 day'),"
    " ({org}, {paid_sale}, 'USD', 11, {user}, now() + '1 day');"
    "update stripe_checkout set status = 'open', session_id = 'cs_open',"
    " url = 'https://checkout.stripe.com/c/pay/cs_open' where sale_id = {open_sale};"
    "select post_payment({org}, {user}, {paid_sale}, 'CARD', null, 11, 'USD', 'pi_scene');"
    "update stripe_checkout set status = 'paid', session_id = 'cs_paid', payment_no = 1,"
    " payment_ref = 'pi_scene', ended_at = now() where sale_id = {paid_sale};"
    "insert into stripe_event (org_id, event_id, type, payload_sha256, checkout_id, payment_ref,"
    " currency, amount) select {org}, 'evt_{org}', 'checkout.session.completed', sha256('e'), id,"
    " 'pi_other', 'USD', 11 from stripe_checkout where status = 'paid';"
    "insert into stripe_customer (org_id, customer_id) select org_id, customer_id from sale"
    " where id = {paid_sale};"
    "update stripe_customer set stripe_ref = 'cus_{org}';"
    "update stripe_event set status = 'error', last_error = 'payment_within_total',"
    " processed_at = now()"
)
ACCOUNT_ROLES = (
    "cash", "bank", "receivable", "inventory", "payables", "tax_payable", "opening_equity",
    "revenue", "discounts", "cogs",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """An organisation under attack, another one beside it, and the ids of what they have."""

    api: Api
    org: Org
    other: Org
    ids: dict[str, int | str]

    def render(self, sql: str) -> str:
        """Put the ids in the place of their `:names`."""
        return NAME.sub(lambda m: str(self.ids[m[1]]), sql)


def refusal(
    psql: Psql, sql: str, *, role: str = "sofinance_app", org: Org | int | None = None
) -> str:
    """Run the statements and COMMIT; return the name of what refused them, "" if nothing did."""
    try:
        psql(sql, role=role, org=org)
    except psycopg.Error as error:
        return name_of(error)
    return ""


def name_of(error: psycopg.Error) -> str:
    """Return the constraint that was broken, or which of the other guards spoke."""
    if error.diag.constraint_name:
        return error.diag.constraint_name
    if error.sqlstate == "42501":
        return ROW_SECURITY if "row-level security" in str(error) else PRIVILEGE
    # The setting was never made, or was made by an earlier transaction of the session: then it
    # reads as an empty string, which is no number.
    if error.sqlstate == "42704" or (
        error.sqlstate == "22P02" and re.search('(bigint|array literal): ""', str(error))
    ):
        return NO_TENANT
    if error.sqlstate == "P0001":
        return error.diag.message_primary or ""
    return error.sqlstate or str(error)


def furnish_jobs(psql: Psql, org: Org) -> None:
    """Let a job have run, and a worker live."""
    psql(
        "select declare_job('scene-job', 'Does nothing.', 86400, 0, 60);"
        "select steer_job('scene-job', 'run'); select beat_runner('scene', '1')",
        org=org,
    )
    claim = psql("select claim_no from claim_job('scene', '{scene-job}')", org=org)[0]
    psql(
        "insert into integrity_event (check_name, severity, broken_count)"
        " values ('scene_check', 'ERROR', 1) on conflict do nothing",
        role="sofinance_owner",
    )
    psql("select write_business_figures('{sales}', '{1h}', '{USD}', '{1}')", org=org)
    psql("select finish_job('scene-job', %s, 'succeeded', 'well')", claim, org=org)


def furnish_backups(psql: Psql, org: Org) -> dict[str, int]:
    """Let there be backups, jobs with them, a confirmation and a drill; return their ids.

    Two are being restored, so that nobody may restore another.
    """
    ids = {}
    for name in ("backup", "spare_backup"):
        ids[name] = psql("select begin_backup('FULL', '/srv/backups')", org=org)[0][0]
        psql(
            "select finish_backup(%s, '/srv/backups', %s, 1000, repeat('0', 64), true, 10, 0,"
            " now())",
            [ids[name], f"{name}_{org.id}.dump.enc"],
            org=org,
        )
    ask, asked = "select ask_backup_task(%s, %s, %s, %s, 2)", [ids["backup"], org.id, org.admin.id]
    for name in ("restore_job", "spare_restore_job"):
        ids[name] = psql(ask, ["CREATE", *asked], org=org)[0][0]
    for _ in range(2):
        psql(ask, ["VERIFY", *asked], org=org)
    psql("select end_backup_task(%s, 'SUCCESS', 'well', null, null)", [ids["restore_job"]], org=org)
    psql(
        "select issue_backup_confirmation(sha256(gen_random_uuid()::text::bytea), %s, %s, %s, 300)",
        asked,
        org=org,
    )
    psql("select record_drill('DUMP', 'backup', '1', now(), null, 1, 1, 10)", org=org)
    return ids


async def furnish(api: Api, org: Org, psql: Psql) -> dict[str, int | str]:
    """Give an organisation one of everything; return the ids by name."""
    shop = await open_shop(api, org)

    async def made(path: str, body: dict[str, Any]) -> int:
        return int((await api.post(path, org, body)).data["id"])

    accounts = {
        role: id_
        for id_, role in psql("select id, role from account where role is not null", org=org)
    }
    ids: dict[str, int | str] = {
        **furnish_backups(psql, org),
        "org": org.id,
        "email": f"'{org.admin.email}'",
        "user": org.admin.id,
        "branch": shop.branch_id,
        "till": shop.till_id,
        "product": shop.product_ids[0],
        "product2": shop.product_ids[1],
        "product3": shop.product_ids[2],
        **{role: accounts[role] for role in ACCOUNT_ROLES},
        "session": psql("select max(id) from user_session", org=org)[0][0],
    }
    cashier = ids["cashier"] = org.member("CASHIER").id
    psql(
        f"insert into org_role (org_id, name) values ({org.id}, 'SHIFT_LEAD');"
        f"insert into role_grant values ({org.id}, 'SHIFT_LEAD', 'sales:read', 'ALLOW'),"
        f" ({org.id}, 'SHIFT_LEAD', 'audit:read', 'DENY');"
        f"insert into user_permission values ({org.id}, {cashier}, 'tax:read', 'DENY');"
        f"insert into user_branch values ({org.id}, {cashier}, {shop.branch_id});"
        f"insert into break_glass (org_id, user_id, reason, token_hash, expires_at) values"
        f" ({org.id}, {org.admin.id}, 'a drill, no fire', sha256('g'), now() + '1 hour');"
        f"insert into flag_override (org_id, flag, branch_id, user_id, percent)"
        f" values ({org.id}, 'scene', null, {org.admin.id}, 100),"
        f" ({org.id}, 'scene', {shop.branch_id}, null, 100);"
        f"insert into notification (org_id, user_id, type, title, dedupe_key)"
        f" values ({org.id}, {org.admin.id}, 'message', 'Scene', 'scene');"
        f"insert into notification_ticket (org_id, token_hash, session_id, expires_at)"
        f" select {org.id}, sha256('w'), max(id), now() + '1 hour' from user_session;"
        f"insert into password_reset (org_id, user_id, slot, token_hash, expires_at)"
        f" values ({org.id}, {cashier}, 1, sha256('r'), now() + '30 minutes');"
        f"insert into api_key (org_id, user_id, name, secret_hash, permissions, expires_at)"
        f" values ({org.id}, {cashier}, 'Key', sha256('k'), '{{sales:read}}', now() + '1 day')",
        org=org,
        role="sofinance_owner",
    )
    clerk = ids["clerk"] = org.member("INVENTORY_CLERK").id
    people = {"org": org.id, "cashier": cashier, "clerk": clerk, "user": org.admin.id}
    psql(IDENTITY.format(**people, till=shop.till_id), role="sofinance_owner", org=org)
    ids["credential"] = psql("select id from till_credential", org=org)[0][0]
    ids["branch2"] = (branch2 := (await api.post("/branches", org, {"name": "Side"})).data)["id"]
    ids["till2"] = branch2["till_id"]
    ids |= staff(org, psql, shop.branch_id)
    ids["category"] = await made("/categories", {"name": "Things"})
    ids["tax_code"] = psql("select id from tax_code where code = 'STD'", org=org)[0][0]
    ids["sample"] = await made(
        "/products",
        {"sku": "S0", "name": "Sample", "price": "0", "cost": "0", "category_id": ids["category"]},
    )
    for branch, product, quantity in (
        (ids["branch"], ids["sample"], "10"),
        (ids["branch2"], ids["product"], "10"),
    ):
        line = {"product_id": product, "quantity": quantity}
        line["unit_cost"] = "0" if product == ids["sample"] else "6"
        receipt = {"branch_id": branch, "kind": "PURCHASE", "lines": [line]}
        name = "free_receipt" if product == ids["sample"] else "receipt"
        ids[name] = await made("/inventory/receipts", receipt)
    ids["customer"] = await made(
        "/customers",
        {"name": "Carla", "email": f"carla.{org.id}@example.com", "credit_limit": "50"},
    )
    ids["blacklisted"] = await made("/customers", {"name": "Bo", "status": "BLACKLISTED"})
    ids["sale"] = (await shop.sell(paid="11.00", key="till-1")).data["id"]
    ids["credit_sale"] = (await shop.sell(paid="1.00", customer_id=ids["customer"])).data["id"]
    ids["settled_sale"] = (await shop.sell(paid="1.00", customer_id=ids["customer"])).data["id"]
    paid = await api.post(f"/sales/{ids['settled_sale']}/payments", org, {"amount": "10.00"})
    assert paid.status == 201, paid.text
    ids["void_sale"] = (await shop.sell(customer_id=ids["customer"])).data["id"]
    void = await api.post(f"/sales/{ids['void_sale']}/void", org, {"reason": "test"})
    assert void.status == 200, void.text
    ids["card_sale"] = (await shop.sell(customer_id=ids["customer"])).data["id"]
    free = {"product_id": ids["sample"], "quantity": "1"}
    ids["free_sale"] = (await shop.sell(free)).data["id"]
    ids["till_payment"], ids["later_payment"] = (
        psql(f"select max(id) from payment where sale_id = {sale}", org=org)[0][0]
        for sale in (ids["sale"], ids["settled_sale"])
    )
    ids["rent"], ids["wages"] = (
        psql(f"select id from account where code = '{code}'", org=org)[0][0]
        for code in ("6000", "6100")
    )
    ids["eur_bank"] = await made(
        "/accounts",
        {"code": "1015", "name": "Euro bank", "type": "ASSET", "currency": "EUR",
         "takes_payments": True},
    )  # fmt: skip
    ids["closed_account"] = await made(
        "/accounts", {"code": "6999", "name": "Closed", "type": "EXPENSE"}
    )
    closed = await api.post(f"/accounts/{ids['closed_account']}/close", org)
    assert closed.status == 200, closed.text
    lines = [
        {"account_id": ids["rent"], "debit": "5.00"},
        {"account_id": ids["cash"], "credit": "5.00"},
    ]
    ids["entry"] = await made("/journal/entries", {"lines": lines})
    ids["reversed_entry"] = await made("/journal/entries", {"lines": lines})
    ids["reversal"] = await made(f"/journal/entries/{ids['reversed_entry']}/reverse", {})
    ids["sale_entry"] = psql(
        f"select id from journal_entry where sale_id = {ids['sale']}", org=org
    )[0][0]
    ids["period"] = psql("select max(id) from accounting_period", org=org)[0][0]
    ids["closed_period"] = await made(
        "/periods", {"starts_on": "2020-01-01", "ends_on": "2020-01-31"}
    )
    closed = await api.post(f"/periods/{ids['closed_period']}/close", org)
    assert closed.status == 200, closed.text
    return {
        **ids,
        **await furnish_files(api, org, psql, ids["customer"]),
        **furnish_cards(org, psql, open_sale=ids["credit_sale"], paid_sale=ids["card_sale"]),
        **furnish_endpoint(psql, org),
    }


def furnish_cards(
    org: Org, psql: Psql, *, open_sale: int | str, paid_sale: int | str
) -> dict[str, int | str]:
    """Let a page at Stripe be open, another one paid, and one payment be refused."""
    sql = CARDS.format(org=org.id, user=org.admin.id, open_sale=open_sale, paid_sale=paid_sale)
    psql(sql, org=org)
    checkout = psql("select id from stripe_checkout where status = 'open'", org=org)[0][0]
    return {"checkout": checkout, "stripe_event": f"evt_{org.id}"}


async def furnish_files(
    api: Api, org: Org, psql: Psql, customer_id: int | str
) -> dict[str, int | str]:
    """Give an organisation a file of a customer, mail, and one who is in the portal and to go."""
    attachment_id = await attach(api, org, customer_id, "old")
    sql = FILES.format(org=org.id, customer=customer_id, user=org.admin.id)
    psql(sql, org=org, role="sofinance_owner")
    psql(OLD_AUDIT.format(org=org.id), org=org, role="sofinance_owner")
    dead = psql("select max(id) from mail where status = 'dead'", org=org)
    psql(PORTAL.format(org=org.id, customer=customer_id), org=org)
    (link, used), *_ = psql("select min(id), max(id) from portal_link", org=org)
    return {
        "attachment": attachment_id, "dead_mail": dead[0][0], "portal_link": link,
        "used_link": used,
    }  # fmt: skip


async def attach(api: Api, org: Org, customer_id: int | str, text: str) -> int:
    """Attach a file to a customer."""
    answer = await api.post(
        f"/attachments?entity=customer&entity_id={customer_id}", org,
        content=(
            '--b\r\nContent-Disposition: form-data; name="file"; filename="note.txt"'
            f"\r\n\r\n{text}\r\n--b--\r\n"
        ).encode(),
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )  # fmt: skip
    return int(answer.data["id"])


def furnish_endpoint(psql: Psql, org: Org) -> dict[str, int | str]:
    """Let an endpoint be there, with a secret, and a message that waits for it."""
    endpoint_id = psql(
        "insert into webhook_endpoint (org_id, slot, url, signature, created_by)"
        f" values ({org.id}, 1, 'https://example.com/hook', 'hmac', {org.admin.id}) returning id",
        org=org,
    )[0][0]
    psql(
        "insert into webhook_secret (org_id, endpoint_id, sealed)"
        f" values ({org.id}, {endpoint_id}, decode(repeat('00', 60), 'hex'));"
        f" select send_test_event({endpoint_id}, '{{}}')",
        org=org,
    )
    delivery_id, event_id = psql("select id, event_id from webhook_delivery", org=org)[0]
    return {"endpoint": endpoint_id, "delivery": delivery_id, "event": event_id}


def staff(org: Org, psql: Psql, branch_id: int) -> dict[str, int | str]:
    """Make those of whom tests.attacks.access tells; return their ids and sessions."""
    owner = "sofinance_owner"

    def made(name: str, role: str, *, all_branches: bool) -> int:
        return int(psql(
            "insert into app_user (org_id, email, password_hash, first_name, last_name, role,"
            " all_branches) values (%s, %s, 'none', 'Una', 'User', %s, %s) returning id",
            [org.id, f"{name}.{org.id}@example.com", role, all_branches], role=owner, org=org,
        )[0][0])  # fmt: skip

    ids: dict[str, int | str] = {
        "rich": (rich := made("rich", "INVENTORY_CLERK", all_branches=True)),
        "packer": (packer := made("packer", "INVENTORY_CLERK", all_branches=False)),
        "local": (local := made("local", "MANAGER", all_branches=False)),
        "manager": org.member("MANAGER").id,
    }
    psql(
        f"insert into user_branch values ({org.id}, {packer}, {branch_id}),"
        f" ({org.id}, {local}, {branch_id});"
        f"insert into user_permission values ({org.id}, {rich}, 'audit:read', 'ALLOW');"
        f"insert into user_session (org_id, user_id, kind, idle_until, expires_at)"
        f" select {org.id}, id, 'password', now() + '1 day', now() + '1 day'"
        f" from unnest(array[{rich}, {local}]) as id;"
        f"insert into api_key (org_id, user_id, name, secret_hash, permissions, expires_at)"
        f" values ({org.id}, {rich}, 'Key', sha256('r'), '{{audit:read}}', now() + '1 day')",
        org=org, role=owner,
    )  # fmt: skip
    for name, user_id in (("manager", ids["manager"]), ("local", local), ("admin", org.admin.id)):
        ids[f"{name}_session"] = psql(
            f"select max(id) from user_session where user_id = {user_id}", org=org
        )[0][0]
    return ids


__all__ = ["Scene", "furnish", "name_of", "refusal", "role_url"]
