-- Journal entries and the trial balance. Amounts are in the currency of their line.

-- name: post_entry :one
-- Post a manual entry and all its lines in one statement.
-- Deferred rules: journal_entry_balances, journal_entry_accounts_open.
-- nullable: memo, reference_type, reference_id, descriptions
with entry as (
    insert into journal_entry (
        org_id, period_id, posted_on, kind, line_count, memo, reference_type, reference_id,
        created_by
    )
    values (
        :org_id,
        open_period(:org_id, :posted_on),
        :posted_on, 'MANUAL', cardinality(:account_ids::bigint[]), :memo, :reference_type,
        :reference_id, :user_id
    )
    returning
        id, period_id, posted_on, kind, line_count, memo, reference_type, reference_id,
        reverses_id, created_by, created_at
),

lines as (
    insert into journal_line (
        org_id, entry_id, line_no, line_count, account_id, currency, debit, credit, description
    )
    select
        :org_id,
        entry.id,
        line.line_no,
        entry.line_count,
        line.account_id,
        -- An unknown account has no currency: the foreign key then names the broken rule.
        coalesce(account.currency, 'XXX'),
        line.debit,
        line.credit,
        line.description
    from entry
    cross join
        unnest(
            :account_ids::bigint[], :debits::numeric[], :credits::numeric[], :descriptions::text[]
        ) with ordinality as line (account_id, debit, credit, description, line_no)
    left join account on account.org_id = :org_id and account.id = line.account_id
)

select
    id,
    period_id,
    posted_on,
    kind,
    line_count,
    memo,
    reference_type,
    reference_id,
    reverses_id,
    created_by,
    created_at
from entry;

-- name: reverse_entry :one
-- Post the reversal of a manual entry: its lines with debit and credit exchanged.
-- Deferred rules: journal_entry_balances, journal_reversal_mirrors.
-- nullable: memo
with original as (
    select
        id,
        line_count
    from journal_entry
    where org_id = :org_id and id = :id
),

entry as (
    insert into journal_entry (
        org_id, period_id, posted_on, kind, line_count, memo, reverses_id, created_by
    )
    select
        :org_id,
        open_period(:org_id, :posted_on),
        :posted_on,
        'REVERSAL',
        original.line_count,
        :memo,
        original.id,
        :user_id
    from original
    returning
        id, period_id, posted_on, kind, line_count, memo, reference_type, reference_id,
        reverses_id, created_by, created_at
),

lines as (
    insert into journal_line (
        org_id, entry_id, line_no, line_count, account_id, currency, debit, credit, description
    )
    select
        :org_id,
        entry.id,
        line.line_no,
        line.line_count,
        line.account_id,
        line.currency,
        line.credit,
        line.debit,
        line.description
    from entry
    cross join original
    inner join journal_line as line on line.org_id = :org_id and line.entry_id = original.id
)

select
    id,
    period_id,
    posted_on,
    kind,
    line_count,
    memo,
    reference_type,
    reference_id,
    reverses_id,
    created_by,
    created_at
from entry;

-- name: get_entry :one
-- Get an entry.
select
    id,
    period_id,
    posted_on,
    kind,
    line_count,
    memo,
    reference_type,
    reference_id,
    reverses_id,
    sale_id,
    payment_id,
    void_sale_id,
    goods_receipt_id,
    created_by,
    created_at
from journal_entry
where org_id = :org_id and id = :id;

-- name: list_entry_lines :many
-- List the lines of an entry, at most as many as it can have.
select
    line.line_no,
    line.account_id,
    account.code as account_code,
    account.name as account_name,
    line.currency,
    line.debit,
    line.credit,
    line.description
from journal_line as line
inner join account on line.org_id = account.org_id and line.account_id = account.id
where line.org_id = :org_id and line.entry_id = :entry_id
order by line.line_no
limit 500;

