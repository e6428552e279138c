-- Signing in: who an address is, what a session or a key may do.

-- name: list_permissions :many
-- List every permission that there is; the same for every organisation.
select
    name,
    description
from permission
order by name;

-- name: find_sign_in :maybe
-- Find where an address signs in; crosses organisations, so it tells nothing else.
-- not null: org_id, user_id
select
    found.org_id,
    found.user_id
from find_sign_in(:email) as found;

-- name: get_credentials :one
-- Get what a sign-in is checked against, and the user as the API shows one.
select
    org_id,
    id,
    email,
    password_hash,
    first_name,
    last_name,
    role,
    is_active,
    must_change_password,
    created_at,
    updated_at
from app_user
where org_id = :org_id and id = :user_id;

-- name: get_user :one
-- Get a user as the API shows one.
select
    org_id,
    id,
    email,
    first_name,
    last_name,
    role,
    is_active,
    created_at,
    updated_at
from app_user
where org_id = :org_id and id = :user_id;

-- name: lock_user :maybe
-- Let one sign-in, or change of what signs in, of a user at a time go on.
-- Nothing if the user is disabled, or has another password by now than the given one.
-- nullable: password_hash
select id
from app_user
where
    org_id = :org_id and id = :user_id and is_active
    and (:password_hash::text is null or password_hash = :password_hash)
for no key update;

-- name: renew_password_hash :exec
-- Keep the same password under another hash.
update app_user
set password_hash = :password_hash
where org_id = :org_id and id = :user_id;

-- name: begin_session :one
-- Begin a session with its first refresh token; returns the seconds that each has.
-- nullable: till_id, ip
-- not null: idle_s, life_s
with session as (
    insert into user_session (
        org_id, user_id, kind, till_id, has_second_factor, device, ip, idle_until, expires_at
    )
    values (
        :org_id, :user_id, :kind, :till_id, :has_second_factor, :device, :ip,
        now() + make_interval(mins => least(:idle_minutes::int, :life_minutes::int)),
        now() + make_interval(mins => :life_minutes::int)
    )
    returning id, idle_until, expires_at
),

token as (
    insert into refresh_token (org_id, token_hash, session_id)
    select
        :org_id,
        :token_hash,
        session.id
    from session
)

select
    id,
    extract(epoch from idle_until - now())::bigint as idle_s,
    extract(epoch from expires_at - now())::bigint as life_s
from session;

-- name: lock_refresh_token :maybe
-- Read what a refresh token renews; of many who come with it at once, one at a time goes on.
-- not null: is_used, is_live
select
    session.user_id,
    token.used_at is not null as is_used,
    (
        session.revoked_at is null and session.idle_until > now() and session.expires_at > now()
        and app_user.is_active
    ) as is_live
from user_session as session
inner join refresh_token as token
    on session.org_id = token.org_id and session.id = token.session_id
inner join app_user
    on session.org_id = app_user.org_id and session.user_id = app_user.id
where
    session.org_id = :org_id and session.id = :session_id and token.token_hash = :token_hash
for no key update of session, token;

-- name: use_refresh_token :exec
-- Use a refresh token up; it is locked by then.
update refresh_token
set used_at = now()
where org_id = :org_id and token_hash = :token_hash and used_at is null;

-- name: renew_session :one
-- Prolong a session, to its end at most, and give it another refresh token.
-- not null: idle_s, life_s
with session as (
    update user_session
    set
        last_used_at = now(),
        idle_until = least(now() + make_interval(mins => :idle_minutes::int), expires_at)
    where org_id = :org_id and id = :session_id
    returning id, idle_until, expires_at
),

token as (
    insert into refresh_token (org_id, token_hash, session_id)
    select
        :org_id,
        :token_hash,
        session.id
    from session
)

select
    id,
    extract(epoch from idle_until - now())::bigint as idle_s,
    extract(epoch from expires_at - now())::bigint as life_s
from session;

-- name: end_surplus_sessions :exec
-- End the oldest sessions of a user but for so many; the user's row is locked by then.
update user_session
set revoked_at = now(), revoked_why = 'too_many'
where
    org_id = :org_id and user_id = :user_id and revoked_at is null
    and idle_until > now() and expires_at > now()
    and id not in (
        select kept.id
        from user_session as kept
        where
            kept.org_id = :org_id and kept.user_id = :user_id and kept.revoked_at is null
            and kept.idle_until > now() and kept.expires_at > now()
        order by kept.id desc
        limit :limit
    );

-- name: resolve_session :maybe
-- Read whose a session is and what they may do; nothing if it ended or its user is disabled.
-- `branch_ids` is null for all branches. On a till only its branch counts, and of what the user may
-- only what is for tills.
-- not null: permissions, has_second_factor, is_enrolled
select
    app_user.id as user_id,
    app_user.role,
    app_user.access_version,
    app_user.must_change_password,
    session.has_second_factor,
    session.till_id,
    exists(
        select from user_totp
        where
            user_totp.org_id = app_user.org_id and user_totp.user_id = app_user.id
            and user_totp.confirmed_at is not null
    ) as is_enrolled,
    array(
        select may.permission
        from effective_permissions(app_user.id) as may (permission)
        inner join permission on may.permission = permission.name
        where session.till_id is null or permission.at_till
    ) as permissions,
    case
        when till.id is not null
            then
                array(
                    select till.branch_id
                    where app_user.all_branches or exists (
                        select from user_branch
                        where
                            user_branch.org_id = app_user.org_id
                            and user_branch.user_id = app_user.id
                            and user_branch.branch_id = till.branch_id
                    )
                )
        when not app_user.all_branches then array(
            select user_branch.branch_id from user_branch
            where
                user_branch.org_id = app_user.org_id and user_branch.user_id = app_user.id
            order by user_branch.branch_id
        )
    end as branch_ids
from user_session as session
inner join app_user
    on session.org_id = app_user.org_id and session.user_id = app_user.id
left join till
    on session.org_id = till.org_id and session.till_id = till.id
where
    session.org_id = :org_id and session.id = :session_id and session.user_id = :user_id
    and session.revoked_at is null and session.expires_at > now() and app_user.is_active;

-- name: resolve_api_key :maybe
-- Read for whom a key acts and what it may do: what both it and its user may.
-- `branch_ids` is null for all branches.
-- not null: permissions
select
    app_user.id as user_id,
    app_user.role,
    app_user.access_version,
    app_user.must_change_password,
    api_key.expires_at,
    api_key.last_used_on,
    array(
        select may.permission
        from effective_permissions(app_user.id) as may (permission)
        where may.permission = any(api_key.permissions)
    ) as permissions,
    case
        when app_user.all_branches then api_key.branch_ids
        else array(
            select user_branch.branch_id from user_branch
            where
                user_branch.org_id = app_user.org_id and user_branch.user_id = app_user.id
                and (
                    api_key.branch_ids is null
                    or user_branch.branch_id = any(api_key.branch_ids)
                )
            order by user_branch.branch_id
        )
    end as branch_ids
from api_key
inner join app_user
    on api_key.org_id = app_user.org_id and api_key.user_id = app_user.id
where
    api_key.org_id = :org_id and api_key.id = :api_key_id and api_key.secret_hash = :secret_hash
    and api_key.revoked_at is null and api_key.expires_at > now() and app_user.is_active;
