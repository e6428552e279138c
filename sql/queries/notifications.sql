-- Notifications: told to users, read by each of their own.

-- name: tell :exec
-- Tell some users something; whoever was told it already (dedupe_key) is not told again.
-- nullable: sent_by, dedupe_key
insert into notification (org_id, user_id, type, title, message, data, sent_by, dedupe_key)
select
    :org_id,
    told.user_id,
    :type,
    :title,
    :message,
    :data::jsonb,
    :sent_by,
    :dedupe_key
from unnest(:user_ids::bigint[]) as told (user_id)
where
    not exists (
        select from notification as before
        where
            before.org_id = :org_id and before.user_id = told.user_id
            and before.dedupe_key = :dedupe_key
    )
order by told.user_id
on conflict (org_id, user_id, dedupe_key) where dedupe_key is not null do nothing;

-- name: mark_read :one
-- Mark a notification of a user as read; one that was read stays as it was.
update notification
set read_at = coalesce(read_at, now())
where org_id = :org_id and user_id = :user_id and id = :id
returning id, type, title, message, data, sent_by, created_at, read_at;

-- name: mark_all_read :exec
-- Mark all notifications of a user as read.
update notification
set read_at = now()
where org_id = :org_id and user_id = :user_id and read_at is null;

-- name: delete_notification :one
-- Delete a notification of a user.
delete from notification
where org_id = :org_id and user_id = :user_id and id = :id
returning id, type, title, message, data, sent_by, created_at, read_at;

-- name: forget_notifications :exec
-- Forget what was told more than so many days ago, at most so many.
delete from notification
where
    org_id = :org_id and (user_id, id) in (
        select
            old.user_id,
            old.id
        from notification as old
        where
            old.org_id = :org_id
            and old.created_at < now() - make_interval(days => :keep_days::integer)
        order by old.created_at
        limit :limit
        for update skip locked
    );

-- name: issue_ticket :one
-- Issue a ticket of a session for some seconds; what it had that has ended is forgotten.
with ended as (
    delete from notification_ticket
    where org_id = :org_id and session_id = :session_id and expires_at <= now()
)

insert into notification_ticket (org_id, token_hash, session_id, expires_at)
values (:org_id, :token_hash, :session_id, now() + make_interval(secs => :life_s::int))
returning session_id, expires_at;

-- name: use_ticket :maybe
-- Use a ticket up; null for one that is none, was used or has ended.
-- not null: session_id, user_id
delete from notification_ticket
using user_session
where
    notification_ticket.org_id = :org_id and notification_ticket.token_hash = :token_hash
    and notification_ticket.expires_at > now()
    and user_session.org_id = :org_id and user_session.id = notification_ticket.session_id
returning notification_ticket.session_id, user_session.user_id;

-- name: get_notification :one
-- Get a notification of a user.
select
    id,
    type,
    title,
    message,
    data,
    sent_by,
    created_at,
    read_at
from notification
where org_id = :org_id and user_id = :user_id and id = :id;

-- name: list_notifications :many
-- List notifications of a user, the latest first.
-- nullable: before_id
select
    id,
    type,
    title,
    message,
    data,
    sent_by,
    created_at,
    read_at
from notification
where
    org_id = :org_id and user_id = :user_id
    and (:before_id::bigint is null or id < :before_id)
    and (not :unread_only::boolean or read_at is null)
order by id desc
limit :limit;

-- name: count_unread :value
-- Count what a user has not read, of 1,000 at most.
-- not null: unread_count
select count(*) as unread_count
from notification
where org_id = :org_id and user_id = :user_id and read_at is null;

-- name: get_last_id :value
-- Get the number of the latest notification of a user; 0 when there was none ever.
-- not null: last_id
select coalesce(max(last_id), 0) as last_id
from notification_inbox
where org_id = :org_id and user_id = :user_id;

-- name: list_news :many
-- List what users of whichever organisations were told since a number each, in their order.
-- not null: org_id, user_id, last_id
select
    org_id,
    user_id,
    last_id,
    id,
    type,
    title,
    message,
    data,
    created_at,
    read_at
from list_news(:org_ids, :user_ids, :after_ids, :limit);

-- name: list_ended :many
-- List which callers have no live session or key any more, by their places, from 1.
-- not null: place
select place
from list_ended(:org_ids, :user_ids, :session_ids, :key_ids) as place
order by place
limit cardinality(:org_ids::bigint[]);

-- name: list_told_today :many
-- List what of a type somebody was told in the last 24 hours.
-- not null: dedupe_key
select distinct dedupe_key
from notification
where
    org_id = :org_id and created_at > now() - interval '1 day' and type = :type
    and dedupe_key is not null
order by dedupe_key
limit :limit;

-- name: list_low_stock :many
-- List what is low of that which moved last, in branches where it is sold.
select
    stock.branch_id,
    branch.name as branch_name,
    stock.product_id,
    product.sku,
    product.name as product_name,
    stock.quantity,
    stock.reorder_level
from (
    select distinct
        latest.branch_id,
        latest.product_id
    from (
        select
            branch_id,
            product_id
        from stock_movement
        where org_id = :org_id
        order by id desc
        limit :movement_count
    ) as latest
) as moved
inner join stock
    on
        stock.org_id = :org_id and moved.branch_id = stock.branch_id
        and moved.product_id = stock.product_id
inner join branch on branch.org_id = :org_id and stock.branch_id = branch.id
inner join product on product.org_id = :org_id and stock.product_id = product.id
where
    stock.org_id = :org_id and stock.quantity <= stock.reorder_level and product.is_active
order by stock.branch_id, stock.product_id
limit :limit;

-- name: list_to_tell :many
-- List who may do something in a branch, or anywhere: who is told about it.
-- nullable: branch_id
select app_user.id
from app_user
where
    app_user.org_id = :org_id and app_user.is_active
    and (
        :branch_id::bigint is null or app_user.all_branches
        or exists (
            select from user_branch
            where
                user_branch.org_id = :org_id and user_branch.user_id = app_user.id
                and user_branch.branch_id = :branch_id
        )
    )
    and exists (
        select from effective_permissions(app_user.id) as granted (permission)
        where granted.permission = :permission
    )
order by app_user.id
limit :limit;
