-- The chart of accounts and the accounting periods.
-- An account has one currency and no balance: balances are summed from immutable lines.
-- depends: 0005_customers
set local lock_timeout = '4s';
set local role sofinance_owner;

create table account (
    org_id bigint not null,
    id bigint generated always as identity,
    code text not null,
    name text not null,
    type text not null,
    role text,
    currency char(3) not null,
    branch_id bigint,
    takes_payments boolean not null default false,
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint account_pk primary key (org_id, id),
    constraint account_organisation_known foreign key (org_id) references organisation (org_id),
    constraint account_branch_known foreign key (org_id, branch_id) references branch (org_id, id),
    constraint account_code_taken unique (org_id, code),
    constraint account_role_taken unique (org_id, role),
    constraint account_currency_key unique (org_id, id, currency),
    constraint account_payment_key unique (org_id, id, currency, takes_payments),
    constraint account_active_key unique (org_id, id, is_active),
    constraint account_code_not_empty check (code ~ '^[0-9A-Za-z.-]{1,20}$'),
    constraint account_name_long_enough check (length(btrim(name)) between 2 and 120),
    constraint account_type_known check (
        type in ('ASSET', 'LIABILITY', 'EQUITY', 'REVENUE', 'EXPENSE')
    ),
    constraint account_currency_is_iso check (currency ~ '^[A-Z]{3}$'),
    constraint account_payments_go_to_assets check (not takes_payments or type = 'ASSET')
);
comment on table account is 'An account of the chart of accounts.';
comment on column account.org_id is 'The organisation.';
comment on column account.id is 'The account.';
comment on column account.code is 'Number in the chart of accounts, unique.';
comment on column account.name is 'Its name.';
comment on column account.type is 'ASSET, LIABILITY, EQUITY, REVENUE or EXPENSE.';
comment on column account.role is
'What postings use it for, such as inventory; fixed for life, so that old entries can be checked.';
comment on column account.currency is 'ISO 4217 code; an account has one currency.';
comment on column account.branch_id is 'The branch it belongs to; null for all.';
comment on column account.takes_payments is
'Cash or a cash equivalent: payments may go to it, and the cash flow statement reports it.';
comment on column account.is_active is 'False: closed, nothing can be posted to it.';
comment on column account.created_at is 'When it was created (server time).';
comment on column account.updated_at is 'When it was last changed (server time).';
comment on constraint account_pk on account is 'This account exists already.';
comment on constraint account_organisation_known on account is 'There is no such organisation.';
comment on constraint account_branch_known on account is 'There is no such branch.';
comment on constraint account_code_taken on account is 'Another account has this code.';
comment on constraint account_role_taken on account is 'Another account has this role.';
comment on constraint account_currency_key on account is
'Lets a journal line name its account together with its currency.';
comment on constraint account_payment_key on account is
'Lets a payment name an account that takes payments, in its currency.';
comment on constraint account_active_key on account is
'Makes is_active part of a key: closing then waits for every posting that is under way.';
comment on constraint account_code_not_empty on account is
'A code has 1 to 20 letters, digits, dots or hyphens.';
comment on constraint account_name_long_enough on account is 'A name has 2 to 120 characters.';
comment on constraint account_type_known on account is
'A type is ASSET, LIABILITY, EQUITY, REVENUE or EXPENSE.';
comment on constraint account_currency_is_iso on account is
'A currency is three capital letters (ISO 4217).';
comment on constraint account_payments_go_to_assets on account is
'Only an ASSET account takes payments.';

create table accounting_period (
    org_id bigint not null,
    id bigint generated always as identity,
    starts_on date not null,
    ends_on date not null,
    is_closed boolean not null default false,
    closed_by bigint,
    closed_at timestamptz,
    created_at timestamptz not null default now(),
    constraint accounting_period_pk primary key (org_id, id),
    constraint accounting_period_organisation_known foreign key (org_id)
    references organisation (org_id),
    constraint accounting_period_closer_known foreign key (org_id, closed_by)
    references app_user (org_id, id),
    constraint accounting_period_closed_key unique (org_id, id, is_closed),
    constraint accounting_period_start_taken unique (org_id, starts_on),
    constraint accounting_period_not_empty check (
        starts_on <= ends_on and ends_on - starts_on <= 366
    ),
    constraint accounting_period_overlaps exclude using gist (
        org_id with =, daterange(starts_on, ends_on, '[]') with &&
    )
);
comment on table accounting_period is
'A span of dates that is open or closed for posting; usually a month, opened on first use.';
comment on column accounting_period.org_id is 'The organisation.';
comment on column accounting_period.id is 'The period.';
comment on column accounting_period.starts_on is 'First date of the period.';
comment on column accounting_period.ends_on is 'Last date of the period.';
comment on column accounting_period.is_closed is 'True: nothing can be posted into it.';
comment on column accounting_period.closed_by is 'Who closed it.';
comment on column accounting_period.closed_at is 'When it was closed (server time).';
comment on column accounting_period.created_at is 'When it was created (server time).';
comment on constraint accounting_period_pk on accounting_period is 'This period exists already.';
comment on constraint accounting_period_organisation_known on accounting_period is
'There is no such organisation.';
comment on constraint accounting_period_closer_known on accounting_period is
'There is no such user.';
comment on constraint accounting_period_closed_key on accounting_period is
'Makes is_closed part of a key: closing then waits for every posting that is under way.';
comment on constraint accounting_period_start_taken on accounting_period is
'Another period begins on this date.';
comment on constraint accounting_period_not_empty on accounting_period is
'A period ends on or after its start and is at most a year long.';
comment on constraint accounting_period_overlaps on accounting_period is
'The dates overlap another period.';

alter table account enable row level security;
alter table account force row level security;
create policy org on account using (org_id = current_setting('app.org_id')::bigint);
grant select on account to sofinance_app;
grant insert (
    org_id, code, name, type, currency, branch_id, takes_payments
) on account to sofinance_app;
grant update (code, name, is_active, updated_at) on account to sofinance_app;

alter table accounting_period enable row level security;
alter table accounting_period force row level security;
create policy org on accounting_period using (org_id = current_setting('app.org_id')::bigint);
grant select on accounting_period to sofinance_app;
grant insert (
    org_id, starts_on, ends_on
) on accounting_period to sofinance_app;
grant update (is_closed, closed_by, closed_at) on accounting_period to sofinance_app;
