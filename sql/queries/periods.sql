-- Accounting periods.

-- name: create_period :one
-- Create an open period; months are also opened by the first posting into them.
insert into accounting_period (org_id, starts_on, ends_on)
values (:org_id, :starts_on, :ends_on)
returning id, starts_on, ends_on, is_closed, closed_by, closed_at, created_at, version;

-- name: get_period :one
-- Get a period.
select
    id,
    starts_on,
    ends_on,
    is_closed,
    closed_by,
    closed_at,
    created_at,
    version
from accounting_period
where org_id = :org_id and id = :id;

-- name: close_period :one
-- Close a period: waits for postings under way, then nothing more can be posted into it.
update accounting_period
set is_closed = true, closed_by = :user_id, closed_at = now()
where org_id = :org_id and id = :id
returning id, starts_on, ends_on, is_closed, closed_by, closed_at, created_at, version;

-- name: reopen_period :one
-- Open a closed period again.
update accounting_period
set is_closed = false, closed_by = null, closed_at = null
where org_id = :org_id and id = :id
returning id, starts_on, ends_on, is_closed, closed_by, closed_at, created_at, version;

-- name: list_periods :many
-- List periods, latest first.
select
    id,
    starts_on,
    ends_on,
    is_closed,
    closed_by,
    closed_at,
    created_at
from accounting_period
where org_id = :org_id
order by starts_on desc
limit :limit offset :offset;

-- name: count_periods :value
-- Count what list_periods pages through.
-- not null: total
select count(*) as total
from accounting_period
where org_id = :org_id;
