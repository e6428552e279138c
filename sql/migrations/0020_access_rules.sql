-- Nobody gives, or takes away, what they do not have: the rules on roles, users, branches and keys.
-- They ask who acts: the user of a live session (app.user_id and app.session_id, which admit sets).
-- Where nobody does, the service itself is at work, which may take access away and give none. Free
-- are the owner of the schema, and the transaction that founds an organisation.
-- contract: 0.0.0 was the last release that changed an API key's secret in place
-- depends: 0019_jobs
set local lock_timeout = '4s';
set local role sofinance_owner;

-- -- who acts --------------------------------------------------------------------------------

create or replace function admit(
    p_user_id bigint, p_session_id bigint, p_key_id bigint, p_version bigint
) returns void
language plpgsql volatile set search_path = pg_catalog, public as $$
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
        if p_session_id is not null then
            perform set_config('app.session_id', p_session_id::text, true);
        end if;
        return;
    end if;
    raise exception using errcode = 'SF401', message = 'what the caller may do has changed';
end
$$;

create function acts_for() returns bigint
language sql stable set search_path = pg_catalog
return nullif(current_setting('app.user_id', true), '')::bigint;
comment on function acts_for() is
'For whom this transaction works (app.user_id); null for the service itself.';
grant execute on function acts_for() to sofinance_app;

create function acting_user() returns bigint
language plpgsql stable set search_path = pg_catalog, public as $$
declare
    p_user_id constant bigint := public.acts_for();
begin
    if p_user_id is null then
        return 0;
    end if;
    perform from public.user_session
    where
        org_id = current_setting('app.org_id')::bigint
        and id = nullif(current_setting('app.session_id', true), '')::bigint
        and user_id = p_user_id and kind <> 'till' and revoked_at is null and expires_at > now();
    return case when found then p_user_id end;
end
$$;
comment on function acting_user() is
'Who changes access: the user of a live session; null for a key or a PIN, which may not; 0 for the
service itself, which is nobody and has nothing to give.';
grant execute on function acting_user() to sofinance_app;

create function is_access_free() returns boolean
language plpgsql stable set search_path = pg_catalog, public as $$
begin
    if pg_has_role(current_user, 'sofinance_owner', 'member') then
        return true;
    end if;
    return exists (
        select from public.organisation
        where org_id = current_setting('app.org_id')::bigint and created_at = now()
    );
end
$$;
comment on function is_access_free() is
'Says whether access rules do not bind: the owner of the schema is at work, or the organisation is
made in this very transaction.';
grant execute on function is_access_free() to sofinance_app;

create function permissions_with(p_user_id bigint, p_role text) returns setof text
language sql stable set search_path = pg_catalog, public
begin atomic
    select known.name
    from public.permission as known
    left join public.user_permission as own
        on
            own.org_id = current_setting('app.org_id')::bigint and own.user_id = p_user_id
            and known.name = own.permission
    left join public.role_grant as granted
        on
            granted.org_id = current_setting('app.org_id')::bigint and granted.role = p_role
            and known.name = granted.permission
    left join public.role_permission as built_in
        on built_in.role = p_role and known.name = built_in.permission
    where
        p_role = 'ADMIN'
        or coalesce(own.effect = 'ALLOW', granted.effect = 'ALLOW', built_in.role is not null);
end;
comment on function permissions_with(bigint, text) is
'What a user would be allowed in a role; without a user, what the role allows.';
grant execute on function permissions_with(bigint, text) to sofinance_app;

create function is_within_access(
    p_actor_id bigint, p_user_id bigint, p_role text, p_all_branches boolean
) returns boolean
language plpgsql stable set search_path = pg_catalog, public as $$
begin
    return exists (
        select
        from public.app_user as actor
        where
            actor.org_id = current_setting('app.org_id')::bigint and actor.id = p_actor_id
            and (actor.role = 'ADMIN' or p_role <> 'ADMIN')
            and (actor.all_branches or not p_all_branches)
            and (
                actor.all_branches or not exists (
                    select theirs.branch_id
                    from public.user_branch as theirs
                    where theirs.org_id = actor.org_id and theirs.user_id = p_user_id
                    except
                    select own.branch_id
                    from public.user_branch as own
                    where own.org_id = actor.org_id and own.user_id = p_actor_id
                )
            )
            and not exists (
                select theirs.permission
                from public.permissions_with(p_user_id, p_role) as theirs (permission)
                except
                select own.permission
                from public.effective_permissions(p_actor_id) as own (permission)
            )
    );
