-- Roles, what they may do, and what one user may do beyond or less.

-- name: create_role :one
-- Create a role, which may do nothing yet.
insert into org_role (org_id, name, description)
values (:org_id, :name, :description)
returning name, description, is_built_in, created_at, updated_at, version;

-- name: describe_role :one
-- Say what a role is for.
update org_role
set description = :description, updated_at = now()
where org_id = :org_id and name = :name
returning name, description, is_built_in, created_at, updated_at, version;

-- name: delete_role :one
-- Delete a role that nobody has.
delete from org_role
where org_id = :org_id and name = :name
returning name, description, is_built_in, created_at, updated_at, version;

-- name: get_role :one
-- Get a role.
select
    name,
    description,
    is_built_in,
    created_at,
    updated_at,
    version
from org_role
where org_id = :org_id and name = :name;

-- name: list_roles :many
-- List roles with how many active users have each, the built-in ones first.
-- not null: user_count
select
    org_role.name,
    org_role.description,
    org_role.is_built_in,
    org_role.created_at,
    org_role.updated_at,
    (
        select count(*) from app_user
        where
            app_user.org_id = org_role.org_id and app_user.role = org_role.name
            and app_user.is_active
    ) as user_count
from org_role
where org_role.org_id = :org_id
order by org_role.is_built_in desc, org_role.name
limit :limit offset :offset;

-- name: count_roles :value
-- Count what list_roles pages through.
-- not null: total
select count(*) as total
from org_role
where org_id = :org_id;

-- name: get_role_permissions :one
-- Get what a role may do, all things considered, and what the organisation changed of it.
-- not null: permissions, allowed, denied
select
    org_role.name as role,
    org_role.is_built_in,
    org_role.version,
    array(
        select may.permission
        from permissions_with(null, org_role.name) as may (permission)
        order by may.permission
    ) as permissions,
    array(
        select granted.permission from role_grant as granted
        where
            granted.org_id = org_role.org_id and granted.role = org_role.name
            and granted.effect = 'ALLOW'
        order by granted.permission
    ) as allowed,
    array(
        select granted.permission from role_grant as granted
        where
            granted.org_id = org_role.org_id and granted.role = org_role.name
            and granted.effect = 'DENY'
        order by granted.permission
    ) as denied
from org_role
where org_role.org_id = :org_id and org_role.name = :name;

-- name: grant_to_role :exec
-- Let a role do something, or keep it from that.
insert into role_grant (org_id, role, permission, effect)
values (:org_id, :role, :permission, :effect)
on conflict (org_id, role, permission) do update
    set effect = excluded.effect
    where role_grant.effect <> excluded.effect;

-- name: reset_for_role :exec
-- Undo what the organisation changed of a role's permission.
delete from role_grant
where org_id = :org_id and role = :role and permission = :permission;

-- name: get_user_permissions :one
-- Get what a user may do, all things considered, and where it comes from.
-- not null: effective, role_permissions, allowed, denied, branch_ids
select
    app_user.id as user_id,
    app_user.role,
    app_user.is_active,
    app_user.all_branches,
    array(
        select may.permission
        from effective_permissions(app_user.id) as may (permission)
        order by may.permission
    ) as effective,
    array(
        select may.permission
        from permissions_with(null, app_user.role) as may (permission)
        order by may.permission
    ) as role_permissions,
    array(
        select own.permission from user_permission as own
        where
            own.org_id = app_user.org_id and own.user_id = app_user.id and own.effect = 'ALLOW'
        order by own.permission
    ) as allowed,
    array(
        select own.permission from user_permission as own
        where
            own.org_id = app_user.org_id and own.user_id = app_user.id and own.effect = 'DENY'
        order by own.permission
    ) as denied,
    array(
        select user_branch.branch_id from user_branch
        where user_branch.org_id = app_user.org_id and user_branch.user_id = app_user.id
        order by user_branch.branch_id
    ) as branch_ids
from app_user
where app_user.org_id = :org_id and app_user.id = :user_id;

-- name: grant_to_user :exec
-- Let a user do something beyond the role, or keep one from something that the role may.
insert into user_permission (org_id, user_id, permission, effect)
values (:org_id, :user_id, :permission, :effect)
on conflict (org_id, user_id, permission) do update
    set effect = excluded.effect
    where user_permission.effect <> excluded.effect;

-- name: reset_for_user :exec
-- Let the role alone decide about a user's permission again.
delete from user_permission
where org_id = :org_id and user_id = :user_id and permission = :permission;
