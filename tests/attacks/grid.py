"""Who may do what to which table: declared here, tried in test_grid.py, verb by verb.

A table that is not here fails the suite, and so does one that allows more or less than it says.
"""

from __future__ import annotations

from typing import NamedTuple

VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")


class Rights(NamedTuple):
    """What a table allows."""

    app: tuple[str, ...]  # to the application, in its own organisation
    is_final: bool = False  # to nobody: no UPDATE, DELETE or TRUNCATE, the owner included
    readonly: bool = True  # to reports: SELECT


READ = ("SELECT",)
WRITE_ONCE = ("SELECT", "INSERT")
KEEP = ("SELECT", "INSERT", "UPDATE")

TENANT_TABLES = {
    "organisation": Rights(("SELECT", "UPDATE")),
    "app_user": Rights(KEEP),
    "branch": Rights(KEEP),
    "till": Rights(KEEP),
    "tax_code": Rights(KEEP),
    "category": Rights((*KEEP, "DELETE")),
    "product": Rights(KEEP),
    "customer": Rights(KEEP),
    "account": Rights(KEEP),
    "accounting_period": Rights(KEEP),
    "journal_entry": Rights(WRITE_ONCE, is_final=True),
    "journal_line": Rights(WRITE_ONCE, is_final=True),
    "stock": Rights(KEEP),
    "goods_receipt": Rights(WRITE_ONCE, is_final=True),
    "goods_receipt_line": Rights(WRITE_ONCE, is_final=True),
    "stock_movement": Rights(WRITE_ONCE, is_final=True),
    "sale": Rights(WRITE_ONCE, is_final=True),
    "sale_line": Rights(WRITE_ONCE, is_final=True),
    "payment": Rights(WRITE_ONCE, is_final=True),
    "sale_void": Rights(WRITE_ONCE, is_final=True),
    "receivable": Rights(READ),
    "idempotency_key": Rights((*KEEP, "DELETE"), readonly=False),
    "audit_log": Rights(WRITE_ONCE, is_final=True),
    "balance_roll_up": Rights(READ),
    "account_day": Rights(READ),
    "org_role": Rights((*KEEP, "DELETE")),
    "role_grant": Rights((*KEEP, "DELETE")),
    "user_permission": Rights((*KEEP, "DELETE")),
    "user_branch": Rights(("SELECT", "INSERT", "DELETE")),
    "user_session": Rights((*KEEP, "DELETE")),
    "refresh_token": Rights(KEEP),
    "api_key": Rights(KEEP),
    "break_glass": Rights(KEEP),
    "user_totp": Rights((*KEEP, "DELETE")),
    "recovery_code": Rights((*KEEP, "DELETE")),
    "till_pairing_code": Rights(KEEP),
    "till_credential": Rights(KEEP),
    "user_pin": Rights(KEEP),
    "password_reset": Rights(KEEP),
    "flag_override": Rights((*KEEP, "DELETE")),
    "attachment": Rights(("SELECT", "INSERT", "DELETE")),
    "attachment_usage": Rights(READ),
    "storage_tombstone": Rights((*KEEP, "DELETE")),
    "signed_url_use": Rights(("SELECT", "INSERT", "DELETE")),
    "event": Rights(READ),
    "webhook_endpoint": Rights((*KEEP, "DELETE")),
    "webhook_secret": Rights((*KEEP, "DELETE"), readonly=False),
    "webhook_delivery": Rights(READ),
}
# Row security by branch as well, for the application: which column says the branch.
BRANCH_TABLES = {
    "branch": "id",
    "till": "branch_id",
    "stock": "branch_id",
    "goods_receipt": "branch_id",
    "stock_movement": "branch_id",
    "sale": "branch_id",
    "account": "branch_id",
    "flag_override": "branch_id",
}
FINAL_RULES = (
    "journal_entry_is_final",
    "journal_line_is_final",
    "goods_receipt_is_final",
    "goods_receipt_line_is_final",
    "stock_movement_is_final",
    "sale_is_final",
    "sale_line_is_final",
    "payment_is_final",
    "sale_void_is_final",
    "audit_log_is_final",
)
# Without an organisation: why each needs none.
OTHER_TABLES = {
    "sign_in_address": "asked before the organisation is known; nobody but the owner reads it",
    "permission": "the same for everybody; nobody but the owner writes it",
    "role_permission": "the same for everybody; nobody but the owner writes it",
    "job": "of the server; functions change it",
    "job_run": "of the server; functions change it",
    "job_runner": "of the server; functions change it",
    "flag": "of the server; functions change it",
    "outbox_event": "asked by workers for every organisation; nobody but the owner reads it",
    "webhook_lane": "asked by workers for every organisation; nobody but the owner reads it",
    "webhook_circuit": "asked by workers for every organisation; nobody but the owner reads it",
}
# Of those, what neither the application nor reports may read.
OWNERS_TABLES = {"sign_in_address", "outbox_event", "webhook_lane", "webhook_circuit"}
OTHER_TABLES_COLUMN = {
    "sign_in_address": "email",
    "permission": "name",
    "role_permission": "role",
    "job": "name",
    "job_run": "job",
    "job_runner": "name",
    "flag": "name",
    "outbox_event": "type",
    "webhook_lane": "aggregate",
    "webhook_circuit": "org_id",
}
# Columns that the application may write and that no check needs to hold against NaN.
NUMBERS_BOUND_OTHERWISE = {
    ("tax_code", "rate_percent"): "tax_code_rate_in_range: between 0 and 100",
    ("payment", "sale_total"): "payment_sale_known: the sale's",
    ("payment", "sale_paid"): "payment_sale_known: the sale's",
    ("payment", "paid_before"): "payment_follows: the payment's before",
    ("payment", "amount"): "payment_within_total: NaN is above any total",
    ("sale_line", "tax_rate_percent"): "sale_line_priced_from_catalogue: the tax code's",
}
# What runs with the owner's rights; each looks only at the organisation of the row or of the
# transaction, but for the three that say that they cross organisations.
DEFINERS = {
    "account_closes_at_zero": "rule",
    "customer_credit_limit": "rule",
    "goods_receipt_entry_matches": "rule",
    "goods_receipt_stock_matches": "rule",
    "goods_receipt_total_matches_lines": "rule",
    "journal_entry_accounts_open": "rule",
    "journal_entry_balances": "rule",
    "journal_entry_is_expected": "rule",
    "journal_entry_period_open": "rule",
    "journal_entry_spares_control_accounts": "rule",
    "journal_reversal_mirrors": "rule",
    "payment_entry_matches": "rule",
    "payment_sale_not_void": "rule",
    "sale_entry_matches": "rule",
    "sale_line_priced_from_catalogue": "rule",
    "sale_payments_match": "rule",
    "sale_stock_matches": "rule",
    "sale_total_matches_lines": "rule",
    "sale_void_entry_matches": "rule",
    "sale_void_stock_matches": "rule",
    "stock_movement_is_its_documents": "rule",
    "stock_follows_movements": "writes stock",
    "receivable_follows": "writes receivables",
    "sale_counts_on_its_till": "writes receipt counts",
    "remember_sign_in_address": "writes sign_in_address",
    "sale_void_waits": "locks the sale",
    "lock_sale": "locks a sale of the transaction's organisation",
    "mark_roll_up": "writes the snapshots of the transaction's organisation",
    "roll_up_balances": "writes the snapshots of the transaction's organisation",
    "rebuild_balances": "writes the snapshots of the transaction's organisation",
    "create_organisation": "crosses organisations: makes a new one",
    "count_user_change": "counts a change of access",
    "count_access_change": "counts a change of access",
    "count_role_change": "counts a change of access",
    "app_user_disabled_ends": "ends the sessions and keys of a disabled user",
    "app_user_closes_resets": "closes the links of a changed user",
    "attachment_counted": "counts the files of the row's organisation",
    "find_sign_in": "crosses organisations: where an address signs in",
    "list_organisation_ids": "crosses organisations: their numbers",
    "declare_job": "writes jobs, which belong to no organisation",
    "claim_job": "writes jobs, which belong to no organisation",
    "renew_job": "writes jobs, which belong to no organisation",
    "finish_job": "writes jobs, which belong to no organisation",
    "steer_job": "writes jobs, which belong to no organisation",
    "beat_runner": "writes workers, which belong to no organisation",
    "leave_runner": "writes workers, which belong to no organisation",
    "note_flags": "writes flags, which belong to no organisation",
    "set_flag": "writes flags, which belong to no organisation",
    "retire_flag": "writes flags, which belong to no organisation",
    "forget_job_runs": "writes runs of jobs, which belong to no organisation",
    "write_event": "writes the outbox",
    "write_sale_voided": "writes the outbox",
    "write_payment_posted": "writes the outbox",
    "webhook_endpoint_has_a_circuit": "writes the queue",
    "list_outboxes": "crosses organisations: which have events; their numbers",
    "take_events": "works inside the transaction's organisation: empties its outbox",
    "store_events": "works inside the transaction's organisation: writes events and deliveries",
    "send_test_event": "works inside the transaction's organisation: writes an event",
    "claim_deliveries": "crosses organisations: what is due; numbers",
    "settle_deliveries": "works inside the transaction's organisation: writes deliveries",
    "replay_deliveries": "works inside the transaction's organisation: writes deliveries",
    "give_up_delivery": "works inside the transaction's organisation: writes deliveries",
    "forget_events": "works inside the transaction's organisation: deletes old events",
    "read_outbox": "crosses organisations: how much waits; numbers",
    "list_circuits": "crosses organisations: how endpoints do; numbers",
}
# Triggers that do work and refuse nothing.
WORKING_TRIGGERS = {
    "account_version_counted",
    "attachment_counted",
    "attachment_leaves_tombstone",
    "sale_is_told",
    "sale_void_is_told",
    "payment_is_told",
    "goods_receipt_is_told",
    "journal_entry_is_told",
    "customer_is_told",
    "customer_change_is_told",
    "product_is_told",
    "product_change_is_told",
    "accounting_period_closing_is_told",
    "accounting_period_reopening_is_told",
    "webhook_endpoint_has_a_circuit",
    "webhook_endpoint_version_counted",
    "accounting_period_version_counted",
    "app_user_address_known",
    "app_user_access_counted",
    "role_grant_counted",
    "user_branch_counted",
    "user_permission_counted",
    "app_user_version_counted",
    "app_user_closes_resets",
    "app_user_disabled_ends",
    "org_role_version_counted",
    "branch_version_counted",
    "category_version_counted",
    "customer_version_counted",
    "organisation_version_counted",
    "product_version_counted",
    "receivable_follows",
    "sale_counts_on_its_till",
    "sale_void_waits",
    "tax_code_version_counted",
    "till_credential_ends_sessions",
    "user_totp_confirmation_counted",
    "user_totp_counted",
    "till_version_counted",
}

