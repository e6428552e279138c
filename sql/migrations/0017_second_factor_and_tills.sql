-- Second factors of users, and tills with an identity of their own: what is used once is used once.
-- depends: 0016_administration
set local lock_timeout = '4s';
set local role sofinance_owner;

-- -- authenticator apps ----------------------------------------------------------------------

create table user_totp (
    org_id bigint not null,
    user_id bigint not null,
    secret bytea not null,
    begun_at timestamptz not null default now(),
    confirmed_at timestamptz,
    last_step bigint,
    constraint user_totp_pk primary key (org_id, user_id),
    constraint user_totp_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint user_totp_secret_is_sealed check (
        octet_length(secret) = 53 and substr(secret, 1, 1) = '\x01'
    ),
    constraint user_totp_confirmed_by_code check ((confirmed_at is null) = (last_step is null))
);
comment on table user_totp is
'The authenticator app of a user (RFC 6238): one each, good once a code of it has confirmed it.';
comment on column user_totp.org_id is 'The organisation.';
comment on column user_totp.user_id is 'The user.';
comment on column user_totp.secret is
'The secret, sealed for this user with a key that is not in the database.';
comment on column user_totp.begun_at is 'When the secret was shown (server time).';
comment on column user_totp.confirmed_at is
'When a first code showed that the app has it (server time); null till then.';
comment on column user_totp.last_step is
'The 30 seconds, counted from 1970, whose code was used last; codes up to it are refused.';
comment on constraint user_totp_pk on user_totp is 'This user has an authenticator already.';
comment on constraint user_totp_user_known on user_totp is 'There is no such user.';
comment on constraint user_totp_secret_is_sealed on user_totp is
'A second factor''s secret is stored encrypted.';
comment on constraint user_totp_confirmed_by_code on user_totp is
'A second factor is confirmed by a code.';

create function user_totp_step_advances() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'unique_violation', constraint = 'user_totp_step_advances',
        table = 'user_totp', message = 'a code of this step or of a later one was used';
end
$$;
comment on function user_totp_step_advances() is
'Refuses a code that was used, or that is older than one that was.';
create trigger user_totp_step_advances before update of last_step on user_totp
for each row when (old.last_step is not null and (
    new.last_step is null or new.last_step <= old.last_step
))
execute function user_totp_step_advances();
comment on trigger user_totp_step_advances on user_totp is 'This code was used already.';

create function user_totp_confirmed_stays() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'unique_violation', constraint = 'user_totp_confirmed_stays',
        table = 'user_totp', message = 'the second factor is in use';
end
$$;
comment on function user_totp_confirmed_stays() is
'Refuses to begin or confirm anew a second factor that is in use.';
create trigger user_totp_confirmed_stays before update of begun_at, confirmed_at on user_totp
for each row when (old.confirmed_at is not null)
execute function user_totp_confirmed_stays();
comment on trigger user_totp_confirmed_stays on user_totp is
'You have a second factor already; take it away first.';

-- What a session may do depends on whether its user has a second factor.
create trigger user_totp_counted after insert or delete on user_totp
for each row execute function count_access_change();
comment on trigger user_totp_counted on user_totp is
'Raises access_version of the user whose second factor goes.';
create trigger user_totp_confirmation_counted after update of confirmed_at on user_totp
for each row execute function count_access_change();
comment on trigger user_totp_confirmation_counted on user_totp is
'Raises access_version of the user whose second factor is confirmed.';

