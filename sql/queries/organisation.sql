-- What an organisation says of itself. The credit limit is in its currency.

-- name: change_organisation :one
-- Change what an organisation says of itself; what is not given stays.
-- nullable: name, time_zone, default_credit_limit
update organisation
set
    name = coalesce(:name, name), time_zone = coalesce(:time_zone, time_zone),
    default_credit_limit = coalesce(:default_credit_limit, default_credit_limit)
where org_id = :org_id
returning
    org_id, name, base_currency as currency, base_currency, time_zone, prices_include_tax,
    default_credit_limit, created_at, version;
