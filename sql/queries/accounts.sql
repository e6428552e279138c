-- The chart of accounts. A balance is debits less credits, in the account's own currency.

-- name: create_account :one
-- Create an account; without a currency it takes the organisation's own.
-- nullable: currency, branch_id
insert into account (org_id, code, name, type, currency, branch_id, takes_payments)
select
    :org_id,
    :code,
    :name,
    :type,
    coalesce(:currency::text, base_currency),
    :branch_id,
    :takes_payments
from organisation
where org_id = :org_id
returning
    id, code, name, type, role, currency, branch_id, takes_payments, is_active, created_at,
    updated_at, version;

-- name: change_account :one
-- Rename or renumber an account.
update account
set code = :code, name = :name, updated_at = now()
where org_id = :org_id and id = :id
returning
    id, code, name, type, role, currency, branch_id, takes_payments, is_active, created_at,
    updated_at, version;

-- name: close_account :one
-- Close an account; closing a closed one changes nothing.
-- Waits for postings under way; refused (account_closes_at_zero) while it has a balance.
update account
set is_active = false, updated_at = now()
where org_id = :org_id and id = :id
returning
    id, code, name, type, role, currency, branch_id, takes_payments, is_active, created_at,
    updated_at, version;

-- name: get_account :one
-- Get an account with its balance today: the snapshots and the lines since.
-- not null: balance
select
    account.id,
    account.code,
    account.name,
    account.type,
    account.role,
    account.currency,
    account.branch_id,
    account.takes_payments,
    account.is_active,
    account.created_at,
    account.updated_at,
    account.version,
    coalesce((
        select sum(day.debit - day.credit) from account_day as day
        where day.org_id = :org_id and day.account_id = account.id
    ), 0) + coalesce((
        select sum(line.debit - line.credit) from journal_line as line
        where
            line.org_id = :org_id and line.account_id = account.id
            and line.entry_id > (
                -- COALESCE inside: around it, row security would keep it out of the index.
                select coalesce(max(through_entry_id), 0) from balance_roll_up
                where org_id = :org_id
            )
    ), 0) as balance
from account
where account.org_id = :org_id and account.id = :id;

-- name: list_accounts :many
-- List the chart of accounts by code.
-- nullable: search, type, is_active
select
    id,
    code,
    name,
    type,
    role,
    currency,
    branch_id,
    takes_payments,
    is_active,
    created_at,
    updated_at
from account
where
    org_id = :org_id
    and (:search::text is null or name ilike '%' || :search || '%' or code = :search)
    and (:type::text is null or type = :type)
    and (:is_active::boolean is null or is_active = :is_active)
order by code, id
limit :limit offset :offset;

-- name: count_accounts :value
-- Count what list_accounts pages through.
-- nullable: search, type, is_active
-- not null: total
select count(*) as total
from account
where
    org_id = :org_id
    and (:search::text is null or name ilike '%' || :search || '%' or code = :search)
    and (:type::text is null or type = :type)
    and (:is_active::boolean is null or is_active = :is_active);

-- name: list_account_entries :many
-- List the lines of an account, latest entry first, paged by key.
-- nullable: before_entry_id
select
    line.entry_id,
    line.line_no,
    line.currency,
    line.debit,
    line.credit,
    line.description,
    entry.posted_on,
    entry.kind,
    entry.memo
from journal_line as line
inner join journal_entry as entry
    on line.org_id = entry.org_id and line.entry_id = entry.id
where
    line.org_id = :org_id and line.account_id = :account_id
    and (:before_entry_id::bigint is null or line.entry_id < :before_entry_id)
order by line.entry_id desc, line.line_no
limit :limit;
