-- Branches and their tills. A till numbers its own receipts, so that no two wait for each other.
-- depends: 0002_organisation
set local lock_timeout = '4s';
set local role sofinance_owner;

create table branch (
    org_id bigint not null,
    id bigint generated always as identity,
    name text not null,
    address text,
    phone text,
    email text,
    time_zone text not null,
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint branch_pk primary key (org_id, id),
    constraint branch_organisation_known foreign key (org_id) references organisation (org_id),
    constraint branch_name_taken unique (org_id, name),
    constraint branch_name_not_empty check (length(btrim(name)) between 1 and 200),
    constraint branch_contact_not_long check (
        length(address) <= 500 and length(phone) <= 40 and length(email) <= 254
    )
);
comment on table branch is 'A shop of the organisation: it has stock, tills and a business date.';
comment on column branch.org_id is 'The organisation.';
comment on column branch.id is 'The branch.';
comment on column branch.name is 'Its name, unique in the organisation.';
comment on column branch.address is 'Postal address, as printed on receipts.';
comment on column branch.phone is 'Telephone number.';
comment on column branch.email is 'E-mail address.';
comment on column branch.time_zone is 'IANA time zone: its business dates are dates here.';
comment on column branch.is_active is 'False: it sells nothing any more. Never deleted.';
comment on column branch.created_at is 'When it was created (server time).';
comment on column branch.updated_at is 'When it was last changed (server time).';
comment on constraint branch_pk on branch is 'This branch exists already.';
comment on constraint branch_organisation_known on branch is 'There is no such organisation.';
comment on constraint branch_name_taken on branch is 'Another branch has this name.';
comment on constraint branch_name_not_empty on branch is 'A name has 1 to 200 characters.';
comment on constraint branch_contact_not_long on branch is
'An address has at most 500 characters, a phone number 40, an e-mail address 254.';

create table till (
    org_id bigint not null,
    id bigint generated always as identity,
    branch_id bigint not null,
    name text not null,
    is_active boolean not null default true,
    receipt_count bigint not null default 0,
    created_at timestamptz not null default now(),
    constraint till_pk primary key (org_id, id),
    constraint till_branch_key unique (org_id, branch_id, id),
    constraint till_name_taken unique (org_id, branch_id, name),
    constraint till_branch_known foreign key (org_id, branch_id) references branch (org_id, id),
    constraint till_name_not_empty check (length(btrim(name)) between 1 and 50),
    constraint till_receipt_count_not_negative check (receipt_count >= 0)
);
comment on table till is 'A point of sale. It has its own series of receipt numbers, without holes.';
comment on column till.org_id is 'The organisation.';
comment on column till.id is 'The till.';
comment on column till.branch_id is 'The branch it stands in.';
comment on column till.name is 'Its name, unique in the branch; begins its receipt numbers.';
comment on column till.is_active is 'False: it sells nothing any more. Never deleted.';
comment on column till.receipt_count is
'Receipts given so far. Locked by a posting until it commits: one sale at a time per till.';
comment on column till.created_at is 'When it was created (server time).';
comment on constraint till_pk on till is 'This till exists already.';
comment on constraint till_branch_key on till is
'Lets a sale name its till together with its branch.';
comment on constraint till_name_taken on till is 'Another till of this branch has this name.';
comment on constraint till_branch_known on till is 'There is no such branch.';
comment on constraint till_name_not_empty on till is 'A till''s name has 1 to 50 characters.';
comment on constraint till_receipt_count_not_negative on till is
'A till has given no fewer than zero receipts.';

alter table branch enable row level security;
alter table branch force row level security;
create policy org on branch using (org_id = current_setting('app.org_id')::bigint);
grant select on branch to sofinance_app;
grant insert (
    org_id, name, address, phone, email, time_zone, is_active
) on branch to sofinance_app;
grant update (name, address, phone, email, time_zone, is_active, updated_at) on branch
to sofinance_app;

alter table till enable row level security;
alter table till force row level security;
create policy org on till using (org_id = current_setting('app.org_id')::bigint);
grant select on till to sofinance_app;
grant insert (
    org_id, branch_id, name, is_active
) on till to sofinance_app;
-- Its count follows its sales, by a trigger. The right to the name also lets a posting lock the
-- row.
grant update (name, is_active) on till to sofinance_app;
