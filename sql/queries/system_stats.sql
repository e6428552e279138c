-- How much there is of an organisation.

-- name: count_rows :one
-- Count what an organisation has, of each kind at most so many: no index is read further.
-- not null: users, branches, tills, products, customers, sales, journal_entries, webhooks
-- not null: attachments, attachment_bytes
select
    (
        select count(*)
        from (
            select 1
            from app_user
            where org_id = :org_id
            order by org_id
            limit :count_max
        ) as few
    ) as users,
    (
        select count(*)
        from (
            select 1
            from branch
            where org_id = :org_id
            order by org_id
            limit :count_max
        ) as few
    ) as branches,
    (
        select count(*)
        from (
            select 1
            from till
            where org_id = :org_id
            order by org_id
            limit :count_max
        ) as few
    ) as tills,
    (
        select count(*)
        from (
            select 1
            from product
            where org_id = :org_id
            order by org_id
            limit :count_max
        ) as few
    ) as products,
    (
        select count(*)
        from (
            select 1
            from customer
            where org_id = :org_id
            order by org_id
            limit :count_max
        ) as few
    ) as customers,
    (
        select count(*)
        from (
            select 1
            from sale
            where org_id = :org_id
            order by org_id
            limit :count_max
        ) as few
    ) as sales,
    (
        select count(*)
        from (
            select 1
            from journal_entry
            where org_id = :org_id
            order by org_id
            limit :count_max
        ) as few
    ) as journal_entries,
    (
        select count(*)
        from (
            select 1
            from webhook_endpoint
            where org_id = :org_id
            order by org_id
            limit :count_max
        ) as few
    ) as webhooks,
    coalesce(usage.file_count, 0) as attachments,
    coalesce(usage.size_bytes, 0) as attachment_bytes
from organisation
left join attachment_usage as usage on organisation.org_id = usage.org_id
where organisation.org_id = :org_id;
