-- Goods receipts: stock comes in at cost, the books follow in the same statement sequence.
-- Locks the stock rows in the order of the products.
set local role sofinance_owner;

create or replace function receive_goods(
    p_org_id bigint,
    p_user_id bigint,
    p_branch_id bigint,
    p_kind text,
    p_reference text,
    p_supplier_name text,
    p_received_on date,
    p_product_ids bigint[],
    p_quantities numeric[],
    p_unit_costs numeric[]
) returns table (
    id bigint, branch_id bigint, kind text, reference text, supplier_name text, currency text,
    total numeric, line_count integer, received_on date, entry_id bigint
)
language plpgsql as $$
#variable_conflict use_column
declare
    place record;
    business_date date;
    new_receipt_id bigint;
    new_entry_id bigint;
    amount numeric;
begin
    select org.base_currency as currency, branch.time_zone into place
    from branch
    join organisation as org on org.org_id = branch.org_id
    where branch.org_id = p_org_id and branch.id = p_branch_id;
    if not found then
        raise exception using
            errcode = 'foreign_key_violation', constraint = 'goods_receipt_branch_known',
            table = 'goods_receipt', message = 'no such branch';
    end if;
    business_date := coalesce(p_received_on, (now() at time zone place.time_zone)::date);

    select sum(round(quantity * unit_cost, minor_units(place.currency))) into amount
    from unnest(p_quantities, p_unit_costs) as line (quantity, unit_cost);

    insert into stock (org_id, branch_id, product_id, currency)
    select distinct p_org_id, p_branch_id, product_id, place.currency
    from unnest(p_product_ids) as product_id
    order by product_id
    on conflict do nothing;

    perform from stock
    where org_id = p_org_id and branch_id = p_branch_id and product_id = any(p_product_ids)
    order by product_id
    for no key update;

    insert into goods_receipt (
        org_id, branch_id, kind, reference, supplier_name, currency, line_count, total,
        received_on, received_by
    )
    values (
        p_org_id, p_branch_id, p_kind, p_reference, p_supplier_name, place.currency,
        cardinality(p_product_ids), amount, business_date, p_user_id
    )
    returning id into new_receipt_id;

    insert into goods_receipt_line (
        org_id, receipt_id, line_no, line_count, currency, product_id, quantity, unit_cost, value
    )
    select
        p_org_id, new_receipt_id, line_no, cardinality(p_product_ids), place.currency, product_id,
        quantity, unit_cost, round(quantity * unit_cost, minor_units(place.currency))
    from unnest(p_product_ids, p_quantities, p_unit_costs) with ordinality
        as line (product_id, quantity, unit_cost, line_no);

    insert into stock_movement (
        org_id, branch_id, product_id, currency, quantity, value, goods_receipt_id
    )
    select p_org_id, p_branch_id, product_id, place.currency, sum(quantity), sum(value),
        new_receipt_id
    from goods_receipt_line
    where org_id = p_org_id and receipt_id = new_receipt_id
    group by product_id
    order by product_id;

    -- Goods that cost nothing change the stock, but no account.
    if amount > 0 then
        insert into journal_entry (
            org_id, period_id, posted_on, kind, line_count, memo, goods_receipt_id, created_by
        )
        values (
            p_org_id,
            open_period(p_org_id, business_date),
            business_date, 'GOODS_RECEIPT', 2, p_reference, new_receipt_id, p_user_id
        )
        returning id into new_entry_id;

        insert into journal_line (
            org_id, entry_id, line_no, line_count, account_id, currency, debit, credit
        )
        select
            p_org_id, new_entry_id, case account.role when 'inventory' then 1 else 2 end, 2,
            account.id, place.currency,
            case account.role when 'inventory' then amount else 0 end,
            case account.role when 'inventory' then 0 else amount end
        from account
        where account.org_id = p_org_id and account.role in (
            'inventory', case p_kind when 'OPENING' then 'opening_equity' else 'payables' end
        );
    end if;

    return query select
        new_receipt_id, p_branch_id, p_kind, p_reference, p_supplier_name, place.currency::text,
        amount, cardinality(p_product_ids), business_date, new_entry_id;
end
$$;
comment on function receive_goods(
    bigint, bigint, bigint, text, text, text, date, bigint[], numeric[], numeric[]
) is 'Posts a goods receipt: stock at cost, Dr inventory, Cr payables or opening balance equity.';
grant execute on function receive_goods(
    bigint, bigint, bigint, text, text, text, date, bigint[], numeric[], numeric[]
) to sofinance_app;
