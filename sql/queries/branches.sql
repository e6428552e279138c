-- Branches and their tills.

-- name: create_branch :one
-- Create a branch with its first till, so that it can sell at once.
-- nullable: address, phone, email, time_zone
-- not null: till_id
with created as (
    insert into branch (org_id, name, address, phone, email, time_zone, is_active)
    values (
        :org_id, :name, :address, :phone, :email,
        coalesce(:time_zone, (
            select time_zone from organisation
            where org_id = :org_id
        )),
        :is_active
    )
    returning
        id, name, address, phone, email, time_zone, is_active, created_at, updated_at, version
),

first_till as (
    insert into till (org_id, branch_id, name)
    select
        :org_id,
        created.id,
        'Till 1'
    from created
    returning id
)

select
    created.id,
    created.name,
    created.address,
    created.phone,
    created.email,
    created.time_zone,
    created.is_active,
    created.created_at,
    created.updated_at,
    created.version,
    first_till.id as till_id
from created
cross join first_till;

-- name: change_branch :one
-- Replace what a branch says of itself.
-- nullable: address, phone, email, time_zone
update branch
set
    name = :name, address = :address, phone = :phone, email = :email,
    time_zone = coalesce(:time_zone, time_zone), is_active = :is_active, updated_at = now()
where org_id = :org_id and id = :id
returning id, name, address, phone, email, time_zone, is_active, created_at, updated_at, version;

-- name: get_branch :one
-- Get a branch.
select
    id,
    name,
    address,
    phone,
    email,
    time_zone,
    is_active,
    created_at,
    updated_at,
    version
from branch
where org_id = :org_id and id = :id;

-- name: list_branches :many
-- List branches by name.
-- nullable: search, is_active
select
    id,
    name,
    address,
    phone,
    email,
    time_zone,
    is_active,
    created_at,
    updated_at
from branch
where
    org_id = :org_id
    and (:search::text is null or name ilike '%' || :search || '%')
    and (:is_active::boolean is null or is_active = :is_active)
order by name, id
limit :limit offset :offset;

-- name: count_branches :value
-- Count what list_branches pages through.
-- nullable: search, is_active
-- not null: total
select count(*) as total
from branch
where
    org_id = :org_id
    and (:search::text is null or name ilike '%' || :search || '%')
    and (:is_active::boolean is null or is_active = :is_active);

-- name: create_till :one
-- Create a till, which begins its own series of receipt numbers.
insert into till (org_id, branch_id, name)
values (:org_id, :branch_id, :name)
returning id, branch_id, name, is_active, receipt_count, created_at, version;

-- name: list_tills :many
-- List the tills of a branch.
select
    id,
    branch_id,
    name,
    is_active,
    receipt_count,
    created_at
from till
where org_id = :org_id and branch_id = :branch_id
order by id
limit 1000;

-- name: get_business_date :value
-- Today's date where the branch is, else where the organisation is.
-- nullable: branch_id
-- not null: business_date
select
    (now() at time zone coalesce((
        select branch.time_zone from branch
        where branch.org_id = :org_id and branch.id = :branch_id::bigint
    ), organisation.time_zone))::date as business_date
from organisation
where organisation.org_id = :org_id;
