-- Whose second factor and PIN it is: everybody's own, in a session that began with a password.
-- Taken away also by who may change the user. Rules like those on access, and after them.
-- depends: 0021_sign_in_links
set local lock_timeout = '4s';
set local role sofinance_owner;

create function of_oneself() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if not public.is_access_free() and new.user_id is distinct from public.acting_user() then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'it is somebody else''s';
    end if;
    return null;
end
$$;
comment on function of_oneself() is
'Refuses to choose for somebody else, and to keys and PINs; named after its trigger.';

create trigger user_totp_of_oneself
after insert or update of begun_at, confirmed_at on user_totp for each row
execute function of_oneself();
comment on trigger user_totp_of_oneself on user_totp is
'Everybody enrols their own second factor, signed in with a password.';
create trigger recovery_code_of_oneself after insert on recovery_code for each row
execute function of_oneself();
comment on trigger recovery_code_of_oneself on recovery_code is
'Everybody makes their own recovery codes, signed in with a password.';
create trigger user_pin_of_oneself after insert or update of pin_hash on user_pin for each row
execute function of_oneself();
comment on trigger user_pin_of_oneself on user_pin is
'Everybody chooses their own PIN, signed in with a password.';

create function taken_within_own_access() returns trigger
language plpgsql set search_path = pg_catalog, public as $$
begin
    if
        old.user_id is distinct from public.acting_user() and not public.is_access_free()
        and not public.may_change_user(old.user_id)
    then
        raise exception using
            errcode = 'SF403', constraint = tg_name, table = tg_table_name,
            message = 'the user has more than the caller';
    end if;
    return null;
end
$$;
comment on function taken_within_own_access() is
'Refuses to take away what protects a user who has more than the caller; named after its trigger.';
create trigger user_totp_taken_within_own_access after delete on user_totp for each row
execute function taken_within_own_access();
comment on trigger user_totp_taken_within_own_access on user_totp is
'You can reset second factors only of users who have no permission and no branch that you lack.';
