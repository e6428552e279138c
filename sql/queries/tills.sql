-- Tills and the devices that are them: pairing, and signing in with a PIN.

-- name: issue_pairing_code :one
-- Issue a pairing code for a till, in the place of the one before it; nothing for a till that is
-- not there, is not active, or is in a branch that the caller does not have.
insert into till_pairing_code (org_id, till_id, code_hash, issued_by, expires_at)
select
    till.org_id,
    till.id,
    :code_hash,
    :user_id,
    now() + make_interval(mins => :minutes::int)
from till
where till.org_id = :org_id and till.id = :till_id and till.is_active
on conflict (org_id, till_id) do update
    set
        code_hash = excluded.code_hash, issued_by = excluded.issued_by, issued_at = now(),
        expires_at = excluded.expires_at, used_at = null
returning till_id, expires_at;

-- name: use_pairing_code :maybe
-- Use up a pairing code; nothing if it is wrong, used, or has ended, or its issuer is disabled.
update till_pairing_code
set used_at = now()
from till, app_user
where
    till_pairing_code.org_id = :org_id and till_pairing_code.till_id = :till_id
    and till_pairing_code.code_hash = :code_hash and till_pairing_code.used_at is null
    and till_pairing_code.expires_at > now()
    and till.org_id = till_pairing_code.org_id and till.id = till_pairing_code.till_id
    and till.is_active
    and app_user.org_id = till_pairing_code.org_id
    and app_user.id = till_pairing_code.issued_by and app_user.is_active
returning till.id, till.branch_id, till.name, till_pairing_code.issued_by;

-- name: end_pairing :exec
-- Take back a till's live credential; its sessions end with it. 1 if there was one.
update till_credential
set revoked_at = now()
where
    org_id = :org_id and till_id = :till_id and revoked_at is null
    and till_id in (
        select till.id from till
        where till.org_id = :org_id
    );

-- name: void_pairing_code :exec
-- Make a till's pairing code worthless.
update till_pairing_code
set used_at = now()
where
    org_id = :org_id and till_id = :till_id and used_at is null
    and till_id in (
        select till.id from till
        where till.org_id = :org_id
    );

-- name: create_credential :one
-- Give a till its credential.
insert into till_credential (org_id, till_id, secret_hash, paired_by)
values (:org_id, :till_id, :secret_hash, :paired_by)
returning id, created_at;

-- name: find_till :maybe
-- Find the till that a live credential is of.
select
    till.id,
    till.branch_id,
    till.name
from till_credential
inner join till
    on till_credential.org_id = till.org_id and till_credential.till_id = till.id
inner join branch
    on till.org_id = branch.org_id and till.branch_id = branch.id
where
    till_credential.org_id = :org_id and till_credential.id = :credential_id
    and till_credential.secret_hash = :secret_hash and till_credential.revoked_at is null
    and till.is_active and branch.is_active;

-- name: find_cashier :maybe
-- Find who signs in on a till, by address or by number, if the till's branch is one of theirs.
-- nullable: email, user_id
select
    app_user.id,
    app_user.email
from app_user
where
    app_user.org_id = :org_id
    and app_user.id = coalesce(:user_id::bigint, (
        select found.user_id
        from find_sign_in(:email::text) as found
        where found.org_id = :org_id
    ))
    and app_user.is_active
    and (
        app_user.all_branches
        or exists (
            select user_branch.user_id from user_branch
            where
                user_branch.org_id = app_user.org_id and user_branch.user_id = app_user.id
                and user_branch.branch_id = :branch_id
        )
    );

-- name: try_pin :maybe
-- Count a try at a user's PIN before it is looked at, and return what it is compared with;
-- nothing once too many in a row were wrong.
update user_pin
set failed_count = failed_count + 1
where org_id = :org_id and user_id = :user_id and failed_count < 20
returning pin_hash;

-- name: clear_pin_tries :exec
-- Forget the wrong PINs, since a right one came; the PIN is still the one that was compared.
update user_pin
set failed_count = 0
where org_id = :org_id and user_id = :user_id and pin_hash = :pin_hash;

-- name: set_pin :one
-- Keep a user's PIN, in the place of the one before it.
insert into user_pin (org_id, user_id, pin_hash)
values (:org_id, :user_id, :pin_hash)
on conflict (org_id, user_id) do update
    set
        pin_hash = excluded.pin_hash, failed_count = 0, changed_at = now()
returning changed_at;

-- name: end_till_sessions :exec
-- End a user's sessions on tills, since the PIN changed.
update user_session
set revoked_at = now(), revoked_why = 'password'
where
    org_id = :org_id and user_id = :user_id and till_id is not null and revoked_at is null;
