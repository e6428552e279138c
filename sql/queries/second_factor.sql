-- Second factors: authenticator apps, and recovery codes for who lost theirs.

-- name: begin_factor :exec
-- Keep the secret of an app that is to be confirmed, in the place of one that never was.
-- Refused by user_totp_confirmed_stays for who has a second factor.
insert into user_totp (org_id, user_id, secret)
values (:org_id, :user_id, :secret)
on conflict (org_id, user_id) do update set secret = excluded.secret, begun_at = now();

-- name: find_factor :maybe
-- Find a user's authenticator, confirmed or not.
-- not null: is_confirmed
select
    secret,
    begun_at,
    confirmed_at,
    last_step,
    confirmed_at is not null as is_confirmed
from user_totp
where org_id = :org_id and user_id = :user_id;

-- name: confirm_factor :exec
-- Put an authenticator to use with its first code.
-- Refused by user_totp_confirmed_stays for one that is in use.
update user_totp
set confirmed_at = now(), last_step = :last_step
where org_id = :org_id and user_id = :user_id;

-- name: use_step :exec
-- Use up a code's step; 1 when it was us who did: a step is used once, and none before it.
-- The secret is what it was, or the same sealed anew.
update user_totp
set last_step = :last_step, secret = :secret
where
    org_id = :org_id and user_id = :user_id and confirmed_at is not null
    and last_step < :last_step;

-- name: use_recovery_code :exec
-- Use up a recovery code; 1 when it was us who did.
update recovery_code
set used_at = now()
where
    org_id = :org_id and user_id = :user_id and code_hash = :code_hash and used_at is null;

-- name: delete_recovery_codes :exec
-- Make a user's recovery codes worthless.
delete from recovery_code
where org_id = :org_id and user_id = :user_id;

-- name: create_recovery_codes :exec
-- Keep a user's new recovery codes.
insert into recovery_code (org_id, user_id, code_no, code_hash)
select
    :org_id,
    :user_id,
    code.code_no,
    code.code_hash
from unnest(:code_hashes::bytea[]) with ordinality as code (code_hash, code_no);

-- name: count_recovery_codes :value
-- Count the recovery codes that a user has left.
-- not null: left_count
select count(*) as left_count
from recovery_code
where org_id = :org_id and user_id = :user_id and used_at is null;

-- name: delete_factor :exec
-- Take a user's second factor away, with its recovery codes; 1 if there was one.
-- Refused by user_totp_taken_within_own_access for who may more than the caller.
delete from user_totp
where org_id = :org_id and user_id = :user_id;

-- name: mark_session :exec
-- Say whether a session has proven a second factor.
update user_session
set has_second_factor = :has_second_factor
where org_id = :org_id and id = :session_id;

-- name: end_other_sessions :exec
-- End all sessions of a user but one, since the second factor changed.
-- nullable: session_id
update user_session
set revoked_at = now(), revoked_why = 'second_factor'
where
    org_id = :org_id and user_id = :user_id and revoked_at is null
    and id is distinct from :session_id::bigint;

-- name: list_stale_secrets :many
-- Lock authenticators whose secrets another key than this one sealed, from behind a user on.
select
    user_id as id,
    user_id as owner_id,
    secret as sealed
from user_totp
where
    org_id = :org_id and user_id > :after_id and substr(secret, 2, 4) <> :key_id::bytea
order by user_id
limit :limit
for update;

-- name: count_stale_secrets :value
-- Count authenticators whose secrets another key than this one sealed.
-- not null: count
select count(*) as count
from user_totp
where org_id = :org_id and substr(secret, 2, 4) <> :key_id::bytea;

-- name: reseal_secret :exec
-- Keep the same secret, sealed anew.
update user_totp
set secret = :sealed
where org_id = :org_id and user_id = :id;
