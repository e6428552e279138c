-- Events on their way to the endpoints: taken up, described, queued, sent. Amounts are in the
-- currency that stands beside them.

-- name: list_outboxes :many
-- List organisations that have events to be taken up.
-- not null: org_id
select waiting.org_id
from list_outboxes(:limit) as waiting;

-- name: take_events :many
-- Take the first events out of an organisation's outbox; none while another worker does that.
-- not null: id, type, aggregate, aggregate_id, subject_id, occurred_at
select
    taken.id,
    taken.type,
    taken.aggregate,
    taken.aggregate_id,
    taken.subject_id,
    taken.occurred_at
from take_events(:limit) as taken;

-- name: store_events :value
-- Store events, and queue a delivery for every endpoint that wants one; returns how many.
-- nullable: bodies[]
-- not null: queued
select store_events(
    :ids, :types, :aggregates, :aggregate_ids, :subject_ids, :occurred_at, :bodies
) as queued;

-- name: list_listeners :many
-- List what the active endpoints want; null is everything.
select event_types
from webhook_endpoint
where org_id = :org_id and is_active
order by id
limit 20;

-- name: describe_sales :many
-- Describe sales as they were posted.
-- not null: id, branch_id, till_id, receipt_no, cashier_id, currency, prices_include_tax
-- not null: subtotal, discount, tax, total, paid_amount, sold_on, sold_at, line_count
select
    sale.id,
    sale.branch_id,
    sale.till_id,
    sale.receipt_no,
    sale.client_sale_id,
    sale.customer_id,
    sale.cashier_id,
    sale.currency,
    sale.prices_include_tax,
    sale.line_count,
    sale.subtotal,
    sale.discount,
    sale.tax,
    sale.total,
    sale.paid as paid_amount,
    sale.sold_on,
    sale.sold_at,
    entry.id as entry_id
from sale
left join journal_entry as entry on sale.org_id = entry.org_id and sale.id = entry.sale_id
where sale.org_id = :org_id and sale.id = any(:ids)
order by sale.id
limit 1000;

-- name: describe_sale_lines :many
-- Describe the first lines of sales: more than would fit are left out.
select
    line.sale_id,
    line.line_no,
    line.product_id,
    line.currency,
    line.quantity,
    line.unit_price,
    line.subtotal,
    line.discount,
    line.sale_discount,
    line.tax_code,
    line.tax,
    line.total
from sale_line as line
where line.org_id = :org_id and line.sale_id = any(:ids) and line.line_no <= :line_no_max
order by line.sale_id, line.line_no
limit 100000;

-- name: describe_voids :many
-- Describe voids, by their sales.
-- not null: id, branch_id, currency, total, reason, voided_on, voided_at, voided_by
select
    void.sale_id as id,
    sale.branch_id,
    sale.currency,
    sale.total,
    void.reason,
    void.voided_on,
    void.voided_at,
    void.voided_by,
    entry.id as entry_id
from sale_void as void
inner join sale on void.org_id = sale.org_id and void.sale_id = sale.id
left join journal_entry as entry on void.org_id = entry.org_id and void.sale_id = entry.void_sale_id
where void.org_id = :org_id and void.sale_id = any(:ids)
order by void.sale_id
limit 1000;

-- name: describe_payments :many
-- Describe later payments of sales.
-- not null: id, sale_id, payment_no, method, account_id, currency, amount, paid_amount
-- not null: outstanding_amount, received_on, received_at, received_by
select
    payment.id,
    payment.sale_id,
    payment.payment_no,
    payment.method,
    payment.account_id,
    payment.currency,
    payment.amount,
    payment.paid_after as paid_amount,
    payment.sale_total - payment.paid_after as outstanding_amount,
    payment.received_on,
    payment.received_at,
    payment.received_by,
    entry.id as entry_id
from payment
left join journal_entry as entry
    on payment.org_id = entry.org_id and payment.id = entry.payment_id
where payment.org_id = :org_id and payment.id = any(:ids)
order by payment.id
limit 1000;

-- name: describe_goods_receipts :many
-- Describe goods receipts.
-- not null: id, branch_id, kind, currency, line_count, total, received_on, created_at, received_by
select
    receipt.id,
    receipt.branch_id,
    receipt.kind,
    receipt.reference,
    receipt.supplier_name,
    receipt.currency,
    receipt.line_count,
    receipt.total,
    receipt.received_on,
    receipt.created_at,
    receipt.received_by,
    entry.id as entry_id
