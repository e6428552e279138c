-- Stock, its movements, and goods receipts. Values are at cost, in the organisation's currency.

-- name: receive_goods :one
-- Post a goods receipt: stock at cost, Dr inventory, Cr payables or opening balance equity.
-- Locks the stock rows in the order of the products.
-- Deferred rules: goods_receipt_total_matches_lines, goods_receipt_stock_matches,
-- goods_receipt_entry_matches.
-- nullable: reference, supplier_name, received_on
-- not null: id, branch_id, kind, currency, total, line_count, received_on
select
    posted.id,
    posted.branch_id,
    posted.kind,
    posted.reference,
    posted.supplier_name,
    posted.currency,
    posted.total,
    posted.line_count,
    posted.received_on,
    posted.entry_id
from receive_goods(
    :org_id, :user_id, :branch_id, :kind, :reference, :supplier_name, :received_on,
    :product_ids, :quantities, :unit_costs
) as posted;

-- name: get_goods_receipt :one
-- Get a goods receipt.
-- not null: id, branch_id, kind, currency, total, line_count, received_on
select
    receipt.id,
    receipt.branch_id,
    receipt.kind,
    receipt.reference,
    receipt.supplier_name,
    receipt.currency,
    receipt.total,
    receipt.line_count,
    receipt.received_on,
    entry.id as entry_id
from goods_receipt as receipt
left join journal_entry as entry
    on entry.org_id = receipt.org_id and entry.goods_receipt_id = receipt.id
where receipt.org_id = :org_id and receipt.id = :id;

-- name: list_goods_receipts :many
-- List goods receipts, latest first, paged by key.
-- nullable: branch_id, kind, before_id
-- not null: id, branch_id, kind, currency, total, line_count, received_on
select
    receipt.id,
    receipt.branch_id,
    receipt.kind,
    receipt.reference,
    receipt.supplier_name,
    receipt.currency,
    receipt.total,
    receipt.line_count,
    receipt.received_on,
    entry.id as entry_id
from goods_receipt as receipt
left join journal_entry as entry
    on receipt.org_id = entry.org_id and receipt.id = entry.goods_receipt_id
where
    receipt.org_id = :org_id
    and (:branch_id::bigint is null or receipt.branch_id = :branch_id)
    and (:kind::text is null or receipt.kind = :kind)
    and (:before_id::bigint is null or receipt.id < :before_id)
order by receipt.id desc
limit :limit;

-- name: list_goods_receipt_lines :many
-- List the lines of a goods receipt, at most as many as it can have.
select
    line_no,
    product_id,
    currency,
    quantity,
    unit_cost,
    value
from goods_receipt_line
where org_id = :org_id and receipt_id = :receipt_id
order by line_no
limit 500;

-- name: list_stock_levels :many
-- List what each branch has of each product.
-- nullable: branch_id, product_id, category_id
-- not null: stock_status
select
    stock.branch_id,
    stock.product_id,
    product.sku as product_sku,
    product.name as product_name,
    stock.currency,
    stock.quantity,
    stock.value,
    product.price as unit_price,
    stock.reorder_level,
    case
        when stock.quantity = 0 then 'OUT_OF_STOCK'
        when stock.quantity <= stock.reorder_level then 'LOW_STOCK'
        when stock.quantity > 3 * stock.reorder_level then 'OVERSTOCK'
        else 'IN_STOCK'
    end as stock_status,
    stock.updated_at
from stock
inner join product on stock.org_id = product.org_id and stock.product_id = product.id
where
    stock.org_id = :org_id
    and (:branch_id::bigint is null or stock.branch_id = :branch_id)
    and (:product_id::bigint is null or stock.product_id = :product_id)
    and (:category_id::bigint is null or product.category_id = :category_id)
    and (not :low_stock_only::boolean or stock.quantity <= stock.reorder_level)
order by stock.branch_id, stock.product_id
limit :limit offset :offset;

-- name: count_stock_levels :value
-- Count what list_stock_levels pages through.
-- nullable: branch_id, product_id, category_id
-- not null: total
select count(*) as total
from stock
inner join product on stock.org_id = product.org_id and stock.product_id = product.id
where
    stock.org_id = :org_id
    and (:branch_id::bigint is null or stock.branch_id = :branch_id)
    and (:product_id::bigint is null or stock.product_id = :product_id)
    and (:category_id::bigint is null or product.category_id = :category_id)
    and (not :low_stock_only::boolean or stock.quantity <= stock.reorder_level);

-- name: list_movements :many
-- List the movements of a product in a branch, latest first, paged by key.
-- nullable: before_id
select
    id,
    branch_id,
    product_id,
    currency,
    quantity,
    value,
    goods_receipt_id,
    sale_id,
    void_sale_id,
    created_at
from stock_movement
where
    org_id = :org_id and branch_id = :branch_id and product_id = :product_id
    and (:before_id::bigint is null or id < :before_id)
order by id desc
limit :limit;
