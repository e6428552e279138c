"""The attacks on the rules of single rows: names, currencies, bounds, links, and who may not be.

Each begins with a row that would be accepted and breaks one thing in it. What the application has
no right to write at all is tried as the owner of the tables, so that the rule itself is seen.
"""

from __future__ import annotations

from tests.attacks.forgery import SEALED, TODAY, Attack, Columns, insert

OWNER = "sofinance_owner"
OPERATOR_DID = "insert into operator_action (action, subject, after, who"
LONG = "repeat('x', 2001)"
# An organisation that does not exist, and its tenant: row security has nothing against it.
NOBODY = "select set_config('app.org_id', '0', true);\n"

# Of a scene: an upload whose row is still to come.
FILE = "'org/' || :org || '/attachments/' || repeat('b', 32)"

# Of a scene: what of the audit log is old enough to be archived, and an object that waits for it.
OLD = "from audit_log where created_at < '2020-03-01'"
LINES = (
    "(select sha256(convert_to(string_agg(audit_line(audit_log) || chr(10), '' order by id),"
    f" 'utf8')) {OLD})"
)
ARCHIVE = "'org/' || :org || '/audit/' || repeat('b', 32)"

ROWS: dict[str, Columns] = {
    "account": {"code": "'7777'", "name": "'New'", "type": "'ASSET'", "currency": "'USD'"},
    "accounting_period": {"starts_on": "'2019-01-01'", "ends_on": "'2019-01-31'"},
    "app_user": {
        "email": "'new@example.com'",
        "password_hash": "'x'",
        "first_name": "'A'",
        "last_name": "'B'",
        "role": "'CASHIER'",
    },
    "audit_log": {"action": "'a'", "entity_type": "'b'"},
    "audit_archive": {
        "archive_no": "2",
        "month": "'2020-02-01'",
        "first_id": f"(select min(id) {OLD})",
        "last_id": f"(select max(id) {OLD})",
        "row_count": f"(select count(*) {OLD})",
        "lines_sha256": LINES,
        "chain": f"(select sha256(chain || {LINES}) from audit_archive where archive_no = 1)",
        "object_key": ARCHIVE,
        "size_bytes": "100",
        "object_sha256": "sha256('object')",
    },
    "data_deletion_request": {
        "customer_id": ":blacklisted",
        "reason": "'asked by letter'",
        "requested_by": ":user",
    },
    "mail": {
        "dedupe_key": "'low-stock:2'",
        "kind": "'low_stock'",
        "recipient": "'m@example.com'",
        "subject": "'Low'",
        "body": "'Low.'",
    },
    "stripe_customer": {"customer_id": ":blacklisted"},
    "stripe_checkout": {
        "sale_id": ":credit_sale",
        "currency": "'USD'",
        "amount": "10",
        "created_by": ":user",
        "expires_at": "now() + '1 day'",
    },
    "stripe_event": {
        "event_id": "'evt_new'",
        "type": "'checkout.session.completed'",
        "payload_sha256": "sha256('new')",
        "checkout_id": ":checkout",
    },
    "mail_block": {"address": "'n@example.com'", "reason": "'invalid'"},
    "attachment": {
        "customer_id": ":customer",
        "object_key": FILE,
        "filename": "'new.pdf'",
        "content_type": "'application/pdf'",
        "size_bytes": "10",
        "sha256": "sha256('new')",
        "created_by": ":user",
    },
    "portal_link": {
        "customer_id": ":customer",
        "slot": "3",
        "token_hash": "sha256('n')",
        "expires_at": "now() + '30 minutes'",
    },
    "portal_session": {
        "customer_id": ":customer",
        "link_id": ":portal_link",
        "secret_hash": "sha256('n')",
        "expires_at": "now() + '1 hour'",
    },
    "attachment_usage": {},
    "signed_url_use": {"token_id": r"decode(repeat('01', 16), 'hex')", "expires_at": "now()"},
    "storage_tombstone": {
        "object_key": "'org/' || :org || '/attachments/' || repeat('d', 32)",
        "due_at": "now()",
    },
    "api_key": {
        "user_id": ":cashier",
        "name": "'New'",
        "secret_hash": "sha256('n')",
        "permissions": "'{sales:read}'",
        "expires_at": "now() + '1 day'",
    },
    "branch": {"name": "'New'", "time_zone": "'UTC'"},
    "break_glass": {
        "user_id": ":user",
        "reason": "'the server is on fire'",
        "token_hash": "sha256('n')",
        "expires_at": "now() + interval '30 minutes'",
    },
    "category": {"name": "'New'"},
    "customer": {"name": "'New'", "currency": "'USD'", "credit_limit": "0"},
    "flag_override": {"flag": "'new'", "user_id": ":user", "percent": "100"},
    "goods_receipt": {},
    "idempotency_key": {
        "key_hash": "sha256('k')",
        "fingerprint": "sha256('f')",
        "expires_at": "now()",
    },
    "notification": {"user_id": ":user", "type": "'message'", "title": "'New'"},
    "notification_inbox": {"user_id": ":cashier", "last_id": "1"},
    "notification_ticket": {
        "token_hash": "sha256('n')",
        "session_id": ":session",
        "expires_at": "now() + '1 minute'",
    },
    "org_role": {"name": "'NEW'"},
    "product": {
        "sku": "'NEW'",
        "name": "'New'",
        "tax_code_id": ":tax_code",
        "currency": "'USD'",
        "cost": "1",
        "price": "2",
    },
    "refresh_token": {"token_hash": "sha256('n')", "session_id": ":session"},
    "password_reset": {
        "user_id": ":cashier",
        "slot": "2",
        "token_hash": "sha256('n')",
        "expires_at": "now() + '30 minutes'",
    },
    "role_grant": {"role": "'CASHIER'", "permission": "'sales:void'", "effect": "'ALLOW'"},
    "user_branch": {"user_id": ":user", "branch_id": ":branch"},
    "user_permission": {"user_id": ":user", "permission": "'tax:write'", "effect": "'DENY'"},
    "recovery_code": {"user_id": ":clerk", "code_no": "3", "code_hash": "sha256('3')"},
    "till_credential": {
        "till_id": ":till2",
        "secret_hash": "sha256('n')",
        "paired_by": ":user",
    },
    "till_pairing_code": {
        "till_id": ":till2",
        "code_hash": "sha256('n')",
        "issued_by": ":user",
        "expires_at": "now() + '1 minute'",
    },
    "user_pin": {"user_id": ":user", "pin_hash": "'$argon2id$n'"},
    "user_totp": {"user_id": ":user", "secret": SEALED},
    "user_session": {
        "user_id": ":cashier",
        "kind": "'password'",
        "idle_until": "now() + '1 hour'",
        "expires_at": "now() + '1 day'",
    },
    "receivable": {
        "sale_id": ":free_sale",
        "customer_id": ":customer",
        "currency": "'USD'",
        "sold_on": TODAY,
        "amount": "1",
    },
    "stock": {"branch_id": ":branch2", "product_id": ":product3", "currency": "'USD'"},
    "stock_movement": {
        "branch_id": ":branch",
        "product_id": ":product",
        "currency": "'USD'",
        "quantity": "1",
        "value": "6",
    },
    "tax_code": {"code": "'NEW'", "name": "'New'", "rate_percent": "5"},
    "till": {"branch_id": ":branch", "name": "'New'"},
    "account_day": {"account_id": ":wages", "posted_on": TODAY, "debit": "0", "credit": "0"},
    "balance_roll_up": {},
}


