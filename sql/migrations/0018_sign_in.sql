-- Password resets by mail; what is over stays over; sessions that ended long ago go.
-- depends: 0017_second_factor_and_tills
set local lock_timeout = '4s';
set local role sofinance_owner;

create function stays_over() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = tg_name, table = tg_table_name,
        message = format('%s: what is over stays over', tg_table_name);
end
$$;
comment on function stays_over() is
'Refuses a change under the name of its trigger, whose WHEN says which change.';

create trigger user_session_stays_ended before update on user_session
for each row
when (
    old.revoked_at is not null
    and (old.revoked_at, old.revoked_why) is distinct from (new.revoked_at, new.revoked_why)
) execute function stays_over();
comment on trigger user_session_stays_ended on user_session is
'A session that has ended does not begin again.';

create trigger refresh_token_stays_used before update on refresh_token
for each row
when (old.used_at is not null and old.used_at is distinct from new.used_at)
execute function stays_over();
comment on trigger refresh_token_stays_used on refresh_token is
'A refresh token that was used stays used.';

-- The log has its own word on sessions, so a session that ended a month ago may go.
create trigger user_session_is_kept before delete on user_session
for each row
when (old.expires_at > now() - interval '30 days') execute function stays_over();
comment on trigger user_session_is_kept on user_session is
'A session is kept for 30 days after its end.';
grant delete on user_session to sofinance_app;
-- A transaction of its own would not lock out sign-ins; sessions of this age are few.
-- squawk-ignore require-concurrent-index-creation
create index user_session_by_end on user_session (org_id, user_id, expires_at);
comment on index user_session_by_end is 'The sessions of a user that ended long ago.';
-- squawk-ignore require-concurrent-index-creation
create index refresh_token_by_session on refresh_token (org_id, session_id);
comment on index refresh_token_by_session is 'The tokens that go with their session.';

create table password_reset (
    org_id bigint not null,
    user_id bigint not null,
    slot smallint not null,
    token_hash bytea not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz,
    constraint password_reset_pk primary key (org_id, user_id, slot),
    constraint password_reset_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint password_reset_few check (slot between 1 and 3),
    constraint password_reset_is_digest check (octet_length(token_hash) = 32),
    constraint password_reset_ends check (
        expires_at > created_at and expires_at <= created_at + interval '1 day'
    )
);
comment on table password_reset is
'Links for choosing a new password, as mailed. A user has three at most: so many mails, and one who
asks in another''s name pushes none of them out.';
comment on column password_reset.org_id is 'The organisation.';
comment on column password_reset.user_id is 'Whose password it is.';
comment on column password_reset.slot is 'Which of the user''s three; free again when it is over.';
comment on column password_reset.token_hash is 'SHA-256 of the secret in the link.';
comment on column password_reset.created_at is 'When it was asked for (server time).';
comment on column password_reset.expires_at is 'Until when the link is good.';
comment on column password_reset.used_at is
'When it was used, or when the password was changed in another way.';
comment on constraint password_reset_pk on password_reset is
'The user has a link in this place already.';
comment on constraint password_reset_user_known on password_reset is 'There is no such user.';
comment on constraint password_reset_few on password_reset is
'A user has at most three links for a new password at a time.';
comment on constraint password_reset_is_digest on password_reset is
'A link''s secret is kept as its SHA-256 digest.';
comment on constraint password_reset_ends on password_reset is
'A link for a new password is good for a day at most.';
create unique index password_reset_token_once on password_reset (org_id, token_hash);
comment on index password_reset_token_once is 'This link exists already.';

create trigger password_reset_stays_used before update on password_reset
for each row
when (
    old.used_at is not null and old.token_hash = new.token_hash
    and old.used_at is distinct from new.used_at
) execute function stays_over();
comment on trigger password_reset_stays_used on password_reset is
'A link for a new password that was used stays used.';

alter table password_reset enable row level security;
alter table password_reset force row level security;
create policy org on password_reset using (org_id = current_setting('app.org_id')::bigint);
grant select on password_reset to sofinance_app;
grant insert (org_id, user_id, slot, token_hash, expires_at) on password_reset to sofinance_app;
grant update (token_hash, created_at, expires_at, used_at) on password_reset to sofinance_app;
revoke select on password_reset from sofinance_readonly;
grant select (org_id, user_id, slot, created_at, expires_at, used_at) on password_reset
to sofinance_readonly;
