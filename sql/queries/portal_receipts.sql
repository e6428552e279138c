-- What customers see in their portal, beside what sales.sql lists. Amounts are in the sale's
-- currency.

-- name: list_open_sales :many
-- List the sales that a customer still owes something for, oldest first.
-- not null: outstanding
select
    sale.id,
    till.name as till_name,
    sale.receipt_no,
    branch.name as branch_name,
    sale.sold_on,
    sale.currency,
    sale.total,
    sale.total - receivable.outstanding as paid,
    receivable.outstanding
from receivable
inner join sale on receivable.org_id = sale.org_id and receivable.sale_id = sale.id
inner join till on sale.org_id = till.org_id and sale.till_id = till.id
inner join branch on sale.org_id = branch.org_id and sale.branch_id = branch.id
where
    receivable.org_id = :org_id and receivable.customer_id = :customer_id
    and receivable.outstanding > 0
order by receivable.sold_on, sale.id
limit :limit;

-- name: list_payments :many
-- List what a customer paid, latest first.
-- not null: is_voided
select
    payment.id,
    payment.sale_id,
    till.name as till_name,
    sale.receipt_no,
    payment.method,
    payment.currency,
    payment.amount,
    payment.received_on,
    void.sale_id is not null as is_voided
from sale
inner join payment on sale.org_id = payment.org_id and sale.id = payment.sale_id
inner join till on sale.org_id = till.org_id and sale.till_id = till.id
left join sale_void as void on sale.org_id = void.org_id and sale.id = void.sale_id
where sale.org_id = :org_id and sale.customer_id = :customer_id
order by payment.id desc
limit :limit;
