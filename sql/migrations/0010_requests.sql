-- What a request leaves behind in its own transaction: an idempotency record and an audit row.
-- depends: 0009_sales
set local lock_timeout = '4s';
set local role sofinance_owner;

-- No foreign key to the organisation: it would lock the one row that all its requests share.
create table idempotency_key (
    org_id bigint not null,
    key_hash bytea not null,
    fingerprint bytea not null,
    status smallint,
    body bytea,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint idempotency_key_pk primary key (org_id, key_hash),
    constraint idempotency_key_digests check (
        octet_length(key_hash) = 32 and octet_length(fingerprint) = 32
    ),
    constraint idempotency_key_answered check ((status is null) = (body is null))
);
comment on table idempotency_key is
'Answers already given: the same Idempotency-Key with the same request gets the same answer.';
comment on column idempotency_key.org_id is 'The organisation.';
comment on column idempotency_key.key_hash is 'SHA-256 of the key the client sent.';
comment on column idempotency_key.fingerprint is 'SHA-256 of method, path and body.';
comment on column idempotency_key.status is 'HTTP status of the answer.';
comment on column idempotency_key.body is 'The answer, byte for byte.';
comment on column idempotency_key.created_at is 'When it was first seen (server time).';
comment on column idempotency_key.expires_at is 'When it may be forgotten.';
comment on constraint idempotency_key_pk on idempotency_key is 'This key has been used already.';
comment on constraint idempotency_key_digests on idempotency_key is
'Key and fingerprint are SHA-256 digests.';
comment on constraint idempotency_key_answered on idempotency_key is
'An answer has a status and a body.';
create index idempotency_key_by_expiry on idempotency_key (expires_at);
comment on index idempotency_key_by_expiry is 'What may be forgotten.';

create table audit_log (
    org_id bigint not null,
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    user_id bigint,
    action text not null,
    entity_type text not null,
    entity_id bigint,
    before jsonb,
    after jsonb,
    request_id text,
    ip inet,
    user_agent text,
    severity text not null default 'INFO',
    constraint audit_log_pk primary key (org_id, id),
    constraint audit_log_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint audit_log_severity_known check (
        severity in ('INFO', 'WARNING', 'ERROR', 'CRITICAL')
    )
);
comment on table audit_log is
'Who did what, in the same transaction as the deed; append-only.';
comment on column audit_log.org_id is 'The organisation.';
comment on column audit_log.id is 'The audit row.';
comment on column audit_log.created_at is 'When (server time).';
comment on column audit_log.user_id is 'The user.';
comment on column audit_log.action is 'What was done, such as post_sale.';
comment on column audit_log.entity_type is 'To what kind of thing, such as sales.';
comment on column audit_log.entity_id is 'To which of them.';
comment on column audit_log.before is 'How it was before.';
comment on column audit_log.after is 'How it was after.';
comment on column audit_log.request_id is 'The request''s id: finds its log lines.';
comment on column audit_log.ip is 'The client''s address.';
comment on column audit_log.user_agent is 'The client''s program.';
comment on column audit_log.severity is 'INFO, WARNING, ERROR or CRITICAL.';
comment on constraint audit_log_pk on audit_log is 'This audit row exists already.';
comment on constraint audit_log_user_known on audit_log is 'There is no such user.';
comment on constraint audit_log_severity_known on audit_log is
'A severity is INFO, WARNING, ERROR or CRITICAL.';
create index audit_log_by_entity on audit_log (org_id, entity_type, entity_id, id);
comment on index audit_log_by_entity is 'The history of one thing.';

create trigger audit_log_is_final before update or delete or truncate on audit_log
for each statement execute function is_final();
comment on trigger audit_log_is_final on audit_log is 'An audit row is final.';

alter table idempotency_key enable row level security;
alter table idempotency_key force row level security;
create policy org on idempotency_key using (org_id = current_setting('app.org_id')::bigint);
grant select, insert, delete on idempotency_key to sofinance_app;
-- Whole answers are no business of reports.
revoke select on idempotency_key from sofinance_readonly;
grant update (fingerprint, status, body, created_at, expires_at) on idempotency_key
to sofinance_app;

alter table audit_log enable row level security;
alter table audit_log force row level security;
create policy org on audit_log using (org_id = current_setting('app.org_id')::bigint);
grant select on audit_log to sofinance_app;
grant insert (
    org_id, user_id, action, entity_type, entity_id, before, after, request_id, ip, user_agent,
    severity
) on audit_log to sofinance_app;
