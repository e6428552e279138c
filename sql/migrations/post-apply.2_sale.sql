-- The hottest postings, as functions: one round trip each, and every statement inside sees the
-- rows that the locks before it waited for. They run with the caller's rights, so every
-- constraint, grant and policy holds for them as for anybody.
-- Locks, in this order: stock rows by product, the till; at commit the customer of a credit sale.
set local role sofinance_owner;

create or replace function payment_account_role(p_method text) returns text
language sql immutable parallel safe
return case p_method
    when 'CASH' then 'cash'
    when 'CARD' then 'card_clearing'
    when 'BANK_TRANSFER' then 'bank'
    when 'CHEQUE' then 'bank'
    when 'MOBILE_MONEY' then 'mobile_money'
end;
comment on function payment_account_role(text) is
'The role of the account that receives a method of payment, where the client names no account.';
grant execute on function payment_account_role(text) to sofinance_app;

create or replace function payment_type(p_total numeric, p_paid numeric) returns text
language sql immutable parallel safe
return case when p_paid >= p_total then 'FULL' when p_paid > 0 then 'PARTIAL' else 'UNPAID' end;
comment on function payment_type(numeric, numeric) is
'How far a sale is paid: FULL, PARTIAL or UNPAID.';
grant execute on function payment_type(numeric, numeric) to sofinance_app, sofinance_readonly;

create or replace function post_sale(
    p_org_id bigint,
    p_user_id bigint,
    p_branch_id bigint,
    p_till_id bigint,
    p_customer_id bigint,
    p_client_sale_id uuid,
    p_sold_on date,
    p_till_at timestamptz,
    p_notes text,
    p_discount numeric,
    p_may_override boolean,
    p_product_ids bigint[],
    p_quantities numeric[],
    p_unit_prices numeric[],
    p_discounts numeric[],
    p_methods text[],
    p_currencies text[],
    p_account_ids bigint[],
    p_amounts numeric[],
    p_references text[]
) returns table (
    id bigint, branch_id bigint, branch_name text, till_id bigint, till_name text,
    receipt_no bigint, client_sale_id uuid, customer_id bigint, customer_name text,
    cashier_id bigint, cashier_name text, currency text, prices_include_tax boolean,
    items_count integer, subtotal numeric, discount numeric, tax numeric, total numeric,
    paid_amount numeric, outstanding_amount numeric, payment_type text, status text,
    sold_on date, sold_at timestamptz, till_at timestamptz, notes text, entry_id bigint
)
language plpgsql as $$
#variable_conflict use_column
declare
    place record;       -- branch, till, organisation, and the names on the receipt
    basket record;      -- the priced lines, as arrays
    money record;       -- the totals
    goods record;       -- the locked stock, as arrays
    business_date date;
    decimals integer;
    new_sale_id bigint;
    new_entry_id bigint;
    new_receipt_no bigint;
    entry_lines record;
