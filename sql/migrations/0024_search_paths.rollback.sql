-- Let everybody change their own address again; the paths stay, since they take nothing away.
set local role sofinance_owner;
drop trigger app_user_access_not_by_oneself on app_user;
create trigger app_user_access_not_by_oneself
after update of role, all_branches, is_active on app_user for each row
when (
    (old.role, old.all_branches, old.is_active)
    is distinct from (new.role, new.all_branches, new.is_active)
)
execute function app_user_access_not_by_oneself();
comment on trigger app_user_access_not_by_oneself on app_user is
'Nobody changes their own role or branches, or disables themselves: somebody else does.';
