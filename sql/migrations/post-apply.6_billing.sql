-- Card payments at Stripe: begin a checkout of a sale, and settle what Stripe tells of one. They
-- run with the caller's rights. Locks, in this order: the event, the checkout, the sale.
set local role sofinance_owner;

create or replace function begin_stripe_checkout(
    p_org_id bigint, p_user_id bigint, p_sale_id bigint, p_life_minutes integer
) returns table (
    id bigint, sale_id bigint, token uuid, status text, currency text, amount numeric,
    session_id text, url text, expires_at timestamptz, is_stale boolean, receipt text
)
language plpgsql as $$
#variable_conflict use_column
declare
    due record;
begin
    -- Checkouts of one sale, its payments and its void wait for each other here.
    if not lock_sale(p_sale_id) then
        return;
    end if;
    select
        sale.currency, till.name || '-' || lpad(sale.receipt_no::text, 6, '0') as receipt,
        sale.total - coalesce((
            select max(paid_after) from payment
            where org_id = p_org_id and sale_id = p_sale_id
        ), 0) as amount,
        exists (
            select from sale_void where org_id = p_org_id and sale_id = p_sale_id
        ) as is_void
    into due
    from sale
    join till on till.org_id = sale.org_id and till.id = sale.till_id
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
    -- Nobody can pay there any more: Stripe ended it, and begins none that would end so soon.
    update stripe_checkout set status = 'expired', ended_at = now()
    where
        org_id = p_org_id and sale_id = p_sale_id and status in ('starting', 'open')
        and expires_at <= now() + case status
            when 'starting' then interval '35 minutes' else interval '0' end;
    if due.amount > 0 then
        insert into stripe_checkout (org_id, sale_id, currency, amount, created_by, expires_at)
        values (
            p_org_id, p_sale_id, due.currency, due.amount, p_user_id,
            date_trunc('second', now()) + make_interval(mins => p_life_minutes)
        )
        on conflict (org_id, sale_id) where status in ('starting', 'open') do nothing;
    end if;

    return query select
        checkout.id, checkout.sale_id, checkout.token, checkout.status, checkout.currency::text,
        checkout.amount, checkout.session_id, checkout.url, checkout.expires_at,
        checkout.amount <> due.amount, due.receipt
    from stripe_checkout as checkout
    where
        checkout.org_id = p_org_id and checkout.sale_id = p_sale_id
        and checkout.status in ('starting', 'open');
    if not found then
        raise exception using
            errcode = 'check_violation', constraint = 'stripe_checkout_amount_above_zero',
            table = 'stripe_checkout', message = 'nothing is open',
            detail = jsonb_build_object('sale_id', p_sale_id)::text;
    end if;
end
$$;
comment on function begin_stripe_checkout(bigint, bigint, bigint, integer) is
'Gives the one checkout of a sale that is under way, or begins one for what is open of it. No row
where no such sale; stale where another amount is open by now.';
grant execute on function begin_stripe_checkout(bigint, bigint, bigint, integer)
to sofinance_app;

create or replace function settle_stripe_event(
    p_org_id bigint, p_event_id text, p_outcome text
) returns table (
    status text, is_new boolean, sale_id bigint, payment_no integer, last_error text
)
language plpgsql as $$
#variable_conflict use_column
declare
    told record;
    asked record;
    new_payment_no integer;
    refusal text;
begin
    select status, checkout_id, payment_ref, currency, amount, last_error into told
    from stripe_event where org_id = p_org_id and event_id = p_event_id
    for no key update;
    if not found then
        return;
    end if;
    select id, sale_id, status, created_by, payment_ref into asked
    from stripe_checkout where org_id = p_org_id and id = told.checkout_id
    for no key update;
    -- Another delivery was faster, or somebody tries what is not refused.
    if told.status not in ('processing', 'error') or (told.status = 'error' and p_outcome <> 'retry')
    then
        return query select told.status, false, asked.sale_id, null::integer, told.last_error;
        return;
    end if;

    if p_outcome = 'expired' and asked.status in ('starting', 'open') then
        update stripe_checkout set status = 'expired', ended_at = now()
        where org_id = p_org_id and id = asked.id;
        told.status := 'succeeded';
    elsif p_outcome not in ('paid', 'retry') or told.payment_ref is null
        or (asked.status = 'paid' and asked.payment_ref = told.payment_ref)
    then
        told.status := 'ignored';
    else
        -- What the sale refuses was paid all the same: it is kept, with the rule that refused it.
        begin
            select payment_no into new_payment_no from post_payment(
                p_org_id, asked.created_by, asked.sale_id, 'CARD', null, told.amount,
                told.currency::text, told.payment_ref
            );
            if not found then
                raise exception using
                    errcode = 'foreign_key_violation', constraint = 'stripe_checkout_sale_known';
            end if;
            update stripe_checkout set
                status = 'paid',
                payment_no = new_payment_no,
                payment_ref = told.payment_ref,
                ended_at = now()
            where org_id = p_org_id and id = asked.id;
            set constraints all immediate;
            told.status := 'succeeded';
        exception
            when check_violation or unique_violation or foreign_key_violation
            or exclusion_violation then
                get stacked diagnostics refusal = constraint_name;
                told.status := 'error';
        end;
    end if;

    update stripe_event set
        status = told.status,
        last_error = left(refusal, 100),
        processed_at = now()
    where org_id = p_org_id and event_id = p_event_id;
    return query select
        told.status, true, asked.sale_id,
        case told.status when 'succeeded' then new_payment_no end, refusal;
end
$$;
comment on function settle_stripe_event(bigint, text, text) is
'Posts what Stripe says was paid, once; what the sale refuses becomes an error with the rule''s name,
and is tried again by the outcome retry. Nothing is new where it was done before.';
grant execute on function settle_stripe_event(bigint, text, text) to sofinance_app;
