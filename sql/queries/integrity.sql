-- Verification: the books recomputed from the rows, one organisation at a time.
-- Nothing here trusts a trigger, a constraint or a stored sum; whole tables are read once each, so
-- a year of a busy retailer takes seconds. Every check returns one row: how many rows it looked
-- at, how many are broken, and the first of them as JSON text. Amounts have their row's currency.

-- name: set_audit :one
-- Say whose rows are verified, and that whole tables will be read, until the transaction ends.
-- Without nested loops: an organisation that is younger than the statistics has no rows as far as
-- the planner knows, and would have each of its sales compared with each other one.
select
    set_config('app.org_id', :org_id::bigint::text, true) as org_id,
    set_config('app.branch_ids', 'all', true) as branch_ids,
    set_config('plan_cache_mode', 'force_custom_plan', true) as plan_cache_mode,
    set_config('work_mem', '128MB', true) as work_mem,
    set_config('jit', 'off', true) as jit,
    set_config('enable_nestloop', 'off', true) as enable_nestloop,
    set_config('search_path', 'public', true) as search_path,
    set_config('statement_timeout', '0', true) as statement_timeout;

-- name: entries_balance :one
-- Every entry has all its lines, two or more, and equal debits and credits in each currency.
-- not null: checked, broken
with summed as (
    select
        entry_id,
        sum(line_count) as line_count,
        bool_or(debits is distinct from credits or debits = 'NaN') as is_off
    from (
        select
            entry_id,
            currency,
            count(*) as line_count,
            sum(debit) as debits,
            sum(credit) as credits
        from journal_line
        where org_id = :org_id
        group by entry_id, currency
    ) as per_currency
    group by entry_id
),

broken as (
    select
        coalesce(entry.id, summed.entry_id) as id,
        jsonb_build_object(
            'entry_id', coalesce(entry.id, summed.entry_id),
            'lines_said', entry.line_count,
            'lines_found', coalesce(summed.line_count, 0),
            'is_balanced', not coalesce(summed.is_off, false)
        ) as details
    from (
        select
            id,
            line_count
        from journal_entry
        where org_id = :org_id
    ) as entry
    full join summed on entry.id = summed.entry_id
    where
        entry.line_count is distinct from summed.line_count
        or entry.line_count < 2
        or summed.is_off
)

