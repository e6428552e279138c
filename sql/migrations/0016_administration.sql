-- Broken glasses, which let somebody change things in the read-only mode, and a fixed currency.
-- depends: 0015_audit_reading
set local lock_timeout = '4s';
set local role sofinance_owner;

create table break_glass (
    org_id bigint not null,
    id bigint generated always as identity,
    user_id bigint not null,
    reason text not null,
    token_hash bytea not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    revoked_by bigint,
    constraint break_glass_pk primary key (org_id, id),
    constraint break_glass_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint break_glass_revoker_known foreign key (org_id, revoked_by)
    references app_user (org_id, id),
    constraint break_glass_reason_given check (
        length(btrim(reason)) >= 10 and length(reason) <= 500
    ),
    constraint break_glass_is_digest check (octet_length(token_hash) = 32),
    constraint break_glass_is_short check (
        expires_at > created_at and expires_at <= created_at + interval '240 minutes'
    ),
    constraint break_glass_revoked_by_somebody check (
        (revoked_at is null) = (revoked_by is null)
    )
);
comment on table break_glass is
'Broken glasses: who may change things in the read-only mode of administration, why, till when.';
comment on column break_glass.org_id is 'The organisation.';
comment on column break_glass.id is 'The broken glass.';
comment on column break_glass.user_id is 'Who broke it, and who alone may use it.';
comment on column break_glass.reason is 'Why.';
comment on column break_glass.token_hash is 'SHA-256 of its token''s secret, which is shown once.';
comment on column break_glass.created_at is 'When it was broken (server time).';
comment on column break_glass.expires_at is 'When it ends: 240 minutes later at most.';
comment on column break_glass.revoked_at is 'When it was ended early (server time).';
comment on column break_glass.revoked_by is 'Who ended it early.';
comment on constraint break_glass_pk on break_glass is 'This broken glass exists already.';
comment on constraint break_glass_user_known on break_glass is 'There is no such user.';
comment on constraint break_glass_revoker_known on break_glass is 'There is no such user.';
comment on constraint break_glass_reason_given on break_glass is
'A reason has 10 to 500 characters.';
comment on constraint break_glass_is_digest on break_glass is
'A token is kept as its SHA-256 digest.';
comment on constraint break_glass_is_short on break_glass is
'A broken glass ends within 240 minutes.';
comment on constraint break_glass_revoked_by_somebody on break_glass is
'A broken glass that was ended early has a time and somebody who did it.';

create function keep_revoked() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = 'break_glass_stays_revoked',
        table = 'break_glass', message = format('broken glass %s was ended', old.id);
end
$$;
comment on function keep_revoked() is 'Refuses to change a broken glass that was ended.';
create trigger break_glass_stays_revoked before update on break_glass
for each row when (old.revoked_at is not null) execute function keep_revoked();
comment on trigger break_glass_stays_revoked on break_glass is
'A broken glass that was ended stays so.';

alter table break_glass enable row level security;
alter table break_glass force row level security;
create policy org on break_glass using (org_id = current_setting('app.org_id')::bigint);
grant select on break_glass to sofinance_app;
grant insert (org_id, user_id, reason, token_hash, expires_at) on break_glass to sofinance_app;
grant update (revoked_at, revoked_by) on break_glass to sofinance_app;
revoke select on break_glass from sofinance_readonly;
grant select (
    org_id, id, user_id, reason, created_at, expires_at, revoked_at, revoked_by
) on break_glass to sofinance_readonly;

create function keep_base_currency() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = 'organisation_currency_is_fixed',
        table = 'organisation', message = format('the base currency is %s', old.base_currency);
end
$$;
comment on function keep_base_currency() is
'Refuses to change the currency in which an organisation keeps its books.';
create trigger organisation_currency_is_fixed before update on organisation
for each row when (old.base_currency is distinct from new.base_currency)
execute function keep_base_currency();
comment on trigger organisation_currency_is_fixed on organisation is
'The currency in which an organisation keeps its books is fixed.';