end
$$;
comment on function is_within_access(bigint, bigint, text, boolean) is
'Says whether somebody has every permission and every branch that a user has, in the role and with
the branches given.';
grant execute on function is_within_access(bigint, bigint, text, boolean) to sofinance_app;

create function may_change_user(p_user_id bigint) returns boolean
language plpgsql stable set search_path = pg_catalog, public as $$
begin
    return exists (
        select from public.app_user
        where
            org_id = current_setting('app.org_id')::bigint and id = p_user_id
            and public.is_within_access(public.acting_user(), id, role, all_branches)
    );
end
$$;
comment on function may_change_user(bigint) is
'Says whether who acts has every permission and every branch that a user has.';
grant execute on function may_change_user(bigint) to sofinance_app;

-- -- users -----------------------------------------------------------------------------------

create function app_user_access_not_by_oneself() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if new.id = public.acts_for() and not public.is_access_free() then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'it is the caller''s own';
    end if;
    return null;
end
$$;
comment on function app_user_access_not_by_oneself() is
'Refuses to change one''s own role, branches or whether one is active.';
create trigger app_user_access_not_by_oneself
after update of role, all_branches, is_active on app_user for each row
when (
    (old.role, old.all_branches, old.is_active)
    is distinct from (new.role, new.all_branches, new.is_active)
)
execute function app_user_access_not_by_oneself();
comment on trigger app_user_access_not_by_oneself on app_user is
'Nobody changes their own role or branches, or disables themselves: somebody else does.';

create function app_user_admin_by_admin() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if
        'ADMIN' in (new.role, case when tg_op = 'UPDATE' then old.role end)
        and new.id <> public.acts_for() and not public.is_access_free()
        and not exists (
            select from public.app_user
            where org_id = new.org_id and id = public.acting_user() and role = 'ADMIN'
        )
    then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'the caller is no administrator';
    end if;
    return null;
end
$$;
comment on function app_user_admin_by_admin() is
'Refuses to make or change an administrator to everybody but administrators.';
create trigger app_user_admin_by_admin after insert or update on app_user for each row
execute function app_user_admin_by_admin();
comment on trigger app_user_admin_by_admin on app_user is
'Only an administrator makes or changes an administrator.';

create function app_user_changed_in_session() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if
        not public.is_access_free() and public.acting_user() is null
        and (tg_op = 'INSERT' or new.id <> public.acts_for() or old.email <> new.email)
    then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'the caller is in no session';
    end if;
    return null;
end
$$;
comment on function app_user_changed_in_session() is
'Refuses to make or change users to API keys and to who signed in by PIN.';
create trigger app_user_changed_in_session after insert or update on app_user for each row
execute function app_user_changed_in_session();
comment on trigger app_user_changed_in_session on app_user is
'Users are made and changed by somebody who signed in with a password, not with an API key or PIN.';

create function app_user_keeps_an_admin() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    -- Written, not just locked: so whoever works on an older view of the table fails, too.
    update public.org_role set updated_at = now()
    where org_id = new.org_id and name = 'ADMIN';
    if not exists (
        select from public.app_user where org_id = new.org_id and role = 'ADMIN' and is_active
    ) then
        raise exception using
            errcode = 'check_violation', constraint = tg_name, table = tg_table_name,
            message = 'there would be no administrator';
    end if;
    return null;
end
$$;
comment on function app_user_keeps_an_admin() is
'Refuses to take the last active administrator away; one such change of an organisation at a time.';
create trigger app_user_keeps_an_admin after update of role, is_active on app_user for each row
when (
    old.role = 'ADMIN' and old.is_active and not (new.role = 'ADMIN' and new.is_active)
)
execute function app_user_keeps_an_admin();
comment on trigger app_user_keeps_an_admin on app_user is
'An organisation keeps at least one active administrator.';

create function app_user_within_own_access() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
declare
    actor constant bigint := public.acting_user();
begin
    if new.id = public.acts_for() or public.is_access_free() then
        return null;
    end if;
    if
        actor = 0 and tg_op = 'UPDATE' and new.role = old.role
        and new.all_branches <= old.all_branches and new.is_active <= old.is_active
        and new.email = old.email and new.password_hash = old.password_hash
    then
        return null;
    end if;
    if
        public.is_within_access(actor, new.id, new.role, new.all_branches)
        and (
            tg_op = 'INSERT'
            or public.is_within_access(actor, old.id, old.role, old.all_branches)
        )
    then
        return null;
    end if;
    raise exception using
        errcode = 'SF403', constraint = tg_name, table = tg_table_name,
        message = 'the user has more than the caller';