from goods_receipt as receipt
left join journal_entry as entry
    on receipt.org_id = entry.org_id and receipt.id = entry.goods_receipt_id
where receipt.org_id = :org_id and receipt.id = any(:ids)
order by receipt.id
limit 1000;

-- name: describe_entries :many
-- Describe journal entries that no document has.
select
    id,
    kind,
    posted_on,
    memo,
    line_count,
    reverses_id,
    created_at,
    created_by
from journal_entry
where org_id = :org_id and id = any(:ids)
order by id
limit 1000;

-- name: describe_customers :many
-- Describe customers as they are now, without what is personal.
select
    id,
    customer_type,
    status,
    currency,
    credit_limit,
    version
from customer
where org_id = :org_id and id = any(:ids)
order by id
limit 1000;

-- name: describe_products :many
-- Describe products as they are now.
select
    id,
    sku,
    barcode,
    name,
    category_id,
    tax_code_id,
    currency,
    price,
    is_active,
    version
from product
where org_id = :org_id and id = any(:ids)
order by id
limit 1000;

-- name: describe_periods :many
-- Describe accounting periods as they are now.
select
    id,
    starts_on,
    ends_on,
    is_closed,
    version
from accounting_period
where org_id = :org_id and id = any(:ids)
order by id
limit 1000;

-- name: claim_deliveries :many
-- Take deliveries that are due, of any organisation, for so many seconds.
-- not null: org_id, endpoint_id, delivery_id, claim_no
select
    claimed.org_id,
    claimed.endpoint_id,
    claimed.delivery_id,
    claimed.claim_no
from claim_deliveries(:limit, :per_endpoint, :lease_s, :busy_endpoint_ids) as claimed;

-- name: list_parcels :many
-- List what is to be sent, and where, for deliveries that were claimed.
-- not null: attempts
select
    delivery.id,
    delivery.endpoint_id,
    delivery.attempts,
    endpoint.url,
    endpoint.signature,
    event.message_id,
    event.type,
    event.body
from webhook_delivery as delivery
inner join webhook_endpoint as endpoint
    on delivery.org_id = endpoint.org_id and delivery.endpoint_id = endpoint.id
inner join event on delivery.org_id = event.org_id and delivery.event_id = event.id
where delivery.org_id = :org_id and delivery.id = any(:delivery_ids)
order by delivery.id
limit 1000;

-- name: list_secrets :many
-- List the secrets that endpoints' messages are signed with now, the newest first.
select
    endpoint_id,
    sealed
from webhook_secret
where
    org_id = :org_id and endpoint_id = any(:endpoint_ids)
    and (expires_at is null or expires_at > now())
order by endpoint_id, id desc
limit 1000;

-- name: settle_deliveries :value
-- Write down what came of deliveries; returns how many were still this worker's.
-- nullable: statuses[], errors[]
-- not null: settled
select settle_deliveries(
    :delivery_ids, :claim_nos, :outcomes, :statuses, :errors, :retries_s, :are_down,
    :failures_max, :open_s
) as settled;

-- name: disable_endpoint :maybe
-- Disable an endpoint that says that it is gone; nothing when it is disabled already.
update webhook_endpoint
set is_active = false, disabled_at = now(), disabled_reason = :reason
where org_id = :org_id and id = :id and is_active
returning id;

-- name: forget_events :value
-- Forget old events that are settled everywhere, at most so many; returns how many.
-- not null: count
select forget_events(:keep_days, :limit) as count;

-- name: read_outbox :one
-- Count what waits, in all organisations; the age of the oldest is in seconds.
-- not null: new_count, pending_count, retry_count, dead_count, blocked_count, paused_count
-- not null: oldest_age_s, delivered_total, failed_total, dead_total
select
    counted.new_count,
    counted.pending_count,
    counted.retry_count,
    counted.dead_count,
    counted.blocked_count,
    counted.paused_count,
    counted.oldest_age_s,
    counted.delivered_total,
    counted.failed_total,
    counted.dead_total
from read_outbox() as counted;

-- name: list_circuits :many
-- List how endpoints do, those that are down first.
-- not null: org_id, endpoint_id, is_active, failures, delivered_count, failed_count, dead_count
select
    circuit.org_id,
    circuit.endpoint_id,
    circuit.is_active,
    circuit.failures,
    circuit.open_until,
    circuit.delivered_count,
    circuit.failed_count,
    circuit.dead_count
from list_circuits(:limit) as circuit;