def row(what: str, refused_by: str, table: str, role: str = "sofinance_app", **bad: str) -> Attack:
    """Return the attack that inserts the table's row with something bad in it."""
    # `role` is also a column: written role_ there.
    values = {name.rstrip("_"): value for name, value in bad.items()}
    return Attack(
        what, refused_by, insert(table, {"org_id": ":org", **ROWS[table], **values}), role
    )


def change(what: str, refused_by: str, sql: str, role: str = "sofinance_app") -> Attack:
    """Return the attack that changes rows."""
    return Attack(what, refused_by, sql + ";\n", role)


def of_nobody(table: str, role: str = "sofinance_app") -> Attack:
    """Return the attack that gives a row to an organisation that does not exist."""
    return Attack(
        f"A row of {table} for an organisation that does not exist",
        f"{table}_organisation_known",
        NOBODY + insert(table, {"org_id": "0", **ROWS[table]}),
        role,
    )


MASTER_DATA = (
    # -- organisations and users --
    change(
        "A credit limit that is not a number, for all customers to come",
        "organisation_amounts_are_numbers",
        "update organisation set default_credit_limit = 'NaN'",
    ),
    change(
        "Books in another currency from now on",
        "organisation_currency_is_fixed",
        "update organisation set base_currency = 'EUR'",
        OWNER,
    ),
    change(
        "A negative credit limit for all customers to come",
        "organisation_credit_limit_not_negative",
        "update organisation set default_credit_limit = -1",
    ),
    change(
        "An organisation without a name",
        "organisation_name_not_empty",
        "update organisation set name = ' '",
    ),
    change(
        "An organisation with a currency that is none",
        "organisation_currency_is_iso",
        "select create_organisation('A', 'usd', 'UTC', false, 5, 0, 'a@b.example', 'x', 'A', 'B')",
    ),
    change(
        "An organisation's currency changed under its books",
        "privilege",
        "update organisation set base_currency = 'EUR'",
    ),
    row("A role that there is not", "app_user_role_known", "app_user", role_="'KING'"),
    row(
        "An administrator who has some branches only",
        "app_user_admin_has_all_branches",
        "app_user",
        role_="'ADMIN'",
    ),
    row(
        "A permission that there is not, for a role",
        "role_grant_permission_known",
        "role_grant",
        permission="'sales:steal'",
    ),
    row(
        "A role without the organisation's knowledge",
        "role_grant_role_known",
        "role_grant",
        role_="'KING'",
    ),
    row("An administrator who may not", "role_grant_spares_admin", "role_grant", role_="'ADMIN'"),
    row(
        "An effect that is none, for a role",
        "role_grant_effect_known",
        "role_grant",
        effect="'MAYBE'",
    ),
    row(
        "A permission that there is not, for a user",
        "user_permission_permission_known",
        "user_permission",
        permission="'sales:steal'",
    ),
    row("A permission for nobody", "user_permission_user_known", "user_permission", user_id="0"),
    row(
        "An effect that is none, for a user",
        "user_permission_effect_known",
        "user_permission",
        effect="'MAYBE'",
    ),
    row("A branch for nobody", "user_branch_user_known", "user_branch", user_id="0"),
    row(
        "Another organisation's branch for a user",
        "user_branch_branch_known",
        "user_branch",
        branch_id=":other_branch",
    ),
    row("A role that there is already", "org_role_pk", "org_role", name="'SHIFT_LEAD'"),
    row("A role in small letters", "org_role_name_form", "org_role", name="'king'"),
    row(
        "A role that is described at length",
        "org_role_description_not_long",
        "org_role",
        description=LONG,
    ),
    row(
        "A role that says it is built in",
        "org_role_built_in_is_known",
        "org_role",
        OWNER,
        is_built_in="true",
    ),
    row(
        "A role that says it is built in, by the application",
        "privilege",
        "org_role",
        is_built_in="true",
    ),
    change(
        "A built-in role deleted",
        "org_role_built_in_stays",
        "delete from org_role where name = 'ACCOUNTANT'",
    ),
    of_nobody("org_role"),
    change(
        "A permission made up",
        "permission_form",
        "insert into permission values ('all', 'Everything.')",
        OWNER,
    ),
    change(
        "A permission that says nothing",
        "permission_described",
        "insert into permission values ('a:b', '')",
        OWNER,
    ),
    change(
        "A permission twice",
        "permission_pk",
        "insert into permission values ('sales:read', 'Again.')",
        OWNER,
    ),
    change(
        "A built-in role with a permission that there is not",
        "role_permission_permission_known",
        "insert into role_permission values ('CASHIER', 'sales:steal')",
        OWNER,
    ),
    change(
        "One's own access made to look unchanged",
        "privilege",
        "update app_user set access_version = 1",
    ),
    # -- sessions and keys --
    row("A session of nobody", "user_session_user_known", "user_session", user_id="0"),
    row(
        "A session at a till that there is not",
        "user_session_till_known",
        "user_session",
        kind="'till'",
        till_id="0",
    ),
    row("A session of another kind", "user_session_kind_known", "user_session", kind="'magic'"),
    row(
        "A session by PIN without a till",
        "user_session_till_matches_kind",
        "user_session",
        kind="'till'",
    ),
    row("A device with a long name", "user_session_device_not_long", "user_session", device=LONG),
    row(
        "A session that ended before it began",
        "user_session_ends",
        "user_session",
        expires_at="now() - interval '1 day'",
        idle_until="now() - interval '1 day'",
    ),
    row(
        "A session that is idle for longer than it lasts",
        "user_session_ends",
        "user_session",
        idle_until="now() + interval '2 days'",
    ),
    change(
        "A session ended without a reason",
        "user_session_revoked_with_reason",
        "update user_session set revoked_at = now() where id = :session",
    ),
    change(
        "A session ended for a reason that is none",
        "user_session_reason_known",
        "update user_session set revoked_at = now(), revoked_why = 'so' where id = :session",
    ),
    change(
        "A session prolonged",
        "privilege",
        "update user_session set expires_at = now() + interval '9 years'",
    ),
    change(
        "A session handed to somebody else", "privilege", "update user_session set user_id = :user"
    ),
    row(
        "A refresh token of no session",
        "refresh_token_session_known",
        "refresh_token",
        session_id="0",
    ),
    row(
        "A refresh token in clear",
        "refresh_token_is_digest",
        "refresh_token",
        token_hash="'secret'",
    ),
    row("A second live refresh token", "refresh_token_unused_once", "refresh_token"),
    change(
        "A refresh token moved to another session",
        "privilege",
        "update refresh_token set session_id = session_id",
    ),
    row("A glass broken by nobody", "break_glass_user_known", "break_glass", user_id="0"),
    row("A glass broken for no reason", "break_glass_reason_given", "break_glass", reason="' '"),
    row("A glass token in clear", "break_glass_is_digest", "break_glass", token_hash="'secret'"),
    row(
        "A glass broken for a day",
        "break_glass_is_short",
        "break_glass",
        expires_at="now() + interval '1 day'",
    ),
    row(
        "A glass that has ended before it was broken",
        "break_glass_is_short",
        "break_glass",
        expires_at="now() - interval '1 minute'",
    ),
    change(
        "A broken glass for longer",
        "privilege",
        "update break_glass set expires_at = now() + interval '1 day'",
    ),
    change(
        "A broken glass ended by nobody",
        "break_glass_revoked_by_somebody",
        "update break_glass set revoked_at = now()",
    ),
    change(
        "A broken glass ended by somebody who does not exist",
        "break_glass_revoker_known",
        "update break_glass set revoked_at = now(), revoked_by = 0",
    ),
    change(
        "An ended glass brought back",
        "break_glass_stays_revoked",
        "update break_glass set revoked_at = now(), revoked_by = :user;"
        "update break_glass set revoked_at = null, revoked_by = null",
    ),
    change(
        "A session that has ended begun again",
        "user_session_stays_ended",
        "update user_session set revoked_at = now(), revoked_why = 'sign_out' where id = :session;"
        "update user_session set revoked_at = null, revoked_why = null where id = :session",
    ),
    change(
        "The end of a session told otherwise",
        "user_session_stays_ended",
        "update user_session set revoked_at = now(), revoked_why = 'reuse' where id = :session;"
        "update user_session set revoked_why = 'sign_out' where id = :session",
    ),
    change(
        "A session made away with",
        "user_session_is_kept",
        "delete from user_session where id = :session",
    ),
    change(
        "A refresh token used again",
        "refresh_token_stays_used",
        "update refresh_token set used_at = now() where session_id = :session;"
        "update refresh_token set used_at = null where session_id = :session",
    ),
    row("A new password for nobody", "password_reset_user_known", "password_reset", user_id="0"),
    row("A fourth link for a new password", "password_reset_few", "password_reset", slot="4"),
    row("A second link in the place of the first", "password_reset_pk", "password_reset", slot="1"),
    row("A link in clear", "password_reset_is_digest", "password_reset", token_hash="'secret'"),
    row(
        "A link that another one is",
        "password_reset_token_once",
        "password_reset",
        token_hash="sha256('r')",
    ),
    row(
        "A link for ever",
        "password_reset_ends",
        "password_reset",
        expires_at="now() + interval '2 days'",
    ),
    change(
        "A link for a new password used again",
        "password_reset_stays_used",
        "update password_reset set used_at = now() where user_id = :cashier;"
        "update password_reset set used_at = null where user_id = :cashier",
    ),
    change(
        "A link handed to somebody else",
        "privilege",
        "update password_reset set user_id = :user",
    ),
    row("A key of nobody", "api_key_user_known", "api_key", user_id="0"),
    row("A key without a name", "api_key_name_not_empty", "api_key", name="' '"),
    row("A key in clear", "api_key_is_digest", "api_key", secret_hash="'secret'"),
    row("A key that may nothing", "api_key_has_permissions", "api_key", permissions="'{}'"),
    row("A key for no branch", "api_key_branches_bounded", "api_key", branch_ids="'{}'"),
    row("A key for ever", "api_key_ends", "api_key", expires_at="now() + interval '9 years'"),
    row("A key that has ended", "api_key_ends", "api_key", expires_at="now() - interval '1 day'"),
    change(
        "A key that may more", "privilege", "update api_key set permissions = array['sales:void']"
    ),
    # -- second factors --
    row("A second factor of nobody", "user_totp_user_known", "user_totp", user_id="0"),
    row(
        "A second factor's secret in clear",
        "user_totp_secret_is_sealed",
        "user_totp",
        secret="'01234567890123456789'",
    ),
    row("A second authenticator", "user_totp_pk", "user_totp", user_id=":clerk"),
    change(
        "An authenticator in the place of one that is in use",
        "user_totp_confirmed_stays",
        "update user_totp set secret = secret, begun_at = now()",
    ),
    change(
        "A second factor confirmed without a code",
        "user_totp_confirmed_by_code",
        "insert into user_totp (org_id, user_id, secret) select org_id, :user, secret"
        " from user_totp; update user_totp set confirmed_at = now() where user_id = :user",
        OWNER,
    ),
    change(
        "A code used again",
        "user_totp_step_advances",
        "update user_totp set last_step = 100",
    ),
    change(
        "A code from before the last one",
        "user_totp_step_advances",
        "update user_totp set last_step = 99",
    ),
    change(
        "The codes that were used, forgotten",
        "user_totp_step_advances",
        "update user_totp set last_step = null",
    ),
    change(
        "A second factor that is in use, begun anew",
        "user_totp_confirmed_stays",
        "update user_totp set confirmed_at = null, last_step = null",
    ),
    change(
        "A second factor handed to somebody else",
        "privilege",
        "update user_totp set user_id = :user",
    ),
    row(
        "Recovery codes of somebody without a second factor",
        "recovery_code_factor_known",
        "recovery_code",
        user_id=":user",
    ),
    row("An eleventh recovery code", "recovery_code_ten", "recovery_code", code_no="11"),
    row("A recovery code in clear", "recovery_code_is_digest", "recovery_code", code_hash="'x'"),
    row(
        "The same recovery code twice",
        "recovery_code_taken",
        "recovery_code",
        code_hash="sha256('2')",
    ),
    change(
        "A recovery code used twice",
        "recovery_code_used_once",
        "update recovery_code set used_at = now() where code_no = 1",
    ),
    change(
        "A recovery code made good again",
        "recovery_code_used_once",
        "update recovery_code set used_at = null where code_no = 1",
    ),
    # -- tills and their devices --
    row(
        "A pairing code for a till that there is not",
        "till_pairing_code_till_known",
        "till_pairing_code",
        till_id="0",
    ),
    row(
        "A pairing code of nobody",
        "till_pairing_code_issuer_known",
        "till_pairing_code",
        issued_by="0",
    ),
    row(
        "A pairing code in clear",
        "till_pairing_code_is_digest",
        "till_pairing_code",
        code_hash="'x'",
    ),
    row(
        "A pairing code for a day",
        "till_pairing_code_short_lived",
        "till_pairing_code",
        expires_at="now() + interval '1 day'",
    ),
    change(
        "A pairing code made good again",
        "till_pairing_code_used_once",
        "update till_pairing_code set used_at = null",
    ),
    change(
        "A pairing code's time made longer",
        "till_pairing_code_used_once",
        "update till_pairing_code set expires_at = now() + interval '5 minutes'",
    ),
    row(
        "A device that is a till that there is not",
        "till_credential_till_known",
        "till_credential",
        till_id="0",
    ),
    row(
        "A device paired by nobody",
        "till_credential_pairer_known",
        "till_credential",
        paired_by="0",
    ),
    row(
        "A till's credential in clear",
        "till_credential_is_digest",
        "till_credential",
        secret_hash="'x'",
    ),
    row(
        "A second device for a till",
        "till_credential_live_once",
        "till_credential",
        till_id=":till",
    ),
    change(
        "A credential that was taken back, good again",
        "till_credential_revoked_stays",
        "update till_credential set revoked_at = now();"
        " update till_credential set revoked_at = null",
    ),
    change(
        "A device handed another till",
        "privilege",
        "update till_credential set till_id = :till2",
    ),
    row(
        "A session on a till that is not paired",
        "user_session_till_paired",
        "user_session",
        kind="'till'",
        till_id=":till2",
    ),
    row("A PIN of nobody", "user_pin_user_known", "user_pin", user_id="0"),
    row("A PIN in clear", "user_pin_is_hashed", "user_pin", pin_hash="'1234'"),
    change(
        "A twenty-first try at a PIN",
        "user_pin_tries_bounded",
        "update user_pin set failed_count = 21",
    ),
    row("A user without a name", "app_user_name_not_empty", "app_user", first_name="''"),
    row(
        "An address in capitals",
        "app_user_email_is_lower_case",
        "app_user",
        email="'NEW@example.com'",
    ),
    row(
        "An address that signs in elsewhere",
        "sign_in_address_taken",
        "app_user",
        email=":other_email",
    ),
    Attack(
        "An address led to a user who does not exist",
        "sign_in_address_user_known",
        "insert into sign_in_address (email, org_id, user_id) values ('x@example.com', :org, 0);\n",
        OWNER,
    ),
    Attack(
        "A permission that is none",
        "role_permission_form",
        "insert into role_permission (role, permission) values ('CASHIER', 'everything');\n",
        OWNER,
    ),
    *(
        Attack(title, rule, f"{statement};\n", OWNER)
        for title, rule, statement in (
            ("A backup of its own kind", "backup_kind_known", "update backup set kind = 'HALF'"),
            ("A backup that is so so", "backup_status_known", "update backup set status = 'WELL'"),
            ("A backup without end", "backup_ends", "update backup set ended_at = null"),
            (
                "A backup of nothing",
                "backup_success_has_file",
                "update backup set file_name = null where status = 'SUCCESS'",
            ),
            (
                "A failure without a word",
                "backup_failure_has_error",
                "update backup set status = 'FAILED' where status = 'SUCCESS'",
            ),
            ("A checksum that is none", "backup_sums_in_form", "update backup set sha256 = 'x'"),
            (
                "A long way to a backup",
                "backup_texts_not_long",
                "update backup set location = repeat('x', 501)",
            ),
            (
                "Files gone of a backup that is kept",
                "backup_removed_in_order",
                "update backup set files_removed_at = now() where removed_at is null",
            ),
            (
                "One file as two backups",
                "backup_file_once",
                "update backup set location = '', file_name = 'one' where file_name is not null",
            ),
            (
                "A confirmation of no backup",
                "backup_confirmation_backup_known",
                "update backup_confirmation set backup_id = 0",
            ),
            (
                "A confirmation in plain text",
                "backup_confirmation_is_a_hash",
                "update backup_confirmation set token_hash = 'word'",
            ),
            (
                "A task of no backup",
                "backup_task_backup_known",
                "update backup_task set backup_id = 0",
            ),
            (
                "A task that nobody knows",
                "backup_task_kind_known",
                "update backup_task set kind = 'ERASE'",
            ),
            (
                "A task that is somehow",
                "backup_task_status_known",
                "update backup_task set status = 'WELL' where status = 'SUCCESS'",
            ),
            (
                "A task without end",
                "backup_task_ends",
                "update backup_task set ended_at = null where status = 'SUCCESS'",
            ),
            (
                "A task tried for ever",
                "backup_task_attempts_bounded",
                "update backup_task set attempt_count = 4",
            ),
            (
                "A task's long story",
                "backup_task_texts_not_long",
                "update backup_task set message = repeat('x', 1001)",
            ),
            (
                "A drill of another kind",
                "backup_drill_kind_known",
                "update backup_drill set kind = 'FIRE'",
            ),
            (
                "A drill before its beginning",
                "backup_drill_times_not_negative",
                "update backup_drill set rto_s = -1",
            ),
            (
                "A good drill that took no time",
                "backup_drill_good_has_times",
                "update backup_drill set rto_s = null",
            ),
            (
                "A drill's long story",
                "backup_drill_texts_not_long",
                "update backup_drill set release = repeat('x', 101)",
            ),
            ("A job in capitals", "job_name_form", "update job set name = 'JOB'"),
            ("A job that says nothing", "job_described", "update job set description = ''"),
            ("A job without rest", "job_interval_in_range", "update job set every_s = 0"),
            (
                "A job after its time",
                "job_offset_within_interval",
                "update job set offset_s = every_s",
            ),
            ("A claim for ever", "job_lease_in_range", "update job set lease_s = 3601"),
            (
                "A claim of nobody",
                "job_claimed_by_runner",
                "update job set runner = null, lease_until = now()",
            ),
            ("A long story", "job_error_not_long", "update job set last_error = repeat('x', 501)"),
            (
                "Fewer failures than in a row",
                "job_counts_not_negative",
                "update job set consecutive_failures = 1, error_count = 0",
            ),
            (
                "More lost runs than failed ones",
                "job_counts_by_outcome",
                "update job set lost_count = error_count + 1",
            ),
            ("A run of no job", "job_run_job_known", "update job_run set job = 'no-job'"),
            (
                "A run that ended somehow",
                "job_run_outcome_known",
                "update job_run set outcome = 'somehow'",
            ),
            (
                "A run's long story",
                "job_run_told_not_long",
                "update job_run set told = repeat('x', 501)",
            ),
            (
                "A worker without a name",
                "job_runner_name_not_long",
                "update job_runner set name = ''",
            ),
            (
                "A check in capitals",
                "integrity_event_check_form",
                "update integrity_event set check_name = 'X'",
            ),
            (
                "An event that is a rumour",
                "integrity_event_severity_known",
                "update integrity_event set severity = 'RUMOUR'",
            ),
            (
                "An event of nothing",
                "integrity_event_counts_above_zero",
                "update integrity_event set broken_count = 0",
            ),
            (
                "An event that ends before it begins",
                "integrity_event_in_order",
                "update integrity_event set resolved_at = '2000-01-01'",
            ),
            (
                "An event that nobody took on",
                "integrity_event_acknowledged_by_somebody",
                "update integrity_event set acknowledged_at = now()",
            ),
            (
                "An event's long story",
                "integrity_event_note_not_long",
                "update integrity_event set note = repeat('x', 501)",
            ),
            (
                "A figure in capitals",
                "business_figure_name_form",
                "update business_figure set name = 'X'",
            ),
            (
                "A figure of a year",
                "business_figure_period_known",
                "update business_figure set period = '1y'",
            ),
            (
                "A figure in shells",
                "business_figure_currency_form",
                "update business_figure set currency = 'shells'",
            ),
            (
                "A figure that is no number",
                "business_figure_amounts_are_numbers",
                "update business_figure set value = 'NaN'",
            ),
            (
                "An action that nobody is to know of",
                "operator_action_is_final",
                "delete from operator_action",
            ),
            (
                "An action in one word",
                "operator_action_form",
                f"{OPERATOR_DID}) values ('JOBS', 'x', '1', 'me')",
            ),
            (
                "An action on nothing",
                "operator_action_of_something",
                f"{OPERATOR_DID}) values ('jobs.change', '', '1', 'me')",
            ),
            (
                "An action without a change",
                "operator_action_changes_something",
                f"{OPERATOR_DID}) values ('jobs.change', 'x', null, 'me')",
            ),
            (
                "An action of nobody",
                "operator_action_by_somebody",
                f"{OPERATOR_DID}) values ('jobs.change', 'x', '1', '')",
            ),
            (
                "An action of a user of nowhere",
                "operator_action_user_has_organisation",
                f"{OPERATOR_DID}, user_id) values ('jobs.change', 'x', '1', 'me', 1)",
            ),
        )
    ),
    of_nobody("app_user"),
    # -- branches and tills --
    row("A branch without a name", "branch_name_not_empty", "branch", name="' '"),
    row("A branch's name used again", "branch_name_taken", "branch", name="'Side'"),
    row("An address of 2001 characters", "branch_contact_not_long", "branch", address=LONG),
    of_nobody("branch"),
    row("A till without a name", "till_name_not_empty", "till", name="''"),
    row("A till's name used again", "till_name_taken", "till", name="'Till 1'"),
    row("A till of a branch that does not exist", "till_branch_known", "till", branch_id="0"),
    change(
        "A till that gave fewer than no receipts",
        "till_receipt_count_not_negative",
        "update till set receipt_count = -1",
        OWNER,
    ),
    # -- the catalogue --
    row("A tax of 101 %", "tax_code_rate_in_range", "tax_code", rate_percent="101"),
    row("A tax that is not a number", "tax_code_rate_in_range", "tax_code", rate_percent="'NaN'"),
    row("A tax code without a code", "tax_code_not_empty", "tax_code", code="''"),
    row("A tax code used again", "tax_code_taken", "tax_code", code="'STD'"),
    of_nobody("tax_code"),
    row("A category without a name", "category_name_not_empty", "category", name="''"),
    row("A category's name used again", "category_name_taken", "category", name="'Things'"),
    row(
        "A description of 2001 characters",
        "category_description_not_long",
        "category",
        description=LONG,
    ),
    of_nobody("category"),
    change(
        "A category deleted under its products",
        "product_category_known",
        "delete from category where id = :category",
    ),
    row("A price below the cost", "product_price_covers_cost", "product", price="0.99"),
    row("A negative cost", "product_cost_not_negative", "product", cost="-1"),
    row("A price of half a cent", "product_price_in_minor_units", "product", price="2.005"),
    row("A price that is not a number", "product_amounts_are_numbers", "product", price="'NaN'"),
    row("A price in another currency", "product_currency_is_base", "product", currency="'EUR'"),
    row("A product without a name", "product_name_not_empty", "product", name="' '"),
    row("A product without a SKU", "product_sku_not_empty", "product", sku="' '"),
    row("A SKU used again", "product_sku_taken", "product", sku="'P1'"),
    row("An empty barcode", "product_barcode_not_empty", "product", barcode="' '"),
    Attack(
        "A barcode used again",
        "product_barcode_taken",
        "update product set barcode = '123' where id in (:product, :product2);\n",
    ),
    row(
        "A description of 2001 characters",
        "product_description_not_long",
        "product",
        description=LONG,
    ),
    row("A tax code that does not exist", "product_tax_code_known", "product", tax_code_id="0"),
    row("A category that does not exist", "product_category_known", "product", category_id="0"),
    # -- customers --
    row("A customer without a name", "customer_name_not_empty", "customer", name="' '"),
    row(
        "A credit limit without end: NaN is above every debt",
        "customer_amounts_are_numbers",
        "customer",
        credit_limit="'NaN'",
    ),
    row(
        "A negative credit limit",
        "customer_credit_limit_not_negative",
        "customer",
        credit_limit="-1",
    ),
    row(
        "A credit limit of half a cent",
        "customer_credit_limit_in_minor_units",
        "customer",
        credit_limit="0.005",
    ),
    row(
        "A credit limit in another currency",
        "customer_currency_is_base",
        "customer",
        currency="'EUR'",
    ),
    row("An address in capitals", "customer_email_is_lower_case", "customer", email="'A@b.c'"),
    row("A phone of nine digits", "customer_phone_has_ten_digits", "customer", phone="'123456789'"),
    row("A status that there is not", "customer_status_known", "customer", status="'KING'"),
    row("A type that there is not", "customer_type_known", "customer", customer_type="'CAT'"),
    row("Notes of 2001 characters", "customer_text_not_long", "customer", notes=LONG),
    Attack(
        "An address used again",
        "customer_email_taken",
        "update customer set email = 'a@b.c' where id in (:customer, :blacklisted);\n",
    ),
    Attack(
        "A phone number used again",
        "customer_phone_taken",
        "update customer set phone = '0123456789' where id in (:customer, :blacklisted);\n",
    ),
    # -- accounts and periods --
    row("A code used again", "account_code_taken", "account", code="'1000'"),
    row("A code with a blank in it", "account_code_not_empty", "account", code="'1 0'"),
    row("A name of one letter", "account_name_long_enough", "account", name="'x'"),
    row("A type that there is not", "account_type_known", "account", type="'GOLD'"),
    row("A currency that is none", "account_currency_is_iso", "account", currency="'usd'"),
    row(
        "Money received on an expense account",
        "account_payments_go_to_assets",
        "account",
        type="'EXPENSE'",
        takes_payments="true",
    ),
    row("A branch that does not exist", "account_branch_known", "account", branch_id="0"),
    row("A role that the application may not give", "privilege", "account", role_="'cash'"),
    row("A role that is taken", "account_role_taken", "account", OWNER, role_="'cash'"),
    of_nobody("account"),
    of_nobody("accounting_period"),
    change(
        "A period closed by a user who does not exist",
        "accounting_period_closer_known",
        "update accounting_period set closed_by = 0 where id = :period",
    ),
    # -- stock --
    change(
        "A reorder level that is not a number",
        "stock_amounts_are_numbers",
        "update stock set reorder_level = 'NaN'",
    ),
    change(
        "A negative reorder level",
        "stock_reorder_level_not_negative",
        "update stock set reorder_level = -1",
    ),
    change(
        "A stock value below zero",
        "stock_value_not_negative",
        "update stock set value = -1",
        OWNER,
    ),
    change(
        "Value without goods",
        "stock_value_has_quantity",
        "update stock set quantity = 0, value = 1",
        OWNER,
    ),
    row("Stock of a branch that does not exist", "stock_branch_known", "stock", branch_id="0"),
    row("Stock of a product that does not exist", "stock_product_known", "stock", product_id="0"),
    row("Stock in another currency", "stock_currency_is_base", "stock", currency="'EUR'"),
    row(
        "A movement of a goods receipt that does not exist",
        "stock_movement_receipt_known",
        "stock_movement",
        goods_receipt_id="0",
    ),
    row(
        "A movement of a sale that does not exist",
        "stock_movement_sale_known",
        "stock_movement",
        quantity="-1",
        value="-6",
        sale_id="0",
    ),
    row(
        "A movement of a void that does not exist",
        "stock_movement_void_known",
        "stock_movement",
        void_sale_id="0",
    ),
    # -- what only triggers and jobs write --
    row("A debt of nothing", "receivable_amount_above_zero", "receivable", OWNER, amount="0"),
    row(
        "A debt of a customer who does not exist",
        "receivable_customer_known",
        "receivable",
        OWNER,
        customer_id="0",
    ),
    row(
        "A debt for a sale that does not exist",
        "receivable_sale_known",
        "receivable",
        OWNER,
        sale_id="0",
    ),
    change(
        "Snapshots that reach beyond what is safe",
        "balance_roll_up_reaches_safe_entries",
        "update balance_roll_up set through_entry_id = safe_entry_id + 1",
        OWNER,
    ),
    of_nobody("balance_roll_up", OWNER),
    row(
        "A snapshot of an account that does not exist",
        "account_day_account_known",
        "account_day",
        OWNER,
        account_id="0",
    ),
    row("A snapshot written by the application", "privilege", "account_day"),
    change(
        "A snapshot changed by the application",
        "privilege",
        "update account_day set debit = debit + 1",
    ),
    # -- what requests leave behind --
    row(
        "An answer without a body",
        "idempotency_key_answered",
        "idempotency_key",
        status="201",
    ),
    row(
        "A key that is no digest",
        "idempotency_key_digests",
        "idempotency_key",
        key_hash="'short'",
    ),
    row("A notification of nobody", "notification_inbox_user_known", "notification", user_id="0"),
    change(
        "A notification of nobody, past its numbering",
        "notification_user_known",
        "alter table notification disable trigger notification_numbered;"
        "insert into notification (org_id, user_id, id, type, title)"
        " values (:org, 0, 1, 'message', 'New')",
        OWNER,
    ),
    row("A notification sent by nobody", "notification_sender_known", "notification", sent_by="0"),
    row("A notification of no type", "notification_type_form", "notification", type="'No'"),
    row(
        "A notification about nothing", "notification_title_not_empty", "notification", title="' '"
    ),
    row(
        "A notification that is a book",
        "notification_message_not_long",
        "notification",
        message=LONG,
    ),
    row("A notification with a list", "notification_data_is_small", "notification", data="'[]'"),
    row(
        "A key against telling twice that is empty",
        "notification_dedupe_key_not_long",
        "notification",
        dedupe_key="''",
    ),
    row(
        "A notification told twice", "notification_told_once", "notification", dedupe_key="'scene'"
    ),
    row("A notification with a number of one's own", "privilege", "notification", id="7"),
    row(
        "An inbox of nobody",
        "notification_inbox_user_known",
        "notification_inbox",
        OWNER,
        user_id="0",
    ),
    row(
        "An inbox that counts from zero",
        "notification_inbox_counts_up",
        "notification_inbox",
        OWNER,
        last_id="0",
    ),
    row("An inbox set back", "privilege", "notification_inbox"),
    row(
        "A ticket of no session",
        "notification_ticket_session_known",
        "notification_ticket",
        session_id="0",
    ),
    row(
        "A ticket in clear",
        "notification_ticket_is_digest",
        "notification_ticket",
        token_hash="'secret'",
    ),
    row("A flag set twice for one user", "flag_override_taken", "flag_override", flag="'scene'"),
    row(
        "A flag for no branch",
        "flag_override_branch_known",
        "flag_override",
        user_id="null",
        branch_id="0",
    ),
    row(
        "A flag for another organisation's branch",
        "flag_override_branch_known",
        "flag_override",
        user_id="null",
        branch_id=":other_branch",
    ),
    row("A flag for nobody", "flag_override_user_known", "flag_override", user_id="0"),
    row("A flag set by nobody", "flag_override_changer_known", "flag_override", changed_by="0"),
    row("A flag without a name", "flag_override_name_form", "flag_override", flag="''"),
    row(
        "A flag for a user and a branch",
        "flag_override_one_scope",
        "flag_override",
        branch_id=":branch",
    ),
    row(
        "A flag of more than all",
        "flag_override_percent_in_range",
        "flag_override",
        user_id="null",
        percent="101",
    ),
    row(
        "A flag that is half on for a user",
        "flag_override_all_or_none",
        "flag_override",
        percent="50",
    ),
    change(
        "A flag moved to somebody else", "privilege", "update flag_override set user_id = :cashier"
    ),
    change(
        "A flag of the server without a name", "flag_name_form", "select set_flag('', 1, false)"
    ),
    change(
        "A flag of the server of more than all",
        "flag_percent_in_range",
        "select set_flag('scene', 101, false)",
    ),
    change(
        "A flag used less than never",
        "flag_count_not_negative",
        "select note_flags('{scene}', '{-1}')",
    ),
    change(
        "A flag of the server set past its function",
        "privilege",
        "update flag set is_killed = true",
    ),
    row(
        "A severity that there is not",
        "audit_log_severity_known",
        "audit_log",
        severity="'LOUD'",
    ),
    row(
        "A deed of a user who does not exist",
        "audit_log_user_known",
        "audit_log",
        user_id="0",
    ),
    row(
        "A deed dated back",
        "privilege",
        "audit_log",
        created_at="'2001-01-01'",
    ),
)