create table recovery_code (
    org_id bigint not null,
    user_id bigint not null,
    code_no smallint not null,
    code_hash bytea not null,
    used_at timestamptz,
    constraint recovery_code_pk primary key (org_id, user_id, code_no),
    constraint recovery_code_taken unique (org_id, user_id, code_hash),
    constraint recovery_code_factor_known foreign key (org_id, user_id)
    references user_totp (org_id, user_id) on delete cascade,
    constraint recovery_code_ten check (code_no between 1 and 10),
    constraint recovery_code_is_digest check (octet_length(code_hash) = 32)
);
comment on table recovery_code is
'Codes for who lost their authenticator, by digest: ten, each good once.';
comment on column recovery_code.org_id is 'The organisation.';
comment on column recovery_code.user_id is 'The user.';
comment on column recovery_code.code_no is 'Which of the ten.';
comment on column recovery_code.code_hash is 'SHA-256 of the code, which has 80 random bits.';
comment on column recovery_code.used_at is 'When it was used (server time).';
comment on constraint recovery_code_pk on recovery_code is 'This recovery code exists already.';
comment on constraint recovery_code_taken on recovery_code is 'These recovery codes are the same.';
comment on constraint recovery_code_factor_known on recovery_code is
'Recovery codes are for who has a second factor.';
comment on constraint recovery_code_ten on recovery_code is 'There are ten recovery codes.';
comment on constraint recovery_code_is_digest on recovery_code is
'A recovery code is kept as its SHA-256 digest.';

create function recovery_code_used_once() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'unique_violation', constraint = 'recovery_code_used_once',
        table = 'recovery_code', message = 'this recovery code was used';
end
$$;
comment on function recovery_code_used_once() is 'Refuses the second use of a recovery code.';
create trigger recovery_code_used_once before update on recovery_code
for each row when (old.used_at is not null) execute function recovery_code_used_once();
comment on trigger recovery_code_used_once on recovery_code is
'This recovery code was used already.';

alter table user_totp enable row level security;
alter table user_totp force row level security;
create policy org on user_totp using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on user_totp to sofinance_app;
grant insert (org_id, user_id, secret) on user_totp to sofinance_app;
grant update (secret, begun_at, confirmed_at, last_step) on user_totp to sofinance_app;
revoke select on user_totp from sofinance_readonly;
grant select (org_id, user_id, begun_at, confirmed_at) on user_totp to sofinance_readonly;

alter table recovery_code enable row level security;
alter table recovery_code force row level security;
create policy org on recovery_code using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on recovery_code to sofinance_app;
grant insert (org_id, user_id, code_no, code_hash) on recovery_code to sofinance_app;
grant update (used_at) on recovery_code to sofinance_app;
revoke select on recovery_code from sofinance_readonly;
grant select (org_id, user_id, code_no, used_at) on recovery_code to sofinance_readonly;

-- -- tills and their devices -----------------------------------------------------------------

create table till_pairing_code (
    org_id bigint not null,
    till_id bigint not null,
    code_hash bytea not null,
    issued_by bigint not null,
    issued_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz,
    constraint till_pairing_code_pk primary key (org_id, till_id),
    constraint till_pairing_code_till_known foreign key (org_id, till_id)
    references till (org_id, id),
    constraint till_pairing_code_issuer_known foreign key (org_id, issued_by)
    references app_user (org_id, id),
    constraint till_pairing_code_is_digest check (octet_length(code_hash) = 32),
    constraint till_pairing_code_short_lived check (
        expires_at > issued_at and expires_at <= issued_at + interval '10 minutes'
    )
);
comment on table till_pairing_code is
'The code with which a device becomes a till: the latest of each till, by digest, good once.';
comment on column till_pairing_code.org_id is 'The organisation.';
comment on column till_pairing_code.till_id is 'The till.';
comment on column till_pairing_code.code_hash is 'SHA-256 of its secret part: 60 random bits.';
comment on column till_pairing_code.issued_by is 'Who asked for it, and so pairs the till.';
comment on column till_pairing_code.issued_at is 'When it was shown (server time).';
comment on column till_pairing_code.expires_at is 'When it ends: ten minutes later at most.';
comment on column till_pairing_code.used_at is 'When a device was paired with it (server time).';
comment on constraint till_pairing_code_pk on till_pairing_code is
'This till has a pairing code already.';
comment on constraint till_pairing_code_till_known on till_pairing_code is 'There is no such till.';
comment on constraint till_pairing_code_issuer_known on till_pairing_code is
'There is no such user.';
comment on constraint till_pairing_code_is_digest on till_pairing_code is
'A pairing code is kept as its SHA-256 digest.';
comment on constraint till_pairing_code_short_lived on till_pairing_code is
'A pairing code is good for ten minutes at most.';

