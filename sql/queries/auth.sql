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
-- Get what a sign-in is checked against.
select
    id,
    email,
    password_hash,
    first_name,
    last_name,
    role,
    is_active
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

-- name: create_user :one
-- Create a user; its address is unique on the whole server.
insert into app_user (
    org_id, email, password_hash, first_name, last_name, role, all_branches, must_change_password
)
values (
    :org_id, :email, :password_hash, :first_name, :last_name, :role, :all_branches,
    :must_change_password
)
returning
    org_id, id, email, first_name, last_name, role, all_branches, is_active, created_at,
    updated_at;

-- name: lock_user :maybe
-- Let one sign-in, or change of what signs in, of a user at a time go on; nothing if disabled.
select id
from app_user
where org_id = :org_id and id = :user_id and is_active
for no key update;

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
    select :org_id, :token_hash, session.id
    from session
)

select
    id,
    extract(epoch from idle_until - now())::int as idle_s,
    extract(epoch from expires_at - now())::int as life_s
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
-- `branch_ids` is null for all branches.
-- not null: permissions
select
    app_user.id as user_id,
    app_user.role,
    app_user.access_version,
    app_user.must_change_password,
    session.has_second_factor,
    session.till_id,
    array(select effective_permissions(app_user.id)) as permissions,
    case
        when till.id is not null then array[till.branch_id]
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
