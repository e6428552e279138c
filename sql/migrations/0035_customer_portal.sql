-- The customers' portal: links that are good once, and the short sessions that they begin.
-- depends: 0034_audit_archive
set local lock_timeout = '4s';
set local role sofinance_owner;

insert into permission (name, description) values
('customers:portal', 'Send customers links to their portal, and end their sessions there.');
insert into role_permission (role, permission) values ('MANAGER', 'customers:portal');

create table portal_link (
    org_id bigint not null,
    id bigint generated always as identity,
    customer_id bigint not null,
    slot smallint not null,
    token_hash bytea not null,
    issued_at timestamptz not null default now(),
    issued_by bigint,
    expires_at timestamptz not null,
    used_at timestamptz,
    constraint portal_link_pk primary key (org_id, id),
    constraint portal_link_customer_key unique (org_id, customer_id, id),
    constraint portal_link_customer_known foreign key (org_id, customer_id)
    references customer (org_id, id),
    constraint portal_link_issuer_known foreign key (org_id, issued_by)
    references app_user (org_id, id),
    constraint portal_link_few check (slot between 1 and 3),
    constraint portal_link_is_digest check (octet_length(token_hash) = 32),
    constraint portal_link_short_lived check (
        expires_at > issued_at and expires_at <= issued_at + interval '30 minutes'
    )
);
comment on table portal_link is
'Links to the portal as they were mailed to customers, by digest: good once, for half an hour. A
customer has three open ones at most: so many mails, and who asks in another''s name pushes none out.';
comment on column portal_link.org_id is 'The organisation.';
comment on column portal_link.id is 'The link.';
comment on column portal_link.customer_id is 'Whose statement and receipts it opens.';
comment on column portal_link.slot is 'Which of the customer''s three open ones.';
comment on column portal_link.token_hash is 'SHA-256 of the secret in the link.';
comment on column portal_link.issued_at is 'When it was asked for (server time).';
comment on column portal_link.issued_by is 'Who had it sent; null if the customer asked.';
comment on column portal_link.expires_at is 'Until when it is good.';
comment on column portal_link.used_at is 'When a session began with it (server time).';
comment on constraint portal_link_pk on portal_link is 'This link exists already.';
comment on constraint portal_link_customer_key on portal_link is 'This link exists already.';
comment on constraint portal_link_customer_known on portal_link is 'There is no such customer.';
comment on constraint portal_link_issuer_known on portal_link is 'There is no such user.';
comment on constraint portal_link_few on portal_link is
'A customer has at most three open links to the portal.';
comment on constraint portal_link_is_digest on portal_link is
'A link''s secret is kept as its SHA-256 digest.';
comment on constraint portal_link_short_lived on portal_link is
'A link to the portal is good for 30 minutes at most.';
create unique index portal_link_token_once on portal_link (org_id, token_hash);
comment on index portal_link_token_once is 'This link exists already.';
create unique index portal_link_open_once on portal_link (org_id, customer_id, slot)
where used_at is null;
comment on index portal_link_open_once is 'The customer has a link in this place already.';
create index portal_link_by_end on portal_link (org_id, expires_at);
comment on index portal_link_by_end is 'What may be forgotten.';
create trigger portal_link_stays_used before update on portal_link
for each row when (old.used_at is not null) execute function stays_over();
comment on trigger portal_link_stays_used on portal_link is
'A link to the portal is good once.';