begin
    select
        till.id as till_id, till.name as till_name, branch.name as branch_name, branch.time_zone,
        org.base_currency as currency, org.prices_include_tax,
        cashier.first_name || ' ' || cashier.last_name as cashier_name,
        customer.name as customer_name
    into place
    from branch
    join organisation as org on org.org_id = branch.org_id
    join till on till.org_id = branch.org_id and till.branch_id = branch.id
    join app_user as cashier on cashier.org_id = branch.org_id and cashier.id = p_user_id
    left join customer on customer.org_id = branch.org_id and customer.id = p_customer_id
    where branch.org_id = p_org_id and branch.id = p_branch_id and branch.is_active
        and till.is_active and (p_till_id is null or till.id = p_till_id)
    order by till.id
    limit 1;
    if not found then
        raise exception using
            errcode = 'foreign_key_violation', constraint = 'sale_till_known', table = 'sale',
            message = 'no such active till in an active branch',
            detail = jsonb_build_object('branch_id', p_branch_id, 'till_id', p_till_id)::text;
    end if;

    -- Before everything else: a till that sends a sale again must read that it is posted, not that
    -- the goods it sold are gone. Two at once meet at the constraint itself.
    if p_client_sale_id is not null then
        select id into new_sale_id
        from sale where org_id = p_org_id and client_sale_id = p_client_sale_id;
        if found then
            raise exception using
                errcode = 'unique_violation', constraint = 'sale_client_sale_taken',
                table = 'sale', message = 'posted already',
                detail = jsonb_build_object('sale_id', new_sale_id)::text;
        end if;
    end if;

    decimals := minor_units(place.currency);
    business_date := coalesce(p_sold_on, (now() at time zone place.time_zone)::date);

    -- Price every line from the catalogue; an asked price that differs needs the permission.
    -- The sale's discount is shared by running totals, so that no cent is lost or made.
    with line as (
        select
            asked.line_no, asked.product_id, asked.quantity, asked.discount, product.price,
            coalesce(asked.unit_price, product.price) as unit_price,
            round(asked.quantity * coalesce(asked.unit_price, product.price), decimals) as subtotal,
            product.is_active, tax_code.code as tax_code, tax_code.rate_percent
        from unnest(p_product_ids, p_quantities, p_unit_prices, p_discounts) with ordinality
            as asked (product_id, quantity, unit_price, discount, line_no)
        left join product on product.org_id = p_org_id and product.id = asked.product_id
        left join tax_code on tax_code.org_id = p_org_id and tax_code.id = product.tax_code_id
    ),

    shared as (
        select
            line.*,
            case when p_discount = 0 then 0 else
                round(p_discount * sum(subtotal - discount) over so_far
                    / nullif(sum(subtotal - discount) over (), 0), decimals)
                - round(p_discount * (sum(subtotal - discount) over so_far - subtotal + discount)
                    / nullif(sum(subtotal - discount) over (), 0), decimals)
            end as sale_discount
        from line
        window so_far as (order by line_no)
    ),

    taxed as (
        select
            shared.*,
            round((subtotal - discount - sale_discount) * rate_percent / (
                100 + case when place.prices_include_tax then rate_percent else 0 end
            ), decimals) as tax
        from shared
    )

    select
        array_agg(unit_price order by line_no) as unit_prices,
        array_agg(price order by line_no) as list_prices,
        array_agg(subtotal order by line_no) as subtotals,
        array_agg(sale_discount order by line_no) as sale_discounts,
        array_agg(tax_code order by line_no) as tax_codes,
        array_agg(rate_percent order by line_no) as rates,
        array_agg(tax order by line_no) as taxes,
        sum(subtotal) as subtotal,
        sum(subtotal - discount) as undiscounted,
        sum(discount + sale_discount) as discount,
        sum(tax) as tax,
        array_agg(product_id order by line_no) filter (where is_active is not true) as unsellable,
        array_agg(product_id order by line_no) filter (where unit_price <> price) as overridden
    into basket
    from taxed;

    if basket.unsellable is not null then
        raise exception using
            errcode = 'foreign_key_violation', constraint = 'sale_line_product_known',
            table = 'sale_line', message = 'unknown or inactive product',
            detail = jsonb_build_object('product_ids', basket.unsellable)::text;
    end if;
    if basket.overridden is not null and not p_may_override then
        raise exception using
            errcode = 'check_violation', constraint = 'sale_line_price_override_allowed',
            table = 'sale_line', message = 'another price than the shelf price',
            detail = jsonb_build_object('product_ids', basket.overridden)::text;
    end if;
    if p_discount <> round(p_discount, decimals) then
        raise exception using
            errcode = 'check_violation', constraint = 'sale_in_minor_units', table = 'sale',
            message = 'a discount of a part of a cent';
    end if;
    if basket.discount > basket.subtotal or (p_discount > 0 and basket.undiscounted = 0) then
        raise exception using
            errcode = 'check_violation', constraint = 'sale_discount_within_subtotal',
            table = 'sale', message = 'a discount above what it is given on',
            detail = jsonb_build_object('subtotal', round(basket.subtotal, decimals)::text)::text;
    end if;

    select
        basket.subtotal - basket.discount
        + case when place.prices_include_tax then 0 else basket.tax end as total,
        coalesce(sum(amount), 0) as paid
    into money
    from unnest(p_amounts) as amount;
    if money.paid > money.total then
        raise exception using
            errcode = 'check_violation', constraint = 'payment_within_total', table = 'payment',
            message = 'paid more than the total',
            detail = jsonb_build_object(
                'total', round(money.total, decimals)::text, 'paid', money.paid::text
            )::text;
    end if;

    -- Lock what is sold, in the order of the products; a product listed twice is added up first.
    select
        array_agg(product_id order by product_id) as product_ids,
        array_agg(quantity order by product_id) as quantities,
        array_agg(issue_cost(on_hand, value, quantity, place.currency) order by product_id)
            as costs,
        sum(issue_cost(on_hand, value, quantity, place.currency)) as cost,
        jsonb_agg(jsonb_build_object(
            'product_id', product_id, 'available', trim_scale(coalesce(on_hand, 0))::text,
            'required', trim_scale(quantity)::text
        ) order by product_id) filter (where on_hand is null or on_hand < quantity) as short
    into goods
    from (
        select wanted.product_id, wanted.quantity, stock.quantity as on_hand, stock.value
        from (
            select product_id, sum(quantity) as quantity
            from unnest(p_product_ids, p_quantities) as asked (product_id, quantity)
            group by product_id
            order by product_id  -- here, or rows would be locked in the order of a hash
        ) as wanted
        left join lateral (
            select quantity, value from stock
            where org_id = p_org_id and branch_id = p_branch_id
                and product_id = wanted.product_id
            for no key update
        ) as stock on true
        order by wanted.product_id
    ) as locked;
    if goods.short is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'stock_not_negative', table = 'stock',
            message = 'not enough stock',
            detail = jsonb_build_object('lines', goods.short)::text;
    end if;

    -- The sale itself counts on its till: see sale_counts_on_its_till.
    select receipt_count + 1 into new_receipt_no
    from till where org_id = p_org_id and id = place.till_id
    for no key update;

    insert into sale (
        org_id, branch_id, till_id, receipt_no, client_sale_id, customer_id, cashier_id, currency,
        prices_include_tax, line_count, subtotal, discount, tax, total, paid, sold_on, till_at,
        notes
    )
    values (
        p_org_id, p_branch_id, place.till_id, new_receipt_no, p_client_sale_id, p_customer_id,
        p_user_id, place.currency, place.prices_include_tax, cardinality(p_product_ids),
        basket.subtotal, basket.discount, basket.tax, money.total, money.paid, business_date,
        p_till_at, p_notes
    )
    returning id into new_sale_id;

    insert into sale_line (
        org_id, sale_id, line_no, line_count, currency, prices_include_tax, product_id, quantity,
        list_price, unit_price, overridden_by, subtotal, discount, sale_discount, tax_code,
        tax_rate_percent, tax, total
    )
    select
        p_org_id, new_sale_id, line.line_no, cardinality(p_product_ids), place.currency,
        place.prices_include_tax, line.product_id, line.quantity, line.list_price,
        line.unit_price, case when line.unit_price <> line.list_price then p_user_id end,
        line.subtotal, line.discount, line.sale_discount, line.tax_code, line.rate, line.tax,
        line.subtotal - line.discount - line.sale_discount
        + case when place.prices_include_tax then 0 else line.tax end
    from unnest(
            p_product_ids, p_quantities, basket.list_prices, basket.unit_prices,
            basket.subtotals, p_discounts, basket.sale_discounts, basket.tax_codes, basket.rates,
            basket.taxes
        ) with ordinality as line (
            product_id, quantity, list_price, unit_price, subtotal, discount, sale_discount,
            tax_code, rate, tax, line_no
        );

    if money.paid > 0 then
        insert into payment (
            org_id, sale_id, payment_no, currency, sale_total, sale_paid, paid_before, amount,
            method, account_id, reference, received_on, received_by
        )
        select
            p_org_id, new_sale_id, tender.payment_no, coalesce(tender.currency, place.currency),
            money.total, money.paid,
            sum(tender.amount) over (order by tender.payment_no) - tender.amount, tender.amount,
            tender.method, coalesce(tender.account_id, account.id), tender.reference,
            business_date, p_user_id
        from unnest(p_methods, p_currencies, p_account_ids, p_amounts, p_references)
            with ordinality
            as tender (method, currency, account_id, amount, reference, payment_no)
        left join account
            on account.org_id = p_org_id and account.role = payment_account_role(tender.method);
    end if;

    insert into stock_movement (
        org_id, branch_id, product_id, currency, quantity, value, sale_id
    )
    select p_org_id, p_branch_id, taken.product_id, place.currency, -taken.quantity, -taken.cost,
        new_sale_id
    from unnest(goods.product_ids, goods.quantities, goods.costs)
        as taken (product_id, quantity, cost);

    -- The entry: whatever the amounts are, only lines above zero.
    select
        array_agg(account_id) as account_ids, array_agg(greatest(amount, 0)) as debits,
        array_agg(greatest(-amount, 0)) as credits, count(*) as line_count
    into entry_lines
    from (
        select account_id, sum(amount) as amount
        from payment where org_id = p_org_id and sale_id = new_sale_id
        group by account_id
        union all
        select account.id, due.amount
        from (
            values
            ('receivable', money.total - money.paid),
            ('discounts', basket.discount),
            ('revenue', basket.tax - money.total - basket.discount),
            ('tax_payable', -basket.tax),
            ('cogs', goods.cost),
            ('inventory', -goods.cost)
        ) as due (role, amount)
        join account on account.org_id = p_org_id and account.role = due.role
        where due.amount <> 0
    ) as line;

    if entry_lines.line_count > 0 then
        insert into journal_entry (
            org_id, period_id, posted_on, kind, line_count, sale_id, created_by
        )
        values (
            p_org_id,
            open_period(p_org_id, business_date),
            business_date, 'SALE', entry_lines.line_count, new_sale_id, p_user_id
        )
        returning id into new_entry_id;

        insert into journal_line (
            org_id, entry_id, line_no, line_count, account_id, currency, debit, credit
        )
        select
            p_org_id, new_entry_id, line.line_no, entry_lines.line_count, line.account_id,
            place.currency, line.debit, line.credit
        from unnest(entry_lines.account_ids, entry_lines.debits, entry_lines.credits)
            with ordinality as line (account_id, debit, credit, line_no);
    end if;

    return query select
        new_sale_id, p_branch_id, place.branch_name, place.till_id, place.till_name,
        new_receipt_no, p_client_sale_id, p_customer_id, place.customer_name, p_user_id,
        place.cashier_name, place.currency::text, place.prices_include_tax,
        cardinality(p_product_ids), basket.subtotal, basket.discount, basket.tax, money.total,
        money.paid, money.total - money.paid, payment_type(money.total, money.paid), 'COMPLETED',
        business_date, now(), p_till_at, p_notes, new_entry_id;
