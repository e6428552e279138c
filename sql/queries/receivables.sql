-- What customers owe: the part of a sale that is not yet paid, in the organisation's currency.

-- name: summarise_receivables :one
-- Sum up what all customers owe.
-- not null: receivables_count, outstanding_total, paid_total
select
    count(*) filter (where outstanding > 0) as receivables_count,
    coalesce(sum(outstanding), 0) as outstanding_total,
    coalesce(sum(settled), 0) as paid_total
from receivable
where org_id = :org_id;

-- name: age_receivables :many
-- Sum up what is owed by age in days: one row per bucket, the last without an upper bound.
-- `bucket_days` are upper bounds, ascending.
-- not null: bucket, outstanding, receivables_count
select
    bucket.bucket,
    coalesce(sum(owed.outstanding), 0) as outstanding,
    count(owed.outstanding) as receivables_count
from generate_series(1, cardinality(:bucket_days::int[]) + 1) as bucket (bucket)
left join (
    select
        outstanding,
        1 + (
            select count(*) from unnest(:bucket_days::int[]) as bound
            where :as_of::date - sold_on > bound
        ) as bucket
    from receivable
    where org_id = :org_id and outstanding > 0
) as owed on bucket.bucket = owed.bucket
group by bucket.bucket
order by bucket.bucket;
