-- Undo the rules on who may change access.
set local role sofinance_owner;
drop trigger api_key_within_own_access on api_key;
drop trigger api_key_of_oneself on api_key;
drop trigger api_key_changed_in_session on api_key;
drop index api_key_replaces_once;
alter table api_key drop constraint api_key_replaces_known;
alter table api_key drop column replaces;
grant update (secret_hash) on api_key to sofinance_app;
drop trigger api_key_ended_within_own_access on api_key;
drop trigger user_session_ended_within_own_access on user_session;
drop trigger api_key_ends_for_good on api_key;
drop trigger user_branch_within_own_access on user_branch;
drop trigger user_branch_not_of_oneself on user_branch;
drop trigger user_branch_changed_in_session on user_branch;
drop trigger user_permission_within_own_access on user_permission;
drop trigger user_permission_not_of_oneself on user_permission;
drop trigger user_permission_changed_in_session on user_permission;
drop trigger role_grant_within_own_access on role_grant;
drop trigger role_grant_not_of_own_role on role_grant;
drop trigger role_grant_changed_in_session on role_grant;
drop trigger org_role_changed_in_session on org_role;
drop trigger org_role_version_counted on org_role;
alter table org_role drop column version;
drop trigger app_user_disabled_ends on app_user;
drop trigger app_user_within_own_access on app_user;
drop trigger app_user_keeps_an_admin on app_user;
drop trigger app_user_changed_in_session on app_user;
drop trigger app_user_admin_by_admin on app_user;
drop trigger app_user_access_not_by_oneself on app_user;
drop function api_key_within_own_access();
drop function api_key_of_oneself();
drop function ended_within_own_access();
drop function api_key_ends_for_good();
drop function user_branch_within_own_access();
drop function user_permission_within_own_access();
drop function not_of_oneself();
drop function role_grant_within_own_access();
drop function role_grant_not_of_own_role();
drop function changed_in_session();
drop function app_user_disabled_ends();
drop function app_user_within_own_access();
drop function app_user_keeps_an_admin();
drop function app_user_changed_in_session();
drop function app_user_admin_by_admin();
drop function app_user_access_not_by_oneself();
drop function may_change_user(bigint);
drop function is_within_access(bigint, bigint, text, boolean);
drop function permissions_with(bigint, text);
drop function is_access_free();
drop function acting_user();
drop function acts_for();

create or replace function admit(
    p_user_id bigint, p_session_id bigint, p_key_id bigint, p_version bigint
) returns void
language plpgsql stable set search_path = pg_catalog, public as $$
declare
    p_org_id constant bigint := current_setting('app.org_id')::bigint;
begin
    if exists (
        select from public.app_user
        where org_id = p_org_id and id = p_user_id and access_version = p_version and is_active
    ) and (
        exists (
            select from public.user_session
            where
                org_id = p_org_id and id = p_session_id and user_id = p_user_id
                and revoked_at is null and expires_at > now()
        ) or exists (
            select from public.api_key
            where
                org_id = p_org_id and id = p_key_id and user_id = p_user_id
                and revoked_at is null and expires_at > now()
        )
    ) then
        return;
    end if;
    raise exception using errcode = 'SF401', message = 'what the caller may do has changed';
end
$$;