-- name: list_entries :many
-- List entries, latest date first.
-- nullable: start_date, end_date, kind
select
    id,
    period_id,
    posted_on,
    kind,
    line_count,
    memo,
    reference_type,
    reference_id,
    reverses_id,
    sale_id,
    payment_id,
    void_sale_id,
    goods_receipt_id,
    created_by,
    created_at
from journal_entry
where
    org_id = :org_id
    and (:start_date::date is null or posted_on >= :start_date)
    and (:end_date::date is null or posted_on <= :end_date)
    and (:kind::text is null or kind = :kind)
order by posted_on desc, id desc
limit :limit offset :offset;

-- name: count_entries :value
-- Count what list_entries pages through.
-- nullable: start_date, end_date, kind
-- not null: total
select count(*) as total
from journal_entry
where
    org_id = :org_id
    and (:start_date::date is null or posted_on >= :start_date)
    and (:end_date::date is null or posted_on <= :end_date)
    and (:kind::text is null or kind = :kind);

-- name: trial_balance :many
-- Every account's balance at the end of a date: daily snapshots plus the lines since.
-- not null: debit_balance, credit_balance
with through as (
    -- Row security lets a condition into an index only if it cannot leak: COALESCE inside, not out.
    select coalesce(max(through_entry_id), 0) as entry_id
    from balance_roll_up
    where org_id = :org_id
),

-- By number, so that old entries cost nothing; the index by date would be walked from its start,
-- and cannot be read alone because it lacks line_count.
tail as materialized (
    select
        id,
        posted_on,
        line_count
    from journal_entry
    where org_id = :org_id and id > (select entry_id from through)
),

movement as (
    select
        account_id,
        debit,
        credit
    from account_day
    where org_id = :org_id and posted_on <= :as_of
    union all
    select
        line.account_id,
        line.debit,
        line.credit
    from tail
    inner join journal_line as line on tail.id = line.entry_id
    where
        line.org_id = :org_id
        and line.entry_id > (select entry_id from through)
        and tail.posted_on <= :as_of
),

-- Once: where the planner knows of one account only, it would be summed anew for each.
balance as materialized (
    select
        account_id,
        sum(debit - credit) as balance
    from movement
    group by account_id
)

select
    account.id as account_id,
    account.code as account_code,
    account.name as account_name,
    account.type as account_type,
    account.currency,
    greatest(coalesce(balance.balance, 0), 0) as debit_balance,
    greatest(-coalesce(balance.balance, 0), 0) as credit_balance
from account
left join balance on account.id = balance.account_id
where account.org_id = :org_id
order by account.code, account.id
limit 10000;

-- name: mark_roll_up :value
-- Note up to where no posting is under way; commit at once, then roll_up_balances.
-- not null: mark_roll_up
select mark_roll_up();

-- name: roll_up_balances :value
-- Add the entries up to the mark to the daily snapshots.
-- not null: roll_up_balances
select roll_up_balances();

-- name: rebuild_balances :value
-- Make the daily snapshots again from the journal.
-- not null: rebuild_balances
select rebuild_balances();

-- name: list_snapshot_differences :many
-- List the days of accounts whose snapshot is not the sum of their lines; none, if all is well.
-- not null: account_id, posted_on, snapshot, journal
select
    account_id,
    posted_on,
    coalesce(day.debit - day.credit, 0) as snapshot,
    coalesce(summed.debit - summed.credit, 0) as journal
from (
    select
        account_id,
        posted_on,
        debit,
        credit
    from account_day
    where org_id = :org_id
) as day
full join (
    select
        line.account_id,
        entry.posted_on,
        sum(line.debit) as debit,
        sum(line.credit) as credit
    from journal_entry as entry
    inner join journal_line as line
        on entry.org_id = line.org_id and entry.id = line.entry_id
    where
        entry.org_id = :org_id and entry.id <= (
            select coalesce(max(through_entry_id), 0) from balance_roll_up
            where org_id = :org_id
        )
    group by line.account_id, entry.posted_on
) as summed using (account_id, posted_on)
where
    day.debit is distinct from summed.debit or day.credit is distinct from summed.credit
order by posted_on, account_id
limit 100;
