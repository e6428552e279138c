-- Mail that must arrive: reserved in the transaction of what it tells of, delivered by a worker.
-- What carries a secret link is not here: that is sent at once, and asked for again if it is lost.
-- depends: 0031_integrity_events
set local lock_timeout = '4s';
set local role sofinance_owner;

create table mail (
    org_id bigint not null,
    id bigint generated always as identity,
    dedupe_key text not null,
    kind text not null,
    recipient text not null,
    subject text not null,
    body text not null,
    status text not null default 'pending',
    attempt_count integer not null default 0,
    created_at timestamptz not null default now(),
    due_at timestamptz not null default now(),
    lease_until timestamptz,
    sent_at timestamptz,
    last_error text,
    constraint mail_pk primary key (org_id, id),
    constraint mail_dedupe_taken unique (org_id, dedupe_key),
    constraint mail_organisation_known foreign key (org_id) references organisation (org_id),
    constraint mail_dedupe_key_form check (dedupe_key ~ '^[a-z0-9:-]{1,100}$'),
    constraint mail_kind_known check (kind in ('receivable_reminder', 'low_stock')),
    constraint mail_recipient_form check (
        recipient ~ '^[^@[:space:]]+@[^@[:space:]]+$' and length(recipient) <= 254
    ),
    constraint mail_text_not_long check (
        length(subject) between 1 and 200 and length(body) between 1 and 20000
    ),
    constraint mail_status_known check (status in ('pending', 'sent', 'dead', 'skipped')),
    constraint mail_attempts_bounded check (attempt_count between 0 and 5),
    constraint mail_sent_at_once check ((status = 'sent') = (sent_at is not null)),
    constraint mail_error_not_long check (length(last_error) <= 200)
);
comment on table mail is 'Mail to customers and staff, and what became of it.';
comment on column mail.org_id is 'The organisation.';
comment on column mail.id is 'The mail.';
comment on column mail.dedupe_key is 'What it tells of, so that it is told once.';
comment on column mail.kind is 'receivable_reminder or low_stock.';
comment on column mail.recipient is 'The address it goes to.';
comment on column mail.subject is 'Its subject.';
comment on column mail.body is 'Its text; emptied of persons when one asks to be forgotten.';
comment on column mail.status is
'pending; sent; dead after five attempts or a refusal for good; skipped, as the address is blocked.';
comment on column mail.attempt_count is 'How often it was tried; five at most.';
comment on column mail.created_at is 'When it was reserved (server time).';
comment on column mail.due_at is 'When it is to be sent, or tried again.';
comment on column mail.lease_until is 'Until when one worker has it in hand.';
comment on column mail.sent_at is 'When a server took it (server time).';
comment on column mail.last_error is 'Why it failed last; no address in it.';
comment on constraint mail_pk on mail is 'This mail exists already.';
comment on constraint mail_dedupe_taken on mail is 'This has been told already.';
comment on constraint mail_organisation_known on mail is 'There is no such organisation.';
comment on constraint mail_dedupe_key_form on mail is
'What a mail tells of is named by lower-case letters, digits, colons and hyphens.';
comment on constraint mail_kind_known on mail is 'A mail is a receivable_reminder or low_stock.';
comment on constraint mail_recipient_form on mail is 'A mail goes to an address: name@host.';
comment on constraint mail_text_not_long on mail is
'A subject has at most 200 characters, a text 20000.';
comment on constraint mail_status_known on mail is
'A mail is pending, sent, dead or skipped.';
comment on constraint mail_attempts_bounded on mail is 'A mail is tried five times at most.';
comment on constraint mail_sent_at_once on mail is 'A mail that is sent has the time.';
comment on constraint mail_error_not_long on mail is
'An error is told in at most 200 characters.';
create index mail_open on mail (org_id, due_at) where status = 'pending';
comment on index mail_open is 'What is to be sent next.';
create index mail_by_status on mail (org_id, status, id) where status <> 'sent';
comment on index mail_by_status is 'What did not arrive.';
create index mail_by_age on mail (org_id, created_at);
comment on index mail_by_age is 'What may be forgotten.';
create index mail_by_recipient on mail (org_id, recipient);
comment on index mail_by_recipient is 'What somebody was written.';

create function mail_sent_stays() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = 'mail_sent_stays', table = 'mail',
        message = format('mail %s was sent', old.id);
end
$$;
comment on function mail_sent_stays() is 'Refuses to send again what was sent.';
create trigger mail_sent_stays before update on mail for each row
when (old.status = 'sent' and (new.status <> 'sent' or new.sent_at is distinct from old.sent_at))
execute function mail_sent_stays();
comment on trigger mail_sent_stays on mail is 'A mail that was sent is not sent again.';

alter table mail enable row level security;
alter table mail force row level security;
create policy org on mail using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on mail to sofinance_app;
grant insert (org_id, dedupe_key, kind, recipient, subject, body, status) on mail
to sofinance_app;
grant update (status, attempt_count, due_at, lease_until, sent_at, last_error, recipient, body)
on mail to sofinance_app;
-- Whom we write what is no business of reports.
revoke select on mail from sofinance_readonly;
-- Whether its links hold is everybody's to verify.
grant select (org_id) on mail to sofinance_readonly;

create table mail_block (
    org_id bigint not null,
    address text not null,
    reason text not null,
    created_at timestamptz not null default now(),
    constraint mail_block_pk primary key (org_id, address),
    constraint mail_block_organisation_known foreign key (org_id)
    references organisation (org_id),
    constraint mail_block_address_form check (
        address = lower(address) and address ~ '^[^@[:space:]]+@[^@[:space:]]+$'
        and length(address) <= 254
    ),
    constraint mail_block_reason_known check (reason in ('unsubscribed', 'invalid'))
);
comment on table mail_block is 'Addresses that get no more mail.';
comment on column mail_block.org_id is 'The organisation.';
comment on column mail_block.address is 'The address, lower case.';
comment on column mail_block.reason is
'unsubscribed: its owner wants none; invalid: a server refused it for good.';
comment on column mail_block.created_at is 'Since when (server time).';
comment on constraint mail_block_pk on mail_block is 'This address is blocked already.';
comment on constraint mail_block_organisation_known on mail_block is
'There is no such organisation.';
comment on constraint mail_block_address_form on mail_block is
'An address has the form name@host, in lower case.';
comment on constraint mail_block_reason_known on mail_block is
'An address is blocked as unsubscribed or invalid.';
alter table mail_block enable row level security;
alter table mail_block force row level security;
create policy org on mail_block using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on mail_block to sofinance_app;
grant insert (org_id, address, reason) on mail_block to sofinance_app;
revoke select on mail_block from sofinance_readonly;
grant select (org_id) on mail_block to sofinance_readonly;