select
    (select count(*) from journal_entry where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: lines_are_sound :one
-- Every line is one-sided, in minor units, in its slot, and in the currency of its account.
-- not null: checked, broken
with broken as (
    select
        line.entry_id as id,
        line.line_no,
        jsonb_build_object(
            'entry_id', line.entry_id, 'line_no', line.line_no, 'account_id', line.account_id,
            'currency', line.currency, 'debit', line.debit::text, 'credit', line.credit::text
        ) as details
    from journal_line as line
    left join account on account.org_id = :org_id and line.account_id = account.id
    left join journal_entry as entry on entry.org_id = :org_id and line.entry_id = entry.id
    where
        line.org_id = :org_id
        and (
            (
                (line.debit > 0 and line.credit = 0) or (line.credit > 0 and line.debit = 0)
            ) is not true
            or greatest(line.debit, line.credit) = 'NaN'
            or line.debit + line.credit
            <> round(line.debit + line.credit, minor_units(line.currency))
            or line.line_no not between 1 and line.line_count
            or line.line_count is distinct from entry.line_count
            or line.currency is distinct from account.currency
        )
)

select
    (select count(*) from journal_line where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id, line_no limit 1) as example;

-- name: entries_are_dated_in_their_period :one
-- Every entry is dated inside the period that it names.
-- not null: checked, broken
with broken as (
    select
        entry.id,
        jsonb_build_object(
            'entry_id', entry.id, 'posted_on', entry.posted_on,
            'period_from', period.starts_on, 'period_to', period.ends_on
        ) as details
    from journal_entry as entry
    left join accounting_period as period
        on period.org_id = :org_id and entry.period_id = period.id
    where
        entry.org_id = :org_id
        and (entry.posted_on between period.starts_on and period.ends_on) is not true
)

select
    (select count(*) from journal_entry where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: entries_have_their_document :one
-- Every entry names the one document of its kind, and no document has two entries.
-- not null: checked, broken
with document as (
    select
        id,
        kind,
        case kind
            when 'SALE' then sale_id
            when 'PAYMENT' then payment_id
            when 'VOID' then void_sale_id
            when 'GOODS_RECEIPT' then goods_receipt_id
            when 'REVERSAL' then reverses_id
        end as document_id,
        num_nonnulls(sale_id, payment_id, void_sale_id, goods_receipt_id, reverses_id) as named
    from journal_entry
    where org_id = :org_id
),

numbered as (
    select
        id,
        kind,
        document_id,
        named,
        row_number() over (partition by kind, document_id order by id) as entry_no
    from document
    where kind <> 'MANUAL' or named > 0
),

broken as (
    select
        id,
        jsonb_build_object(
            'entry_id', id, 'kind', kind, 'document_id', document_id, 'documents_named', named,
            'entry_no_of_document', entry_no
        ) as details
    from numbered
    where kind = 'MANUAL' or document_id is null or named <> 1 or entry_no > 1
)

select
    (select count(*) from document) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: reversals_mirror :one
-- Every reversal has the lines of a manual entry with the sides swapped.
-- not null: checked, broken
with reversal as (
    select
        entry.id,
        entry.reverses_id,
        original.kind
    from journal_entry as entry
    left join journal_entry as original
        on original.org_id = :org_id and entry.reverses_id = original.id
    where entry.org_id = :org_id and entry.reverses_id is not null
),

side as (
    select
        reversal.id,
        line.line_no,
        line.account_id,
        line.currency,
        line.debit,
        line.credit,
        1 as sign
    from reversal
    inner join journal_line as line on line.org_id = :org_id and reversal.id = line.entry_id
    union all
    select
        reversal.id,
        line.line_no,
        line.account_id,
        line.currency,
        line.credit,
        line.debit,
        -1
    from reversal
    inner join journal_line as line
        on line.org_id = :org_id and reversal.reverses_id = line.entry_id
),

broken as (
    select
        id,
        jsonb_build_object('entry_id', id, 'reverses_id', reverses_id, 'kind', kind) as details
    from reversal
    where
        kind is distinct from 'MANUAL'
        or id in (
            select id from side
            group by id, line_no, account_id, currency, debit, credit
            having sum(sign) <> 0
        )
)

select
    (select count(*) from reversal) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: manual_entries_spare_control_accounts :one
-- No manual entry and no reversal is posted to receivables or inventory.
-- not null: checked, broken
with broken as (
    select
        entry.id,
        jsonb_build_object('entry_id', entry.id, 'role', min(account.role)) as details
    from account
    inner join journal_line as line on line.org_id = :org_id and account.id = line.account_id
    inner join journal_entry as entry on entry.org_id = :org_id and line.entry_id = entry.id
    where
        account.org_id = :org_id and account.role in ('receivable', 'inventory')
        and entry.kind in ('MANUAL', 'REVERSAL')
    group by entry.id
)

select
    (
        select count(*) from journal_entry
        where org_id = :org_id and kind in ('MANUAL', 'REVERSAL')
    ) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: sales_are_the_sum_of_their_lines :one
-- Every sale has all its lines, their sums, a total that follows, and a customer where it is owed.
-- not null: checked, broken
with summed as (
    select
        sale_id,
        count(*) as line_count,
        sum(subtotal) as subtotal,
        sum(discount + sale_discount) as discount,
        sum(tax) as tax,
        sum(total) as total
    from sale_line
    where org_id = :org_id
    group by sale_id
),

broken as (
    select
        sale.id,
        jsonb_build_object(
            'sale_id', sale.id, 'total', sale.total::text, 'lines_total', summed.total::text,
            'lines_said', sale.line_count, 'lines_found', coalesce(summed.line_count, 0)
        ) as details
    from sale
    left join summed on sale.id = summed.sale_id
    left join organisation on organisation.org_id = :org_id
    where
        sale.org_id = :org_id
        and (
            (sale.line_count, sale.subtotal, sale.discount, sale.tax, sale.total)
            is distinct from (
                summed.line_count, summed.subtotal, summed.discount, summed.tax, summed.total
            )
            or sale.total is distinct from sale.subtotal - sale.discount
            + case when sale.prices_include_tax then 0 else sale.tax end
            or sale.currency is distinct from organisation.base_currency
            or sale.total = 'NaN'
            or sale.paid <> round(sale.paid, minor_units(sale.currency))
            or (sale.paid between 0 and sale.total) is not true
            or (sale.paid < sale.total and sale.customer_id is null)
        )
)

select
    (select count(*) from sale where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: sale_lines_add_up :one
-- Every sale line is quantity times price, less discounts, with the tax of its rate, rounded.
-- not null: checked, broken
with broken as (
    select
        line.sale_id as id,
        line.line_no,
        jsonb_build_object(
            'sale_id', line.sale_id, 'line_no', line.line_no, 'quantity', line.quantity::text,
            'unit_price', line.unit_price::text, 'subtotal', line.subtotal::text,
            'discount', (line.discount + line.sale_discount)::text, 'tax', line.tax::text,
            'total', line.total::text
        ) as details
    from sale_line as line
    left join sale on sale.org_id = :org_id and line.sale_id = sale.id
    where
        line.org_id = :org_id
        and (
            (line.line_count, line.currency, line.prices_include_tax)
            is distinct from (sale.line_count, sale.currency, sale.prices_include_tax)
            or line.line_no not between 1 and line.line_count
            or line.quantity <= 0
            or greatest(line.quantity, line.unit_price, line.total) = 'NaN'
            or line.subtotal <> round(line.quantity * line.unit_price, minor_units(line.currency))
            or line.discount < 0
            or line.sale_discount < 0
            or line.discount + line.sale_discount > line.subtotal
            or line.discount <> round(line.discount, minor_units(line.currency))
            or line.sale_discount <> round(line.sale_discount, minor_units(line.currency))
            or line.unit_price <> round(line.unit_price, minor_units(line.currency))
            or (line.unit_price = line.list_price) <> (line.overridden_by is null)
            or line.tax <> round(
                (line.subtotal - line.discount - line.sale_discount) * line.tax_rate_percent
                / (100 + case when line.prices_include_tax then line.tax_rate_percent else 0 end),
                minor_units(line.currency)
            )
            or line.total <> line.subtotal - line.discount - line.sale_discount
            + case when line.prices_include_tax then 0 else line.tax end
        )
)

select
    (select count(*) from sale_line where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id, line_no limit 1) as example;

-- name: payments_are_a_chain :one
-- The payments of a sale begin at zero, follow each other and end at or below its total; those of
-- the till end at what the sale says was paid, on its date; each went where money goes.
-- not null: checked, broken
with linked as (
    select
        payment.sale_id,
        payment.payment_no,
        payment.paid_before,
        payment.amount,
        payment.paid_after,
        payment.sale_total,
        payment.sale_paid,
        payment.currency,
        payment.account_id,
        payment.received_on,
        lag(payment.payment_no, 1, 0::smallint) over chain as prior_no,
        lag(payment.paid_after, 1, 0::numeric) over chain as prior_paid
    from payment
    where payment.org_id = :org_id
    window chain as (partition by payment.sale_id order by payment.payment_no)
),

broken as (
    select
        linked.sale_id as id,
        linked.payment_no,
        jsonb_build_object(
            'sale_id', linked.sale_id, 'payment_no', linked.payment_no,
            'amount', linked.amount::text, 'paid_before', linked.paid_before::text,
            'paid_after', linked.paid_after::text, 'sale_total', sale.total::text
        ) as details
    from linked
    left join sale on sale.org_id = :org_id and linked.sale_id = sale.id
    left join account on account.org_id = :org_id and linked.account_id = account.id
    where
        (linked.sale_total, linked.sale_paid, linked.currency, linked.currency)
        is distinct from (sale.total, sale.paid, sale.currency, account.currency)
        or account.takes_payments is not true
        or linked.payment_no <> linked.prior_no + 1
        or linked.paid_before <> linked.prior_paid
        or linked.paid_after <> linked.paid_before + linked.amount
        or (linked.amount > 0 and linked.paid_after <= sale.total) is not true
        or linked.amount <> round(linked.amount, minor_units(linked.currency))
        or (linked.paid_before < sale.paid and linked.paid_after > sale.paid)
        or (linked.paid_after <= sale.paid and linked.received_on <> sale.sold_on)
    union all
    select
        sale.id,
        0,
        jsonb_build_object(
            'sale_id', sale.id, 'paid_said', sale.paid::text,
            'paid_found', coalesce(received.paid, 0)::text
        )
    from sale
    left join (
        select
            sale_id,
            max(paid_after) filter (where paid_after <= sale_paid) as paid
        from linked
        group by sale_id
    ) as received on sale.id = received.sale_id
    where sale.org_id = :org_id and sale.paid <> coalesce(received.paid, 0)
)

select
    (select count(*) from linked) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id, payment_no limit 1) as example;

-- name: receivables_follow_sales :one
-- What is owed for a sale is its total less all payments, and nothing once it is void.
-- not null: checked, broken
with later as (
    select
        sale_id,
        sum(amount) as amount
    from payment
    where org_id = :org_id and paid_after > sale_paid
    group by sale_id
),

due as (
    select
        sale.id,
        sale.customer_id,
        sale.currency,
        sale.sold_on,
        sale.total - sale.paid as amount,
        coalesce(later.amount, 0) as settled,
        case
            when void.sale_id is null then 0
            else sale.total - sale.paid - coalesce(later.amount, 0)
        end as cancelled
    from sale
    left join later on sale.id = later.sale_id
    left join sale_void as void on void.org_id = :org_id and sale.id = void.sale_id
    where sale.org_id = :org_id and sale.total > sale.paid
),

owed as (
    select
        sale_id,
        customer_id,
        currency,
        sold_on,
        amount,
        settled,
        cancelled,
        outstanding
    from receivable
    where org_id = :org_id
),

broken as (
    select
        coalesce(due.id, owed.sale_id) as id,
        jsonb_build_object(
            'sale_id', coalesce(due.id, owed.sale_id),
            'outstanding', owed.outstanding::text,
            'due', (due.amount - due.settled - due.cancelled)::text
        ) as details
    from due
    full join owed on due.id = owed.sale_id
    where
        (
            due.customer_id, due.currency, due.sold_on, due.amount, due.settled, due.cancelled,
            due.amount - due.settled - due.cancelled
        ) is distinct from (
            owed.customer_id, owed.currency, owed.sold_on, owed.amount, owed.settled,
            owed.cancelled, owed.outstanding
        )
)

select
    (select count(*) from owed) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: receivables_equal_their_account :one
-- The account of receivables is the sum of what all customers owe.
-- not null: checked, broken
with booked as (
    select coalesce(sum(line.debit - line.credit), 0) as amount
    from account
    inner join journal_line as line on line.org_id = :org_id and account.id = line.account_id
    where account.org_id = :org_id and account.role = 'receivable'
),

owed as (
    select
        count(*) as rows_read,
        coalesce(sum(outstanding), 0) as amount
    from receivable
    where org_id = :org_id
)

select
    owed.rows_read as checked,
    (booked.amount is distinct from owed.amount)::int as broken,
    case when booked.amount is distinct from owed.amount then
        jsonb_build_object(
            'account_balance', booked.amount::text, 'receivables', owed.amount::text
        )::text
    end as example
from booked
cross join owed;

-- name: stock_equals_its_account :one
-- The inventory account is the sum of the values of all stock.
-- not null: checked, broken
with booked as (
    select coalesce(sum(line.debit - line.credit), 0) as amount
    from account
    inner join journal_line as line on line.org_id = :org_id and account.id = line.account_id
    where account.org_id = :org_id and account.role = 'inventory'
),

held as (
    select
        count(*) as rows_read,
        coalesce(sum(value), 0) as amount
    from stock
    where org_id = :org_id
)

select
    held.rows_read as checked,
    (booked.amount is distinct from held.amount)::int as broken,
    case when booked.amount is distinct from held.amount then
        jsonb_build_object(
            'account_balance', booked.amount::text, 'stock_value', held.amount::text
        )::text
    end as example
from booked
cross join held;

-- name: stock_is_its_movements :one
-- Every stock row is the sum of its movements, in quantity and value, and is not below zero.
-- not null: checked, broken
with moved as (
    select
        branch_id,
        product_id,
        sum(quantity) as quantity,
        sum(value) as value,
        min(currency) as currency,
        count(distinct currency) as currencies
    from stock_movement
    where org_id = :org_id
    group by branch_id, product_id
),

held as (
    select
        branch_id,
        product_id,
        currency,
        quantity,
        value
    from stock
    where org_id = :org_id
),

broken as (
    select
        branch_id,
        product_id,
        jsonb_build_object(
            'branch_id', branch_id, 'product_id', product_id,
            'quantity', held.quantity::text, 'moved_quantity', coalesce(moved.quantity, 0)::text,
            'value', held.value::text, 'moved_value', coalesce(moved.value, 0)::text
        ) as details
    from held
    full join moved using (branch_id, product_id)
    where
        held.quantity is distinct from coalesce(moved.quantity, 0)
        or held.value is distinct from coalesce(moved.value, 0)
        or moved.currency <> held.currency
        or moved.currencies > 1
        or held.quantity < 0
        or held.value < 0
        or (held.quantity = 0 and held.value <> 0)
        or greatest(held.quantity, held.value) = 'NaN'
)

select
    (select count(*) from stock_movement where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by branch_id, product_id limit 1) as example;

-- name: stock_was_issued_at_cost :one
-- Every issue took its share of the value that was there before it, and never more than there was.
-- Movements of one stock row are numbered in the order in which they held its lock.
-- not null: checked, broken
with history as (
    select
        id,
        branch_id,
        product_id,
        currency,
        quantity,
        value,
        sum(quantity) over so_far - quantity as on_hand,
        sum(value) over so_far - value as value_on_hand
    from stock_movement
    where org_id = :org_id
    window so_far as (partition by branch_id, product_id order by id)
),

broken as (
    select
        id,
        jsonb_build_object(
            'movement_id', id, 'branch_id', branch_id, 'product_id', product_id,
            'issued', (-quantity)::text, 'on_hand', on_hand::text, 'at', (-value)::text,
            'cost_due', issue_cost(on_hand, value_on_hand, -quantity, currency)::text
        ) as details
    from history
    where
        quantity < 0
        and (
            -quantity > on_hand
            or -value is distinct from issue_cost(on_hand, value_on_hand, -quantity, currency)
        )
)

select
    (select count(*) from history where quantity < 0) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: movements_are_their_documents :one
-- Sales took out exactly their lines, receipts brought in exactly theirs, and voids what the sale
-- took: branch, product, quantity and value.
-- not null: checked, broken
with due as (
    select
        'sale' as document,
        sale.id as document_id,
        sale.branch_id,
        line.product_id,
        -sum(line.quantity) as quantity,
        null::numeric as value
    from sale
    inner join sale_line as line on line.org_id = :org_id and sale.id = line.sale_id
    where sale.org_id = :org_id
    group by sale.id, sale.branch_id, line.product_id
    union all
    select
        'goods_receipt',
        receipt.id,
        receipt.branch_id,
        line.product_id,
        sum(line.quantity),
        sum(line.value)
    from goods_receipt as receipt
    inner join goods_receipt_line as line
        on line.org_id = :org_id and receipt.id = line.receipt_id
    where receipt.org_id = :org_id
    group by receipt.id, receipt.branch_id, line.product_id
    union all
    select
        'void',
        void.sale_id,
        sold.branch_id,
        sold.product_id,
        -sum(sold.quantity),
        -sum(sold.value)
    from sale_void as void
    inner join stock_movement as sold on sold.org_id = :org_id and void.sale_id = sold.sale_id
    where void.org_id = :org_id
    group by void.sale_id, sold.branch_id, sold.product_id
),

moved as (
    select
        case
            when sale_id is not null then 'sale'
            when void_sale_id is not null then 'void'
            else 'goods_receipt'
        end as document,
        coalesce(sale_id, void_sale_id, goods_receipt_id) as document_id,
        branch_id,
        product_id,
        sum(quantity) as quantity,
        sum(value) as value,
        max(num_nonnulls(sale_id, void_sale_id, goods_receipt_id)) as documents
    from stock_movement
    where org_id = :org_id
    group by 1, 2, 3, 4
),

broken as (
    select
        document,
        document_id,
        product_id,
        jsonb_build_object(
            'document', document, 'document_id', document_id, 'branch_id', branch_id,
            'product_id', product_id, 'quantity', moved.quantity::text,
            'quantity_due', due.quantity::text, 'value', moved.value::text,
            'value_due', due.value::text
        ) as details
    from due
    full join moved using (document, document_id, branch_id, product_id)
    where
        due.quantity is distinct from moved.quantity
        or (document <> 'sale' and due.value is distinct from moved.value)
        or moved.documents <> 1
)

select
    (select count(*) from moved) as checked,
    (select count(*) from broken) as broken,
    (
        select details::text from broken
        order by document, document_id, product_id limit 1
    ) as example;

-- name: receipts_are_the_sum_of_their_lines :one
-- Every goods receipt has all its lines and their sum; every line is quantity times cost.
-- not null: checked, broken
with summed as (
    select
        receipt_id,
        count(*) as line_count,
        sum(value) as total,
        bool_or(
            value is distinct from round(quantity * unit_cost, minor_units(currency))
            or quantity <= 0
            or greatest(quantity, unit_cost, value) = 'NaN'
            or line_no not between 1 and line_count
        ) as is_off
    from goods_receipt_line
    where org_id = :org_id
    group by receipt_id
),

broken as (
    select
        receipt.id,
        jsonb_build_object(
            'goods_receipt_id', receipt.id, 'total', receipt.total::text,
            'lines_total', summed.total::text, 'lines_said', receipt.line_count,
            'lines_found', coalesce(summed.line_count, 0),
            'lines_add_up', not coalesce(summed.is_off, false)
        ) as details
    from goods_receipt as receipt
    left join summed on receipt.id = summed.receipt_id
    left join organisation on organisation.org_id = :org_id
    where
        receipt.org_id = :org_id
        and (
            receipt.line_count is distinct from summed.line_count
            or receipt.total is distinct from summed.total
            or receipt.currency is distinct from organisation.base_currency
            or summed.is_off
        )
)

select
    (select count(*) from goods_receipt where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: sales_match_their_entries :one
-- The entry of a sale debits its payments, receivable, discounts and cost of goods, credits
-- revenue, tax and inventory, one line an account, and has its date; a sale of nothing has none.
-- not null: checked, broken
with goods as (
    select
        sale_id,
        -sum(value) as cost
    from stock_movement
    where org_id = :org_id and sale_id is not null
    group by sale_id
),

side as (
    select
        sale_id,
        account_id,
        amount,
        0 as line_count,
        false as is_misdated
    from payment
    where org_id = :org_id and paid_after <= sale_paid
    union all
    select
        sale.id,
        account.id,
        due.amount,
        0,
        false
    from sale
    left join goods on sale.id = goods.sale_id
    cross join lateral (
        values
        ('receivable', sale.total - sale.paid),
        ('discounts', sale.discount),
        ('revenue', sale.tax - sale.total - sale.discount),
        ('tax_payable', -sale.tax),
        ('cogs', goods.cost),
        ('inventory', -goods.cost)
    ) as due (role, amount)
    left join account on account.org_id = :org_id and due.role = account.role
    where sale.org_id = :org_id and due.amount <> 0
    union all
    select
        entry.sale_id,
        line.account_id,
        line.credit - line.debit,
        1,
        entry.posted_on is distinct from sale.sold_on
    from journal_entry as entry
    inner join journal_line as line on line.org_id = :org_id and entry.id = line.entry_id
    left join sale on sale.org_id = :org_id and entry.sale_id = sale.id
    where entry.org_id = :org_id and entry.sale_id is not null
),

broken as (
    select
        sale_id,
        account_id,
        jsonb_build_object(
            'sale_id', sale_id, 'account_id', account_id, 'off', sum(amount)::text,
            'lines', sum(line_count), 'is_dated_like_the_sale', not bool_or(is_misdated)
        ) as details
    from side
    group by sale_id, account_id
    having sum(amount) <> 0 or sum(line_count) > 1 or bool_or(is_misdated)
)

select
    (select count(*) from sale where org_id = :org_id) as checked,
    (select count(distinct sale_id) from broken) as broken,
    (select details::text from broken order by sale_id, account_id limit 1) as example;

-- name: payments_match_their_entries :one
-- The entry of a later payment debits its account and credits receivables, on its date; a payment
-- at the till has none of its own.
-- not null: checked, broken
with side as (
    select
        payment.id as payment_id,
        due.account_id,
        due.amount,
        0 as line_count,
        false as is_misdated
    from payment
    left join account on account.org_id = :org_id and account.role = 'receivable'
    cross join lateral (
        values (payment.account_id, payment.amount), (account.id, -payment.amount)
    ) as due (account_id, amount)
    where payment.org_id = :org_id and payment.paid_after > payment.sale_paid
    union all
    select
        entry.payment_id,
        line.account_id,
        line.credit - line.debit,
        1,
        entry.posted_on is distinct from payment.received_on
    from journal_entry as entry
    inner join journal_line as line on line.org_id = :org_id and entry.id = line.entry_id
    left join payment on payment.org_id = :org_id and entry.payment_id = payment.id
    where entry.org_id = :org_id and entry.payment_id is not null
),

broken as (
    select
        payment_id,
        account_id,
        jsonb_build_object(
            'payment_id', payment_id, 'account_id', account_id, 'off', sum(amount)::text,
            'lines', sum(line_count), 'is_dated_like_the_payment', not bool_or(is_misdated)
        ) as details
    from side
    group by payment_id, account_id
    having sum(amount) <> 0 or sum(line_count) > 1 or bool_or(is_misdated)
)

select
    (
        select count(*) from payment where org_id = :org_id and paid_after > sale_paid
    ) as checked,
    (select count(distinct payment_id) from broken) as broken,
    (select details::text from broken order by payment_id, account_id limit 1) as example;

-- name: voids_match_their_entries :one
-- The entry of a void takes back the entries of the sale and of its payments, on its date.
-- not null: checked, broken
with entry as (
    select
        journal_entry.id,
        journal_entry.posted_on,
        journal_entry.void_sale_id,
        coalesce(
            journal_entry.sale_id, journal_entry.void_sale_id, payment.sale_id
        ) as sale_id
    from journal_entry
    left join payment on payment.org_id = :org_id and journal_entry.payment_id = payment.id
    where
        journal_entry.org_id = :org_id
        and journal_entry.kind in ('SALE', 'PAYMENT', 'VOID')
),

broken as (
    select
        entry.sale_id,
        line.account_id,
        jsonb_build_object(
            'sale_id', entry.sale_id, 'account_id', line.account_id,
            'off', sum(line.debit - line.credit)::text,
            'is_void', bool_and(void.sale_id is not null)
        ) as details
    from entry
    inner join journal_line as line on line.org_id = :org_id and entry.id = line.entry_id
    left join sale_void as void on void.org_id = :org_id and entry.sale_id = void.sale_id
    where void.sale_id is not null or entry.void_sale_id is not null
    group by entry.sale_id, line.account_id
    having
        sum(line.debit - line.credit) <> 0
        or count(*) filter (where entry.void_sale_id is not null) > 1
        or bool_or(
            entry.void_sale_id is not null and entry.posted_on is distinct from void.voided_on
        )
)

select
    (select count(*) from sale_void where org_id = :org_id) as checked,
    (select count(distinct sale_id) from broken) as broken,
    (select details::text from broken order by sale_id, account_id limit 1) as example;

-- name: receipts_match_their_entries :one
-- The entry of a goods receipt debits inventory and credits payables, or opening balance equity.
-- not null: checked, broken
with side as (
    select
        receipt.id as receipt_id,
        account.id as account_id,
        due.amount,
        0 as line_count,
        false as is_misdated
    from goods_receipt as receipt
    cross join lateral (
        values
        ('inventory', receipt.total),
        (
            case receipt.kind when 'OPENING' then 'opening_equity' else 'payables' end,
            -receipt.total
        )
    ) as due (role, amount)
    left join account on account.org_id = :org_id and due.role = account.role
    where receipt.org_id = :org_id
    union all
    select
        entry.goods_receipt_id,
        line.account_id,
        line.credit - line.debit,
        1,
        entry.posted_on is distinct from receipt.received_on
    from journal_entry as entry
    inner join journal_line as line on line.org_id = :org_id and entry.id = line.entry_id
    left join goods_receipt as receipt
        on receipt.org_id = :org_id and entry.goods_receipt_id = receipt.id
    where entry.org_id = :org_id and entry.goods_receipt_id is not null
),

broken as (
    select
        receipt_id,
        account_id,
        jsonb_build_object(
            'goods_receipt_id', receipt_id, 'account_id', account_id, 'off', sum(amount)::text,
            'lines', sum(line_count), 'is_dated_like_the_receipt', not bool_or(is_misdated)
        ) as details
    from side
    group by receipt_id, account_id
    having sum(amount) <> 0 or sum(line_count) > 1 or bool_or(is_misdated)
)

select
    (select count(*) from goods_receipt where org_id = :org_id) as checked,
    (select count(distinct receipt_id) from broken) as broken,
    (select details::text from broken order by receipt_id, account_id limit 1) as example;

-- name: receipt_numbers_have_no_holes :one
-- Every till's receipts are numbered from 1 to its count, each number once.
-- not null: checked, broken
with series as (
    select
        till_id,
        count(*) as receipts,
        count(distinct receipt_no) as numbers,
        min(receipt_no) as first_no,
        max(receipt_no) as last_no
    from sale
    where org_id = :org_id
    group by till_id
),

broken as (
    select
        till.id,
        jsonb_build_object(
            'till_id', till.id, 'receipt_count', till.receipt_count,
            'receipts', coalesce(series.receipts, 0), 'first', series.first_no,
            'last', series.last_no
        ) as details
    from till
    left join series on till.id = series.till_id
    where
        till.org_id = :org_id
        and (
            till.receipt_count <> coalesce(series.receipts, 0)
            or series.first_no <> 1
            or series.last_no <> series.receipts
            or series.numbers <> series.receipts
        )
)

select
    (select count(*) from sale where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: snapshots_are_the_journal :one
-- The daily snapshots are the sums of the lines of the entries that they reach.
-- not null: checked, broken
with summed as (
    select
        line.account_id,
        entry.posted_on,
        sum(line.debit) as debit,
        sum(line.credit) as credit
    from journal_entry as entry
    inner join journal_line as line on line.org_id = :org_id and entry.id = line.entry_id
    where
        entry.org_id = :org_id
        and entry.id <= (
            select through_entry_id from balance_roll_up
            where org_id = :org_id
        )
    group by line.account_id, entry.posted_on
),

snapshot as (
    select
        account_id,
        posted_on,
        debit,
        credit
    from account_day
    where org_id = :org_id
),

broken as (
    select
        account_id,
        posted_on,
        jsonb_build_object(
            'account_id', account_id, 'posted_on', posted_on,
            'snapshot_debit', snapshot.debit::text, 'journal_debit', summed.debit::text,
            'snapshot_credit', snapshot.credit::text, 'journal_credit', summed.credit::text
        ) as details
    from snapshot
    full join summed using (account_id, posted_on)
    where (snapshot.debit, snapshot.credit) is distinct from (summed.debit, summed.credit)
)

select
    (select count(*) from snapshot) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by account_id, posted_on limit 1) as example;

-- name: users_sign_in_where_they_belong :one
-- Every user's address leads to that user of this organisation.
-- Only who may ask where an address signs in can check it: the application and the owner.
-- not null: checked, broken
with broken as (
    select
        app_user.id,
        jsonb_build_object(
            'user_id', app_user.id, 'leads_to_organisation', known.org_id,
            'leads_to_user', known.user_id
        ) as details
    from app_user
    left join lateral find_sign_in(app_user.email) as known on true
    where
        app_user.org_id = :org_id
        and (known.org_id, known.user_id) is distinct from (app_user.org_id, app_user.id)
)

select
    (select count(*) from app_user where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: may_ask_for_addresses :value
-- Say whether this role can check where addresses sign in.
-- not null: may
select has_function_privilege('find_sign_in(text)', 'execute') as may;

-- name: audit_archives_are_a_chain :one
-- The archives of the audit log are numbered without holes and chained to each other; no row that
-- one of them has is in the log as well; and the log still says of the latest that it was made.
-- not null: checked, broken
with chained as (
    select
        archive_no,
        month,
        first_id,
        last_id,
        chain,
        lines_sha256,
        lag(archive_no, 1, 0::bigint) over by_number as no_before,
        lag(chain, 1, '') over by_number as chain_before,
        lead(archive_no) over by_number is null as is_latest
    from audit_archive
    where org_id = :org_id
    window by_number as (order by archive_no)
),

broken as (
    select
        archive.archive_no as id,
        jsonb_build_object(
            'archive_no', archive.archive_no, 'month', archive.month,
            'first_id', archive.first_id, 'last_id', archive.last_id
        ) as details
    from chained as archive
    where
        archive.archive_no <> archive.no_before + 1
        or archive.chain <> sha256(archive.chain_before || archive.lines_sha256)
        or exists (
            select from audit_log as log
            where
                log.org_id = :org_id and log.id between archive.first_id and archive.last_id
                and log.created_at >= archive.month::timestamp at time zone 'UTC'
                and log.created_at < (archive.month + interval '1 month') at time zone 'UTC'
        )
        or (
            archive.is_latest and not exists (
                select from audit_log as log
                where
                    log.org_id = :org_id and log.entity_type = 'audit_archive'
                    and log.entity_id = archive.archive_no and log.action = 'audit.archive'
                    and log.after ->> 'chain' = encode(archive.chain, 'hex')
            )
        )
    union all
    -- The latest archive taken away: the log names one that there is not.
    select
        log.entity_id as id,
        jsonb_build_object('archive_no', log.entity_id, 'is', 'missing') as details
    from audit_log as log
    where
        log.org_id = :org_id and log.entity_type = 'audit_archive'
        and log.action = 'audit.archive'
        and not exists (
            select from audit_archive as archive
            where archive.org_id = :org_id and archive.archive_no = log.entity_id
        )
)

select
    (select count(*) from audit_archive where org_id = :org_id) as checked,
    (select count(*) from broken) as broken,
    (select details::text from broken order by id limit 1) as example;

-- name: list_guards :many
-- List what guards the books in this database, one row each, by kind and name: constraints, unique
-- indexes, triggers, row security, functions, rights, and what the roles are. What sql/guards.json
-- holds is this list for a database fresh from the migrations; the same on PostgreSQL 15 to 18.
-- That another role may read is left to the operator, as long as row security holds for it.
-- not null: kind, name, definition
with ours as (
    select
        oid,
        relname,
        relrowsecurity,
        relforcerowsecurity,
        relowner,
        relacl
    from pg_class
    where
        relkind = 'r' and relnamespace = 'public'::regnamespace and relname !~ '^_?yoyo'
)

select
    'constraint' as kind,
    ours.relname || '.' || con.conname as name,
    pg_get_constraintdef(con.oid) || case when con.convalidated then '' else ' NOT VALID' end
        as definition
from ours
inner join pg_constraint as con on ours.oid = con.conrelid
where con.contype in ('c', 'f', 'p', 'u', 'x')
union all
select
    'not null',
    ours.relname || '.' || att.attname,
    'NOT NULL'
from ours
inner join pg_attribute as att on ours.oid = att.attrelid
where att.attnotnull and att.attnum > 0 and not att.attisdropped
union all
select
    'unique index',
    ours.relname || '.' || index_class.relname,
    pg_get_indexdef(ind.indexrelid) || case when ind.indisvalid then '' else ' INVALID' end
from ours
inner join pg_index as ind on ours.oid = ind.indrelid and ind.indisunique
inner join pg_class as index_class on ind.indexrelid = index_class.oid
union all
select
    'trigger',
    ours.relname || '.' || trg.tgname,
    pg_get_triggerdef(trg.oid)
    || case trg.tgenabled when 'O' then '' else ' DISABLED ' || trg.tgenabled::text end
from ours
inner join pg_trigger as trg on ours.oid = trg.tgrelid and not trg.tgisinternal
union all
-- The triggers behind foreign keys have numbers for names; only a disabled one is news.
select
    'trigger',
    ours.relname || '.' || con.conname || ' ' || trg.tgtype::text,
    'of the foreign key, DISABLED ' || trg.tgenabled::text
from ours
inner join pg_trigger as trg on ours.oid = trg.tgrelid and trg.tgisinternal
left join pg_constraint as con on trg.tgconstraint = con.oid
where trg.tgenabled <> 'O'
union all
select
    'row security',
    relname,
    case
        when relrowsecurity and relforcerowsecurity then 'FORCED'
        when relrowsecurity then 'ENABLED, NOT FORCED'
        else 'OFF'
    end
from ours
union all
select
    'policy',
    ours.relname || '.' || pol.polname,
    concat_ws(
        ' ', case when pol.polpermissive then 'PERMISSIVE' else 'RESTRICTIVE' end, pol.polcmd::text,
        array(
            select coalesce(role.rolname, 'public')
            from unnest(pol.polroles) as member (oid)
            left join pg_roles as role on member.oid = role.oid
            order by 1
        ),
        'USING', pg_get_expr(pol.polqual, pol.polrelid), 'CHECK',
        pg_get_expr(pol.polwithcheck, pol.polrelid)
    )
from ours
inner join pg_policy as pol on ours.oid = pol.polrelid
union all
select
    'owner',
    relname,
    pg_get_userbyid(relowner)
from ours
union all
select
    'right',
    ours.relname || ' ' || coalesce(role.rolname, 'public'),
    string_agg(acl.privilege_type, ', ' order by acl.privilege_type)
from ours
cross join aclexplode(ours.relacl) as acl
left join pg_roles as role on acl.grantee = role.oid
where
    acl.grantee <> ours.relowner and acl.privilege_type <> 'MAINTAIN'
    and (acl.privilege_type <> 'SELECT' or coalesce(role.rolname, 'sofinance_') ~ '^sofinance_')
group by ours.relname, role.rolname
union all
select
    'right',
    ours.relname || ' (columns) ' || coalesce(role.rolname, 'public'),
    string_agg(
        att.attname || ' ' || acl.privilege_type, ', ' order by att.attname, acl.privilege_type
    )
from ours
inner join pg_attribute as att on ours.oid = att.attrelid and not att.attisdropped
cross join aclexplode(att.attacl) as acl
left join pg_roles as role on acl.grantee = role.oid
where
    acl.grantee <> ours.relowner
    and (acl.privilege_type <> 'SELECT' or coalesce(role.rolname, 'sofinance_') ~ '^sofinance_')
group by ours.relname, role.rolname
union all
select
    'function',
    fun.oid::regprocedure::text,
    concat_ws(
        ' ', case when fun.prosecdef then 'SECURITY DEFINER' end,
        array_to_string(fun.proconfig, ', '),
        'md5', md5(fun.prosrc || coalesce(pg_get_function_sqlbody(fun.oid), '')),
        'execute by', coalesce((
            select string_agg(coalesce(role.rolname, 'public'), ', ' order by role.rolname)
            from aclexplode(coalesce(fun.proacl, acldefault('f', fun.proowner))) as acl
            left join pg_roles as role on acl.grantee = role.oid
            where acl.grantee <> fun.proowner
        ), 'nobody')
    )
from pg_proc as fun
where
    fun.pronamespace = 'public'::regnamespace
    and not exists (
        select from pg_depend
        where
            pg_depend.classid = 'pg_proc'::regclass and pg_depend.objid = fun.oid
            and pg_depend.deptype = 'e'
    )
union all
select
    'role',
    rolname,
    concat_ws(
        ' ', case when rolsuper then 'SUPERUSER' end, case when rolbypassrls then 'BYPASSRLS' end,
        case when rolcreaterole then 'CREATEROLE' end, case when rolcreatedb then 'CREATEDB' end,
        case when rolreplication then 'REPLICATION' end,
        'member of', coalesce((
            select string_agg(parent.rolname, ', ' order by parent.rolname)
            from pg_auth_members as member
            inner join pg_roles as parent on member.roleid = parent.oid
            where
                member.member = pg_roles.oid
                and (parent.rolsuper or parent.rolname ~ '^(sofinance|pg)_')
        ), 'nothing')
    )
from pg_roles
where rolname in ('sofinance_app', 'sofinance_readonly')
union all
-- Also what foreign keys say, so that links are checked where one was dropped.
select
    'link',
    ours.relname || '.' || con.conname,
    json_build_object(
        'table', ours.relname, 'columns', child.columns, 'other_table', parent_class.relname,
        'other_columns', parent.columns
    )::text
from ours
inner join pg_constraint as con on ours.oid = con.conrelid and con.contype = 'f'
inner join pg_class as parent_class on con.confrelid = parent_class.oid
cross join lateral (
    select json_agg(att.attname order by key.place) as columns
    from unnest(con.conkey) with ordinality as key (number, place)
    inner join pg_attribute as att on con.conrelid = att.attrelid and key.number = att.attnum
) as child
cross join lateral (
    select json_agg(att.attname order by key.place) as columns
    from unnest(con.confkey) with ordinality as key (number, place)
    inner join pg_attribute as att on con.confrelid = att.attrelid and key.number = att.attnum
) as parent
order by kind, name;
