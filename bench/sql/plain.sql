-- A sale the way most programs write one: a statement per row, each a round trip of its own. What
-- is written is the same as by post_sale, to the same tables under the same rules.

-- name: find_place :one
-- Read the branch, the till and the organisation.
select
    branch.time_zone,
    org.base_currency as currency,
    org.prices_include_tax
from branch
inner join organisation as org on branch.org_id = org.org_id
inner join till on branch.org_id = till.org_id and branch.id = till.branch_id
where
    branch.org_id = :org_id and branch.id = :branch_id and till.id = :till_id
    and branch.is_active and till.is_active;

-- name: find_product :one
-- Read a product with its tax.
select
    product.price,
    tax_code.code as tax_code,
    tax_code.rate_percent
from product
inner join tax_code on product.org_id = tax_code.org_id and product.tax_code_id = tax_code.id
where product.org_id = :org_id and product.id = :product_id and product.is_active;

-- name: lock_stock :one
-- Lock the stock of a product in a branch.
select
    quantity,
    value
from stock
where org_id = :org_id and branch_id = :branch_id and product_id = :product_id
for no key update;

-- name: draw_receipt_no :value
-- Lock the till and read its next receipt number.
select receipt_count + 1
from till
where org_id = :org_id and id = :till_id
for no key update;

-- name: add_sale :value
-- Insert the header.
insert into sale (
    org_id, branch_id, till_id, receipt_no, cashier_id, currency, prices_include_tax, line_count,
    subtotal, discount, tax, total, paid, sold_on
)
values (
    :org_id, :branch_id, :till_id, :receipt_no, :user_id, :currency, :prices_include_tax,
    :line_count, :subtotal, 0, :tax, :total, :total, :sold_on
)
returning id;

-- name: add_line :exec
-- Insert one line.
insert into sale_line (
    org_id, sale_id, line_no, line_count, currency, prices_include_tax, product_id, quantity,
    list_price, unit_price, subtotal, discount, sale_discount, tax_code, tax_rate_percent, tax,
    total
)
values (
    :org_id, :sale_id, :line_no, :line_count, :currency, :prices_include_tax, :product_id,
    :quantity, :price, :price, :subtotal, 0, 0, :tax_code, :rate_percent, :tax, :total
);

-- name: list_roles :many
-- Read the accounts that postings use.
select
    id,
    role
from account
where org_id = :org_id and role is not null;

-- name: add_payment :exec
-- Insert the payment.
insert into payment (
    org_id, sale_id, payment_no, currency, sale_total, sale_paid, paid_before, amount, method,
    account_id, received_on, received_by
)
values (
    :org_id, :sale_id, 1, :currency, :amount, :amount, 0, :amount, 'CASH', :account_id,
    :received_on, :user_id
);

-- name: add_movement :exec
-- Take one product out of stock, at its cost.
insert into stock_movement (org_id, branch_id, product_id, currency, quantity, value, sale_id)
values (
    :org_id, :branch_id, :product_id, :currency, -:quantity::numeric, -:cost::numeric, :sale_id
);

-- name: find_period :value
-- Find the accounting period of a date.
select id from accounting_period
where org_id = :org_id and starts_on <= :posted_on and ends_on >= :posted_on;

-- name: add_entry :value
-- Insert the journal entry.
insert into journal_entry (
    org_id, period_id, posted_on, kind, line_count, sale_id, created_by
)
values (:org_id, :period_id, :posted_on, 'SALE', :line_count, :sale_id, :user_id)
returning id;

-- name: add_entry_line :exec
-- Insert one line of the journal entry.
insert into journal_line (
    org_id, entry_id, line_no, line_count, account_id, currency, debit, credit
)
values (
    :org_id, :entry_id, :line_no, :line_count, :account_id, :currency, :debit, :credit
);
