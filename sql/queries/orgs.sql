-- Organisations, the tenants.

-- name: create_organisation :one
-- Create an organisation with its chart of accounts, tax codes and administrator.
-- Needs no tenant: it makes one.
-- not null: org_id, admin_id
select
    made.org_id,
    made.admin_id
from create_organisation(
    :name, :base_currency, :time_zone, :prices_include_tax, :standard_tax_percent,
    :default_credit_limit, :admin_email, :admin_password_hash, :admin_first_name,
    :admin_last_name
) as made;

-- name: list_organisation_ids :many
-- List the numbers of all organisations; crosses them, so it tells nothing else.
-- not null: org_id
select found.org_id
from list_organisation_ids() as found;

-- name: get_organisation :one
-- Get the organisation of this transaction.
select
    org_id,
    name,
    base_currency as currency,
    base_currency,
    time_zone,
    prices_include_tax,
    default_credit_limit,
    created_at,
    version
from organisation
where org_id = :org_id;
