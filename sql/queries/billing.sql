-- Card payments at Stripe: checkouts of sales, and what Stripe tells of them.
-- Amounts are in the sale's currency.

-- name: begin_checkout :one
-- Give the one checkout of a sale that is under way, or begin one for what is open of it. Locks
-- the sale. Refused by payment_sale_not_void and stripe_checkout_amount_above_zero.
-- not null: id, sale_id, token, status, currency, amount, expires_at, is_stale, receipt
select
    begun.id,
    begun.sale_id,
    begun.token,
    begun.status,
    begun.currency,
    begun.amount,
    begun.session_id,
    begun.url,
    begun.expires_at,
    begun.is_stale,
    begun.receipt
from begin_stripe_checkout(:org_id, :user_id, :sale_id, :life_minutes) as begun;

-- name: open_checkout :exec
-- Note the page that Stripe made for a checkout; nothing to do where somebody was faster.
update stripe_checkout set status = 'open', session_id = :session_id, url = :url
where org_id = :org_id and id = :id and status = 'starting';

-- name: end_checkout :exec
-- Note that nobody can pay any more at a checkout.
update stripe_checkout set status = 'expired', ended_at = now()
where org_id = :org_id and id = :id and status in ('starting', 'open');

-- name: begin_event :maybe
-- Write down that an event came; no row where it is about no checkout of the organisation. An
-- event that was written down and not done is begun once more. `is_same` is whether the payload
-- is that of the first time.
-- nullable: payment_ref, currency, amount
-- not null: status, is_same
with checkout as (
    select id from stripe_checkout
    where org_id = :org_id and token = :token
)

insert into stripe_event as told (
    org_id, event_id, type, payload_sha256, checkout_id, payment_ref, currency, amount
)
select
    :org_id,
    :event_id,
    :type,
    :payload_sha256,
    checkout.id,
    :payment_ref,
    :currency,
    :amount
from checkout
on conflict (org_id, event_id) do update
    set attempt_count = told.attempt_count + (
        told.status = 'processing' and told.payload_sha256 = excluded.payload_sha256
    )::int
returning told.status, told.payload_sha256 = :payload_sha256 as is_same;

-- name: settle_event :one
-- Do what an event says, once: post its payment, or keep why its sale refuses it. `outcome` is
-- paid, expired, or anything else that is ignored; retry posts one that was refused. Locks the
-- event, its checkout and its sale.
-- not null: status, is_new
select
    settled.status,
    settled.is_new,
    settled.sale_id,
    settled.payment_no,
    settled.last_error
from settle_stripe_event(:org_id, :event_id, :outcome) as settled;

-- name: note_settled :exec
-- Note how somebody dealt with a payment that its sale refuses. Refused by stripe_event_done_stays
-- where it is not refused, or was dealt with before.
update stripe_event set status = 'settled', note = :note
where org_id = :org_id and event_id = :event_id;

-- name: get_event :one
-- Get one event.
select
    told.event_id as id,
    told.type,
    told.status,
    told.checkout_id,
    checkout.sale_id,
    told.payment_ref,
    told.currency,
    told.amount,
    told.last_error,
    told.note,
    told.attempt_count,
    told.received_at,
    told.processed_at
from stripe_event as told
inner join stripe_checkout as checkout
    on checkout.org_id = told.org_id and checkout.id = told.checkout_id
where told.org_id = :org_id and told.event_id = :event_id;

-- name: list_events :many
-- List what Stripe told, latest first.
-- nullable: status
select
    told.event_id as id,
    told.type,
    told.status,
    told.checkout_id,
    checkout.sale_id,
    told.payment_ref,
    told.currency,
    told.amount,
    told.last_error,
    told.note,
    told.attempt_count,
    told.received_at,
    told.processed_at
from stripe_event as told
inner join stripe_checkout as checkout
    on checkout.org_id = told.org_id and checkout.id = told.checkout_id
where told.org_id = :org_id and (:status::text is null or told.status = :status)
order by told.received_at desc, told.event_id desc
limit :limit offset :offset;

-- name: count_events :value
-- Count what Stripe told.
-- nullable: status
-- not null: count
select count(*) from stripe_event
where org_id = :org_id and (:status::text is null or status = :status);

-- name: count_unposted :value
-- Count payments that were made and are not in the books: their sale refuses them, or they were
-- begun a while ago and not ended.
-- not null: count
select count(*) from stripe_event
where
    org_id = :org_id and status in ('processing', 'error')
    and (status = 'error' or received_at < :now::timestamptz - interval '15 minutes');

-- name: begin_customer :exec
-- See that a customer has a token for Stripe.
insert into stripe_customer (org_id, customer_id)
values (:org_id, :customer_id)
on conflict (org_id, customer_id) do nothing;

-- name: get_customer :one
-- Get who a customer is at Stripe.
select
    customer_id,
    token,
    stripe_ref
from stripe_customer
where org_id = :org_id and customer_id = :customer_id;

-- name: note_customer :exec
-- Note who a customer is at Stripe; nothing to do where somebody was faster.
update stripe_customer set stripe_ref = :stripe_ref
where org_id = :org_id and customer_id = :customer_id and stripe_ref is null;

-- name: find_payer :maybe
-- Find who the customer of a sale is at Stripe, if anybody.
-- not null: stripe_ref
select known.stripe_ref
from sale
inner join stripe_customer as known
    on known.org_id = sale.org_id and known.customer_id = sale.customer_id
where sale.org_id = :org_id and sale.id = :sale_id and known.stripe_ref is not null;
