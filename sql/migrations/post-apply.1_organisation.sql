-- New organisations: the tenant, its chart of accounts, its tax codes and its administrator.
-- Re-applied after every migration run; reviewed like a query.
set local role sofinance_owner;

create or replace function create_organisation(
    p_name text,
    p_base_currency text,
    p_time_zone text,
    p_prices_include_tax boolean,
    p_standard_tax_percent numeric,
    p_default_credit_limit numeric,
    p_admin_email text,
    p_admin_password_hash text,
    p_admin_first_name text,
    p_admin_last_name text
) returns table (org_id bigint, admin_id bigint)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    caller constant text := current_setting('app.org_id', true);
    new_org_id constant bigint := nextval('public.organisation_org_id_seq');
    new_admin_id bigint;
begin
    perform set_config('app.org_id', new_org_id::text, true);

    insert into public.organisation overriding system value values (
        new_org_id, p_name, p_base_currency, p_time_zone, p_prices_include_tax,
        p_default_credit_limit, default
    );

    insert into public.org_role (org_id, name, is_built_in)
    select new_org_id, built_in.name, true
    from (
        values ('ADMIN'), ('MANAGER'), ('CASHIER'), ('INVENTORY_CLERK'), ('ACCOUNTANT')
    ) as built_in (name);

    insert into public.app_user (
        org_id, email, password_hash, first_name, last_name, role, all_branches
    )
    values (
        new_org_id, p_admin_email, p_admin_password_hash, p_admin_first_name, p_admin_last_name,
        'ADMIN', true
    )
    returning id into new_admin_id;

    insert into public.tax_code (org_id, code, name, rate_percent)
    values
    (new_org_id, 'STD', 'Standard rate', p_standard_tax_percent),
    (new_org_id, 'ZERO', 'Zero rate', 0);

    -- The usual chart of a retailer: 1 assets, 2 liabilities, 3 equity, 4 revenue, 5 and 6 expenses.
    insert into public.account (org_id, code, name, type, role, currency, takes_payments)
    select new_org_id, chart.code, chart.name, chart.type, chart.role, p_base_currency, chart.money
    from (
        values
        ('1000', 'Cash on hand', 'ASSET', 'cash', true),
        ('1010', 'Bank', 'ASSET', 'bank', true),
        ('1020', 'Card clearing', 'ASSET', 'card_clearing', true),
        ('1030', 'Mobile money', 'ASSET', 'mobile_money', true),
        ('1100', 'Accounts receivable', 'ASSET', 'receivable', false),
        ('1200', 'Inventory', 'ASSET', 'inventory', false),
        ('2000', 'Accounts payable', 'LIABILITY', 'payables', false),
        ('2100', 'Tax payable', 'LIABILITY', 'tax_payable', false),
        ('3000', 'Owner''s equity', 'EQUITY', null, false),
        ('3100', 'Retained earnings', 'EQUITY', 'retained_earnings', false),
        ('3900', 'Opening balance equity', 'EQUITY', 'opening_equity', false),
        ('4000', 'Sales revenue', 'REVENUE', 'revenue', false),
        ('4100', 'Sales discounts', 'REVENUE', 'discounts', false),
        ('4200', 'Sales returns', 'REVENUE', 'returns', false),
        ('5000', 'Cost of goods sold', 'EXPENSE', 'cogs', false),
        ('5100', 'Inventory shrinkage', 'EXPENSE', 'shrinkage', false),
        ('6000', 'Rent', 'EXPENSE', null, false),
        ('6100', 'Wages and salaries', 'EXPENSE', null, false),
        ('6200', 'Utilities', 'EXPENSE', null, false),
        ('6300', 'Bank and card fees', 'EXPENSE', null, false),
        ('6900', 'Other expenses', 'EXPENSE', null, false)
    ) as chart (code, name, type, role, money);

    perform set_config('app.org_id', caller, true);
    return query select new_org_id, new_admin_id;
end
$$;
comment on function create_organisation(
    text, text, text, boolean, numeric, numeric, text, text, text, text
) is
'Crosses organisations: makes a new one with its chart of accounts, tax codes and administrator.';
grant execute on function create_organisation(
    text, text, text, boolean, numeric, numeric, text, text, text, text
) to sofinance_app;

create or replace function list_organisation_ids() returns table (org_id bigint)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    caller constant text := current_setting('app.org_id', true);
begin
    -- Every number that was ever given is tried: what verify must find cannot be hidden from it by
    -- taking rows out of another table.
    for org_id in
        select generate_series(1, last_value) from public.organisation_org_id_seq
    loop
        perform set_config('app.org_id', org_id::text, true);
        if exists (
            select from public.organisation as known
            where known.org_id = list_organisation_ids.org_id
        ) then
            return next;
        end if;
    end loop;
    perform set_config('app.org_id', caller, true);
end
$$;
comment on function list_organisation_ids() is
'Crosses organisations: their numbers and nothing else, for verify and for jobs.';
grant execute on function list_organisation_ids() to sofinance_app, sofinance_readonly;

create or replace function list_flagged_organisations(p_flag text)
returns table (org_id bigint, percent integer)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    caller constant text := current_setting('app.org_id', true);
begin
    for org_id in
        select known.org_id from public.list_organisation_ids() as known
    loop
        perform set_config('app.org_id', org_id::text, true);
        percent := (
            select override.percent from public.flag_override as override
            where
                override.org_id = list_flagged_organisations.org_id
                and override.user_id is null and override.branch_id is null
                and override.flag = p_flag
        );
        return next;
    end loop;
    perform set_config('app.org_id', coalesce(caller, ''), true);
end
$$;
comment on function list_flagged_organisations(text) is
'Crosses organisations: their numbers and what each has set for a flag, for jobs that it pauses.';
grant execute on function list_flagged_organisations(text) to sofinance_app;
