-- Customers and what they owe.

-- name: create_customer :one
-- Create a customer; without a credit limit it takes the organisation's default.
-- nullable: email, phone, address, credit_limit, notes
insert into customer (
    org_id, name, email, phone, address, customer_type, currency, credit_limit, status, notes
)
select
    :org_id,
    :name,
    :email,
    :phone,
    :address,
    :customer_type,
    base_currency,
    coalesce(:credit_limit, default_credit_limit),
    :status,
    :notes
from organisation
where org_id = :org_id
returning
    id, name, email, phone, address, customer_type, currency, credit_limit, status, notes,
    created_at, updated_at, version;

-- name: change_customer :one
-- Replace what is known of a customer; without a credit limit it keeps its own.
-- nullable: email, phone, address, credit_limit, notes
update customer
set
    name = :name, email = :email, phone = :phone, address = :address,
    customer_type = :customer_type, credit_limit = coalesce(:credit_limit, credit_limit),
    status = :status, notes = :notes, updated_at = now()
where org_id = :org_id and id = :id
returning
    id, name, email, phone, address, customer_type, currency, credit_limit, status, notes,
    created_at, updated_at, version;

-- name: get_customer :one
-- Get a customer.
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
    updated_at,
    version
from customer
where org_id = :org_id and id = :id;

-- name: list_customers :many
-- List customers by name; search looks in name, e-mail address and phone number.
-- nullable: search, customer_type, status
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
    and (
        :search::text is null or name ilike '%' || :search || '%' or email = lower(:search)
        or phone = :search
    )
    and (:customer_type::text is null or customer_type = :customer_type)
    and (:status::text is null or status = :status)
order by name, id
limit :limit offset :offset;

-- name: count_customers :value
-- Count what list_customers pages through.
-- nullable: search, customer_type, status
-- not null: total
select count(*) as total
from customer
where
    org_id = :org_id
    and (
        :search::text is null or name ilike '%' || :search || '%' or email = lower(:search)
        or phone = :search
    )
    and (:customer_type::text is null or customer_type = :customer_type)
    and (:status::text is null or status = :status);

-- name: get_balance :one
-- Get what a customer owes: the sum of the open receivables, never a stored figure.
-- not null: customer_id, currency, credit_limit, balance, available_credit
select
    customer.id as customer_id,
    customer.currency,
    customer.credit_limit,
    owed.balance,
    greatest(customer.credit_limit - owed.balance, 0) as available_credit
from customer
cross join
    lateral (
        select coalesce(sum(outstanding), 0) as balance
        from receivable
        where org_id = :org_id and customer_id = customer.id and outstanding > 0
    ) as owed
where customer.org_id = :org_id and customer.id = :id;

-- name: summarise_receivables :one
-- Sum up the receivables of a customer.
-- not null: customer_id, currency, receivables_count, fully_paid_sales, outstanding_total
-- not null: paid_total
select
    customer.id as customer_id,
    customer.currency,
    sums.receivables_count,
    sums.fully_paid_sales,
    sums.outstanding_total,
    sums.paid_total
from customer
cross join
    lateral (
        -- By way of the customer's sales, which have an index; receivables have one of open ones.
        select
            count(*) filter (where receivable.outstanding > 0) as receivables_count,
            count(*) filter (where (receivable.outstanding, receivable.cancelled) = (0, 0))
                as fully_paid_sales,
            coalesce(sum(receivable.outstanding), 0) as outstanding_total,
            coalesce(sum(receivable.settled), 0) as paid_total
        from sale
        inner join receivable on sale.org_id = receivable.org_id and sale.id = receivable.sale_id
        where sale.org_id = :org_id and sale.customer_id = customer.id
    ) as sums
where customer.org_id = :org_id and customer.id = :id;
