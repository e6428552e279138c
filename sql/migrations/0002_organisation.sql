-- Organisations, the tenants of the service, and the currencies their money is in.
-- Tenancy fails closed: without app.org_id the policy raises, it never shows all rows.
-- depends: 0001_roles
set local lock_timeout = '4s';
set local role sofinance_owner;

-- Called by CHECKs, which PostgreSQL prepares anew for each statement: an SQL function's text would
-- be read and put into each of them every time, this one is only called.
create function minor_units(currency char(3)) returns integer
language plpgsql immutable parallel safe as $$
begin
    return case
        when currency in (
            'BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI',
            'VND', 'VUV', 'XAF', 'XOF', 'XPF'
        ) then 0
        when currency in ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') then 3
        else 2
    end;
end
$$;
comment on function minor_units(char) is
'Decimals of a currency''s minor unit (ISO 4217): 0, 2 or 3. Immutable, so that CHECKs may use it.';
grant execute on function minor_units(char)
to sofinance_app, sofinance_readonly, sofinance_backup;

create function is_final() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = tg_table_name || '_is_final',
        table = tg_table_name, message = format('%s rows are final', tg_table_name);
end
$$;
comment on function is_final() is
'Refuses UPDATE, DELETE and TRUNCATE, whoever asks; the rule is named <table>_is_final.';

create table organisation (
    org_id bigint generated always as identity,
    name text not null,
    base_currency char(3) not null,
    time_zone text not null default 'UTC',
    prices_include_tax boolean not null default false,
    default_credit_limit numeric(20, 4) not null default 0,
    created_at timestamptz not null default now(),
    constraint organisation_pk primary key (org_id),
    constraint organisation_base_currency_key unique (org_id, base_currency),
    constraint organisation_name_not_empty check (length(btrim(name)) between 1 and 200),
    constraint organisation_currency_is_iso check (base_currency ~ '^[A-Z]{3}$'),
    constraint organisation_credit_limit_not_negative check (default_credit_limit >= 0),
    constraint organisation_amounts_are_numbers check (default_credit_limit < 'NaN')
);
comment on table organisation is
'A tenant: one retailer with its branches and its books. Every other row belongs to one.';
comment on column organisation.org_id is 'The organisation; first in every key.';
comment on column organisation.name is 'Name printed on receipts and reports.';
comment on column organisation.base_currency is
'ISO 4217 code of the currency in which it sells and keeps its books; fixed for life.';
comment on column organisation.time_zone is
'IANA time zone: where a branch has none of its own, business dates are dates here.';
comment on column organisation.prices_include_tax is
'True: shelf prices contain tax (VAT countries); false: tax is added on top (sales tax).';
comment on column organisation.default_credit_limit is
'Credit limit, in the base currency, of a customer created without one.';
comment on column organisation.created_at is 'When it was created (server time).';
comment on constraint organisation_pk on organisation is 'This organisation exists already.';
comment on constraint organisation_base_currency_key on organisation is
'Lets other tables refer to an organisation together with its currency.';
comment on constraint organisation_name_not_empty on organisation is
'A name has 1 to 200 characters.';
comment on constraint organisation_currency_is_iso on organisation is
'A currency is three capital letters (ISO 4217).';
comment on constraint organisation_credit_limit_not_negative on organisation is
'A credit limit is zero or more.';
comment on constraint organisation_amounts_are_numbers on organisation is
'An amount is a number: NaN would be equal to itself and above all limits.';

alter table organisation enable row level security;
alter table organisation force row level security;
create policy org on organisation using (org_id = current_setting('app.org_id')::bigint);
grant select on organisation to sofinance_app;
grant update (name, time_zone, prices_include_tax, default_credit_limit) on organisation
to sofinance_app;

create table app_user (
    org_id bigint not null,
    id bigint generated always as identity,
    email text not null,
    password_hash text not null,
    first_name text not null,
    last_name text not null,
    role text not null,
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint app_user_pk primary key (org_id, id),
    constraint app_user_organisation_known foreign key (org_id) references organisation (org_id),
    constraint app_user_email_is_lower_case check (
        email = lower(email) and email ~ '^[^@[:space:]]+@[^@[:space:]]+$' and length(email) <= 254
    ),
    constraint app_user_name_not_empty check (
        length(first_name) between 1 and 100 and length(last_name) between 1 and 100
    ),
    constraint app_user_role_known check (
        role in ('ADMIN', 'MANAGER', 'CASHIER', 'INVENTORY_CLERK', 'ACCOUNTANT')
    )
);
comment on table app_user is 'A person who signs in, in one organisation.';
comment on column app_user.org_id is 'The organisation.';
comment on column app_user.id is 'The user.';
comment on column app_user.email is 'Address used to sign in; lower case; unique on this server.';
comment on column app_user.password_hash is 'argon2id hash in PHC format; never leaves the service.';
comment on column app_user.first_name is 'Given name.';
comment on column app_user.last_name is 'Family name.';
comment on column app_user.role is 'What the user may do: see role_permission.';
comment on column app_user.is_active is 'False: may not sign in. Users are never deleted.';
comment on column app_user.created_at is 'When it was created (server time).';
comment on column app_user.updated_at is 'When it was last changed (server time).';
comment on constraint app_user_pk on app_user is 'This user exists already.';
comment on constraint app_user_organisation_known on app_user is 'There is no such organisation.';
comment on constraint app_user_email_is_lower_case on app_user is
'An e-mail address has the form name@host, in lower case, of at most 254 characters.';
comment on constraint app_user_name_not_empty on app_user is
'First and last name have 1 to 100 characters each.';
comment on constraint app_user_role_known on app_user is
'A role is ADMIN, MANAGER, CASHIER, INVENTORY_CLERK or ACCOUNTANT.';