end
$$;
comment on function post_sale(
    bigint, bigint, bigint, bigint, bigint, uuid, date, timestamptz, text, numeric, boolean,
    bigint[], numeric[], numeric[], numeric[], text[], text[], bigint[], numeric[], text[]
) is
'Posts a sale whole: header, lines, payments, stock, cost of goods, receivable and journal entry.';
grant execute on function post_sale(
    bigint, bigint, bigint, bigint, bigint, uuid, date, timestamptz, text, numeric, boolean,
    bigint[], numeric[], numeric[], numeric[], text[], text[], bigint[], numeric[], text[]
) to sofinance_app;

create or replace function post_payment(
    p_org_id bigint,
    p_user_id bigint,
    p_sale_id bigint,
    p_method text,
    p_account_id bigint,
    p_amount numeric,
    p_currency text,
    p_reference text
) returns table (
    payment_id bigint, sale_id bigint, payment_no integer, method text, account_id bigint,
    currency text, amount numeric, reference text, received_on date, paid_amount numeric,
    outstanding_amount numeric, payment_type text, entry_id bigint
)
language plpgsql as $$
#variable_conflict use_column
declare
    due record;
    business_date date;
    new_payment_id bigint;
    new_entry_id bigint;
    paid_account_id bigint;
begin
    -- Payments of one sale wait for each other here, and only here.
    if not lock_sale(p_sale_id) then
        return;
    end if;

    select
        sale.currency, sale.total, sale.paid, branch.time_zone,
        coalesce(last.payment_no, 0) as payment_no, coalesce(last.paid_after, 0) as paid_so_far,
        exists (
            select from sale_void where org_id = p_org_id and sale_id = p_sale_id
        ) as is_void
    into due
    from sale
    join branch on branch.org_id = sale.org_id and branch.id = sale.branch_id
    left join lateral (
        select payment_no, paid_after from payment
        where org_id = p_org_id and sale_id = p_sale_id
        order by payment_no desc limit 1
    ) as last on true
    where sale.org_id = p_org_id and sale.id = p_sale_id;
    if not found then  -- a sale of a branch that the caller does not have
        return;
    end if;

    if due.is_void then
        raise exception using
            errcode = 'check_violation', constraint = 'payment_sale_not_void', table = 'payment',
            message = 'the sale is void',
            detail = jsonb_build_object('sale_id', p_sale_id)::text;
    end if;
    if due.paid_so_far + p_amount > due.total then
        raise exception using
            errcode = 'check_violation', constraint = 'payment_within_total', table = 'payment',
            message = 'more than is outstanding',
            detail = jsonb_build_object(
                'outstanding', round(
                    due.total - due.paid_so_far, minor_units(due.currency)
                )::text,
                'amount', p_amount::text
            )::text;
    end if;
    business_date := (now() at time zone due.time_zone)::date;
    paid_account_id := coalesce(p_account_id, (
        select id from account where org_id = p_org_id and role = payment_account_role(p_method)
    ));

    insert into payment (
        org_id, sale_id, payment_no, currency, sale_total, sale_paid, paid_before, amount, method,
        account_id, reference, received_on, received_by
    )
    values (
        p_org_id, p_sale_id, due.payment_no + 1, coalesce(p_currency, due.currency), due.total,
        due.paid, due.paid_so_far, p_amount, p_method, paid_account_id, p_reference,
        business_date, p_user_id
    )
    returning id into new_payment_id;

    insert into journal_entry (
        org_id, period_id, posted_on, kind, line_count, payment_id, created_by
    )
    values (
        p_org_id,
        open_period(p_org_id, business_date),
        business_date, 'PAYMENT', 2, new_payment_id, p_user_id
    )
    returning id into new_entry_id;

    insert into journal_line (
        org_id, entry_id, line_no, line_count, account_id, currency, debit, credit
    )
    select p_org_id, new_entry_id, 1, 2, paid_account_id, due.currency, p_amount, 0
    union all
    select p_org_id, new_entry_id, 2, 2, id, due.currency, 0, p_amount
    from account where org_id = p_org_id and role = 'receivable';

    return query select
        new_payment_id, p_sale_id, due.payment_no + 1, p_method, paid_account_id,
        due.currency::text, p_amount, p_reference, business_date, due.paid_so_far + p_amount,
        due.total - due.paid_so_far - p_amount,
        payment_type(due.total, due.paid_so_far + p_amount), new_entry_id;
