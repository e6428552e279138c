-- The ledger, page by page, for other accounting programs to read and recompute.
-- Amounts are debits less credits, in the currency of their line. All pages are read in one
-- repeatable-read transaction, so together they show one state of the books.

-- name: allow_pauses :one
-- Let this transaction outlast a slow reader: at most this long between two pages.
select set_config('idle_in_transaction_session_timeout', :pause_ms::int::text, true) as pause_ms;

-- name: find_first_date :value
-- Find the date of the first entry; null while the journal is empty.
select min(posted_on) as first_on
from journal_entry
where org_id = :org_id and posted_on <= :as_of;

-- name: list_accounts :many
-- List a page of all accounts, closed ones included, in the order in which they were made.
select
    id,
    code,
    name,
    type,
    currency
from account
where org_id = :org_id and id > :after_id
order by id
limit :limit;

-- name: list_entry_lines :many
-- List the lines of a page of entries up to a date, in the order of the dates.
-- The page is of entries, so that no entry is cut; one without lines comes as a row without.
-- not null: id, posted_on, kind
with page as (
    select
        org_id,
        id,
        posted_on,
        kind,
        memo,
        reference_type,
        reference_id,
        reverses_id,
        sale_id,
        payment_id,
        void_sale_id,
        goods_receipt_id
    from journal_entry
    where
        org_id = :org_id
        and posted_on <= :as_of
        and (posted_on, id) > (:after_on::date, :after_id)
    order by posted_on, id
    limit :limit
)

select
    page.id,
    page.posted_on,
    page.kind,
    page.memo,
    page.reference_type,
    page.reference_id,
    page.reverses_id,
    page.sale_id,
    page.payment_id,
    page.void_sale_id,
    page.goods_receipt_id,
    line.account_id,
    line.currency,
    line.debit - line.credit as amount,
    line.description
from page
left join journal_line as line on page.org_id = line.org_id and page.id = line.entry_id
order by page.posted_on, page.id, line.line_no;
