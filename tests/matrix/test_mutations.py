"""The matrix fails when anything that keeps it is taken out: each is taken out, one at a time.

Two layers keep organisations apart: row security, and the conditions of the queries. Each is tried
with the other one switched off, since together either would hide that the other is gone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.matrix import cells
from tests.matrix.mutations import (
    functions,
    is_missed,
    queries,
    route_of,
    tables_with,
    unconditioned,
    unconditioned_function,
    unguarded,
    uses,
    without_condition,
)
from tests.matrix.world import endpoints, name_of

if TYPE_CHECKING:
    from tests.matrix.world import World

pytestmark = pytest.mark.once
# Reached only by the id of a row that is looked up first, and whose own policy or condition holds;
# ids are the server's, so that nothing else has them.
BY_PARENT = "read by the id of its parent, which is looked up first"
OF_ROW = "asked by a user or a branch, whose ids are the server's"
OF_CALLER = "asked by the caller's own id, or session"
BY_FUNCTION = "read or written by functions, whose conditions stay; test_grid.py shows its policy"
BY_DIGEST = "asked by the digest of a secret, or before there is a caller; test_grid.py shows it"
OF_RETENTION = "written for a customer who is looked up first, and read by retention, without an id"
# Where the API cannot show that a policy is gone: why. test_grid.py shows each in SQL.
SILENT_TABLES = {
    "account_day": BY_PARENT,
    "attachment_usage": "read beside the organisation's own row, by that row's number",
    "audit_archive": "written by a job and read by verification, one organisation at a time",
    "balance_roll_up": BY_PARENT,
    "data_deletion_request": OF_RETENTION,
    "goods_receipt_line": BY_PARENT,
    "idempotency_key": "asked by the organisation's own key, whose row is locked first",
    "journal_line": BY_PARENT,
    "notification": OF_CALLER,
    "notification_inbox": "read for a WebSocket, by the caller's own id; test_sockets.py shows it",
    "notification_ticket": BY_DIGEST,
    "password_reset": BY_DIGEST,
    "payment": BY_PARENT,
    "portal_link": BY_DIGEST,
    "portal_session": BY_DIGEST,
    "recovery_code": OF_CALLER,
    "refresh_token": BY_DIGEST,
    "role_grant": BY_PARENT,
    "sale_line": BY_PARENT,
    "sale_void": BY_PARENT,
    "signed_url_use": "written for a link, which is signed with its organisation; then forgotten",
    "stock": BY_FUNCTION,
    "stock_movement": BY_PARENT,
    "storage_tombstone": "written with a file; read by jobs alone, one organisation at a time",
    "stripe_checkout": "reached with Stripe alone, which is not here; test_billing.py shows it",
    "stripe_customer": "reached with Stripe alone, which is not here; test_billing.py shows it",
    "till": BY_PARENT,
    "till_credential": BY_DIGEST,
    "till_pairing_code": BY_DIGEST,
    "user_branch": BY_PARENT,
    "user_permission": BY_PARENT,
    "user_pin": OF_CALLER,
    "user_session": OF_CALLER,
    "user_totp": OF_CALLER,
    "webhook_secret": BY_PARENT,
}
# Where a condition can be taken out and no answer changes: why.
SILENT_QUERIES = {
    "accounts.create_account": "reads the organisation's currency alone, the same in both",
    "accounts.list_account_entries": BY_PARENT,
    "api_keys.get_key": "its user is looked up in the organisation as well",
    "attachments.count_attachments": BY_PARENT,
    "attachments.list_attachments": BY_PARENT,
    "auth.get_user": OF_CALLER,
    "branches.get_business_date": "reads the organisation's time zone alone, the same in both",
    "branches.list_tills": BY_PARENT,
    "catalog.change_product": "the condition that matters is that of the statement's own row",
    "catalog.create_product": "writes a row of the organisation; its foreign keys hold the rest",
    "flags.delete_override": OF_ROW,
    "flags.find_override": OF_ROW,
    "flags.list_settings": "remembered for seconds; tests/api/test_flags.py shows it",
    "inventory.list_goods_receipt_lines": BY_PARENT,
    "inventory.list_movements": "asked by branch and product, whose ids are the server's",
    "journal.list_entry_lines": BY_PARENT,
    "journal.post_entry": "writes rows of the organisation; their foreign keys hold the rest",
    "notifications.count_unread": OF_CALLER,
    "notifications.delete_notification": OF_CALLER,
    "notifications.get_notification": OF_CALLER,
    "notifications.issue_ticket": OF_CALLER,
    "notifications.list_notifications": OF_CALLER,
    "notifications.mark_all_read": OF_CALLER,
    "notifications.mark_read": OF_CALLER,
    "notifications.tell": "writes rows of the organisation; their foreign keys hold the rest",
    "payments.list_payments": BY_PARENT,
    "portal.count_links": BY_PARENT,
    "portal.end_sessions": BY_PARENT,
    "portal.list_links": BY_PARENT,
    "portal.lock_customer": BY_PARENT,
    "portal.void_links": BY_PARENT,
    "roles.get_user_permissions": BY_PARENT,
    "sales.list_sale_lines": BY_PARENT,
    "second_factor.count_recovery_codes": OF_CALLER,
    "second_factor.find_factor": OF_CALLER,
    "sessions.count_sessions": OF_CALLER,
    "sessions.end_session": OF_CALLER,
    "sessions.list_sessions": OF_CALLER,
    "system_stats.count_rows": "its answer has the server's size besides, which changes; "
    "tests/api/test_system_stats.py shows it",
    "tills.void_pairing_code": BY_PARENT,
    "users.list_sessions": BY_PARENT,
    "webhooks.list_public_keys": BY_PARENT,
}
LOCKED = "lock_sale comes first, and looks in the transaction's organisation only"
SILENT_FUNCTIONS = {
    "admit": OF_CALLER,
    "begin_stripe_checkout": "runs with Stripe alone, which is not here; test_billing.py shows it",
    "open_period": "a period of somebody else's is refused by the entry's foreign key",
    "post_payment": LOCKED,
    "settle_stripe_event": "undone: its event is looked up in the organisation after it",
    "void_sale": LOCKED,
}
SILENT_BRANCH_TABLES = {
    "flag_override": "listed for those who have all branches; test_grid.py shows it",
    "account": "the chart of accounts is for those who have all branches; test_grid.py shows it",
}


async def test_a_missing_policy_is_missed_without_conditions(
    doomed_world: World,
) -> None:
    world = doomed_world
    mutated = [query for query in queries().values() if without_condition(query) != query.sql]
    with unconditioned(mutated):
        # Row security alone keeps them apart.
        used = await uses(world, cells.organisations)
        silent = set()
        for table in tables_with(world, "org"):
            keys = [key for key, query in queries().items() if f" {table}" in query.sql]
            needed = list({name_of(e): e for key in keys for e in used.get(key, [])}.values())
            shown = await world.answers(needed)
            with unguarded(world, "org", [table]):
                if not await is_missed(world, cells.organisations, needed, shown):
                    silent.add(table)
    assert sorted(silent - SILENT_TABLES.keys()) == []


async def test_a_missing_condition_is_missed_without_policies(
    doomed_world: World,
) -> None:
    world = doomed_world
    with unguarded(world, "org", tables_with(world, "org")):
        # The queries alone keep them apart.
        used = await uses(world, cells.organisations)
        silent = set()
        for key, query in queries().items():
            if key not in used or without_condition(query) == query.sql:
                continue
            shown = await world.answers(used[key])
            with unconditioned([query]):
                if not await is_missed(world, cells.organisations, used[key], shown):
                    silent.add(key)
    assert sorted(silent - SILENT_QUERIES.keys()) == []


async def test_a_missing_condition_of_a_function_is_missed(doomed_world: World) -> None:
    world = doomed_world
    with unguarded(world, "org", tables_with(world, "org")):
        used = await uses(world, cells.organisations)
        silent = set()
        for name, definition in functions(world).items():
            keys = [key for key, query in queries().items() if f"{name}(" in query.sql]
            needed = list({name_of(e): e for key in keys for e in used.get(key, [])}.values())
            with unconditioned_function(world, definition):
                if not await is_missed(world, cells.organisations, needed, {}):
                    silent.add(name)
    assert sorted(silent - SILENT_FUNCTIONS.keys()) == []


async def test_a_missing_branch_policy_is_missed(doomed_world: World) -> None:
    world = doomed_world
    used = await uses(world, cells.branches)
    silent = set()
    for table in tables_with(world, "branch"):
        keys = [key for key, query in queries().items() if f" {table}" in query.sql]
        needed = list({name_of(e): e for key in keys for e in used.get(key, [])}.values())
        with unguarded(world, "branch", [table]):
            if not await is_missed(world, cells.branches, needed, {}):
                silent.add(table)
    assert sorted(silent - SILENT_BRANCH_TABLES.keys()) == []


async def test_a_missing_permission_is_missed(doomed_world: World) -> None:
    world = doomed_world
    allowed = cells.permissions(world)
    for endpoint in endpoints():
        if endpoint.permission is None:
            continue
        who = next(who for who, granted in allowed.items() if endpoint.permission not in granted)
        route = route_of(world, endpoint)
        route.endpoint = replace(endpoint, permission=None)
        try:
            wrong = await cells.roles(world, endpoint, {who: allowed[who]})
        finally:
            route.endpoint = endpoint
        assert wrong, f"{name_of(endpoint)} answers {who} as if nothing was missing"
