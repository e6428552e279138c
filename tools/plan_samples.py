"""What the plans are made with: a value for each parameter, as PostgreSQL reads it from text.

Everything is of organisation 1 in tools/plan_data.sql, the largest. A parameter that may be null is
null unless a query's own sample gives a value.
"""

from __future__ import annotations

CREDIT_SALE = "5185"  # 20.00 of it are open
CASH_SALE = "5012"
MANUAL_ENTRY = "5789"
FIRST_DAY, LAST_DAY, NEW_DAY = "2025-12-02", "2025-12-31", "2025-12-15"
SEALED = "\\x01" + "00" * 52
DIGEST = "\\x" + "00" * 32

COMMON = {
    "org_id": "1", "user_id": "11", "branch_id": "101", "product_id": "1001", "id": "1",
    "limit": "50", "offset": "0", "now": "2025-12-31 12:00Z", "as_of": LAST_DAY,
    "start_date": FIRST_DAY, "end_date": LAST_DAY, "sold_on": NEW_DAY, "posted_on": NEW_DAY,
    "name": "New", "first_name": "New", "last_name": "User", "role": "CASHIER", "code": "NEW",
    "email": "new@example.com", "password_hash": "none", "is_active": "true", "time_zone": "UTC",
    "customer_type": "INDIVIDUAL", "status": "ACTIVE", "rate_percent": "5", "sku": "NEW",
    "cost": "6", "price": "10", "type": "EXPENSE", "takes_payments": "false",
    "starts_on": "2031-01-01", "ends_on": "2031-01-31", "statement_timeout_ms": "5000",
    "lock_timeout_ms": "5000", "expires_at_s": "1800000000",
    "branch_ids": "\\x616c6c", "key_hash": DIGEST, "fingerprint": DIGEST,
}  # fmt: skip

