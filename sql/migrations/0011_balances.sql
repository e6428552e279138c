-- Snapshots of balances per account and day, so that a trial balance does not read every line.
-- A balance is the snapshot up to an entry number plus the lines since; both give the same figures,
-- and a rebuild proves it.
-- depends: 0010_requests
set local lock_timeout = '4s';
set local role sofinance_owner;

create table balance_roll_up (
    org_id bigint not null,
    through_entry_id bigint not null default 0,
    safe_entry_id bigint not null default 0,
    rolled_up_at timestamptz not null default now(),
    constraint balance_roll_up_pk primary key (org_id),
    constraint balance_roll_up_organisation_known foreign key (org_id)
    references organisation (org_id),
    constraint balance_roll_up_reaches_safe_entries check (through_entry_id <= safe_entry_id)
);
comment on table balance_roll_up is 'How far the snapshots of an organisation reach.';
comment on column balance_roll_up.org_id is 'The organisation.';
comment on column balance_roll_up.through_entry_id is
'Every entry up to this number is in the snapshots, none above it.';
comment on column balance_roll_up.safe_entry_id is
'Up to here no entry was under way when mark_roll_up looked; the snapshots may reach it.';
comment on column balance_roll_up.rolled_up_at is 'When (server time).';
comment on constraint balance_roll_up_pk on balance_roll_up is
'This organisation has its mark already.';
comment on constraint balance_roll_up_organisation_known on balance_roll_up is
'There is no such organisation.';

comment on constraint balance_roll_up_reaches_safe_entries on balance_roll_up is
'Snapshots reach no further than where nothing was under way.';

create table account_day (
    org_id bigint not null,
    account_id bigint not null,
    posted_on date not null,
    debit numeric(20, 4) not null,
    credit numeric(20, 4) not null,
    constraint account_day_pk primary key (org_id, account_id, posted_on),
    constraint account_day_account_known foreign key (org_id, account_id)
    references account (org_id, id)
);
comment on table account_day is
'Debits and credits of an account on a day: derived from the journal, written only by roll_up_balances.';
comment on column account_day.org_id is 'The organisation.';
comment on column account_day.account_id is 'The account; its currency is the amounts''.';
comment on column account_day.posted_on is 'Business date.';
comment on column account_day.debit is 'Sum of debits.';
comment on column account_day.credit is 'Sum of credits.';
comment on constraint account_day_pk on account_day is 'This day has its snapshot already.';
comment on constraint account_day_account_known on account_day is 'There is no such account.';

alter table balance_roll_up enable row level security;
alter table balance_roll_up force row level security;
create policy org on balance_roll_up using (org_id = current_setting('app.org_id')::bigint);
grant select on balance_roll_up to sofinance_app;

alter table account_day enable row level security;
alter table account_day force row level security;
create policy org on account_day using (org_id = current_setting('app.org_id')::bigint);
grant select on account_day to sofinance_app;