end
$$;
comment on function app_user_within_own_access() is
'Refuses to make or change a user who has, or had, a permission or a branch that the caller lacks.';
create trigger app_user_within_own_access after insert or update on app_user for each row
execute function app_user_within_own_access();
comment on trigger app_user_within_own_access on app_user is
'You can make and change users only who have no permission and no branch that you lack.';

create function app_user_disabled_ends() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    update public.user_session set revoked_at = now(), revoked_why = 'disabled'
    where org_id = new.org_id and user_id = new.id and revoked_at is null;
    update public.api_key set revoked_at = now()
    where org_id = new.org_id and user_id = new.id and revoked_at is null;
    return null;
end
$$;
comment on function app_user_disabled_ends() is
'Ends the sessions and the keys of a user who is disabled.';
create trigger app_user_disabled_ends after update of is_active on app_user for each row
when (old.is_active and not new.is_active)
execute function app_user_disabled_ends();
comment on trigger app_user_disabled_ends on app_user is
'Ends the sessions and the keys of a user who is disabled.';

-- -- roles -----------------------------------------------------------------------------------

alter table org_role add column version bigint not null default 1;
comment on column org_role.version is 'How often it was changed, from 1; in the ETag.';
create trigger org_role_version_counted before update on org_role
for each row execute function version_counted();
comment on trigger org_role_version_counted on org_role is
'Counts the version up with each change.';

create function changed_in_session() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if not public.is_access_free() and public.acting_user() is null then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'the caller is in no session';
    end if;
    return null;
end
$$;
comment on function changed_in_session() is
'Refuses a change of access to API keys and to who signed in by PIN; named after its trigger.';
create trigger org_role_changed_in_session after insert or update or delete on org_role
for each row execute function changed_in_session();
comment on trigger org_role_changed_in_session on org_role is
'Roles are changed by somebody who signed in with a password, not with an API key or a PIN.';
create trigger role_grant_changed_in_session after insert or update or delete on role_grant
for each row execute function changed_in_session();
comment on trigger role_grant_changed_in_session on role_grant is
'Roles are changed by somebody who signed in with a password, not with an API key or PIN.';

create function role_grant_not_of_own_role() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if not public.is_access_free() and exists (
        select from public.app_user
        where
            org_id = current_setting('app.org_id')::bigint and id = public.acts_for()
            and role in (
                case when tg_op <> 'INSERT' then old.role end,
                case when tg_op <> 'DELETE' then new.role end
            )
    ) then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'it is the caller''s own role';
    end if;
    return null;
end
$$;
comment on function role_grant_not_of_own_role() is
'Refuses to change what the caller''s own role may do.';
create trigger role_grant_not_of_own_role after insert or update or delete on role_grant
for each row execute function role_grant_not_of_own_role();
comment on trigger role_grant_not_of_own_role on role_grant is
'Nobody changes what their own role may do.';

create function role_grant_within_own_access() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
declare
    actor constant bigint := public.acting_user();
    was constant text := case when tg_op <> 'INSERT' then old.effect end;
    becomes constant text := case when tg_op <> 'DELETE' then new.effect end;
    p_role constant text := case when tg_op = 'DELETE' then old.role else new.role end;
    p_permission constant text := case
        when tg_op = 'DELETE' then old.permission else new.permission
    end;
begin
    if public.is_access_free() or (
        actor = 0 and was is distinct from 'DENY' and becomes is distinct from 'ALLOW'
    ) then
        return null;
    end if;
    -- A role reaches into every branch, so who changes one has them all.
    if
        p_permission in (select public.effective_permissions(actor))
        and public.is_within_access(actor, null, p_role, true)
    then
        return null;
    end if;
    raise exception using
        errcode = 'SF403', constraint = tg_name, table = tg_table_name,
        message = 'the role has more than the caller',
        detail = json_build_object('permission', p_permission, 'role', p_role)::text;
end
$$;
comment on function role_grant_within_own_access() is
'Refuses to give a role, or take from it, what the caller lacks, and to change a role that has more.';
create trigger role_grant_within_own_access after insert or update or delete on role_grant
for each row execute function role_grant_within_own_access();
comment on trigger role_grant_within_own_access on role_grant is
'You can change only permissions that you have, of roles that have none that you lack.';

