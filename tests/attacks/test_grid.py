"""Every tenant table, every verb, every role: what is allowed is declared, all else is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.attacks.grid import (
    BRANCH_TABLES,
    DEFINERS,
    FINAL_RULES,
    NOT_REPORTED,
    NUMBERS_BOUND_OTHERWISE,
    OTHER_TABLES,
    OTHER_TABLES_COLUMN,
    OWNERS_TABLES,
    POWERS,
    TENANT_TABLES,
    VERBS,
    WORKING_TRIGGERS,
)
from tests.attacks.master_data import KEYS
from tests.attacks.scene import NO_TENANT, PRIVILEGE, ROW_SECURITY, refusal

if TYPE_CHECKING:
    from tests.attacks.scene import Scene
    from tests.support import Psql

TESTS = Path(__file__).resolve().parent.parent
READ_WRITE = (
    "commit;\nbegin read write;\nselect set_config('app.org_id', '{}', true);\n"  # of readonly
)
OURS = (
    "select oid, relname from pg_class where relkind in ('r', 'p')"
    " and relnamespace = 'public'::regnamespace and relname !~ '^_?yoyo'"
)
# A policy that raises where there is no tenant: current_setting without missing_ok.
POLICY = "(org_id = (current_setting('app.org_id'::text))::bigint)"
UNGUARDED = f"""
with ours as ({OURS} and relname <> all (%(others)s))
select ours.relname, problem.what
from ours
join pg_class on pg_class.oid = ours.oid
cross join lateral (
    select 'has no org_id' where not exists (
        select from pg_attribute
        where attrelid = ours.oid and attname = 'org_id' and attnotnull
    )
    union all
    select 'has row security that is not forced'
    where not (pg_class.relrowsecurity and pg_class.relforcerowsecurity)
    union all
    select 'has another policy than org for all'
    where array(
        select concat(polname, polcmd, polroles, polpermissive, pg_get_expr(polqual, polrelid),
            pg_get_expr(polwithcheck, polrelid))
        from pg_policy where polrelid = ours.oid and polname not in ('branch', 'document')
    ) <> array['org*{{0}}t' || %(policy)s]
    union all
    select 'belongs to somebody else' where pg_class.relowner <> 'sofinance_owner'::regrole
    union all
    select 'has the key ' || index.indexrelid::regclass || ', which does not begin with org_id'
    from pg_index as index
    join pg_attribute as first on first.attrelid = ours.oid and first.attnum = index.indkey[0]
    where index.indrelid = ours.oid and index.indisunique and first.attname <> 'org_id'
    union all
    select 'has the foreign key ' || con.conname || ', which does not begin with org_id'
    from pg_constraint as con
    join pg_attribute as first on first.attrelid = ours.oid and first.attnum = con.conkey[1]
    where con.conrelid = ours.oid and con.contype = 'f' and first.attname <> 'org_id'
        and con.confrelid::regclass::text <> all (%(others)s)
) as problem (what)
order by 1, 2
"""


def unguarded(psql: Psql) -> list[tuple[str, str]]:
    """Return what a tenant table lacks of what guards it."""
    return [
        (str(table), str(what))
        for table, what in psql(
            UNGUARDED, {"others": list(OTHER_TABLES), "policy": POLICY}, role="superuser"
        )
    ]


def writable(psql: Psql, table: str, verb: str) -> list[str]:
    """Return the columns that the application may insert or update."""
    return [
        name
        for (name,) in psql(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
            " and not attisdropped and has_column_privilege('sofinance_app', attrelid, attnum, %s)"
            " order by attnum",
            [table, verb],
            role="superuser",
        )
    ]


def insertion(table: str, org_id: int) -> str:
    """Return an insert for an organisation; the one of organisations numbers them itself."""
    if table == "organisation":
        return "insert into organisation (name, base_currency) values ('Loot', 'USD')"
    return f"insert into {table} (org_id) values ({org_id})"


# -- the grid ----------------------------------------------------------------------------------


def test_the_grid_knows_every_table(psql: Psql) -> None:
    there = {name for _, name in psql(OURS, role="superuser")}
    assert there == TENANT_TABLES.keys() | OTHER_TABLES.keys()


def test_every_tenant_table_is_guarded(psql: Psql) -> None:
    assert unguarded(psql) == []


def test_tables_of_branches_are_guarded_by_branch(psql: Psql) -> None:
    policies = psql(
        "select tablename, permissive, roles::text, cmd, qual, with_check from pg_policies"
        " where policyname = 'branch'",
        role="superuser",
    )
    assert {
        (table, f"is_branch_seen({column})") for table, column in BRANCH_TABLES.items()
    } == {(row[0], row[4].removeprefix("((branch_id IS NULL) OR ").strip("()") + ")"
           if row[0] in {"account", "flag_override"} else row[4]) for row in policies}  # fmt: skip
    assert {row[1:4] for row in policies} == {("RESTRICTIVE", "{sofinance_app}", "ALL")}
    assert {row[0] for row in policies if row[5] is not None} == {"branch"}
    with_branch = {
        name
        for (name,) in psql(
            "select relname from pg_attribute join pg_class on attrelid = pg_class.oid"
            " where attname = 'branch_id' and relkind in ('r', 'p') and attnum > 0"
            " and relnamespace = 'public'::regnamespace",
            role="superuser",
        )
    }
    # Which branches a user has is asked before the transaction's branches are known.
    assert with_branch | {"branch"} == BRANCH_TABLES.keys() | {"user_branch"}


@pytest.mark.parametrize("table", BRANCH_TABLES)
def test_only_rows_of_one_s_branches_are_seen_and_written(
    scene: Scene, psql: Psql, table: str
) -> None:
    column = BRANCH_TABLES[table]
    own, none = str(scene.ids["branch"]), "{}"
    for branches, seen in ((f"{{{own}}}", {int(own), None}), (none, {None})):
        rows = psql(f"select distinct {column} from {table}", org=scene.org, branches=branches)
        assert {row[0] for row in rows} <= seen
    everything = psql(f"select count(*) from {table} where {column} is not null", org=scene.org)
    ours = psql(
        f"select count(*) from {table} where {column} = {own}", org=scene.org, branches=f"{{{own}}}"
    )
    assert ours[0][0] > 0 or table == "account"
    assert everything[0][0] >= ours[0][0]
    # Neither unset nor empty is everything.
    for nothing in ("", "ALL", "x"):
        assert refusal(
            psql, f"select set_config('app.branch_ids', '{nothing}', true);"
            f" select * from {table} where {column} is not null", org=scene.org,
        ) in {"22P02", NO_TENANT, "" if table == "account" else "22P02"}  # fmt: skip
    if table in {"till", "goods_receipt", "stock_movement", "stock", "sale"}:
        values = f"insert into {table} (org_id, branch_id) values ({scene.org.id}, {own})"
        begun = "select set_config('app.branch_ids', '{}', true);"
        assert refusal(psql, begun + values, org=scene.org) in {ROW_SECURITY, "23502"}


@pytest.mark.empty_database
def test_a_new_table_without_guards_is_told(psql: Psql) -> None:
    psql("create table loot (id bigint primary key, sale_id bigint)", role="sofinance_owner")
    assert {what for table, what in unguarded(psql) if table == "loot"} == {
        "has no org_id",
        "has row security that is not forced",
        "has another policy than org for all",
        "has the key loot_pkey, which does not begin with org_id",
    }


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_the_application_may_do_what_is_declared_and_no_more(psql: Psql, table: str) -> None:
    may = {
        verb
        for verb in VERBS
        if (verb not in {"TRUNCATE", "DELETE"} and writable(psql, table, verb))
        or psql(
            "select has_table_privilege('sofinance_app', %s, %s)", [table, verb], role="superuser"
        )[0][0]
    }
    assert may == set(TENANT_TABLES[table].app)
    assert "org_id" not in writable(psql, table, "UPDATE")
    assert not {"id", "created_at", "sold_at", "received_at", "voided_at"} & (
        set(writable(psql, table, "INSERT"))
        - ({"created_at"} if table == "idempotency_key" else set())
    )


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_another_organisations_rows_are_out_of_reach(scene: Scene, psql: Psql, table: str) -> None:
    org, other = scene.org, scene.other.id
    theirs = psql(f"select count(*) from {table} where org_id = {other}", role="superuser")[0][0]
    assert theirs > 0, "there is nothing to be found, which proves nothing"
    allowed = TENANT_TABLES[table].app

    def rows(statement: str) -> int | str:
        refused = refusal(psql, statement, org=org)
        return refused or int(psql(statement, org=org)[0][0])

    assert rows(f"select count(*) from {table} where org_id = {other}") == 0
    assert rows(f"select count(*) from {table} where org_id <> {org.id}") == 0

    refused = refusal(psql, insertion(table, other), org=org)
    assert refused == (ROW_SECURITY if "INSERT" in allowed else PRIVILEGE)

    columns = writable(psql, table, "UPDATE")
    column = columns[0] if columns else "org_id"
    touched = (
        f"with touched as (update {table} set {column} = {column} where org_id = {other}"
        " returning 1) select count(*) from touched"
    )
    assert rows(touched) == (0 if "UPDATE" in allowed else PRIVILEGE)
    # An organisation's own number is generated; elsewhere it is no column to be changed.
    unmoved = "428C9" if table == "organisation" else PRIVILEGE
    assert rows(touched.replace(f"{column} = {column}", f"org_id = {org.id}")) == unmoved
    assert refusal(psql, f"update {table} set org_id = {other}", org=org) == unmoved

    gone = (
        f"with gone as (delete from {table} where org_id = {other} returning 1)"
        " select count(*) from gone"
    )
    assert rows(gone) == (0 if "DELETE" in allowed else PRIVILEGE)
    assert refusal(psql, f"truncate {table} cascade", org=org) == PRIVILEGE
    assert (
        theirs
        == psql(f"select count(*) from {table} where org_id = {other}", role="superuser")[0][0]
    )


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_without_a_tenant_every_verb_errors(scene: Scene, psql: Psql, table: str) -> None:
    allowed = TENANT_TABLES[table].app
    column = (writable(psql, table, "UPDATE") or ["org_id"])[0]
    attempts = {
        "SELECT": f"select count(*) from {table}",
        "INSERT": insertion(table, scene.org.id),
        "UPDATE": f"update {table} set {column} = {column}",
        "DELETE": f"delete from {table}",
        "TRUNCATE": f"truncate {table} cascade",
    }
    refused = {verb: refusal(psql, attempt) for verb, attempt in attempts.items()}
    # What reads rows is planned first, and planning already asks for the tenant.
    assert refused == {
        verb: NO_TENANT if verb in {*allowed, "SELECT", "UPDATE", "DELETE"} else PRIVILEGE
        for verb in VERBS
    }


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_reports_read_one_organisation_and_write_nothing(
    scene: Scene, psql: Psql, table: str
) -> None:
    role, org = "sofinance_readonly", scene.org
    may = TENANT_TABLES[table].readonly
    count = f"select count(org_id) from {table} where org_id"
    assert refusal(psql, f"{count} = {org.id}", role=role, org=org) == ("" if may else PRIVILEGE)
    if may:
        assert psql(f"{count} <> {org.id}", role=role, org=org)[0][0] == 0
    assert refusal(psql, f"select count(org_id) from {table}", role=role) == NO_TENANT
    for attempt in (
        insertion(table, org.id),
        f"update {table} set {'name = name' if table == 'organisation' else 'org_id = org_id'}",
        f"delete from {table}",
        f"truncate {table} cascade",
    ):
        # A session that only reads by default can be told to write: rights must hold without.
        begun = READ_WRITE.format(org.id)
        assert refusal(psql, begun + attempt, role=role, org=org) == PRIVILEGE
        assert refusal(psql, attempt, role=role, org=org) == "25006"


def test_reports_read_no_password_and_no_answer(scene: Scene, psql: Psql) -> None:
    for secret in (
        "select password_hash from app_user",
        "select body from idempotency_key",
        "select token_hash from refresh_token",
        "select token_hash from password_reset",
        "select token_hash from portal_link",
        "select secret_hash from portal_session",
        "select secret_hash from api_key",
        "select recipient, body from mail",
        "select address from mail_block",
        "select secret from user_totp",
        "select code_hash from recovery_code",
        "select code_hash from till_pairing_code",
        "select secret_hash from till_credential",
        "select pin_hash from user_pin",
        "select sealed from webhook_secret",
        "select token_hash from notification_ticket",
    ):
        assert refusal(psql, secret, role="sofinance_readonly", org=scene.org) == PRIVILEGE


@pytest.mark.parametrize(
    "table", [table for table, rights in TENANT_TABLES.items() if rights.is_final]
)
def test_final_rows_are_final_for_the_owner_too(scene: Scene, psql: Psql, table: str) -> None:
    rule = f"{table}_is_final"
    assert rule in FINAL_RULES
    for attempt in (
        f"update {table} set org_id = org_id",
        f"delete from {table}",
        f"truncate {table} cascade",
        f"update {table} set org_id = org_id where false",
    ):
        assert refusal(psql, attempt, role="sofinance_owner", org=scene.org) == rule
        assert refusal(psql, attempt, role="superuser", org=scene.org) == rule


@pytest.mark.parametrize("role", ["sofinance_app", "sofinance_readonly"])
@pytest.mark.parametrize("table", OTHER_TABLES)
def test_tables_without_a_tenant_are_not_written(
    scene: Scene, psql: Psql, table: str, role: str
) -> None:
    reads = refusal(psql, f"select count(*) from {table}", role=role, org=scene.org)
    is_hidden = table in OWNERS_TABLES or (table in NOT_REPORTED and role == "sofinance_readonly")
    assert reads == (PRIVILEGE if is_hidden else "")
    begun = READ_WRITE.format(scene.org.id)
    for attempt in (
        f"insert into {table} default values",
        f"update {table} set {OTHER_TABLES_COLUMN[table]} = {OTHER_TABLES_COLUMN[table]}",
        f"delete from {table}",
        f"truncate {table}",
    ):
        assert refusal(psql, begun + attempt, role=role, org=scene.org) == PRIVILEGE


# -- what roles may become ---------------------------------------------------------------------


@pytest.mark.parametrize("role", ["sofinance_app", "sofinance_readonly"])
@pytest.mark.parametrize("attempt", POWERS.values(), ids=POWERS.keys())
def test_no_role_of_the_service_becomes_more_than_it_is(
    scene: Scene, psql: Psql, attempt: str, role: str
) -> None:
    begun = READ_WRITE.format(scene.org.id)
    assert refusal(psql, begun + attempt, role=role, org=scene.org) == PRIVILEGE


def test_the_application_cannot_give_itself_a_right(scene: Scene, psql: Psql) -> None:
    # PostgreSQL only warns that nothing was granted.
    psql("grant update on journal_line to sofinance_app", org=scene.org)
    assert refusal(psql, "update journal_line set debit = 1", org=scene.org) == PRIVILEGE


def test_nothing_is_for_everybody(psql: Psql) -> None:
    tables = psql(
        f"select ours.relname, acl.privilege_type from ({OURS}) as ours"
        " join pg_class on pg_class.oid = ours.oid, aclexplode(relacl) as acl"
        " where acl.grantee = 0",
        role="superuser",
    )
    columns = psql(
        f"select ours.relname, attname from ({OURS}) as ours"
        " join pg_attribute on attrelid = ours.oid, aclexplode(attacl) as acl"
        " where acl.grantee = 0",
        role="superuser",
    )
    functions = psql(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace"
        " and not exists (select from pg_depend where classid = 'pg_proc'::regclass"
        " and objid = pg_proc.oid and deptype = 'e')"
        " and exists (select from aclexplode(coalesce(proacl, acldefault('f', proowner))) as acl"
        " where acl.grantee = 0)",
        role="superuser",
    )
    sequences = psql(
        "select relname from pg_class, aclexplode(relacl) as acl where relkind = 'S'"
        " and acl.grantee in (0, 'sofinance_app'::regrole, 'sofinance_readonly'::regrole)",
        role="superuser",
    )
    assert (tables, columns, functions, sequences) == ([], [], [], [])


def test_functions_with_the_owners_rights_are_declared_and_pinned(psql: Psql) -> None:
    definers = psql(
        "select proname, proconfig, pg_get_userbyid(proowner) from pg_proc where prosecdef"
        " and pronamespace = 'public'::regnamespace",
        role="superuser",
    )
    assert {name for name, _, _ in definers} == DEFINERS.keys()
    assert {tuple(config or ()) for _, config, _ in definers} == {
        ("search_path=pg_catalog, public, pg_temp",)
    }
    assert {owner for _, _, owner in definers} == {"sofinance_owner"}


def test_the_application_calls_only_what_is_meant_for_it(psql: Psql) -> None:
    callable_definers = {
        name
        for (name,) in psql(
            "select proname from pg_proc where prosecdef and pronamespace = 'public'::regnamespace"
            " and has_function_privilege('sofinance_app', oid, 'execute')",
            role="superuser",
        )
    }
    assert callable_definers == {
        name
        for name, what in DEFINERS.items()
        if what.startswith(("crosses", "locks a sale of", "works inside the transaction's"))
        or what.endswith("which belong to no organisation")
    } | {"mark_roll_up", "roll_up_balances", "rebuild_balances"}


LURES = """
create temp table {table} on commit drop as select * from public.{table} limit 0;
grant all on pg_temp.{table} to public;
create or replace function pg_temp.lured() returns trigger language plpgsql as
$$ begin raise exception 'lured: %', current_user; end $$;
create trigger lured before insert or update or delete on pg_temp.{table}
for each statement execute function pg_temp.lured();
"""
LURED = {
    "job": (
        "select declare_job('lure-job', 'x', 60, 0, 60)", "select claim_job('x', '{scene-job}')",
        "select renew_job('scene-job', 1)", "select steer_job('scene-job', 'resume')",
        "select finish_job('scene-job', 1, 'failed', 'x')",
    ),
    "job_run": ("select finish_job('scene-job', 1, 'failed', 'x')", "select forget_job_runs(1, 1)"),
    "job_runner": ("select beat_runner('lure', '1')", "select leave_runner('lure')"),
    "backup": (
        "select begin_backup('FULL', 'lure')", "select fail_backup(0, 'x')",
        "select forget_lost_backups(24)", "select note_backup_verified('lure', 'x', null)",
        "select note_backups_removed('lure', '{x}')", "select give_up_backup(0)",
        "select finish_backup(0, 'lure', 'x', 1, repeat('0', 64), true, 1, 1, now())",
    ),
    "backup_task": (
        "select ask_backup_task('VERIFY', 1, 1, 1, 0)",
        "select reopen_backup_tasks(24)", "select claim_backup_task()",
        "select end_backup_task(0, 'FAILED', 'x', null, null)", "select cancel_backup_task(0)",
    ),
    "backup_confirmation": (
        "select issue_backup_confirmation(sha256(now()::text::bytea), 1, 1, 1, 1)",
        "select use_backup_confirmation('x', 0, 1, 1)",
    ),
    "backup_drill": ("select record_drill('DUMP', 'x', '1', now(), null, 1, 1, 1)",),
    "business_figure": ("select write_business_figures('{sales}', '{1h}', '{EUR}', '{1}')",),
    "balance_roll_up": ("select mark_roll_up()", "select roll_up_balances()"),
    "account_day": ("select roll_up_balances()", "select rebuild_balances()"),
    "event": (
        "select store_events('{1}', '{a}', '{b}', '{1}', '{1}', '{now}', '{x}')",
        "select forget_events(1, 10)",
    ),
    "webhook_delivery": (
        "select give_up_delivery(1)", "select replay_deliveries('{1}', null, 0)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("table", LURED)
def test_no_temporary_table_lures_the_owner_s_functions(
    scene: Scene, psql: Psql, table: str
) -> None:
    for call in LURED[table]:
        psql(LURES.format(table=table) + call, org=scene.org)


def test_functions_leave_the_tenant_as_it_was(scene: Scene, psql: Psql) -> None:
    for call in (
        "select mark_roll_up()",
        "select roll_up_balances()",
        "select count(*) from list_organisation_ids()",
        "select count(*) from list_flagged_organisations('pause_jobs')",
        "select count(*) from list_outboxes(10)",
        "select count(*) from claim_deliveries(10, 10, 60, '{}')",
        "select count(*) from read_outbox()",
        f"select lock_sale({scene.ids['sale']})",
        f"select lock_sale({scene.ids['other_sale']})",
        (
            "select org_id from create_organisation('x', 'USD', 'UTC', false, 0, 0,"
            " gen_random_uuid() || '@example.com', 'x', 'A', 'B')"
        ),
    ):
        tenant = psql(f"{call};\nselect current_setting('app.org_id')", org=scene.org)[0][0]
        assert tenant == str(scene.org.id), call


def test_a_sale_of_another_organisation_cannot_be_locked(scene: Scene, psql: Psql) -> None:
    def lock(sale: str) -> bool:
        return bool(psql(f"select lock_sale({scene.ids[sale]})", org=scene.org)[0][0])

    assert (lock("sale"), lock("other_sale")) == (True, False)


def test_roll_ups_need_a_tenant(psql: Psql) -> None:
    for function in ("mark_roll_up", "roll_up_balances", "rebuild_balances"):
        assert refusal(psql, f"select {function}()") == NO_TENANT


# -- links, keys, numbers ----------------------------------------------------------------------


def test_nothing_links_across_organisations(scene: Scene, psql: Psql) -> None:
    """Lead every foreign key of a row to another organisation's row; nothing else may say no."""
    links = psql(
        "select ours.relname, con.conname, con.confrelid::regclass::text,"
        " array_agg(child.attname::text order by place),"
        " array_agg(parent.attname::text order by place),"
        " array_agg(child.attgenerated = '' order by place)"
        f" from ({OURS} and relname <> all (%s)) as ours"
        " join pg_constraint as con on con.conrelid = ours.oid and con.contype = 'f'"
        " cross join unnest(con.conkey, con.confkey) with ordinality as key (ours, theirs, place)"
        " join pg_attribute as child on child.attrelid = conrelid and child.attnum = key.ours"
        " join pg_attribute as parent on parent.attrelid = confrelid and parent.attnum = key.theirs"
        # A role is referred to by its name, which finds one's own organisation's.
        " where con.confrelid::regclass::text <> all (%s) group by 1, 2, 3",
        [list(OTHER_TABLES), ["organisation", "org_role", *OTHER_TABLES]],
        role="superuser",
    )
    assert len(links) > 35
    with psycopg.connect(psql.superuser_url) as conn:
        for table, name, parent, columns, theirs, is_free in links:
            pairs = [*zip(columns, theirs, is_free, strict=True)]
            assert pairs[0][:2] == ("org_id", "org_id"), name
            led = [(ours, their) for ours, their, free in pairs[1:] if free]
            bound = [ours for ours, _, free in pairs if not free]
            with conn.transaction(force_rollback=True):
                for owner, other in conn.execute(
                    "select conrelid::regclass, conname from pg_constraint"
                    " where %s::regclass in (conrelid, confrelid)"
                    " and contype in ('f', 'c') and conname <> %s",
                    [table, name],
                ).fetchall():
                    conn.execute(f"alter table {owner} drop constraint {other}")
                conn.execute(f"alter table {table} disable trigger user")
                found = conn.execute(
                    f"select ctid from {table} where org_id = %s"
                    + "".join(f" and {column} is not null" for column in bound)
                    + " limit 1",
                    [scene.org.id],
                ).fetchone()
                assert found is not None, name
                lead = ", ".join(
                    f"{ours} = (select {their} from {parent} where org_id = %(other)s limit 1)"
                    for ours, their in led
                )
                with pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
                    conn.execute(
                        f"update {table} set {lead} where ctid = %(ctid)s",
                        {"other": scene.other.id, "ctid": found[0]},
                    )
                assert refused.value.diag.constraint_name == name


