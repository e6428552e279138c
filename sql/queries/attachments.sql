-- Files attached to documents. Sizes are in bytes; the bytes themselves are in the store.

-- name: check_document :one
-- Find what a file is to be attached to, if the caller sees it; and what room is left.
-- not null: left_bytes
select coalesce(used.quota_bytes - used.size_bytes, 1) as left_bytes
from organisation as org
left join attachment_usage as used on org.org_id = used.org_id
where
    org.org_id = :org_id
    and case :entity::text
        when 'sale'
            then
                exists (
                    select from sale
                    where sale.org_id = :org_id and sale.id = :entity_id
                )
        when 'product'
            then
                exists (
                    select from product
                    where product.org_id = :org_id and product.id = :entity_id
                )
        when 'customer'
            then
                exists (
                    select from customer
                    where customer.org_id = :org_id and customer.id = :entity_id
                )
        when 'goods_receipt'
            then
                exists (
                    select from goods_receipt
                    where goods_receipt.org_id = :org_id and goods_receipt.id = :entity_id
                )
        when 'journal_entry'
            then
                exists (
                    select from journal_entry
                    where
                        journal_entry.org_id = :org_id and journal_entry.id = :entity_id
                        and current_setting('app.branch_ids') = 'all'
                )
        else false
    end;

-- name: begin_upload :exec
-- Have the store forget an object in a while, unless it has its row by then.
insert into storage_tombstone (org_id, object_key, due_at)
values (:org_id, :object_key, now() + make_interval(secs => :keep_s::integer));

-- name: create_attachment :one
-- Attach what is in the store by now; takes its tombstone away, and room of the organisation's.
insert into attachment (
    org_id, sale_id, product_id, customer_id, goods_receipt_id, journal_entry_id, object_key,
    filename, content_type, size_bytes, sha256, created_by
)
select
    :org_id,
    case :entity::text when 'sale' then :entity_id::bigint end,
    case :entity when 'product' then :entity_id end,
    case :entity when 'customer' then :entity_id end,
    case :entity when 'goods_receipt' then :entity_id end,
    case :entity when 'journal_entry' then :entity_id end,
    :object_key,
    :filename,
    :content_type,
    :size_bytes,
    :sha256,
    :created_by
returning
    id, entity, entity_id, filename, content_type, size_bytes,
    encode(sha256, 'hex') as sha256, created_at, created_by;

-- name: delete_attachment :one
-- Remove an attachment; leaves a tombstone, after which the janitor removes its object.
delete from attachment
where org_id = :org_id and id = :id
returning
    id, entity, entity_id, filename, content_type, size_bytes,
    encode(sha256, 'hex') as sha256, created_at, created_by;

-- name: use_signed_url :exec
-- Use a link that is good for one download; no row when somebody was faster.
insert into signed_url_use (org_id, token_id, expires_at)
values (:org_id, :token_id, to_timestamp(:expires_at_s::bigint))
on conflict do nothing;

-- name: get_attachment :one
-- Get an attachment.
-- not null: sha256
select
    id,
    entity,
    entity_id,
    object_key,
    filename,
    content_type,
    size_bytes,
    encode(sha256, 'hex') as sha256,
    created_at,
    created_by
from attachment
where org_id = :org_id and id = :id;

-- name: list_attachments :many
-- List what is attached to a document, in the order in which it was.
-- not null: sha256
select
    id,
    entity,
    entity_id,
    filename,
    content_type,
    size_bytes,
    encode(sha256, 'hex') as sha256,
    created_at,
    created_by
from attachment
where org_id = :org_id and entity = :entity and entity_id = :entity_id
order by id
limit :limit offset :offset;

-- name: count_attachments :value
-- Count what list_attachments pages through.
-- not null: total
select count(*) as total
from attachment
where org_id = :org_id and entity = :entity and entity_id = :entity_id;

-- name: claim_tombstones :many
-- Take objects that are due to be removed, and space the attempts; another janitor takes others.
with due as (
    select id
    from storage_tombstone
    where org_id = :org_id and given_up_at is null and due_at <= now()
    order by due_at
    limit :limit
    for update skip locked
)

update storage_tombstone
set
    attempt_count = attempt_count + 1,
    due_at = now() + make_interval(secs => :pause_s::integer)
from due
where storage_tombstone.org_id = :org_id and storage_tombstone.id = due.id
returning storage_tombstone.id, storage_tombstone.object_key, storage_tombstone.attempt_count;

-- name: bury :exec
-- Forget tombstones whose objects are gone.
delete from storage_tombstone
where org_id = :org_id and id = any(:ids::bigint[]);

-- name: fail_tombstone :exec
-- Note why an object could not be removed; the fifth time it is given up.
update storage_tombstone
set
    last_error = :last_error,
    given_up_at = case when attempt_count = 5 then now() end
where org_id = :org_id and id = :id;

-- name: count_given_up :value
-- Count objects that the janitor has given up.
-- not null: count
select count(*) as count
from storage_tombstone
where org_id = :org_id and given_up_at is not null;

-- name: forget_signed_url_uses :exec
-- Forget used links that are over anyway, at most so many.
delete from signed_url_use
where
    org_id = :org_id and token_id in (
        select old.token_id
        from signed_url_use as old
        where old.org_id = :org_id and old.expires_at < now()
        order by old.expires_at
        limit :limit
    );

-- name: bury_orphans :exec
-- Have the store forget those of these objects that no row names: an upload under way has a
-- tombstone, a file and an archive of the audit log their row. What is no key of ours stays.
insert into storage_tombstone (org_id, object_key, due_at)
select
    :org_id,
    found.object_key,
    now()
from unnest(:object_keys::text[]) as found (object_key)
where
    found.object_key ~ ('^org/' || :org_id::bigint || '/[a-z_]+/[0-9a-f]{32}$')
    and not exists (
        select from attachment
        where attachment.org_id = :org_id and attachment.object_key = found.object_key
    )
    and not exists (
        select from audit_archive
        where audit_archive.org_id = :org_id and audit_archive.object_key = found.object_key
    )
on conflict on constraint storage_tombstone_object_taken do nothing;