-- -- a user's own permissions and branches -----------------------------------------------------

create function not_of_oneself() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if
        not public.is_access_free() and public.acts_for() in (
            case when tg_op <> 'INSERT' then old.user_id end,
            case when tg_op <> 'DELETE' then new.user_id end
        )
    then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'it is the caller''s own';
    end if;
    return null;
end
$$;
comment on function not_of_oneself() is
'Refuses a change of the caller''s own access; named after its trigger.';

create trigger user_permission_changed_in_session
after insert or update or delete on user_permission
for each row execute function changed_in_session();
comment on trigger user_permission_changed_in_session on user_permission is
'Permissions are given by somebody who signed in with a password, not with an API key or a PIN.';
create trigger user_permission_not_of_oneself after insert or update or delete on user_permission
for each row execute function not_of_oneself();
comment on trigger user_permission_not_of_oneself on user_permission is
'Nobody changes their own permissions.';

create function user_permission_within_own_access() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
declare
    actor constant bigint := public.acting_user();
    was constant text := case when tg_op <> 'INSERT' then old.effect end;
    becomes constant text := case when tg_op <> 'DELETE' then new.effect end;
    p_user_id constant bigint := case when tg_op = 'DELETE' then old.user_id else new.user_id end;
    p_permission constant text := case
        when tg_op = 'DELETE' then old.permission else new.permission
    end;
begin
    if public.is_access_free() or (
        actor = 0 and was is distinct from 'DENY' and becomes is distinct from 'ALLOW'
    ) then
        return null;
    end if;
    if
        p_permission in (select public.effective_permissions(actor))
        and public.may_change_user(p_user_id)
    then
        return null;
    end if;
    raise exception using
        errcode = 'SF403', constraint = tg_name, table = tg_table_name,
        message = 'the caller lacks the permission, or has less than the user',
        detail = json_build_object('permission', p_permission)::text;
end
$$;
comment on function user_permission_within_own_access() is
'Refuses to give or take a permission that the caller lacks, and to change a user who has more.';
create trigger user_permission_within_own_access
after insert or update or delete on user_permission
for each row execute function user_permission_within_own_access();
comment on trigger user_permission_within_own_access on user_permission is
'You can change only permissions that you have, of users who have none that you lack.';

create trigger user_branch_changed_in_session after insert or update or delete on user_branch
for each row execute function changed_in_session();
comment on trigger user_branch_changed_in_session on user_branch is
'Branches are given by somebody who signed in with a password, not with an API key or a PIN.';
create trigger user_branch_not_of_oneself after insert or update or delete on user_branch
for each row execute function not_of_oneself();
comment on trigger user_branch_not_of_oneself on user_branch is
'Nobody changes their own branches.';

create function user_branch_within_own_access() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
declare
    actor constant bigint := public.acting_user();
    p_user_id constant bigint := case when tg_op = 'DELETE' then old.user_id else new.user_id end;
    p_branch_id constant bigint := case
        when tg_op = 'DELETE' then old.branch_id else new.branch_id
    end;
begin
    if public.is_access_free() or (actor = 0 and tg_op = 'DELETE') then
        return null;
    end if;
    if
        public.may_change_user(p_user_id) and exists (
            select from public.app_user as own
            where
                own.org_id = current_setting('app.org_id')::bigint and own.id = actor
                and (
                    own.all_branches or exists (
                        select from public.user_branch
                        where
                            org_id = own.org_id and user_id = actor and branch_id = p_branch_id
                    )
                )
        )
    then
        return null;
    end if;
    raise exception using
        errcode = 'SF403', constraint = tg_name, table = tg_table_name,
        message = 'the caller lacks the branch, or has less than the user';
end
$$;
comment on function user_branch_within_own_access() is
'Refuses to give or take a branch that the caller lacks, and to change a user who has more.';
create trigger user_branch_within_own_access after insert or update or delete on user_branch
for each row execute function user_branch_within_own_access();
comment on trigger user_branch_within_own_access on user_branch is
'You can give and take only branches that you have, of users who have nothing that you lack.';

-- -- sessions and keys -------------------------------------------------------------------------

