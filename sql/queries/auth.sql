-- Signing in: who an address is, and what each role may do.

-- name: list_role_permissions :many
-- List what each built-in role may do; the same for every organisation.
select
    role,
    permission
from role_permission
order by role, permission;

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
insert into app_user (org_id, email, password_hash, first_name, last_name, role)
values (:org_id, :email, :password_hash, :first_name, :last_name, :role)
returning org_id, id, email, first_name, last_name, role, is_active, created_at, updated_at;