end
$$;
comment on function post_payment(
    bigint, bigint, bigint, text, bigint, numeric, text, text
) is 'Posts a later payment of a sale: Dr its account, Cr receivable. No row where no such sale.';
grant execute on function post_payment(
    bigint, bigint, bigint, text, bigint, numeric, text, text
) to sofinance_app;

create or replace function void_sale(
    p_org_id bigint,
    p_user_id bigint,
    p_sale_id bigint,
    p_reason text
) returns table (
    sale_id bigint, currency text, total numeric, reason text, voided_on date, voided_by bigint,
    entry_id bigint
)
language plpgsql as $$
#variable_conflict use_column
declare
    voided record;
    lines record;
    new_entry_id bigint;
    business_date date;
begin
    if not lock_sale(p_sale_id) then
        return;
    end if;
    select sale.branch_id, sale.currency, sale.total, branch.time_zone into voided
    from sale
    join branch on branch.org_id = sale.org_id and branch.id = sale.branch_id
    where sale.org_id = p_org_id and sale.id = p_sale_id;
    if not found then  -- a sale of a branch that the caller does not have
        return;
    end if;
    business_date := (now() at time zone voided.time_zone)::date;

    insert into sale_void (org_id, sale_id, reason, voided_on, voided_by)
    values (p_org_id, p_sale_id, p_reason, business_date, p_user_id);

    -- The goods come back at the cost they left with; rows are locked in the order of products.
    perform from stock
    where org_id = p_org_id and branch_id = voided.branch_id and product_id in (
        select product_id from stock_movement where org_id = p_org_id and sale_id = p_sale_id
    )
    order by product_id
    for no key update;

    insert into stock_movement (
        org_id, branch_id, product_id, currency, quantity, value, void_sale_id
    )
    select org_id, branch_id, product_id, currency, -quantity, -value, p_sale_id
    from stock_movement where org_id = p_org_id and sale_id = p_sale_id;

    select
        array_agg(account_id) as account_ids, array_agg(greatest(-amount, 0)) as debits,
        array_agg(greatest(amount, 0)) as credits, count(*) as line_count
    into lines
    from (
        select line.account_id, sum(line.debit - line.credit) as amount
        from (
            -- Not one condition with OR: that would read every entry of the organisation.
            select id from journal_entry where org_id = p_org_id and sale_id = p_sale_id
            union all
            select entry.id
            from payment
            join journal_entry as entry
                on entry.org_id = payment.org_id and entry.payment_id = payment.id
            where payment.org_id = p_org_id and payment.sale_id = p_sale_id
        ) as posted
        join journal_line as line on line.org_id = p_org_id and line.entry_id = posted.id
        group by line.account_id having sum(line.debit - line.credit) <> 0
        order by line.account_id
    ) as net;

    if lines.line_count > 0 then
        insert into journal_entry (
            org_id, period_id, posted_on, kind, line_count, memo, void_sale_id, created_by
        )
        values (
            p_org_id,
            open_period(p_org_id, business_date),
            business_date, 'VOID', lines.line_count, left(p_reason, 500), p_sale_id, p_user_id
        )
        returning id into new_entry_id;

        insert into journal_line (
            org_id, entry_id, line_no, line_count, account_id, currency, debit, credit
        )
        select
            p_org_id, new_entry_id, line.line_no, lines.line_count, line.account_id,
            voided.currency, line.debit, line.credit
        from unnest(lines.account_ids, lines.debits, lines.credits)
            with ordinality as line (account_id, debit, credit, line_no);
    end if;

    return query select
        p_sale_id, voided.currency::text, voided.total, p_reason, business_date, p_user_id,
        new_entry_id;
end
$$;
comment on function void_sale(bigint, bigint, bigint, text) is
'Takes a sale back whole, dated today: goods, payments and books. No row where no such sale.';
grant execute on function void_sale(bigint, bigint, bigint, text) to sofinance_app;