@pytest.mark.parametrize("table", KEYS)
def test_every_key_refuses_a_second_row(scene: Scene, psql: Psql, table: str) -> None:
    """Copy a row, take the key away that refused the copy, and copy again until none does."""
    refused: list[str] = []
    columns = sql.SQL(", ").join(
        sql.Identifier(name)
        for (name,) in psql(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
            " and not attisdropped and attgenerated = ''",
            [table],
            role="superuser",
        )
    )
    copy = sql.SQL(
        "insert into {table} ({columns}) overriding system value"
        " select {columns} from {table} limit 1"
    ).format(table=sql.Identifier(table), columns=columns)
    with psycopg.connect(psql.superuser_url) as conn, conn.transaction(force_rollback=True):
        conn.execute("set local session_replication_role = replica")
        while True:
            try:
                with conn.transaction():
                    conn.execute(copy)
                break
            except (psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation) as error:
                name = str(error.diag.constraint_name)
                refused.append(name)
                is_constraint = conn.execute(
                    "select 1 from pg_constraint where conname = %s", [name]
                ).fetchone()
                conn.execute(
                    f"alter table {table} drop constraint {name} cascade"
                    if is_constraint
                    else f"drop index {name}"
                )
    assert set(KEYS[table]) <= set(refused)