alter table app_user enable row level security;
alter table app_user force row level security;
create policy org on app_user using (org_id = current_setting('app.org_id')::bigint);
-- By column, here and below: numbers and server times are the database's, and OVERRIDING SYSTEM
-- VALUE needs the right to the column.
grant select on app_user to sofinance_app;
grant insert (
    org_id, email, password_hash, first_name, last_name, role
) on app_user to sofinance_app;
grant update (email, password_hash, first_name, last_name, role, is_active, updated_at)
on app_user to sofinance_app;

-- Reports need people's names, not what their passwords are checked with.
revoke select on app_user from sofinance_readonly;
grant select (
    org_id, id, email, first_name, last_name, role, is_active, created_at, updated_at
) on app_user to sofinance_readonly;

-- Where an address signs in is asked before the organisation is known, so it cannot stand behind
-- row-level security. Nobody but the owner's two functions reads or writes it.
create table sign_in_address (
    email text not null,
    org_id bigint not null,
    user_id bigint not null,
    constraint sign_in_address_taken primary key (email),
    constraint sign_in_address_user_key unique (org_id, user_id),
    constraint sign_in_address_user_known foreign key (org_id, user_id)
    references app_user (org_id, id)
);
comment on table sign_in_address is
'Which user of which organisation an e-mail address is: the only table without row security.';
comment on column sign_in_address.email is 'The address, lower case.';
comment on column sign_in_address.org_id is 'The organisation.';
comment on column sign_in_address.user_id is 'The user.';
comment on constraint sign_in_address_taken on sign_in_address is
'This e-mail address is in use already.';
comment on constraint sign_in_address_user_key on sign_in_address is
'A user has one address to sign in with.';
comment on constraint sign_in_address_user_known on sign_in_address is 'There is no such user.';
revoke all on sign_in_address from sofinance_readonly;

create function remember_sign_in_address() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    insert into public.sign_in_address as known (email, org_id, user_id)
    values (new.email, new.org_id, new.id)
    on conflict on constraint sign_in_address_user_key do update set email = excluded.email;
    return null;
end
$$;
comment on function remember_sign_in_address() is
'Keeps sign_in_address equal to the users'' addresses.';
create trigger app_user_address_known after insert or update of email on app_user
for each row execute function remember_sign_in_address();
comment on trigger app_user_address_known on app_user is
'Keeps sign_in_address equal to the users'' addresses.';

create function find_sign_in(address text) returns table (org_id bigint, user_id bigint)
language sql stable security definer set search_path = pg_catalog, public
begin atomic
    select
        known.org_id,
        known.user_id
    from public.sign_in_address as known
    where known.email = lower(address);
end;
comment on function find_sign_in(text) is
'Crosses organisations: where an address signs in, and nothing else about it.';
grant execute on function find_sign_in(text) to sofinance_app;

create table role_permission (
    role text not null,
    permission text not null,
    constraint role_permission_pk primary key (role, permission),
    constraint role_permission_form check (permission ~ '^[a-z_]+:[a-z_]+$')
);
comment on table role_permission is
'What each built-in role may do. ADMIN may do everything and has no rows. The same everywhere.';
comment on column role_permission.role is 'The role of app_user.role.';
comment on column role_permission.permission is 'resource:action, as endpoints declare it.';
comment on constraint role_permission_pk on role_permission is 'The role has this already.';
comment on constraint role_permission_form on role_permission is
'A permission is written resource:action.';
grant select on role_permission to sofinance_app;

insert into role_permission (role, permission)
select
    granted.role,
    unnest(granted.permissions)
from (
    values
    ('MANAGER', array[
        'accounts:read', 'accounts:write', 'branches:read', 'branches:write', 'categories:read',
        'categories:write', 'customers:read', 'customers:write', 'inventory:read',
        'inventory:write', 'journal:read', 'journal:write', 'payments:read', 'payments:write',
        'periods:read', 'periods:write', 'products:read', 'products:write', 'reports:read',
        'sales:read', 'sales:write', 'sales:void', 'sales:override_price', 'sales:backdate',
        'tax:read', 'tax:write'
    ]),
    ('CASHIER', array[
        'branches:read', 'categories:read', 'customers:read', 'customers:write',
        'inventory:read', 'payments:read', 'payments:write', 'products:read', 'sales:read',
        'sales:write', 'tax:read'
    ]),
    ('INVENTORY_CLERK', array[
        'branches:read', 'categories:read', 'inventory:read', 'inventory:write',
        'products:read', 'products:write', 'tax:read'
    ]),
    ('ACCOUNTANT', array[
        'accounts:read', 'accounts:write', 'branches:read', 'customers:read', 'inventory:read',
        'journal:read', 'journal:write', 'payments:read', 'periods:read', 'periods:write',
        'reports:read', 'sales:read', 'tax:read', 'tax:write'
    ])
) as granted (role, permissions);
