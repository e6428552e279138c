-- The customers' portal: links that are good once, and the sessions that begin with them.

-- name: find_customer :maybe
-- Find the customer who has an address and may use the portal.
select id
from customer
where org_id = :org_id and email = lower(:email) and status <> 'INACTIVE';

-- name: lock_customer :maybe
-- Lock a customer who may use the portal, so that links and sessions of one come one by one.
-- not null: email
select
    id,
    email
from customer
where org_id = :org_id and id = :customer_id and email is not null and status <> 'INACTIVE'
for no key update;

-- name: forget_lapsed_links :exec
-- Forget a customer's links that nobody used in time: their places are free.
delete from portal_link
where
    org_id = :org_id and customer_id = :customer_id and used_at is null and expires_at <= now();

-- name: open_link :maybe
-- Open one of a customer's three links; nothing if all are open. The customer is locked by then.
-- nullable: issued_by
insert into portal_link (org_id, customer_id, slot, token_hash, issued_by, expires_at)
select
    :org_id,
    :customer_id,
    free.slot,
    :token_hash,
    :issued_by,
    now() + make_interval(mins => :life_minutes::int)
from generate_series(1, 3) as free (slot)
where
    not exists (
        select from portal_link as held
        where
            held.org_id = :org_id and held.customer_id = :customer_id and held.slot = free.slot
            and held.used_at is null
    )
order by free.slot
limit 1
returning id, expires_at;

-- name: begin_session :maybe
-- Use a link up and begin its session; nothing for one that is none, was used, or is over. The
-- customer is locked by then. Rule: portal_session_link_good.
-- not null: life_s
with used as (
    update portal_link
    set used_at = now()
    where
        org_id = :org_id and customer_id = :customer_id and token_hash = :token_hash
        and used_at is null and expires_at > now()
    returning id
)

insert into portal_session (org_id, customer_id, link_id, secret_hash, expires_at)
select
    :org_id,
    :customer_id,
    used.id,
    :secret_hash,
    now() + make_interval(mins => :life_minutes::int)
from used
returning id, expires_at, extract(epoch from expires_at - began_at)::int as life_s;

-- name: find_session :maybe
-- Find the customer whose session it is, while it lasts.
select
    session.id as session_id,
    session.expires_at,
    customer.id as customer_id,
    customer.name,
    customer.email,
    customer.currency
from portal_session as session
inner join customer on session.org_id = customer.org_id and session.customer_id = customer.id
where
    session.org_id = :org_id and session.id = :session_id and session.secret_hash = :secret_hash
    and session.ended_at is null and session.expires_at > now()
    and customer.status <> 'INACTIVE';

-- name: end_session :exec
-- End a session, by who has its secret.
update portal_session
set ended_at = now()
where
    org_id = :org_id and id = :session_id and secret_hash = :secret_hash and ended_at is null
    and expires_at > now();

-- name: end_sessions :exec
-- End the sessions of a customer.
update portal_session
set ended_at = now()
where
    org_id = :org_id and customer_id = :customer_id and ended_at is null and expires_at > now();

-- name: void_links :exec
-- Take away the links of a customer that were not used yet.
delete from portal_link
where org_id = :org_id and customer_id = :customer_id and used_at is null;

-- name: is_used_link :value
-- Say whether a link was a customer's and was used before.
-- not null: is_used
select exists(
    select from portal_link
    where
        org_id = :org_id and customer_id = :customer_id and token_hash = :token_hash
        and used_at is not null
) as is_used;

-- name: list_links :many
-- List the links of a customer and the sessions that began with them, the latest first.
select
    link.id,
    link.issued_at,
    link.issued_by,
    link.expires_at,
    link.used_at,
    session.expires_at as session_expires_at,
    session.ended_at as session_ended_at
from portal_link as link
left join portal_session as session
    on
        link.org_id = session.org_id and link.customer_id = session.customer_id
        and link.id = session.link_id
where link.org_id = :org_id and link.customer_id = :customer_id
order by link.id desc
limit :limit offset :offset;

-- name: count_links :value
-- Count what list_links pages through.
-- not null: total
select count(*) as total
from portal_link
where org_id = :org_id and customer_id = :customer_id;

-- name: forget_links :exec
-- Forget links that were over a month ago, and their sessions, at most so many.
delete from portal_link
where
    org_id = :org_id and id in (
        select old.id
        from portal_link as old
        where old.org_id = :org_id and old.expires_at < now() - interval '30 days'
        order by old.expires_at
        limit :limit
        for update skip locked
    );