# Keys that no row of theirs can break alone, because a shorter one is broken first: each is the
# target of foreign keys. test_grid.py copies a row of each table and takes key after key away.
KEYS = {
    "account": ("account_pk", "account_currency_key", "account_payment_key", "account_active_key"),
    "account_day": ("account_day_pk",),
    "accounting_period": ("accounting_period_pk", "accounting_period_closed_key"),
    "api_key": ("api_key_pk",),
    "app_user": ("app_user_pk",),
    "attachment": ("attachment_pk",),
    "data_deletion_request": ("data_deletion_request_pk",),
    "stripe_checkout": ("stripe_checkout_pk",),
    "stripe_customer": (
        "stripe_customer_pk",
        "stripe_customer_token_taken",
        "stripe_customer_stripe_ref_taken",
    ),
    "stripe_event": ("stripe_event_pk",),
    "mail": ("mail_pk",),
    "mail_block": ("mail_block_pk",),
    "attachment_usage": ("attachment_usage_pk",),
    "audit_archive": ("audit_archive_pk",),
    "audit_log": ("audit_log_pk",),
    "backup": ("backup_pk",),
    "backup_confirmation": ("backup_confirmation_pk",),
    "backup_drill": ("backup_drill_pk",),
    "backup_task": ("backup_task_pk",),
    "balance_roll_up": ("balance_roll_up_pk",),
    "branch": ("branch_pk",),
    "break_glass": ("break_glass_pk",),
    "category": ("category_pk",),
    "customer": ("customer_pk",),
    "flag": ("flag_pk",),
    "flag_override": ("flag_override_pk",),
    "event": ("event_pk",),
    "goods_receipt": ("goods_receipt_pk", "goods_receipt_slots"),
    "idempotency_key": ("idempotency_key_pk",),
    "business_figure": ("business_figure_pk",),
    "integrity_event": ("integrity_event_pk", "integrity_event_open_once"),
    "operator_action": ("operator_action_pk",),
    "job": ("job_pk",),
    "job_run": ("job_run_pk",),
    "job_runner": ("job_runner_pk",),
    "journal_entry": ("journal_entry_pk", "journal_entry_slots"),
    "outbox_event": ("outbox_event_pk",),
    "notification": ("notification_pk",),
    "notification_inbox": ("notification_inbox_pk",),
    "notification_ticket": ("notification_ticket_pk",),
    "organisation": ("organisation_pk", "organisation_base_currency_key"),
    "password_reset": ("password_reset_pk", "password_reset_token_once"),
    "payment": ("payment_pk",),
    "portal_link": ("portal_link_pk", "portal_link_customer_key"),
    "portal_session": ("portal_session_pk",),
    "product": ("product_pk", "product_currency_key"),
    "receivable": ("receivable_pk",),
    "recovery_code": ("recovery_code_pk",),
    "refresh_token": ("refresh_token_pk",),
    "role_grant": ("role_grant_pk",),
    "user_branch": ("user_branch_pk",),
    "user_permission": ("user_permission_pk",),
    "user_session": ("user_session_pk",),
    "role_permission": ("role_permission_pk",),
    "sale": ("sale_pk", "sale_slots", "sale_amounts_key"),
    "sign_in_address": ("sign_in_address_user_key",),
    "storage_tombstone": ("storage_tombstone_pk",),
    "stock": ("stock_pk", "stock_currency_key"),
    "stock_movement": ("stock_movement_pk",),
    "tax_code": ("tax_code_pk",),
    "till": ("till_pk", "till_branch_key"),
    "till_credential": ("till_credential_pk",),
    "till_pairing_code": ("till_pairing_code_pk",),
    "user_pin": ("user_pin_pk",),
    "user_totp": ("user_totp_pk",),
    "webhook_circuit": ("webhook_circuit_pk",),
    "webhook_delivery": ("webhook_delivery_pk",),
    "webhook_endpoint": ("webhook_endpoint_pk",),
    "webhook_lane": ("webhook_lane_pk",),
    "webhook_secret": ("webhook_secret_pk",),
}
