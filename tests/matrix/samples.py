"""One realistic request for each endpoint that somebody has to sign in for.

`:names` stand for rows of the scene (tests/attacks/scene.py), `:unique` for a word that is new each
time. An endpoint without its line here fails the matrix: adding an endpoint means adding a line.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Sample(NamedTuple):
    """A request, and how it is answered when an administrator sends it.

    `names` are the rows in its path, in their order; one with a `=` stands for itself. `refused` is
    the code of a request that is refused by design, whoever sends it; `denied` that of one that
    asks for more than its endpoint demands. `ends_session` asks for a session of its own.
    """

    names: tuple[str, ...] = ()
    body: dict[str, Any] | None = None
    query: dict[str, str] | None = None
    refused: tuple[int, str] | None = None
    denied: tuple[int, str] | None = None
    ends_session: bool = False


def one(name: str, **more: Any) -> Sample:
    """Return a request about one row."""
    return Sample((name,), **more)


NEW = ":unique"
USER = {
    "first_name": "Sam", "last_name": "Sample", "email": ":unique_email", "role": "CASHIER",
}  # fmt: skip
FINAL = (409, "journal_entry_is_final")
RECEIPT_LINE = {"product_id": ":product", "quantity": "1", "unit_cost": "6.00"}
WRONG = (401, "invalid_credentials")
WRONG_CODE = (401, "invalid_code")
NONE_YET = (409, "second_factor_not_begun")
NOT_FOUND = (404, "not_found")
SALE = {
    "branch_id": ":branch", "till_id": ":till", "customer_id": ":customer",
    "items": [{"product_id": ":product", "quantity": "1"}],
    "payments": [{"amount": "11.00", "account_id": ":cash"}],
}  # fmt: skip
ENTRY = {
    "lines": [
        {"account_id": ":rent", "debit": "5.00"}, {"account_id": ":cash", "credit": "5.00"},
    ]
}  # fmt: skip
PRODUCT = {
    "sku": NEW, "name": "Sample", "price": "1.00", "cost": "0.50", "category_id": ":category",
    "tax_code_id": ":tax_code",
}  # fmt: skip

OF_CUSTOMER = {"entity": "customer", "entity_id": ":customer"}
DEAD = (409, "delivery_not_dead")

SAMPLES: dict[str, Sample] = {
    # deliveries
    "GET /admin/export-dead-letter": Sample(),
    "GET /v1/admin/export-dead-letter": Sample(),
    "POST /admin/export-dead-letter/{id}/replay": one("delivery", refused=DEAD),
    "POST /v1/admin/export-dead-letter/{id}/replay": one("delivery", refused=DEAD),
    "GET /webhook-deliveries": Sample(),
    "GET /webhook-deliveries/{id}": one("delivery"),
    "POST /webhook-deliveries/replay": Sample(body={"limit": 10}),
    "POST /webhook-deliveries/{id}/give-up": one("delivery", refused=DEAD),
    "POST /webhook-deliveries/{id}/replay": one("delivery", refused=DEAD),
    "GET /webhook-events": Sample(),
    "GET /webhook-events/{id}": one("event"),
    "POST /webhooks/{id}/test": one("endpoint"),
    # webhooks
    "DELETE /webhooks/{id}": one("spare_endpoint"),
    "GET /webhooks": Sample(),
    "GET /webhooks/{id}": one("endpoint"),
    "POST /webhooks": Sample(body={"url": "https://example.com/hook"}),
    "POST /webhooks/{id}/rotate-secret": one("endpoint", body={}),
    "PUT /webhooks/{id}": one("endpoint", body={"url": "https://example.com/hook"}),
    # accounts
    "POST /accounts": Sample(
        body={"code": NEW, "name": "Rent", "type": "EXPENSE", "branch_id": ":branch"}
    ),
    "GET /accounts": Sample(query={"size": "100"}),
    "GET /accounts/{id}": one("rent"),
    "PATCH /accounts/{id}": one("wages", body={"code": "6100", "name": "Wages"}),
    "POST /accounts/{id}/close": one("closed_account"),
    "GET /accounts/{id}/entries": one("rent"),
    # admin, audit
    "POST /admin/break-glass": Sample(body={"reason": "A good reason for it."}),
    "GET /admin/break-glass": Sample(),
    "DELETE /admin/break-glass/{id}": one("break_glass"),
    "GET /audit/logs": Sample(query={"limit": "100"}),
    "GET /admin/config": Sample(),
    "GET /debug/database-stats": Sample(),
    "GET /debug/version": Sample(),
    # auth, sessions
    "GET /auth/me": Sample(),
    "GET /auth/sessions": Sample(),
    "DELETE /auth/sessions/{id}": one("spare_session"),
    "POST /auth/logout": Sample(ends_session=True),
    "POST /auth/logout-all": Sample(ends_session=True),
    # passwords, second factors; nobody here has a password
    "POST /auth/change-password": Sample(
        body={"current_password": "a guess of mine", "new_password": "another guess of mine"},
        refused=WRONG,
    ),
    "GET /auth/2fa": Sample(),
    "POST /auth/2fa/enroll": Sample(body={"password": "a guess of mine"}, refused=WRONG),
    "POST /auth/2fa/verify": Sample(body={"code": "123456"}, refused=NONE_YET),
    "POST /auth/2fa/recovery-codes": Sample(body={"code": "123456"}, refused=WRONG_CODE),
    "POST /auth/2fa/disable": Sample(
        body={"code": "123456", "password": "a guess of mine"}, refused=WRONG
    ),
    "DELETE /users/{id}/second-factor": one("spare_user", refused=NOT_FOUND),
    # tills
    "POST /auth/pin": Sample(body={"password": "a guess of mine", "pin": "4711"}, refused=WRONG),
    "POST /tills/{id}/pairing-code": one("till"),
    "DELETE /tills/{id}/pairing": one("till"),
    # access: users, roles, permissions, API keys
    "POST /users": Sample(body={**USER, "branch_ids": [":branch"]}),
    "GET /users": Sample(query={"size": "100"}),
    "GET /users/profile": Sample(),
    "PUT /users/profile": Sample(body={"first_name": "Ada", "last_name": "Admin"}),
    "GET /users/{id}": one("spare_user"),
    "PUT /users/{id}": one("spare_user", body={**USER, "all_branches": True}),
    "POST /users/{id}/disable": one("spare_user"),
    "POST /users/{id}/enable": one("spare_user"),
    "POST /users/{id}/reset-password": one("spare_user", body={}),
    "GET /users/{id}/sessions": one("spare_user"),
    "DELETE /users/{id}/sessions": one("spare_user"),
    "GET /roles": Sample(query={"size": "100"}),
    "POST /roles": Sample(body={"name": ":unique_role"}),
    "GET /roles/{name}": one("role"),
    "PUT /roles/{name}": one("role", body={"description": "Of the matrix."}),
    "DELETE /roles/{name}": one("spare_role"),
    "GET /permissions": Sample(),
    "GET /permissions/mine": Sample(),
    "GET /permissions/roles/{role}": one("role"),
    "PUT /permissions/roles/{role}/{permission}": Sample(
        ("role", "=tax:read"), body={"effect": "ALLOW"}
    ),
    "DELETE /permissions/roles/{role}/{permission}": Sample(("role", "=tax:read")),
    "GET /permissions/users/{user_id}": one("spare_user"),
    "PUT /permissions/users/{user_id}/{permission}": Sample(
        ("spare_user", "=tax:read"), body={"type": "ALLOW"}
    ),
    "DELETE /permissions/users/{user_id}/{permission}": Sample(("spare_user", "=tax:read")),
    "POST /api-keys": Sample(
        body={"name": NEW, "permissions": ["products:read"], "branch_ids": [":branch"]}
    ),
    "GET /api-keys": Sample(
        query={"everyone": "true", "user_id": ":spare_user"}, denied=(403, "forbidden")
    ),
    "GET /api-keys/{id}": one("own_key"),
    "POST /api-keys/{id}/rotate": one("own_key", body={}),
    "DELETE /api-keys/{id}": one("spare_key"),
    # flags
    "GET /flags": Sample(),
    "GET /flags/{name}/overrides": one("=pause_jobs"),
    "GET /flags/{name}/evaluate": one("=pause_jobs"),
    "PUT /flags/{name}": one("=pause_jobs", body={"user_id": ":spare_user", "percent": 0}),
    "DELETE /flags/{name}": one("=pause_jobs", query={"branch_id": ":branch"}, refused=NOT_FOUND),
    "PUT /flags/{name}/global": one("=pause_jobs", body={"is_killed": False}),
    # jobs
    "GET /v1/admin/jobs/status": Sample(),
    "GET /admin/jobs/status": Sample(),
    # attachments, of a customer, whom not everybody may see; a file is sent as multipart
    "POST /attachments": Sample(
        query=OF_CUSTOMER, refused=(415, "unsupported_media_type"), denied=(403, "forbidden")
    ),
    "GET /attachments": Sample(query=OF_CUSTOMER, denied=(403, "forbidden")),
    "GET /attachments/{id}": one("attachment", denied=(403, "forbidden")),
    "GET /attachments/{id}/content": one("attachment", denied=(403, "forbidden")),
    "POST /attachments/{id}/signed-url": one("attachment", body={}, denied=(403, "forbidden")),
    "DELETE /attachments/{id}": one("spare_attachment", denied=(403, "forbidden")),
    # integrity_events
    "GET /admin/operator-actions": Sample(query={"limit": "100"}),
    "GET /admin/integrity-events": Sample(query={"limit": "100"}),
    "POST /admin/integrity-events/{id}/acknowledge": one("integrity_event", body={}),
    # retention
    "POST /admin/cleanup": Sample(body={}),
    "POST /v1/admin/cleanup": Sample(body={}),
    "POST /admin/retention/cleanup": Sample(body={}),
    "POST /v1/admin/retention/cleanup": Sample(body={}),
    "POST /admin/data/export": Sample(body={"customer_id": ":customer"}),
    "POST /admin/data-deletion/requests": Sample(
        body={"customer_id": ":customer", "reason": "asked by letter"},
        refused=(409, "data_deletion_request_open_once"),
    ),
    # mail
    "POST /admin/email-scan": Sample(body={}),
    "POST /v1/admin/email-scan": Sample(body={}),
    "GET /admin/mail/dead-letter": Sample(),
    "POST /admin/mail/{id}/replay": one("dead_mail"),
    "POST /admin/mail/blocks": Sample(body={"email": ":unique_email"}),
    "POST /admin/mail/unblock": Sample(body={"email": ":blocked_email"}),
    # branches
    "POST /branches": Sample(body={"name": NEW}),
    "GET /branches": Sample(query={"size": "100"}),
    "GET /branches/{id}": one("branch"),
    "PUT /branches/{id}": one("branch", body={"name": "MARK-branch"}),
    "POST /branches/{id}/tills": one("branch", body={"name": NEW}),
    "GET /branches/{id}/tills": one("branch"),
    # catalogue
    "POST /categories": Sample(body={"name": NEW}),
    "GET /categories": Sample(query={"size": "100"}),
    "GET /categories/{id}": one("category"),
    "PUT /categories/{id}": one("category", body={"name": NEW}),
    "DELETE /categories/{id}": one("spare_category"),
    "POST /products": Sample(body=PRODUCT),
    "GET /products": Sample(query={"size": "100", "category_id": ":category"}),
    "GET /products/{id}": one("product"),
    "PUT /products/{id}": one("product3", body=PRODUCT),
    # customers
    "POST /customers": Sample(body={"name": "Carla"}),
    "GET /customers": Sample(query={"size": "100"}),
    "GET /customers/{id}": one("customer"),
    "PUT /customers/{id}": one("blacklisted", body={"name": "Bo"}),
    "GET /customers/{id}/balance": one("customer"),
    "GET /customers/{id}/ar/summary": one("customer"),
    # portal; nobody has an address of this one
    "POST /customers/{id}/portal-links": one(
        "blacklisted", body={}, refused=(409, "customer_not_reachable")
    ),
    "GET /customers/{id}/portal-links": one("customer"),
    "DELETE /customers/{id}/portal-sessions": one("blacklisted"),
    # inventory
    "POST /inventory/receipts": Sample(
        body={"branch_id": ":branch", "kind": "PURCHASE", "lines": [RECEIPT_LINE]}
    ),
    "GET /inventory/receipts": Sample(query={"branch_id": ":branch"}),
    "GET /inventory/receipts/{id}": one("free_receipt"),
    "GET /inventory/stock-levels": Sample(
        query={"branch_id": ":branch", "product_id": ":product", "size": "100"}
    ),
    "GET /inventory/movements": Sample(query={"branch_id": ":branch", "product_id": ":product"}),
    # journal
    "POST /journal/entries": Sample(body=ENTRY),
    "GET /journal/entries": Sample(query={"size": "100"}),
    "GET /journal/entries/{id}": one("entry"),
    "POST /journal/entries/{id}/reverse": one("spare_entry", body={}),
    "PUT /journal/entries/{id}": one("entry", refused=FINAL),
    "DELETE /journal/entries/{id}": one("entry", refused=FINAL),
    "GET /journal/trial-balance": Sample(),
    # notifications, by their number within a user
    "GET /notifications": Sample(query={"limit": "100"}),
    "GET /notifications/unread/count": Sample(),
    "GET /notifications/{id}": one("=1"),
    "PUT /notifications/{id}/read": one("=1"),
    "DELETE /notifications/{id}": one("=999", refused=NOT_FOUND),
    "PUT /notifications/mark-all-read": Sample(),
    "POST /notifications/ws-ticket": Sample(),
    "POST /notifications/send": Sample(body={"user_ids": [":spare_user"], "title": "Sample"}),
    # organisation
    "GET /organisation": Sample(),
    "PATCH /organisation": Sample(body={"default_credit_limit": "1000.00"}),
    # billing
    "GET /payments/stripe/events": Sample(query={"status": "error"}),
    "POST /payments/stripe/events/{event}/retry": one("stripe_event"),
    "POST /payments/stripe/events/{event}/settle": one(
        "done_event", body={"note": NEW}, refused=(409, "stripe_event_done_stays")
    ),
    "POST /customers/{id}/billing-portal": one("customer", refused=(409, "card_payments_off")),
    "POST /sales/{id}/checkout": one("credit_sale", refused=(409, "card_payments_off")),
    # payments, receivables
    "POST /sales/{id}/payments": one("credit_sale", body={"amount": "0.01"}),
    "GET /sales/{id}/payments": one("credit_sale"),
    "GET /sales/ar/summary": Sample(),
    "GET /sales/ar/aging": Sample(),
    # periods
    "POST /periods": Sample(body={"starts_on": "2019-01-01", "ends_on": "2019-01-31"}),
    "GET /periods": Sample(query={"size": "100"}),
    "GET /periods/{id}": one("period"),
    "POST /periods/{id}/close": one("closed_period"),
    "POST /periods/{id}/reopen": one("closed_period"),
    # sales
    "POST /sales": Sample(body=SALE),
    "GET /sales": Sample(query={"size": "100", "branch_id": ":branch", "customer_id": ":customer"}),
    "GET /sales/summary": Sample(query={"branch_id": ":branch"}),
    "GET /sales/today/summary": Sample(query={"branch_id": ":branch"}),
    "GET /sales/{id}": one("sale"),
    "GET /sales/{id}/receipt": one("sale"),
    "POST /sales/{id}/void": one("spare_sale", body={"reason": "A mistake."}),
    # system
    "GET /system/info": Sample(),
    "GET /system/stats": Sample(),
    "GET /system/backups": Sample(query={"size": "100"}),
    "GET /system/backups/stats": Sample(),
    "GET /system/backups/{id}": one("backup"),
    "GET /system/backups/{id}/download": one("backup", refused=(409, "backup_elsewhere")),
    "POST /system/backups": Sample(),
    "POST /system/backup/create": Sample(),
    "DELETE /system/backups/{id}": one("spare_backup"),
    "POST /system/backups/{id}/verify": one("backup", refused=(429, "restore_jobs_busy")),
    "POST /system/backups/{id}/restore": one("backup", refused=(429, "restore_jobs_busy")),
    "POST /system/backups/{id}/restore/async": one("backup", refused=(429, "restore_jobs_busy")),
    "POST /system/restore/confirm-token": Sample(body={"backup_id": ":backup"}),
    "GET /system/restore-jobs": Sample(query={"size": "100"}),
    "GET /system/restore-jobs/{id}": one("restore_job"),
    "POST /system/restore-jobs/{id}/cancel": one("spare_restore_job"),
    "GET /system/drills": Sample(),
    # tax codes
    "POST /tax-codes": Sample(body={"code": NEW, "name": "Reduced", "rate_percent": "5"}),
    "GET /tax-codes": Sample(query={"size": "100"}),
    "GET /tax-codes/{id}": one("tax_code"),
    "PUT /tax-codes/{id}": one("tax_code", body={"code": "STD", "name": "S", "rate_percent": "10"}),
}