SAMPLES: dict[str, dict[str, str | None]] = {
    "accounts.change_account": {"id": "121"},
    "accounts.close_account": {"id": "121"},
    "accounts.get_account": {"id": "101"},
    "accounts.list_account_entries": {"account_id": "101"},
    "admin.create_break_glass": {
        "reason": "to see a plan", "token_hash": DIGEST, "ttl_minutes": "30",
    },
    "admin.revoke_break_glass": {"revoked_by": "11"},
    "admin.use_break_glass": {"token_hash": DIGEST},
    "audit.list_logs": {"start": "2025-12-02 00:00Z", "end": "2026-01-01 00:00Z"},
    "auth.begin_session": {
        "kind": "password", "has_second_factor": "false", "device": "", "idle_minutes": "480",
        "life_minutes": "1440", "token_hash": DIGEST,
    },
    "auth.create_user": {"all_branches": "false", "must_change_password": "true"},
    "auth.lock_refresh_token": {"session_id": "11100", "token_hash": DIGEST},
    "auth.renew_session": {
        "session_id": "11099", "idle_minutes": "480", "token_hash": "\\x" + "01" * 32,
    },
    "auth.use_refresh_token": {"token_hash": DIGEST},
    "auth.resolve_api_key": {"api_key_id": "111", "secret_hash": DIGEST},
    "auth.resolve_session": {"session_id": "11100"},
    "request.admit": {"session_id": "11100", "access_version": "1"},
    "auth.find_sign_in": {"email": "user1@org1.example"},
    "branches.change_branch": {"id": "101"},
    "branches.get_branch": {"id": "101"},
    "branches.get_business_date": {"branch_id": "101"},
    "bulk.post_entries": {
        "entry_nos": "{1,1,2,2}", "dates": f"{{{NEW_DAY},{NEW_DAY}}}", "memos": "{NULL,NULL}",
        "account_ids": "{101,102,101,102}", "debits": "{5,0,5,0}", "credits": "{0,5,0,5}",
        "descriptions": "{NULL,NULL,NULL,NULL}",
    },
    "catalog.change_category": {"id": "101"},
    "catalog.change_product": {"id": "1001"},
    "catalog.delete_category": {"id": "199"},
    "catalog.get_category": {"id": "101"},
    "catalog.get_product": {"id": "1001"},
    "customers.change_customer": {"id": "1001"},
    "customers.get_balance": {"id": "1296"},
    "customers.get_customer": {"id": "1296"},
    "customers.summarise_receivables": {"id": "1296"},
    "export.allow_pauses": {"pause_ms": "60000"},
    "export.list_accounts": {"after_id": "0"},
    "export.list_entry_lines": {"after_on": "2025-06-01", "after_id": "0", "limit": "500"},
    "inventory.count_stock_levels": {"low_stock_only": "false"},
    "inventory.get_goods_receipt": {"id": "101"},
    "inventory.list_goods_receipt_lines": {"receipt_id": "101"},
    "inventory.list_goods_receipts": {"branch_id": "101"},
    "inventory.list_stock_levels": {"branch_id": "101", "low_stock_only": "false"},
    "inventory.receive_goods": {
        "kind": "PURCHASE", "received_on": NEW_DAY, "product_ids": "{1003,1001,1002}",
        "quantities": "{5,5,5}", "unit_costs": "{6,6,6}",
    },
    "jobs.beat_runner": {"name": "x", "version": "1"},
    "jobs.claim_job": {"runner": "x", "names": "{verify-books}"},
    "jobs.declare_job": {
        "name": "x-job", "description": "x", "every_s": "60", "offset_s": "0", "lease_s": "60",
    },
    "jobs.finish_job": {
        "name": "x-job", "claim_no": "1", "outcome": "succeeded", "told": "x",
    },
    "jobs.forget_job_runs": {"keep_days": "90"},
    "jobs.get_heartbeat": {"ttl_s": "300"},
    "jobs.leave_runner": {"name": "x"},
    "jobs.list_job_runs": {"job": "x-job"},
    "jobs.renew_job": {"name": "x-job", "claim_no": "1"},
    "jobs.steer_job": {"name": "x-job", "action": "pause"},
    "journal.get_entry": {"id": MANUAL_ENTRY},
    "journal.list_entry_lines": {"entry_id": MANUAL_ENTRY},
    "journal.post_entry": {
        "account_ids": "{101,102}", "debits": "{5,0}", "credits": "{0,5}",
        "descriptions": "{NULL,NULL}",
    },
    "journal.reverse_entry": {"id": MANUAL_ENTRY},
    "organisation.change_organisation": {},
    "orgs.create_organisation": {
        "base_currency": "USD", "prices_include_tax": "false", "standard_tax_percent": "10",
        "default_credit_limit": "0", "admin_email": "ada@example.com",
        "admin_password_hash": "none", "admin_first_name": "Ada", "admin_last_name": "Admin",
    },
    "passwords.find_reset": {"token_hash": DIGEST},
    "passwords.open_reset": {"token_hash": DIGEST, "life_minutes": "30"},
    "passwords.use_reset": {"token_hash": DIGEST},
    "payments.list_payments": {"sale_id": CREDIT_SALE, "after_no": "0"},
    "payments.post_payment": {"sale_id": CREDIT_SALE, "method": "CASH", "amount": "5"},
    "periods.close_period": {"id": "101"},
    "periods.get_period": {"id": "101"},
    "periods.reopen_period": {"id": "101"},
    "receivables.age_receivables": {"bucket_days": "{30,60,90}"},
    "request.find_answer": {},
    "request.set_till": {"till_id": "1011"},
    "request.store_answer": {"status": "201", "body": "\\x7b7d"},
    "request.write_audit": {
        "user_id": "11", "action": "\\x61", "entity_type": "\\x61", "entity_id": "1",
        "after": "\\x7b7d", "severity": "\\x494e464f",
    },
    "sales.count_sales": {
        "start_date": FIRST_DAY, "end_date": LAST_DAY, "include_voided": "false",
    },
    "sales.get_sale": {"id": CREDIT_SALE},
    "sales.list_sale_lines": {"sale_id": CREDIT_SALE},
    "sales.list_sales": {"include_voided": "false"},
    "sales.post_sale": {
        "customer_id": "1296", "sold_on": NEW_DAY, "discount": "1", "may_override": "false",
        "product_ids": "{1003,1001,1002}", "quantities": "{1,1,1}",
        "unit_prices": "{NULL,NULL,NULL}", "discounts": "{0,0,0}", "methods": "{CASH,CARD}",
        "currencies": "{NULL,NULL}",
        "account_ids": "{NULL,NULL}", "amounts": "{10,5}", "references": "{NULL,NULL}",
    },
    "sales.void_sale": {"sale_id": CREDIT_SALE, "reason": "by mistake"},
    "sessions.end_session": {"id": "11100", "revoked_why": "sign_out"},
    "sessions.end_sessions": {"revoked_why": "sign_out_all"},
    "sessions.list_sessions": {"session_id": "11100"},
    "second_factor.begin_factor": {"user_id": "15", "secret": SEALED},
    "second_factor.confirm_factor": {"user_id": "15", "last_step": "58817280"},
    "second_factor.create_recovery_codes": {
        "user_id": "15", "code_hashes": "{" + f'"\\{DIGEST}"' + "}"},
    "second_factor.end_other_sessions": {"session_id": "11100"},
    "second_factor.find_reset": {"id": "12", "permissions": "{sales:read}"},
    "second_factor.mark_session": {"session_id": "11100", "has_second_factor": "true"},
    "second_factor.use_recovery_code": {"code_hash": DIGEST},
    "second_factor.use_step": {"last_step": "58817280", "secret": SEALED},
    "tax.change_tax_code": {"id": "11"},
    "tax.get_tax_code": {"id": "11"},
    "tills.clear_pin_tries": {"pin_hash": "$argon2id$none"},
    "tills.create_credential": {"till_id": "1013", "secret_hash": DIGEST, "paired_by": "11"},
    "tills.end_pairing": {"till_id": "1011"},
    "tills.find_cashier": {"user_id": "11"},
    "tills.find_till": {"credential_id": "10111", "secret_hash": DIGEST},
    "tills.issue_pairing_code": {"till_id": "1011", "code_hash": DIGEST, "minutes": "10"},
    "tills.set_pin": {"pin_hash": "$argon2id$none"},
    "tills.use_pairing_code": {"till_id": "1011", "code_hash": DIGEST},
    "tills.void_pairing_code": {"till_id": "1011"},
}  # fmt: skip
