-- The sessions of a user: which go on, and ending them. A session that has ended stays, to say why.

-- name: end_session :exec
-- End a session of a user, if it goes on.
update user_session
set revoked_at = now(), revoked_why = :revoked_why
where
    org_id = :org_id and id = :id and user_id = :user_id and revoked_at is null
    and idle_until > now() and expires_at > now();

-- name: end_sessions :exec
-- End all sessions of a user but for one; the user's row is locked by then (auth.lock_user).
-- nullable: except_id
update user_session
set revoked_at = now(), revoked_why = :revoked_why
where
    org_id = :org_id and user_id = :user_id and revoked_at is null
    and (:except_id::bigint is null or id <> :except_id);

-- name: is_elsewhere :value
-- Say whether a session is the first of its user with such a device, and from such an address.
-- nullable: ip
-- not null: is_elsewhere
select exists (
    select from user_session
    where org_id = :org_id and user_id = :user_id and id <> :id
) and not exists (
    select from user_session
    where
        org_id = :org_id and user_id = :user_id and id <> :id
        and (device = :device or ip = :ip)
) as is_elsewhere;

-- name: list_sessions :many
-- List the sessions of a user that go on, the newest first; which one asks is marked.
-- not null: is_current
select
    id,
    kind,
    till_id,
    has_second_factor,
    device,
    host(ip) as ip,
    created_at,
    last_used_at,
    idle_until,
    expires_at,
    id = :session_id as is_current
from user_session
where
    org_id = :org_id and user_id = :user_id and revoked_at is null
    and idle_until > now() and expires_at > now()
order by id desc
limit :limit offset :offset;

-- name: count_sessions :value
-- Count the sessions of a user that go on.
-- not null: total
select count(*) as total
from user_session
where
    org_id = :org_id and user_id = :user_id and revoked_at is null
    and idle_until > now() and expires_at > now();
