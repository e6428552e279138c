-- Users: who there is, in which role and branches, and in which sessions.
-- Who has some branches sees whoever has one of them, or all; the rules of app_user and user_branch
-- say who may be changed.

-- name: create_user :one
-- Create a user; the address is unique on the whole server.
insert into app_user (
    org_id, email, password_hash, first_name, last_name, role, all_branches, must_change_password
)
values (
    :org_id, :email, :password_hash, :first_name, :last_name, :role, :all_branches,
    :must_change_password
)
returning id, email, role;

-- name: change_user :exec
-- Replace what a user is called and may do.
update app_user
set
    email = :email, first_name = :first_name, last_name = :last_name, role = :role,
    all_branches = :all_branches, updated_at = now()
where org_id = :org_id and id = :id;

-- name: change_names :exec
-- Replace what a user is called.
update app_user
set first_name = :first_name, last_name = :last_name, updated_at = now()
where org_id = :org_id and id = :id;

-- name: change_activity :exec
-- Disable a user, which ends the sessions and the keys, or let one sign in again.
update app_user
set is_active = :is_active, updated_at = now()
where org_id = :org_id and id = :id;

-- name: reset_password :exec
-- Give a user a password that somebody else knows and that must be changed at once.
update app_user
set
    password_hash = :password_hash, must_change_password = true, password_changed_at = now(),
    updated_at = now()
where org_id = :org_id and id = :id;

-- name: take_branches :exec
-- Take from a user every branch but these.
delete from user_branch
where org_id = :org_id and user_id = :user_id and not branch_id = any(:own_ids::bigint[]);

-- name: give_branches :exec
-- Give a user branches.
insert into user_branch (org_id, user_id, branch_id)
select
    :org_id,
    :user_id,
    given.branch_id
from unnest(:own_ids::bigint[]) as given (branch_id)
on conflict (org_id, user_id, branch_id) do nothing;

-- name: end_sessions :exec
-- End every session of a user early.
update user_session
set revoked_at = now(), revoked_why = 'administrator'
where org_id = :org_id and user_id = :user_id and revoked_at is null;

-- name: get_user :one
-- Get a user whom the caller may see.
-- not null: branch_ids
select
    app_user.org_id,
    app_user.id,
    app_user.email,
    app_user.first_name,
    app_user.last_name,
    app_user.role,
    app_user.is_active,
    app_user.all_branches,
    array(
        select user_branch.branch_id from user_branch
        where user_branch.org_id = app_user.org_id and user_branch.user_id = app_user.id
        order by user_branch.branch_id
    ) as branch_ids,
    app_user.must_change_password,
    app_user.password_changed_at,
    app_user.created_at,
    app_user.updated_at,
    app_user.version
from app_user
where
    app_user.org_id = :org_id and app_user.id = :id
    and (
        app_user.all_branches or app_user.id = :caller_id
        or current_setting('app.branch_ids') = 'all'
        or exists (
            select from user_branch
            where
                user_branch.org_id = app_user.org_id and user_branch.user_id = app_user.id
                and is_branch_seen(user_branch.branch_id)
        )
    );

-- name: list_users :many
-- List the users whom the caller may see, by name.
-- nullable: search, role, is_active
-- not null: branch_ids
select
    app_user.org_id,
    app_user.id,
    app_user.email,
    app_user.first_name,
    app_user.last_name,
    app_user.role,
    app_user.is_active,
    app_user.all_branches,
    array(
        select user_branch.branch_id from user_branch
        where user_branch.org_id = app_user.org_id and user_branch.user_id = app_user.id
        order by user_branch.branch_id
    ) as branch_ids,
    app_user.must_change_password,
    app_user.password_changed_at,
    app_user.created_at,
    app_user.updated_at
from app_user
where
    app_user.org_id = :org_id
    and (
        :search::text is null
        or concat_ws(' ', app_user.first_name, app_user.last_name, app_user.email)
        ilike '%' || :search || '%'
    )
    and (:role::text is null or app_user.role = :role)
    and (:is_active::boolean is null or app_user.is_active = :is_active)
    and (
        app_user.all_branches or app_user.id = :caller_id
        or current_setting('app.branch_ids') = 'all'
        or exists (
            select from user_branch
            where
                user_branch.org_id = app_user.org_id and user_branch.user_id = app_user.id
                and is_branch_seen(user_branch.branch_id)
        )
    )
order by app_user.last_name, app_user.first_name, app_user.id
limit :limit offset :offset;

-- name: count_users :value
-- Count what list_users pages through.
-- nullable: search, role, is_active
-- not null: total
select count(*) as total
from app_user
where
    app_user.org_id = :org_id
    and (
        :search::text is null
        or concat_ws(' ', app_user.first_name, app_user.last_name, app_user.email)
        ilike '%' || :search || '%'
    )
    and (:role::text is null or app_user.role = :role)
    and (:is_active::boolean is null or app_user.is_active = :is_active)
    and (
        app_user.all_branches or app_user.id = :caller_id
        or current_setting('app.branch_ids') = 'all'
        or exists (
            select from user_branch
            where
                user_branch.org_id = app_user.org_id and user_branch.user_id = app_user.id
                and is_branch_seen(user_branch.branch_id)
        )
    );

-- name: list_sessions :many
-- List the sessions of a user that go on, the latest first.
select
    id,
    kind,
    till_id,
    has_second_factor,
    device,
    host(ip) as ip,
    created_at,
    last_used_at,
    idle_until,
    expires_at
from user_session
where
    org_id = :org_id and user_id = :user_id and revoked_at is null
    and idle_until > now() and expires_at > now()
order by id desc
limit 100;
