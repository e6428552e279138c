-- What is kept for how long, and what a person may ask of their data.

-- name: create_deletion_request :one
-- Write down that a customer asked to be forgotten; one request at a time.
insert into data_deletion_request (org_id, customer_id, reason, requested_by)
values (:org_id, :customer_id, :reason, :requested_by)
returning id, customer_id, requested_at, processed_at;

-- name: claim_deletion_requests :many
-- Lock requests that can be done, oldest first: of customers who owe nothing any more.
select
    request.id,
    request.customer_id
from data_deletion_request as request
where
    request.org_id = :org_id and request.processed_at is null
    and not exists (
        select from sale
        inner join receivable on sale.org_id = receivable.org_id and sale.id = receivable.sale_id
        where
            sale.org_id = :org_id and sale.customer_id = request.customer_id
            and receivable.outstanding > 0
    )
order by request.id
limit :limit
for update of request skip locked;

-- name: count_waiting_requests :value
-- Count requests that are not done.
-- not null: total
select count(*) as total
from data_deletion_request
where org_id = :org_id and processed_at is null;

-- name: empty_mails :exec
-- Take a customer out of the mail that was sent to them; what waits is not sent. Reminders are
-- found by their sales, too: the address may have been another one.
update mail
set
    recipient = 'deleted@invalid',
    body = 'deleted',
    status = case status when 'pending' then 'skipped' else status end,
    lease_until = null
where
    org_id = :org_id and (
        recipient = (
            select lower(customer.email) from customer
            where customer.org_id = :org_id and customer.id = :customer_id
        )
        or kind = 'receivable_reminder' and split_part(dedupe_key, ':', 2) in (
            select sale.id::text from sale
            where sale.org_id = :org_id and sale.customer_id = :customer_id
        )
    );

-- name: forget_block :exec
-- Forget that a customer wants no mail: there is no address any more.
delete from mail_block
where
    org_id = :org_id and address = (
        select lower(customer.email) from customer
        where customer.org_id = :org_id and customer.id = :customer_id
    );

-- name: delete_attachments :exec
-- Remove a customer's files; each leaves a tombstone.
delete from attachment
where org_id = :org_id and entity = 'customer' and entity_id = :customer_id;

-- name: anonymise_customer :exec
-- Take the person out of a customer; what they bought and paid stays.
update customer
set
    name = 'Deleted contact', email = null, phone = null, address = null, notes = null,
    status = 'INACTIVE', updated_at = now()
where org_id = :org_id and id = :customer_id;

-- name: finish_deletion_request :exec
-- Write down that a request is done, with counts only; why it was asked for goes, too.
update data_deletion_request
set
    reason = 'deleted',
    processed_at = now(),
    attachments_deleted = :attachments_deleted,
    mails_emptied = :mails_emptied
where org_id = :org_id and id = :id;

-- name: get_subject :one
-- Get the customer of whom somebody asks, by number or address.
-- nullable: customer_id, email
select
    id,
    name,
    email,
    phone,
    address,
    customer_type,
    currency,
    credit_limit,
    status,
    notes,
    created_at,
    updated_at
from customer
where
    org_id = :org_id
    and (:customer_id::bigint is null or id = :customer_id)
    and (:email::text is null or email = lower(:email))
    and (:customer_id::bigint is not null or :email::text is not null)
order by id
limit 1;

-- name: list_subject_sales :many
-- List what a customer bought.
select
    id,
    sold_on,
    currency,
    total,
    notes
from sale
where org_id = :org_id and customer_id = :customer_id
order by id
limit :limit;

-- name: list_subject_payments :many
-- List what a customer paid.
select
    payment.id,
    payment.sale_id,
    payment.currency,
    payment.amount,
    payment.method,
    payment.reference
from sale
inner join payment on sale.org_id = payment.org_id and sale.id = payment.sale_id
where sale.org_id = :org_id and sale.customer_id = :customer_id
order by payment.id
limit :limit;

-- name: list_subject_mails :many
-- List what a customer was written.
select
    id,
    kind,
    subject,
    body,
    status,
    created_at,
    sent_at
from mail
where org_id = :org_id and recipient = lower(:email)
order by id
limit :limit;
