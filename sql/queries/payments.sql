-- Payments of sales. Amounts are in the sale's currency, the only one it can be paid in.

-- name: post_payment :one
-- Post a later payment of a sale: Dr its account, Cr receivable. Locks the sale.
-- Deferred rules: payment_entry_matches, payment_sale_not_void, and those of the journal.
-- nullable: account_id, currency, reference
-- not null: payment_id, sale_id, payment_no, method, account_id, currency, amount, received_on
-- not null: paid_amount, outstanding_amount, payment_type, entry_id
select
    posted.payment_id,
    posted.sale_id,
    posted.payment_no,
    posted.method,
    posted.account_id,
    posted.currency,
    posted.amount,
    posted.reference,
    posted.received_on,
    posted.paid_amount,
    posted.outstanding_amount,
    posted.payment_type,
    posted.entry_id
from post_payment(
    :org_id, :user_id, :sale_id, :method, :account_id, :amount, :currency, :reference
) as posted;

-- name: list_payments :many
-- List the payments of a sale in their order, paged by number.
-- not null: paid_after
select
    id,
    payment_no,
    method,
    account_id,
    currency,
    amount,
    paid_after,
    reference,
    received_on,
    received_at,
    received_by
from payment
where org_id = :org_id and sale_id = :sale_id and payment_no > :after_no
order by payment_no
limit :limit;
