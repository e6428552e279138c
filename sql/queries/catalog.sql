-- Categories and products. Prices and costs are in the organisation's own currency.

-- name: create_category :one
-- Create a category.
-- nullable: description
insert into category (org_id, name, description, is_active)
values (:org_id, :name, :description, :is_active)
returning id, name, description, is_active, created_at, updated_at, version;

-- name: change_category :one
-- Replace a category.
-- nullable: description
update category
set name = :name, description = :description, is_active = :is_active, updated_at = now()
where org_id = :org_id and id = :id
returning id, name, description, is_active, created_at, updated_at, version;

-- name: delete_category :one
-- Delete a category; refused (product_category_known) while products belong to it.
delete from category
where org_id = :org_id and id = :id
returning version;

-- name: get_category :one
-- Get a category and how many products it has.
-- not null: product_count
select
    id,
    name,
    description,
    is_active,
    created_at,
    updated_at,
    version,
    (
        select count(*) from product
        where product.org_id = :org_id and product.category_id = category.id
    ) as product_count
from category
where org_id = :org_id and id = :id;

-- name: list_categories :many
-- List categories by name, with the number of their products.
-- nullable: search
-- not null: product_count
select
    id,
    name,
    description,
    is_active,
    created_at,
    updated_at,
    (
        select count(*) from product
        where product.org_id = :org_id and product.category_id = category.id
    ) as product_count
from category
where org_id = :org_id and (:search::text is null or name ilike '%' || :search || '%')
order by name, id
limit :limit offset :offset;

-- name: count_categories :value
-- Count what list_categories pages through.
-- nullable: search
-- not null: total
select count(*) as total
from category
where org_id = :org_id and (:search::text is null or name ilike '%' || :search || '%');

-- name: create_product :one
-- Create a product; without a tax code it takes the organisation's STD.
-- nullable: barcode, description, category_id, tax_code_id
insert into product (
    org_id, sku, barcode, name, description, category_id, tax_code_id, currency, cost, price,
    is_active
)
select
    :org_id,
    :sku,
    :barcode,
    :name,
    :description,
    :category_id,
    coalesce(:tax_code_id, (
        select id from tax_code
        where org_id = :org_id and code = 'STD'
    )),
    base_currency,
    :cost,
    :price,
    :is_active
from organisation
where org_id = :org_id
returning
    id, sku, barcode, name, description, category_id, tax_code_id, currency, cost, price,
    is_active, created_at, updated_at, version;

-- name: change_product :one
-- Replace a product; sales already posted keep their price.
-- nullable: barcode, description, category_id, tax_code_id
update product
set
    sku = :sku, barcode = :barcode, name = :name, description = :description,
    category_id = :category_id, tax_code_id = coalesce(:tax_code_id, tax_code_id),
    cost = :cost, price = :price, is_active = :is_active, updated_at = now()
where org_id = :org_id and id = :id
returning
    id, sku, barcode, name, description, category_id, tax_code_id, currency, cost, price,
    is_active, created_at, updated_at, version;

-- name: get_product :one
-- Get a product with its category, its tax code and its stock in all branches.
-- not null: stock_quantity
select
    product.id,
    product.sku,
    product.barcode,
    product.name,
    product.description,
    product.category_id,
    product.tax_code_id,
    product.currency,
    product.cost,
    product.price,
    product.is_active,
    product.created_at,
    product.updated_at,
    product.version,
    category.name as category_name,
    tax_code.code as tax_code,
    tax_code.rate_percent as tax_rate_percent,
    (
        select coalesce(sum(stock.quantity), 0) from stock
        where stock.org_id = :org_id and stock.product_id = product.id
    ) as stock_quantity
from product
left join category on product.org_id = category.org_id and product.category_id = category.id
inner join tax_code
    on product.org_id = tax_code.org_id and product.tax_code_id = tax_code.id
where product.org_id = :org_id and product.id = :id;

-- name: list_products :many
-- List products by name; search looks in name, SKU and barcode.
-- nullable: search, category_id, is_active
select
    id,
    sku,
    barcode,
    name,
    description,
    category_id,
    tax_code_id,
    currency,
    cost,
    price,
    is_active,
    created_at,
    updated_at
from product
where
    org_id = :org_id
    and (
        :search::text is null or name ilike '%' || :search || '%' or sku = :search
        or barcode = :search
    )
    and (:category_id::bigint is null or category_id = :category_id)
    and (:is_active::boolean is null or is_active = :is_active)
order by name, id
limit :limit offset :offset;

-- name: count_products :value
-- Count what list_products pages through.
-- nullable: search, category_id, is_active
-- not null: total
select count(*) as total
from product
where
    org_id = :org_id
    and (
        :search::text is null or name ilike '%' || :search || '%' or sku = :search
        or barcode = :search
    )
    and (:category_id::bigint is null or category_id = :category_id)
    and (:is_active::boolean is null or is_active = :is_active);