def test_every_number_that_is_written_is_held_against_nan(psql: Psql) -> None:
    numbers = psql(
        f"select ours.relname, attname from ({OURS}) as ours"
        " join pg_attribute on attrelid = ours.oid and atttypid = 'numeric'::regtype"
        " where not attisdropped and attgenerated = '' and ("
        " has_column_privilege('sofinance_app', attrelid, attnum, 'insert')"
        " or has_column_privilege('sofinance_app', attrelid, attnum, 'update'))"
        " and not exists (select from pg_constraint where conrelid = attrelid"
        " and contype = 'c' and attnum = any (conkey)"
        " and pg_get_constraintdef(oid) like '%%NaN%%' and conname like '%%_amounts_are_numbers')",
        [],
        role="superuser",
    )
    assert set(numbers) == set(NUMBERS_BOUND_OTHERWISE)


# -- rules -------------------------------------------------------------------------------------

RULES = f"""
select conname as name, obj_description(con.oid, 'pg_constraint') as message
from pg_constraint as con join ({OURS}) as ours on ours.oid = con.conrelid
where con.contype in ('c', 'f', 'p', 'u', 'x', 't')
union
select index_class.relname, coalesce(
    obj_description(indexrelid, 'pg_class'),
    (select obj_description(oid, 'pg_constraint') from pg_constraint where conindid = indexrelid
        and contype in ('p', 'u', 'x'))
)
from pg_index join ({OURS}) as ours on ours.oid = indrelid
join pg_class as index_class on index_class.oid = indexrelid
where indisunique
union
select tgname, obj_description(trg.oid, 'pg_trigger')
from pg_trigger as trg join ({OURS}) as ours on ours.oid = tgrelid
where not tgisinternal and tgconstraint = 0
"""


def test_every_rule_has_its_message(psql: Psql) -> None:
    assert [name for name, message in psql(RULES, role="superuser") if not message] == []


def test_every_rule_is_named_by_a_test(psql: Psql) -> None:
    words = {
        word
        for path in TESTS.rglob("*.py")
        if path.name != "grid.py"
        for word in re.findall(r"\w+", path.read_text("utf-8"))
    }
    words |= {*FINAL_RULES, *WORKING_TRIGGERS, *(f"{t}_organisation_known" for t in TENANT_TABLES)}
    names = {name for name, _ in psql(RULES, role="superuser")}
    assert names - words == set()
    assert names >= WORKING_TRIGGERS
