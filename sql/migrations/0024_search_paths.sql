-- Functions find no temporary table in the place of ours; nobody changes their own sign-in address.
-- depends: 0023_forgetting
set local lock_timeout = '4s';
set local role sofinance_owner;

-- Temporary tables are searched first unless a path says otherwise, and a role that may make one
-- could lend its trigger to a function that runs with the owner's rights.
do $$
declare
    ours record;
begin
    for ours in
        select
            proc.oid::regprocedure as name,
            substring(setting from '^search_path=(.*)$') as path
        from pg_proc as proc
        cross join unnest(proc.proconfig) as setting
        where
            proc.pronamespace = 'public'::regnamespace
            and setting like 'search_path=%' and setting not like '%pg_temp'
            and pg_has_role(proc.proowner, 'member')
    loop
        execute format('alter function %s set search_path = %s, pg_temp', ours.name, ours.path);
    end loop;
end
$$;

drop trigger app_user_access_not_by_oneself on app_user;
create trigger app_user_access_not_by_oneself
after update of role, all_branches, is_active, email on app_user for each row
when (
    (old.role, old.all_branches, old.is_active, old.email)
    is distinct from (new.role, new.all_branches, new.is_active, new.email)
)
execute function app_user_access_not_by_oneself();
comment on trigger app_user_access_not_by_oneself on app_user is
'Nobody changes their own role, branches or address, or disables themselves: somebody else does.';
