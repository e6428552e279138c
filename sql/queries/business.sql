-- Figures of the business for /metrics: counted by a job, an organisation at a time, and summed.
-- Only what happened lately is read. Amounts are in the currency of their row.

-- name: count_sales :many
-- Count an organisation's sales and voids of the last hour and the last 24, by currency: one row
-- each. The business date bounds what is read, the server's time what is counted.
-- not null: currency, sale_count, sale_amount, hour_sale_count, hour_sale_amount
-- not null: void_count, void_amount, hour_void_count, hour_void_amount
with sold as (
    select
        sale.currency,
        sale.total,
        sale.sold_at,
        sale.id
    from sale
    where
        sale.org_id = :org_id and sale.sold_on >= :now::timestamptz::date - 2
        and sale.sold_at > :now::timestamptz - interval '24 hours'
),

voided as (
    select
        sold.currency,
        sold.total,
        sale_void.voided_at
    from sold
    inner join sale_void on sale_void.org_id = :org_id and sale_void.sale_id = sold.id
),

sales as (
    select
        currency,
        count(*) as of_day,
        sum(total) as amount_of_day,
        count(*) filter (where sold_at > :now::timestamptz - interval '1 hour') as of_hour,
        sum(total) filter (where sold_at > :now::timestamptz - interval '1 hour') as amount_of_hour
    from sold
    group by currency
),

voids as (
    select
        currency,
        count(*) as of_day,
        sum(total) as amount_of_day,
        count(*) filter (where voided_at > :now::timestamptz - interval '1 hour') as of_hour,
        sum(total) filter (
            where voided_at > :now::timestamptz - interval '1 hour'
        ) as amount_of_hour
    from voided
    group by currency
)

select
    sales.currency::text as currency,
    sales.of_day as sale_count,
    sales.amount_of_day as sale_amount,
    sales.of_hour as hour_sale_count,
    coalesce(sales.amount_of_hour, 0) as hour_sale_amount,
    coalesce(voids.of_day, 0) as void_count,
    coalesce(voids.amount_of_day, 0) as void_amount,
    coalesce(voids.of_hour, 0) as hour_void_count,
    coalesce(voids.amount_of_hour, 0) as hour_void_amount
from sales
left join voids on sales.currency = voids.currency;

-- name: count_people_and_stock :one
-- Count who is at work in an organisation, and what its branches sold lately and have none left of.
-- not null: active_sessions, active_users, hour_active_users, stock_outs, is_new, is_new_in_hour
select
    active.session_count as active_sessions,
    active.user_count as active_users,
    active.hour_user_count as hour_active_users,
    (
        select count(*)
        from (
            select distinct
                sale.branch_id,
                line.product_id
            from sale
            inner join sale_line as line on line.org_id = :org_id and line.sale_id = sale.id
            where
                sale.org_id = :org_id and sale.sold_on >= :now::timestamptz::date - 2
                and sale.sold_at > :now::timestamptz - interval '24 hours'
        ) as wanted
        inner join stock
            on
                stock.org_id = :org_id and stock.branch_id = wanted.branch_id
                and stock.product_id = wanted.product_id
        where stock.quantity = 0
    ) as stock_outs,
    organisation.created_at > :now::timestamptz - interval '24 hours' as is_new,
    organisation.created_at > :now::timestamptz - interval '1 hour' as is_new_in_hour
from organisation
cross join
    (
        select
            count(*) filter (where idle_until > :now::timestamptz) as session_count,
            count(distinct user_id) filter (
                where last_used_at > :now::timestamptz - interval '24 hours'
            ) as user_count,
            count(distinct user_id) filter (
                where last_used_at > :now::timestamptz - interval '1 hour'
            ) as hour_user_count
        from user_session
        where org_id = :org_id and revoked_at is null
    ) as active
where organisation.org_id = :org_id;

-- name: write_figures :exec
-- Write figures down; one that is not among them is 0.
select write_business_figures(:names, :periods, :currencies, :amounts);

-- name: list_figures :many
-- List all figures: a handful for each currency.
select
    name,
    period,
    currency,
    value
from business_figure
order by name, period, currency;
