-- Administration: broken glasses, which let somebody change things in the read-only mode.

-- name: create_break_glass :one
-- Break the glass: for one user, with a reason, for some minutes.
insert into break_glass (org_id, user_id, reason, token_hash, expires_at)
values (
    :org_id, :user_id, :reason, :token_hash, now() + make_interval(mins => :ttl_minutes)
)
returning id, user_id, reason, created_at, expires_at, revoked_at, revoked_by;

-- name: revoke_break_glass :one
-- End a broken glass; waits for what is being done with it.
update break_glass
set revoked_at = now(), revoked_by = :revoked_by
where org_id = :org_id and id = :id and revoked_at is null
returning id, user_id, reason, created_at, expires_at, revoked_at, revoked_by;

-- name: use_break_glass :maybe
-- Find a broken glass that is good right now, and keep it so until the transaction ends.
select id from break_glass
where
    org_id = :org_id and id = :id and user_id = :user_id and token_hash = :token_hash
    and revoked_at is null and expires_at > now()
for share;

-- name: list_break_glass :many
-- List broken glasses, the latest first.
select
    id,
    user_id,
    reason,
    created_at,
    expires_at,
    revoked_at,
    revoked_by
from break_glass
where org_id = :org_id
order by id desc
limit :limit offset :offset;

-- name: count_break_glass :value
-- Count broken glasses.
-- not null: total
select count(*) as total
from break_glass
where org_id = :org_id;
