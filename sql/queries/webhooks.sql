-- Endpoints of other systems, and what their messages are signed with.


-- name: create_endpoint :one
-- Create an endpoint in the lowest free of the organisation's 20 places.
-- nullable: event_types
insert into webhook_endpoint (
    org_id, slot, url, description, event_types, signature, created_by
)
select
    :org_id,
    coalesce(min(place.slot), 21),
    :url,
    :description,
    :event_types::text[],
    :signature,
    :user_id
from generate_series(1, 20) as place (slot)
where
    not exists (
        select from webhook_endpoint as known
        where known.org_id = :org_id and known.slot = place.slot
    )
returning
    id, url, description, event_types, signature, is_active, disabled_at, disabled_reason,
    created_at, created_by, updated_at, version;

-- name: change_endpoint :one
-- Change an endpoint; one that is made active again is tried at once.
-- nullable: event_types
update webhook_endpoint
set
    url = :url, description = :description, event_types = :event_types, is_active = :is_active,
    disabled_at = case when not :is_active then disabled_at end,
    disabled_reason = case when not :is_active then disabled_reason end,
    updated_at = now()
where org_id = :org_id and id = :id
returning
    id, url, description, event_types, signature, is_active, disabled_at, disabled_reason,
    created_at, created_by, updated_at, version;

-- name: delete_endpoint :one
-- Delete an endpoint with its secrets, its deliveries and what waits for it.
delete from webhook_endpoint
where org_id = :org_id and id = :id
returning
    id, url, description, event_types, signature, is_active, disabled_at, disabled_reason,
    created_at, created_by, updated_at, version;

-- name: add_secret :one
-- Add the secret that signs from now on.
-- nullable: public_key
insert into webhook_secret (org_id, endpoint_id, sealed, public_key)
values (:org_id, :endpoint_id, :sealed, :public_key)
returning id, created_at;

-- name: retire_secrets :exec
-- Let the present secret sign as well for so many minutes, and those before it no longer.
update webhook_secret
set
    expires_at = case
        when expires_at is null then now() + make_interval(mins => :minutes)
        else least(expires_at, now())
    end
where org_id = :org_id and endpoint_id = :endpoint_id;

-- name: get_endpoint :one
-- Get an endpoint.
select
    id,
    url,
    description,
    event_types,
    signature,
    is_active,
    disabled_at,
    disabled_reason,
    created_at,
    created_by,
    updated_at,
    version
from webhook_endpoint
where org_id = :org_id and id = :id;

-- name: list_endpoints :many
-- List the organisation's endpoints: 20 at most.
select
    id,
    url,
    description,
    event_types,
    signature,
    is_active,
    disabled_at,
    disabled_reason,
    created_at,
    created_by,
    updated_at
from webhook_endpoint
where org_id = :org_id
order by id
limit 20;

-- name: list_public_keys :many
-- List what verifies the messages of an endpoint now, the newest first.
select
    public_key,
    created_at,
    expires_at
from webhook_secret
where
    org_id = :org_id and endpoint_id = :endpoint_id
    and (expires_at is null or expires_at > now())
order by id desc
limit 10;

-- name: list_stale_secrets :many
-- Lock secrets that another key than this one sealed, from behind one on.
select
    id,
    endpoint_id as owner_id,
    sealed
from webhook_secret
where
    org_id = :org_id and id > :after_id and substr(sealed, 2, 4) <> :key_id::bytea
order by id
limit :limit
for update;

-- name: count_stale_secrets :value
-- Count secrets that another key than this one sealed.
-- not null: count
select count(*) as count
from webhook_secret
where org_id = :org_id and substr(sealed, 2, 4) <> :key_id::bytea;

-- name: reseal_secret :exec
-- Keep the same secret, sealed anew.
update webhook_secret
set sealed = :sealed
where org_id = :org_id and id = :id;