create function till_pairing_code_used_once() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'unique_violation', constraint = 'till_pairing_code_used_once',
        table = 'till_pairing_code', message = 'this pairing code was used';
end
$$;
comment on function till_pairing_code_used_once() is 'Refuses the second use of a pairing code.';
create trigger till_pairing_code_used_once before update on till_pairing_code
for each row when (old.used_at is not null and old.code_hash = new.code_hash)
execute function till_pairing_code_used_once();
comment on trigger till_pairing_code_used_once on till_pairing_code is
'This pairing code was used already.';

create table till_credential (
    org_id bigint not null,
    id bigint generated always as identity,
    till_id bigint not null,
    secret_hash bytea not null,
    paired_by bigint not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz,
    constraint till_credential_pk primary key (org_id, id),
    constraint till_credential_till_known foreign key (org_id, till_id)
    references till (org_id, id),
    constraint till_credential_pairer_known foreign key (org_id, paired_by)
    references app_user (org_id, id),
    constraint till_credential_is_digest check (octet_length(secret_hash) = 32)
);
comment on table till_credential is
'What the device that is a till shows of itself; one of each till is live, the others are past.';
comment on column till_credential.org_id is 'The organisation.';
comment on column till_credential.id is 'The credential.';
comment on column till_credential.till_id is 'The till that the device is.';
comment on column till_credential.secret_hash is 'SHA-256 of its secret, which is shown once.';
comment on column till_credential.paired_by is 'Who asked for the pairing code.';
comment on column till_credential.created_at is 'When the device was paired (server time).';
comment on column till_credential.revoked_at is 'When that ended (server time).';
comment on constraint till_credential_pk on till_credential is 'This credential exists already.';
comment on constraint till_credential_till_known on till_credential is 'There is no such till.';
comment on constraint till_credential_pairer_known on till_credential is 'There is no such user.';
comment on constraint till_credential_is_digest on till_credential is
'A till''s credential is kept as its SHA-256 digest.';
create unique index till_credential_live_once on till_credential (org_id, till_id)
where revoked_at is null;
comment on index till_credential_live_once is 'A till is paired with one device at a time.';

create function till_credential_revoked_stays() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = 'till_credential_revoked_stays',
        table = 'till_credential', message = 'this credential was revoked';
end
$$;
comment on function till_credential_revoked_stays() is
'Refuses to bring back a credential that was taken back.';
create trigger till_credential_revoked_stays before update on till_credential
for each row when (old.revoked_at is not null)
execute function till_credential_revoked_stays();
comment on trigger till_credential_revoked_stays on till_credential is
'A pairing that was taken back stays so; pair the till again.';

create function end_sessions_of_till() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    update public.user_session set revoked_at = now(), revoked_why = 'till'
    where org_id = new.org_id and till_id = new.till_id and revoked_at is null;
    return null;
end
$$;
comment on function end_sessions_of_till() is
'Ends the sessions on a till when its pairing ends.';
create trigger till_credential_ends_sessions after update on till_credential
for each row when (old.revoked_at is null and new.revoked_at is not null)
execute function end_sessions_of_till();
comment on trigger till_credential_ends_sessions on till_credential is
'Ends the sessions on a till when its pairing ends.';

create function user_session_till_paired() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    -- The lock makes whoever takes the pairing back wait, and then end this session, too.
    perform from public.till_credential
    where org_id = new.org_id and till_id = new.till_id and revoked_at is null
    for share;
    if not found then
        raise exception using
            errcode = 'check_violation', constraint = 'user_session_till_paired',
            table = 'user_session', message = 'the till is not paired with a device';
    end if;
    return null;
end
$$;
comment on function user_session_till_paired() is
'Refuses a session on a till that is not paired with a device.';
create trigger user_session_till_paired after insert on user_session
for each row when (new.till_id is not null) execute function user_session_till_paired();
comment on trigger user_session_till_paired on user_session is
'This till is not paired with a device.';
-- Sessions are few, and written by nothing that waits for long.
-- squawk-ignore require-concurrent-index-creation
create index user_session_by_till on user_session (org_id, till_id)
where till_id is not null and revoked_at is null;
comment on index user_session_by_till is 'The sessions on a till that were not ended early.';

