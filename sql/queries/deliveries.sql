-- What happened, and what became of each message.

-- name: send_test_event :value
-- Queue a test event for one endpoint; returns the delivery.
-- not null: delivery_id
select send_test_event(:endpoint_id, :body) as delivery_id;

-- name: list_events :many
-- List events in their order, from one on.
-- nullable: type, aggregate, aggregate_id
select
    id,
    message_id,
    type,
    aggregate,
    aggregate_id,
    occurred_at
from event
where
    org_id = :org_id and id > :after_id
    and (:type::text is null or type = :type)
    and (:aggregate::text is null or aggregate = :aggregate)
    and (:aggregate_id::bigint is null or aggregate_id = :aggregate_id)
order by id
limit :limit;

-- name: get_event :one
-- Get an event with what is told of it.
select
    id,
    message_id,
    type,
    aggregate,
    aggregate_id,
    occurred_at,
    body
from event
where org_id = :org_id and id = :id;

-- name: list_deliveries :many
-- List deliveries, the latest first, from one on.
-- nullable: before_id, endpoint_id, event_id, status
-- not null: id, endpoint_id, event_id, message_id, type, aggregate, aggregate_id, status, attempts
-- not null: replay_count
select
    delivery.id,
    delivery.endpoint_id,
    delivery.event_id,
    event.message_id,
    event.type,
    delivery.aggregate,
    delivery.aggregate_id,
    delivery.status,
    delivery.attempts,
    delivery.last_attempt_at,
    delivery.last_status,
    delivery.last_error,
    delivery.delivered_at,
    delivery.replay_count,
    delivery.last_replayed_at,
    delivery.last_replayed_by
from webhook_delivery as delivery
inner join event on delivery.org_id = event.org_id and delivery.event_id = event.id
where
    delivery.org_id = :org_id
    and (:before_id::bigint is null or delivery.id < :before_id)
    and (:endpoint_id::bigint is null or delivery.endpoint_id = :endpoint_id)
    and (:event_id::bigint is null or delivery.event_id = :event_id)
    and (:status::text is null or delivery.status = :status)
order by delivery.id desc
limit :limit;

-- name: get_delivery :one
-- Get a delivery.
-- not null: id, endpoint_id, event_id, message_id, type, aggregate, aggregate_id, status, attempts
-- not null: replay_count
select
    delivery.id,
    delivery.endpoint_id,
    delivery.event_id,
    event.message_id,
    event.type,
    delivery.aggregate,
    delivery.aggregate_id,
    delivery.status,
    delivery.attempts,
    delivery.last_attempt_at,
    delivery.last_status,
    delivery.last_error,
    delivery.delivered_at,
    delivery.replay_count,
    delivery.last_replayed_at,
    delivery.last_replayed_by
from webhook_delivery as delivery
inner join event on delivery.org_id = event.org_id and delivery.event_id = event.id
where delivery.org_id = :org_id and delivery.id = :id;

-- name: list_dead_letters :many
-- List deliveries of which all attempts failed, the oldest first.
-- nullable: endpoint_id
-- not null: id, endpoint_id, event_id, message_id, type, aggregate, aggregate_id, status, attempts
-- not null: replay_count, target_url, created_at
select
    delivery.id,
    delivery.endpoint_id,
    endpoint.url as target_url,
    delivery.event_id,
    event.message_id,
    event.type,
    delivery.aggregate,
    delivery.aggregate_id,
    delivery.status,
    delivery.attempts,
    event.occurred_at as created_at,
    delivery.last_attempt_at,
    delivery.last_status,
    delivery.last_error,
    delivery.replay_count,
    delivery.last_replayed_at,
    delivery.last_replayed_by
from webhook_delivery as delivery
inner join event on delivery.org_id = event.org_id and delivery.event_id = event.id
inner join webhook_endpoint as endpoint
    on delivery.org_id = endpoint.org_id and delivery.endpoint_id = endpoint.id
where
    delivery.org_id = :org_id and delivery.status = 'dead'
    and (:endpoint_id::bigint is null or delivery.endpoint_id = :endpoint_id)
order by delivery.id
limit :limit offset :offset;

-- name: count_dead_letters :value
-- Count what list_dead_letters pages through.
-- nullable: endpoint_id
-- not null: total
select count(*) as total
from webhook_delivery
where
    org_id = :org_id and status = 'dead'
    and (:endpoint_id::bigint is null or endpoint_id = :endpoint_id);

-- name: count_dead_of_endpoints :many
-- Count dead letters by endpoint, with what says whether anything may be sent there.
-- nullable: endpoint_id
-- not null: endpoint_id, url, is_active, dead_count
select
    endpoint.id as endpoint_id,
    endpoint.url,
    endpoint.is_active,
    dead.dead_count
from (
    select
        endpoint_id,
        count(*) as dead_count
    from webhook_delivery
    where
        org_id = :org_id and status = 'dead'
        and (:endpoint_id::bigint is null or endpoint_id = :endpoint_id)
    group by endpoint_id
) as dead
inner join webhook_endpoint as endpoint
    on endpoint.org_id = :org_id and endpoint.id = dead.endpoint_id
order by endpoint.id;

-- name: list_dead_elsewhere :many
-- List the dead letters of other endpoints than some, the oldest first.
-- nullable: endpoint_id
select id
from webhook_delivery
where
    org_id = :org_id and status = 'dead' and endpoint_id <> all(:left_endpoint_ids)
    and (:endpoint_id::bigint is null or endpoint_id = :endpoint_id)
order by id
limit :limit;

-- name: list_for_replay :many
-- List dead letters that the service begins again by itself: old enough, not too often, some of
-- each organisation, at endpoints that did not just fail.
-- not null: id, endpoint_id
select
    delivery.id,
    delivery.endpoint_id
from webhook_delivery as delivery
inner join webhook_endpoint as endpoint
    on delivery.org_id = endpoint.org_id and delivery.endpoint_id = endpoint.id
where
    delivery.org_id = :org_id and delivery.status = 'dead' and endpoint.is_active
    and delivery.replay_count < :replay_count_max and delivery.attempts < :attempts_max
    and delivery.last_attempt_at < now() - make_interval(mins => :min_age_minutes)
    and (
        delivery.last_replayed_at is null
        or delivery.last_replayed_at < now() - make_interval(mins => :cooldown_minutes)
    )
order by delivery.id
limit :limit;

-- name: replay_deliveries :value
-- Begin dead letters again, as if so many attempts had been made; returns how many.
-- nullable: user_id
-- not null: count
select replay_deliveries(:ids, :user_id, :attempts) as count;

-- name: give_up_delivery :value
-- Give a dead letter up, so that later events of its thing are sent; false when it is not dead.
-- not null: is_given_up
select give_up_delivery(:id) as is_given_up;
