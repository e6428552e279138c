-- Balances from the lines alone, to compare with q.journal.trial_balance.

-- name: summed_balance :many
-- Every account's balance at the end of a date, summed from all lines.
with balance as materialized (
    select
        line.account_id,
        sum(line.debit - line.credit) as balance
    from journal_entry as entry
    inner join journal_line as line
        on entry.org_id = line.org_id and entry.id = line.entry_id
    where entry.org_id = :org_id and entry.posted_on <= :as_of
    group by line.account_id
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

-- name: fill_entries :exec
-- Write entries of two lines each, spread over a year, past all triggers: only to have many.
insert into journal_entry (
    org_id, period_id, posted_on, kind, line_count, created_by
)
select
    :org_id,
    :period_id,
    :first_on::date + (number * 365 / :entry_count)::int,
    'MANUAL',
    2,
    :user_id
from generate_series(0, :entry_count::bigint - 1) as number
order by number;

-- name: fill_lines :exec
-- Write their lines, on accounts in turn.
insert into journal_line (
    org_id, entry_id, line_no, line_count, account_id, currency, debit, credit
)
select
    entry.org_id,
    entry.id,
    side.line_no,
    2,
    (:account_ids::bigint[])[
        1 + (entry.id + side.line_no) % cardinality(:account_ids::bigint[])
    ],
    :currency,
    case side.line_no when 1 then 1 + entry.id % 100 else 0 end,
    case side.line_no when 2 then 1 + entry.id % 100 else 0 end
from journal_entry as entry
cross join generate_series(1, 2) as side (line_no)
where entry.org_id = :org_id and entry.id > :after_id;