create table portal_session (
    org_id bigint not null,
    id bigint generated always as identity,
    customer_id bigint not null,
    link_id bigint not null,
    secret_hash bytea not null,
    began_at timestamptz not null default now(),
    expires_at timestamptz not null,
    ended_at timestamptz,
    constraint portal_session_pk primary key (org_id, id),
    constraint portal_session_link_taken unique (org_id, customer_id, link_id),
    constraint portal_session_link_known foreign key (org_id, customer_id, link_id)
    references portal_link (org_id, customer_id, id) on delete cascade,
    constraint portal_session_is_digest check (octet_length(secret_hash) = 32),
    constraint portal_session_short_lived check (
        expires_at > began_at and expires_at <= began_at + interval '1 day'
    )
);
comment on table portal_session is
'Sessions of customers in the portal; each began with a link, and goes with it. None is a user''s.';
comment on column portal_session.org_id is 'The organisation.';
comment on column portal_session.id is 'The session.';
comment on column portal_session.customer_id is 'Whose it is: the link''s customer.';
comment on column portal_session.link_id is 'The link that it began with.';
comment on column portal_session.secret_hash is 'SHA-256 of its secret, which is shown once.';
comment on column portal_session.began_at is 'When it began (server time).';
comment on column portal_session.expires_at is 'When it ends in any case; it is not renewed.';
comment on column portal_session.ended_at is 'When it was ended early (server time).';
comment on constraint portal_session_pk on portal_session is 'This session exists already.';
comment on constraint portal_session_link_taken on portal_session is
'A link to the portal begins one session.';
comment on constraint portal_session_link_known on portal_session is
'A session in the portal begins with a link of its customer.';
comment on constraint portal_session_is_digest on portal_session is
'A session''s secret is kept as its SHA-256 digest.';
comment on constraint portal_session_short_lived on portal_session is
'A session in the portal lasts for a day at most.';
create index portal_session_by_customer on portal_session (org_id, customer_id, expires_at)
where ended_at is null;
comment on index portal_session_by_customer is 'The sessions of a customer not ended early.';
create trigger portal_session_stays_ended before update on portal_session
for each row when (old.ended_at is not null) execute function stays_over();
comment on trigger portal_session_stays_ended on portal_session is
'A session that has ended does not begin again.';

-- now() is the time of the transaction: what used the link up is what begins the session.
create function portal_session_link_good() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    perform from public.portal_link as link
    inner join public.customer on link.org_id = customer.org_id and link.customer_id = customer.id
    where
        link.org_id = new.org_id and link.id = new.link_id
        and link.used_at = now() and link.expires_at > now()
        and customer.email is not null and customer.status <> 'INACTIVE';
    if not found then
        raise exception using
            errcode = 'check_violation', constraint = 'portal_session_link_good',
            table = 'portal_session', message = format('link %s was not used just now', new.link_id);
    end if;
    return null;
end
$$;
comment on function portal_session_link_good() is
'Refuses a session in the portal that did not use up a good link in its own transaction.';
create trigger portal_session_link_good after insert on portal_session
for each row execute function portal_session_link_good();
comment on trigger portal_session_link_good on portal_session is
'A session in the portal begins by using up a link that is good.';

-- Who changes the address, or forgets the customer, has the customer's row, which whoever begins a
-- session locks first.
create function customer_leaves_portal() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    delete from public.portal_link where org_id = new.org_id and customer_id = new.id;
    return null;
end
$$;
comment on function customer_leaves_portal() is
'Takes the links of a customer away, and the sessions that began with them.';
create trigger customer_leaves_portal after update of email, status on customer
for each row
when (
    old.email is distinct from new.email
    or new.status = 'INACTIVE' and old.status <> 'INACTIVE'
)
execute function customer_leaves_portal();
comment on trigger customer_leaves_portal on customer is
'Ends what a customer had in the portal when the address changes or the customer goes.';

alter table portal_link enable row level security;
alter table portal_link force row level security;
create policy org on portal_link using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on portal_link to sofinance_app;
grant insert (org_id, customer_id, slot, token_hash, issued_by, expires_at) on portal_link
to sofinance_app;
grant update (used_at) on portal_link to sofinance_app;
revoke select on portal_link from sofinance_readonly;
grant select (org_id, id, customer_id, slot, issued_at, issued_by, expires_at, used_at)
on portal_link to sofinance_readonly;

alter table portal_session enable row level security;
alter table portal_session force row level security;
create policy org on portal_session using (org_id = current_setting('app.org_id')::bigint);
grant select on portal_session to sofinance_app;
grant insert (org_id, customer_id, link_id, secret_hash, expires_at) on portal_session
to sofinance_app;
grant update (ended_at) on portal_session to sofinance_app;
revoke select on portal_session from sofinance_readonly;
grant select (org_id, id, customer_id, link_id, began_at, expires_at, ended_at)
on portal_session to sofinance_readonly;
