-- Undo roles, permissions, sessions and API keys.
set local role sofinance_owner;
alter table audit_log drop column session_id, drop column api_key_id;
drop function admit(bigint, bigint, bigint, bigint);
drop table api_key;
drop table refresh_token;
drop table user_session;
drop function effective_permissions(bigint);
drop table user_branch;
drop table user_permission;
drop table role_grant;
drop function count_role_change();
drop function count_access_change();
drop trigger app_user_access_counted on app_user;
drop function count_user_change();
drop index app_user_by_role;
alter table app_user drop constraint app_user_admin_has_all_branches;
alter table app_user drop constraint app_user_role_known;
alter table app_user
drop column all_branches,
drop column must_change_password,
drop column password_changed_at,
drop column access_version;
alter table app_user add constraint app_user_role_known check (
    role in ('ADMIN', 'MANAGER', 'CASHIER', 'INVENTORY_CLERK', 'ACCOUNTANT')
);
comment on constraint app_user_role_known on app_user is
'A role is ADMIN, MANAGER, CASHIER, INVENTORY_CLERK or ACCOUNTANT.';
drop table org_role;
drop function keep_built_in_roles();
delete from role_permission
where permission in ('api_keys:write', 'roles:read', 'tills:pair', 'users:read', 'users:write');
alter table role_permission drop constraint role_permission_permission_known;
comment on table role_permission is
'What each built-in role may do. ADMIN may do everything and has no rows. The same everywhere.';
drop table permission;
