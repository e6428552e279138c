-- Sales and what takes them back. All amounts are in the sale's currency.

-- name: post_sale :one
-- Post a sale whole, in one statement: header, lines, payments, stock, cost of goods, receivable
-- and journal entry. Locks the stock rows in the order of the products, then the till; at commit
-- the customer of a credit sale.
-- Deferred rules: sale_total_matches_lines, sale_payments_match, sale_stock_matches,
-- sale_entry_matches, customer_credit_limit, and those of the journal.
-- nullable: till_id, customer_id, client_sale_id, sold_on, till_at, notes
-- not null: id, branch_id, branch_name, till_id, till_name, receipt_no, cashier_id, cashier_name
-- not null: currency, prices_include_tax, items_count, subtotal, discount, tax, total, paid_amount
-- not null: outstanding_amount, payment_type, status, sold_on, sold_at
select
    posted.id,
    posted.branch_id,
    posted.branch_name,
    posted.till_id,
    posted.till_name,
    posted.receipt_no,
    posted.client_sale_id,
    posted.customer_id,
    posted.customer_name,
    posted.cashier_id,
    posted.cashier_name,
    posted.currency,
    posted.prices_include_tax,
    posted.items_count,
    posted.subtotal,
    posted.discount,
    posted.tax,
    posted.total,
    posted.paid_amount,
    posted.outstanding_amount,
    posted.payment_type,
    posted.status,
    posted.sold_on,
    posted.sold_at,
    posted.till_at,
    posted.notes,
    posted.entry_id
from post_sale(
        :org_id, :user_id, :branch_id, :till_id, :customer_id, :client_sale_id, :sold_on,
        :till_at, :notes, :discount, :may_override, :product_ids, :quantities, :unit_prices,
        :discounts, :methods, :currencies, :account_ids, :amounts, :references
    ) as posted;

-- name: void_sale :one
-- Take a sale back whole, dated today: goods, payments and books. Locks the sale and its stock.
-- Deferred rules: sale_void_stock_matches, sale_void_entry_matches, and those of the journal.
-- not null: sale_id, currency, total, reason, voided_on, voided_by
select
    posted.sale_id,
    posted.currency,
    posted.total,
    posted.reason,
    posted.voided_on,
    posted.voided_by,
    posted.entry_id
from void_sale(:org_id, :user_id, :sale_id, :reason) as posted;

-- name: get_sale :one
-- Get a sale with what has been paid since.
-- not null: id, branch_id, till_id, receipt_no, cashier_id, currency, prices_include_tax, subtotal
-- not null: discount, tax, total, sold_on, sold_at, branch_name, till_name, cashier_name
-- not null: paid_amount, outstanding_amount, payment_type, status, items_count
select
    sale.id,
    sale.branch_id,
    branch.name as branch_name,
    sale.till_id,
    till.name as till_name,
    sale.receipt_no,
    sale.client_sale_id,
    sale.customer_id,
    customer.name as customer_name,
    sale.cashier_id,
    cashier.first_name || ' ' || cashier.last_name as cashier_name,
    sale.currency,
    sale.prices_include_tax,
    sale.line_count as items_count,
    sale.subtotal,
    sale.discount,
    sale.tax,
    sale.total,
    sale.paid + coalesce(receivable.settled, 0) as paid_amount,
    coalesce(receivable.outstanding, 0) as outstanding_amount,
    payment_type(sale.total, sale.paid + coalesce(receivable.settled, 0)) as payment_type,
    case when void.sale_id is null then 'COMPLETED' else 'VOIDED' end as status,
    sale.sold_on,
    sale.sold_at,
    sale.till_at,
    sale.notes,
    entry.id as entry_id
from sale
inner join branch on sale.org_id = branch.org_id and sale.branch_id = branch.id
inner join till on sale.org_id = till.org_id and sale.till_id = till.id
inner join app_user as cashier
    on sale.org_id = cashier.org_id and sale.cashier_id = cashier.id
left join customer on sale.org_id = customer.org_id and sale.customer_id = customer.id
left join receivable on sale.org_id = receivable.org_id and sale.id = receivable.sale_id
left join sale_void as void on sale.org_id = void.org_id and sale.id = void.sale_id
left join journal_entry as entry on sale.org_id = entry.org_id and sale.id = entry.sale_id
where sale.org_id = :org_id and sale.id = :id;

-- name: list_sale_lines :many
-- List the lines of a sale, at most as many as it can have.
select
    line.line_no,
    line.product_id,
    product.sku as product_sku,
    product.name as product_name,
    line.currency,
    line.quantity,
    line.list_price,
    line.unit_price,
    line.subtotal,
    line.discount,
    line.sale_discount,
    line.tax_code,
    line.tax_rate_percent,
    line.tax,
    line.total
from sale_line as line
inner join product on line.org_id = product.org_id and line.product_id = product.id
where line.org_id = :org_id and line.sale_id = :sale_id
order by line.line_no
limit 500;

