-- A link for a new password dies with what it was sent for: the address, the password, the user.
-- depends: 0020_access_rules
set local lock_timeout = '4s';
set local role sofinance_owner;

create function app_user_closes_resets() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    update public.password_reset set used_at = now()
    where org_id = new.org_id and user_id = new.id and used_at is null;
    return null;
end
$$;
comment on function app_user_closes_resets() is
'Closes the links for a new password of a user whose address, password or state changes.';
create trigger app_user_closes_resets after update of email, password_hash, is_active on app_user
for each row
when (
    (old.email, old.password_hash, old.is_active)
    is distinct from (new.email, new.password_hash, new.is_active)
)
execute function app_user_closes_resets();
comment on trigger app_user_closes_resets on app_user is
'Closes the links for a new password of a user whose address, password or state changes.';