create table user_pin (
    org_id bigint not null,
    user_id bigint not null,
    pin_hash text not null,
    failed_count integer not null default 0,
    changed_at timestamptz not null default now(),
    constraint user_pin_pk primary key (org_id, user_id),
    constraint user_pin_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint user_pin_is_hashed check (pin_hash ~ '^\$argon2id\$'),
    constraint user_pin_tries_bounded check (failed_count between 0 and 20)
);
comment on table user_pin is 'The PIN with which a user signs in on a till, and nowhere else.';
comment on column user_pin.org_id is 'The organisation.';
comment on column user_pin.user_id is 'The user.';
comment on column user_pin.pin_hash is 'argon2id of the PIN.';
comment on column user_pin.failed_count is
'Wrong PINs in a row, on all tills; at 20 the PIN is dead until another one is chosen.';
comment on column user_pin.changed_at is 'When it was chosen (server time).';
comment on constraint user_pin_pk on user_pin is 'This user has a PIN already.';
comment on constraint user_pin_user_known on user_pin is 'There is no such user.';
comment on constraint user_pin_is_hashed on user_pin is 'A PIN is kept as its argon2id hash.';
comment on constraint user_pin_tries_bounded on user_pin is
'After 20 wrong PINs in a row another one must be chosen.';

alter table till_pairing_code enable row level security;
alter table till_pairing_code force row level security;
create policy org on till_pairing_code using (org_id = current_setting('app.org_id')::bigint);
grant select on till_pairing_code to sofinance_app;
grant insert (org_id, till_id, code_hash, issued_by, expires_at) on till_pairing_code
to sofinance_app;
grant update (code_hash, issued_by, issued_at, expires_at, used_at) on till_pairing_code
to sofinance_app;
revoke select on till_pairing_code from sofinance_readonly;
grant select (org_id, till_id, issued_by, issued_at, expires_at, used_at) on till_pairing_code
to sofinance_readonly;

alter table till_credential enable row level security;
alter table till_credential force row level security;
create policy org on till_credential using (org_id = current_setting('app.org_id')::bigint);
grant select on till_credential to sofinance_app;
grant insert (org_id, till_id, secret_hash, paired_by) on till_credential to sofinance_app;
grant update (revoked_at) on till_credential to sofinance_app;
revoke select on till_credential from sofinance_readonly;
grant select (org_id, id, till_id, paired_by, created_at, revoked_at) on till_credential
to sofinance_readonly;

alter table user_pin enable row level security;
alter table user_pin force row level security;
create policy org on user_pin using (org_id = current_setting('app.org_id')::bigint);
grant select on user_pin to sofinance_app;
grant insert (org_id, user_id, pin_hash) on user_pin to sofinance_app;
grant update (pin_hash, failed_count, changed_at) on user_pin to sofinance_app;
revoke select on user_pin from sofinance_readonly;
grant select (org_id, user_id, failed_count, changed_at) on user_pin to sofinance_readonly;

-- -- what a session on a till may do ---------------------------------------------------------

alter table permission add column at_till boolean not null default false;
comment on column permission.at_till is
'True: also in a session that began with a PIN on a till; the others need a password.';
update permission set at_till = true
where
    name in (
        'branches:read', 'categories:read', 'customers:read', 'customers:write',
        'inventory:read', 'payments:read', 'payments:write', 'products:read',
        'sales:override_price', 'sales:read', 'sales:void', 'sales:write', 'tax:read'
    );

create function sale_at_its_till() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = 'sale_at_its_till', table = 'sale',
        message = 'this session sells at another till';
end
$$;
comment on function sale_at_its_till() is
'Refuses a sale that names another till than the one of its session (app.till_id).';
create trigger sale_at_its_till before insert on sale
for each row when (nullif(current_setting('app.till_id', true), '') <> new.till_id::text)
execute function sale_at_its_till();
comment on trigger sale_at_its_till on sale is 'Who signed in on a till sells at that till only.';
