-- Tax codes. Rates are percentages; a sale keeps the rate of its day.

-- name: create_tax_code :one
-- Create a tax code.
insert into tax_code (org_id, code, name, rate_percent, is_active)
values (:org_id, :code, :name, :rate_percent, :is_active)
returning id, code, name, rate_percent, is_active, created_at, updated_at, version;

-- name: change_tax_code :one
-- Replace a tax code; sales already posted keep their rate.
update tax_code
set
    code = :code, name = :name, rate_percent = :rate_percent, is_active = :is_active,
    updated_at = now()
where org_id = :org_id and id = :id
returning id, code, name, rate_percent, is_active, created_at, updated_at, version;

-- name: get_tax_code :one
-- Get a tax code.
select
    id,
    code,
    name,
    rate_percent,
    is_active,
    created_at,
    updated_at,
    version
from tax_code
where org_id = :org_id and id = :id;

-- name: list_tax_codes :many
-- List tax codes by code.
select
    id,
    code,
    name,
    rate_percent,
    is_active,
    created_at,
    updated_at
from tax_code
where org_id = :org_id
order by code, id
limit :limit offset :offset;

-- name: count_tax_codes :value
-- Count what list_tax_codes pages through.
-- not null: total
select count(*) as total
from tax_code
where org_id = :org_id;