# The application's role tries to become more than it is.
POWERS = {
    "Create a table": "create table loot (id bigint)",
    "Create a function": "create function loot() returns int language sql as 'select 1'",
    "Create a schema": "create schema loot",
    "Add a column": "alter table sale add column loot text",
    "Drop a table": "drop table journal_line",
    "Drop a constraint": "alter table journal_line drop constraint journal_line_one_sided",
    "Drop an index": "drop index journal_entry_sale_once",
    "Disable a trigger": "alter table journal_line disable trigger journal_line_is_final",
    "Disable all triggers": "alter table journal_line disable trigger all",
    "Drop a trigger": "drop trigger journal_line_is_final on journal_line",
    "Add a trigger": "create trigger loot before insert on journal_line for each row"
    " execute function suppress_redundant_updates_trigger()",
    "Replace a rule's function": "create or replace function journal_entry_balances()"
    " returns trigger language plpgsql as 'begin return null; end'",
    "Disable row security": "alter table sale disable row level security",
    "Add a policy": "create policy loot on sale using (true)",
    "Drop a policy": "drop policy org on sale",
    "Silence triggers": "set session_replication_role = replica",
    "Become the owner": "set role sofinance_owner",
    "Become the backup": "set role sofinance_backup",
    "Become a superuser": "alter role sofinance_app superuser",
    "Run a rule's function": "select receivable_follows()",
    "Reset a receipt sequence": "select setval('sale_id_seq', 1)",
    "Read the server's files": "select pg_read_file('/etc/passwd')",
    "Run a program": "copy (select 1) to program 'true'",
    "Read passwords": "select rolpassword from pg_authid",
}