-- name: list_sales :many
-- List sales, latest first; voided ones only where asked for.
-- nullable: branch_id, customer_id, start_date, end_date, payment_type
-- not null: id, branch_id, till_id, receipt_no, cashier_id, currency, discount, tax, total
-- not null: sold_on, sold_at, branch_name, paid_amount, outstanding_amount, payment_type, status
-- not null: items_count, till_name
select
    sale.id,
    sale.branch_id,
    branch.name as branch_name,
    sale.till_id,
    (
        select till.name
        from till
        where till.org_id = :org_id and till.id = sale.till_id
    ) as till_name,
    sale.receipt_no,
    sale.customer_id,
    sale.cashier_id,
    sale.currency,
    sale.line_count as items_count,
    sale.discount,
    sale.tax,
    sale.total,
    sale.paid + coalesce(receivable.settled, 0) as paid_amount,
    coalesce(receivable.outstanding, 0) as outstanding_amount,
    payment_type(sale.total, sale.paid + coalesce(receivable.settled, 0)) as payment_type,
    case when void.sale_id is null then 'COMPLETED' else 'VOIDED' end as status,
    sale.sold_on,
    sale.sold_at
from sale
inner join branch on sale.org_id = branch.org_id and sale.branch_id = branch.id
left join receivable on sale.org_id = receivable.org_id and sale.id = receivable.sale_id
left join sale_void as void on sale.org_id = void.org_id and sale.id = void.sale_id
where
    sale.org_id = :org_id
    and (:branch_id::bigint is null or sale.branch_id = :branch_id)
    and (:customer_id::bigint is null or sale.customer_id = :customer_id)
    and (:start_date::date is null or sale.sold_on >= :start_date)
    and (:end_date::date is null or sale.sold_on <= :end_date)
    and (
        :payment_type::text is null
        or payment_type(sale.total, sale.paid + coalesce(receivable.settled, 0)) = :payment_type
    )
    and (:include_voided::boolean or void.sale_id is null)
order by sale.sold_on desc, sale.id desc
limit :limit offset :offset;

-- name: count_sales :value
-- Count what list_sales pages through.
-- nullable: branch_id, customer_id, start_date, end_date, payment_type
-- not null: total
select count(*) as total
from sale
left join receivable on sale.org_id = receivable.org_id and sale.id = receivable.sale_id
left join sale_void as void on sale.org_id = void.org_id and sale.id = void.sale_id
where
    sale.org_id = :org_id
    and (:branch_id::bigint is null or sale.branch_id = :branch_id)
    and (:customer_id::bigint is null or sale.customer_id = :customer_id)
    and (:start_date::date is null or sale.sold_on >= :start_date)
    and (:end_date::date is null or sale.sold_on <= :end_date)
    and (
        :payment_type::text is null
        or payment_type(sale.total, sale.paid + coalesce(receivable.settled, 0)) = :payment_type
    )
    and (:include_voided::boolean or void.sale_id is null);

-- name: summarise_sales :one
-- Sum up the sales of a span of business dates, without voided ones.
-- nullable: branch_id
-- not null: sales_count, gross_sales_total, discount_total, tax_total, paid_total
-- not null: outstanding_total
select
    count(*) as sales_count,
    coalesce(sum(sale.total), 0) as gross_sales_total,
    coalesce(sum(sale.discount), 0) as discount_total,
    coalesce(sum(sale.tax), 0) as tax_total,
    coalesce(sum(sale.paid + coalesce(receivable.settled, 0)), 0) as paid_total,
    coalesce(sum(receivable.outstanding), 0) as outstanding_total
from sale
left join receivable on sale.org_id = receivable.org_id and sale.id = receivable.sale_id
where
    sale.org_id = :org_id
    and sale.sold_on between :start_date and :end_date
    and (:branch_id::bigint is null or sale.branch_id = :branch_id)
    and not exists (
        select from sale_void as void
        where void.org_id = :org_id and void.sale_id = sale.id
    );

-- name: list_top_products :many
-- List the products that sold best, by amount, in a span of business dates.
-- nullable: branch_id
-- not null: quantity, amount
select
    line.product_id,
    product.sku as product_sku,
    product.name as product_name,
    product.currency,
    sum(line.quantity) as quantity,
    sum(line.total) as amount
from sale
inner join sale_line as line on sale.org_id = line.org_id and sale.id = line.sale_id
inner join product on line.org_id = product.org_id and line.product_id = product.id
where
    sale.org_id = :org_id
    and sale.sold_on between :start_date and :end_date
    and (:branch_id::bigint is null or sale.branch_id = :branch_id)
    and not exists (
        select from sale_void as void
        where void.org_id = :org_id and void.sale_id = sale.id
    )
group by line.product_id, product.sku, product.name, product.currency
order by sum(line.total) desc, line.product_id
limit :limit;
