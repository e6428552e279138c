-- API keys: made, rotated, ended, and when each was last seen.

-- name: create_key :one
-- Make a key for its user; the rules of api_key hold it to what the user has.
-- nullable: own_ids, replaces
insert into api_key (
    org_id, user_id, name, secret_hash, permissions, branch_ids, expires_at, replaces
)
values (
    :org_id, :user_id, :name, :secret_hash, :permissions, :own_ids,
    now() + make_interval(days => :expires_in_days), :replaces
)
returning
    id, user_id, name, permissions, branch_ids, created_at, expires_at, last_used_on, revoked_at,
    replaces;

-- name: end_key :one
-- End a key now, or in so many minutes unless it ends before that.
update api_key
set
    revoked_at = case when :minutes::int = 0 then now() end,
    expires_at = case
        when :minutes::int = 0 then expires_at
        else least(expires_at, now() + make_interval(mins => :minutes::int))
    end
where org_id = :org_id and id = :id and revoked_at is null and expires_at > now()
returning
    id, user_id, name, permissions, branch_ids, created_at, expires_at, last_used_on, revoked_at,
    replaces;

-- name: note_use :exec
-- Write down that a key was seen today (UTC); whoever else writes to it does not wait for this.
update api_key
set last_used_on = (now() at time zone 'utc')::date
where
    org_id = :org_id
    and id = (
        select seen.id from api_key as seen
        where
            seen.org_id = :org_id and seen.id = :id
            and seen.last_used_on is distinct from (now() at time zone 'utc')::date
        for no key update skip locked
    );

-- name: get_key :one
-- Get a key, without its secret, which nobody knows.
select
    id,
    user_id,
    name,
    permissions,
    branch_ids,
    created_at,
    expires_at,
    last_used_on,
    revoked_at,
    replaces
from api_key
where org_id = :org_id and id = :id;

-- name: list_keys :many
-- List keys, the latest first; without a user, those of all.
-- nullable: of_user_id
select
    id,
    user_id,
    name,
    permissions,
    branch_ids,
    created_at,
    expires_at,
    last_used_on,
    revoked_at,
    replaces
from api_key
where
    org_id = :org_id
    and (:of_user_id::bigint is null or user_id = :of_user_id)
    and (:include_ended or (revoked_at is null and expires_at > now()))
order by id desc
limit :limit offset :offset;

-- name: count_keys :value
-- Count what list_keys pages through.
-- nullable: of_user_id
-- not null: total
select count(*) as total
from api_key
where
    org_id = :org_id
    and (:of_user_id::bigint is null or user_id = :of_user_id)
    and (:include_ended or (revoked_at is null and expires_at > now()));
