-- Passwords: changing one's own, and choosing a new one by a link in a mail.

-- name: open_reset :maybe
-- Open one of a user's three links; nothing if all are open. The user's row is locked by then.
-- not null: slot
insert into password_reset (org_id, user_id, slot, token_hash, expires_at)
select
    :org_id,
    :user_id,
    free.slot,
    :token_hash,
    now() + make_interval(mins => :life_minutes::int)
from generate_series(1, 3) as free (slot)
where
    not exists (
        select from password_reset as held
        where
            held.org_id = :org_id and held.user_id = :user_id and held.slot = free.slot
            and held.used_at is null and held.expires_at > now()
    )
order by free.slot
limit 1
on conflict (org_id, user_id, slot) do update
    set
        token_hash = excluded.token_hash,
        created_at = now(),
        expires_at = excluded.expires_at,
        used_at = null
returning slot;

-- name: find_reset :maybe
-- Find whose password a link is for, while it is good.
select
    app_user.id,
    app_user.email,
    app_user.first_name,
    app_user.last_name
from password_reset as reset
inner join app_user
    on reset.org_id = app_user.org_id and reset.user_id = app_user.id
where
    reset.org_id = :org_id and reset.token_hash = :token_hash and reset.user_id = :user_id
    and reset.used_at is null and reset.expires_at > now() and app_user.is_active;

-- name: use_reset :exec
-- Use a link up: 1 for the one who is first.
update password_reset
set used_at = now()
where
    org_id = :org_id and token_hash = :token_hash and user_id = :user_id
    and used_at is null and expires_at > now();

-- name: set_password :exec
-- Set the password that a user has chosen; closes the links for a new one (app_user_closes_resets).
-- The user's row is locked by then.
update app_user
set
    password_hash = :password_hash,
    must_change_password = false,
    password_changed_at = now(),
    updated_at = now()
where org_id = :org_id and id = :user_id;
