-- Mail that is reserved in a transaction and delivered by a worker, and who gets none.

-- name: reserve_mail :exec
-- Reserve a mail; no row when this has been told already, or the address is blocked.
insert into mail (org_id, dedupe_key, kind, recipient, subject, body)
select
    :org_id,
    :dedupe_key,
    :kind,
    lower(:recipient),
    :subject,
    :body
where
    not exists (
        select from mail_block
        where mail_block.org_id = :org_id and mail_block.address = lower(:recipient)
    )
on conflict do nothing;

-- name: claim_mails :many
-- Take what is due, for one attempt under a lease; another worker takes others.
with due as (
    select id
    from mail
    where
        org_id = :org_id and status = 'pending' and due_at <= now()
        and (lease_until is null or lease_until < now())
    order by due_at
    limit :limit
    for update skip locked
)

update mail
set
    attempt_count = least(attempt_count + 1, 5),
    lease_until = now() + make_interval(secs => :lease_s::integer)
from due
where mail.org_id = :org_id and mail.id = due.id
returning mail.id, mail.recipient, mail.subject, mail.body, mail.attempt_count;

-- name: release_mails :exec
-- Give back what was claimed and not tried.
update mail
set attempt_count = attempt_count - 1, lease_until = null
where org_id = :org_id and id = any(:ids::bigint[]) and status = 'pending' and attempt_count > 0;

-- name: mark_sent :exec
-- Note that a server took a mail.
update mail
set status = 'sent', sent_at = now(), lease_until = null, last_error = null
where org_id = :org_id and id = :id and status = 'pending';

-- name: mark_failed :exec
-- Note that an attempt failed: the next is a minute later, doubled each time; five at most.
update mail
set
    status = case when :is_final or attempt_count = 5 then 'dead' else 'pending' end,
    due_at = now() + make_interval(secs => 60 * 2 ^ (attempt_count - 1)),
    lease_until = null,
    last_error = :last_error
where org_id = :org_id and id = :id and status = 'pending';

-- name: block_address :exec
-- Send an address no more mail; what waits for it is skipped.
with blocked as (
    insert into mail_block (org_id, address, reason)
    values (:org_id, lower(:address), :reason)
    on conflict do nothing
)

update mail
set status = 'skipped', lease_until = null
where org_id = :org_id and recipient = lower(:address) and status = 'pending';

-- name: unblock_address :one
-- Send an address mail again.
delete from mail_block
where org_id = :org_id and address = lower(:address)
returning address, reason, created_at;

-- name: replay_mail :one
-- Try again what was given up.
update mail
set status = 'pending', attempt_count = 0, due_at = now(), last_error = null
where org_id = :org_id and id = :id and status = 'dead'
returning id, kind, status, attempt_count, created_at, due_at, sent_at, last_error;

-- name: list_dead :many
-- List what was given up, the latest first.
select
    id,
    kind,
    status,
    attempt_count,
    created_at,
    due_at,
    sent_at,
    last_error
from mail
where org_id = :org_id and status = 'dead'
order by id desc
limit :limit offset :offset;

-- name: count_dead :value
-- Count what was given up.
-- not null: total
select count(*) as total
from mail
where org_id = :org_id and status = 'dead';

-- name: count_mails :one
-- Count what waits to be sent, and what was sent lately; an attempt may be long after it was
-- reserved, so two days are read.
-- not null: pending_count, sent_count, hour_sent_count
select
    (
        select count(*) from mail as waiting
        where waiting.org_id = :org_id and waiting.status = 'pending'
    ) as pending_count,
    count(*) filter (where sent_at > :now::timestamptz - interval '1 day') as sent_count,
    count(*) filter (where sent_at > :now::timestamptz - interval '1 hour') as hour_sent_count
from mail
where org_id = :org_id and created_at > :now::timestamptz - interval '2 days';

-- name: list_overdue :many
-- List debts of some days and more whose customers have an address, oldest first; each tells how
-- many times that age it has, so that each is told of once for each.
-- not null: step, outstanding
select
    receivable.sale_id,
    receivable.sold_on,
    receivable.currency,
    receivable.outstanding,
    customer.name as customer_name,
    customer.email,
    (:as_of::date - receivable.sold_on) / :days::integer as step
from receivable
inner join customer
    on receivable.org_id = customer.org_id and receivable.customer_id = customer.id
where
    receivable.org_id = :org_id and receivable.outstanding > 0
    and receivable.sold_on <= :as_of::date - :days::integer
    and customer.email is not null and customer.status <> 'INACTIVE'
    and not exists (
        select from mail
        where
            mail.org_id = :org_id
            and mail.dedupe_key = 'receivable:' || receivable.sale_id || ':'
            || (:as_of::date - receivable.sold_on) / :days::integer
    )
order by receivable.sold_on, receivable.sale_id
limit :limit;

-- name: list_low_stock :many
-- List what is low in each branch, for the digests of a day.
select
    stock.branch_id,
    branch.name as branch_name,
    product.sku,
    product.name as product_name,
    stock.quantity,
    stock.reorder_level
from stock
inner join branch on stock.org_id = branch.org_id and stock.branch_id = branch.id
inner join product on stock.org_id = product.org_id and stock.product_id = product.id
where
    stock.org_id = :org_id and stock.quantity <= stock.reorder_level and branch.is_active
    and product.is_active
order by stock.branch_id, product.sku
limit :limit;

-- name: list_branch_managers :many
-- List who manages a branch: its managers, and those of all branches.
select
    person.id,
    person.email
from app_user as person
where
    person.org_id = :org_id and person.role = 'MANAGER' and person.is_active
    and (
        person.all_branches or exists (
            select from user_branch
            where
                user_branch.org_id = :org_id and user_branch.user_id = person.id
                and user_branch.branch_id = :branch_id
        )
    )
order by person.id
limit :limit;

-- name: get_today :one
-- Get the organisation's name and its day.
-- not null: today
select
    name,
    (now() at time zone time_zone)::date as today
from organisation
where org_id = :org_id;

-- name: forget_mails :exec
-- Forget mail of so many days ago that is not to be sent any more, at most so many.
delete from mail
where
    org_id = :org_id and id in (
        select old.id
        from mail as old
        where
            old.org_id = :org_id and old.status <> 'pending'
            and old.created_at < now() - make_interval(days => :keep_days::integer)
        order by old.created_at
        limit :limit
    );
