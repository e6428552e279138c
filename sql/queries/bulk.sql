-- Many entries at once: imports. Amounts are in the currency of their line's account.

-- name: post_entries :many
-- Post manual entries and all their lines in one statement, best some thousand lines at a time.
-- A line says by entry_no, from 1, which of the entries it belongs to; an entry's lines are
-- numbered in the order in which they come. Returns the entries' ids in the order of the entries.
-- Deferred rules: all those of journal.post_entry, for each entry.
-- nullable: memos, memos[], descriptions, descriptions[]
with counted as (
    select
        entry_no,
        count(*) as line_count
    from unnest(:entry_nos::int[]) as line (entry_no)
    group by entry_no
),

asked as (
    select
        asked.entry_no,
        asked.posted_on,
        asked.memo,
        -- No line at all: journal_entry_has_two_lines names the broken rule.
        coalesce(counted.line_count, 0) as line_count
    from
        unnest(:dates::date[], :memos::text[])
        with ordinality as asked (posted_on, memo, entry_no)
    left join counted on asked.entry_no = counted.entry_no
),

period as materialized (
    select
        posted_on,
        open_period(:org_id, posted_on) as id
    from (select distinct posted_on from asked) as day
),

entry as (
    insert into journal_entry (
        org_id, period_id, posted_on, kind, line_count, memo, created_by
    )
    select
        :org_id,
        period.id,
        asked.posted_on,
        'MANUAL',
        asked.line_count,
        asked.memo,
        :user_id
    from asked
    inner join period on asked.posted_on = period.posted_on
    order by asked.entry_no
    returning id, line_count
),

numbered as (
    -- Ids were drawn in the order of the rows, and others' ids in between do not change it.
    select
        id,
        line_count,
        row_number() over (order by id) as entry_no
    from entry
),

lines as (
    insert into journal_line (
        org_id, entry_id, line_no, line_count, account_id, currency, debit, credit, description
    )
    select
        :org_id,
        numbered.id,
        row_number() over (partition by line.entry_no order by line.place),
        numbered.line_count,
        line.account_id,
        -- An unknown account has no currency: the foreign key then names the broken rule.
        coalesce(account.currency, 'XXX'),
        line.debit,
        line.credit,
        line.description
    from
        unnest(
            :entry_nos::int[], :account_ids::bigint[], :debits::numeric[], :credits::numeric[],
            :descriptions::text[]
        ) with ordinality as line (entry_no, account_id, debit, credit, description, place)
    -- A line of an entry that is not there has no entry_id, and is refused for that.
    left join numbered on line.entry_no = numbered.entry_no
    left join account on account.org_id = :org_id and account.id = line.account_id
)

select id
from numbered
order by entry_no;