create function api_key_ends_for_good() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    if
        new.expires_at > old.expires_at
        or old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at
    then
        raise exception using
            errcode = 'check_violation', constraint = tg_name, table = tg_table_name,
            message = 'its end cannot be undone';
    end if;
    return null;
end
$$;
comment on function api_key_ends_for_good() is
'Refuses to prolong a key, or to undo its end.';
create trigger api_key_ends_for_good after update of revoked_at, expires_at on api_key
for each row execute function api_key_ends_for_good();
comment on trigger api_key_ends_for_good on api_key is
'A key that was revoked stays revoked, and none lasts longer than it was made for.';

create function ended_within_own_access() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if
        new.user_id <> public.acts_for() and not public.is_access_free()
        and not public.may_change_user(new.user_id)
    then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'the user has more than the caller';
    end if;
    return null;
end
$$;
comment on function ended_within_own_access() is
'Refuses to end sessions and keys of users who have more than the caller; named after its trigger.';
create trigger user_session_ended_within_own_access
after update of revoked_at on user_session for each row
when (new.revoked_why = 'administrator')
execute function ended_within_own_access();
comment on trigger user_session_ended_within_own_access on user_session is
'You can end sessions only of users who have no permission and no branch that you lack.';
create trigger api_key_ended_within_own_access
after update of revoked_at, expires_at on api_key for each row
execute function ended_within_own_access();
comment on trigger api_key_ended_within_own_access on api_key is
'You can end keys only of users who have no permission and no branch that you lack.';

-- A new secret is a new key, so that each secret has its own time, use and end.
revoke update (secret_hash) on api_key from sofinance_app;
alter table api_key add column replaces bigint;
comment on column api_key.replaces is 'The key in whose place it was made, when that was rotated.';
grant insert (replaces) on api_key to sofinance_app;
grant select (replaces) on api_key to sofinance_readonly;
alter table api_key no force row level security;
alter table api_key
add constraint api_key_replaces_known foreign key (org_id, replaces)
references api_key (org_id, id) not valid;
-- No endpoint made keys before this release.
-- squawk-ignore constraint-missing-not-valid
alter table api_key validate constraint api_key_replaces_known;
alter table api_key force row level security;
comment on constraint api_key_replaces_known on api_key is 'There is no such key to replace.';
-- squawk-ignore require-concurrent-index-creation
create unique index api_key_replaces_once on api_key (org_id, replaces);
comment on index api_key_replaces_once is 'This key was rotated already.';

create trigger api_key_changed_in_session
after insert or update of revoked_at, expires_at on api_key for each row
execute function changed_in_session();
comment on trigger api_key_changed_in_session on api_key is
'Keys are made and ended by somebody who signed in with a password, not with an API key or a PIN.';

create function api_key_of_oneself() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if not public.is_access_free() and new.user_id is distinct from public.acting_user() then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'the key is somebody else''s';
    end if;
    return null;
end
$$;
comment on function api_key_of_oneself() is 'Refuses to make a key that acts for somebody else.';
create trigger api_key_of_oneself after insert on api_key for each row
execute function api_key_of_oneself();
comment on trigger api_key_of_oneself on api_key is 'Everybody makes keys for themselves only.';

create function api_key_within_own_access() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
declare
    lacking text[];
    foreign_ids bigint[];
begin
    if public.is_access_free() then
        return null;
    end if;
    lacking := array(
        select unnest(new.permissions)
        except select public.effective_permissions(new.user_id)
        order by 1
    );
    foreign_ids := array(
        select asked.id
        from public.app_user as own, unnest(new.branch_ids) as asked (id)
        where
            own.org_id = new.org_id and own.id = new.user_id
            and not exists (
                select from public.branch
                where
                    org_id = new.org_id and id = asked.id
                    and (own.all_branches or exists (
                        select from public.user_branch
                        where
                            org_id = new.org_id and user_id = new.user_id
                            and branch_id = asked.id
                    ))
            )
        order by 1
    );
    if cardinality(lacking) > 0 or cardinality(foreign_ids) > 0 then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'the key may more than its user',
            detail = json_build_object('permissions', lacking, 'branch_ids', foreign_ids)::text;
    end if;
    return null;
end
$$;
comment on function api_key_within_own_access() is
'Refuses a key with a permission or a branch that its user lacks.';
create trigger api_key_within_own_access after insert on api_key for each row
execute function api_key_within_own_access();
comment on trigger api_key_within_own_access on api_key is
'A key has only permissions and branches that you have.';
