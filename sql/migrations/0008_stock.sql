-- Stock per branch and product, its movements, and goods receipts.
-- A stock row is the sum of its movements: only the trigger on stock_movement writes its quantity
-- and value. An issue takes value x issued / quantity, and the last unit takes what is left, so the
-- inventory account equals the sum of stock values exactly.
-- depends: 0007_journal
set local lock_timeout = '4s';
set local role sofinance_owner;

create table stock (
    org_id bigint not null,
    branch_id bigint not null,
    product_id bigint not null,
    currency char(3) not null,
    quantity numeric(14, 3) not null default 0,
    value numeric(20, 4) not null default 0,
    reorder_level numeric(14, 3) not null default 10,
    updated_at timestamptz not null default now(),
    constraint stock_pk primary key (org_id, branch_id, product_id),
    constraint stock_currency_key unique (org_id, branch_id, product_id, currency),
    constraint stock_branch_known foreign key (org_id, branch_id) references branch (org_id, id),
    constraint stock_product_known foreign key (org_id, product_id)
    references product (org_id, id),
    constraint stock_currency_is_base foreign key (org_id, currency)
    references organisation (org_id, base_currency),
    constraint stock_not_negative check (quantity >= 0),
    constraint stock_value_not_negative check (value >= 0),
    constraint stock_value_has_quantity check (quantity > 0 or value = 0),
    constraint stock_reorder_level_not_negative check (reorder_level >= 0),
    constraint stock_amounts_are_numbers check (greatest(quantity, value, reorder_level) < 'NaN')
);
comment on table stock is
'What a branch has of a product: the sum of its movements, in quantity and in value at cost.';
comment on column stock.org_id is 'The organisation.';
comment on column stock.branch_id is 'The branch.';
comment on column stock.product_id is 'The product.';
comment on column stock.currency is 'Currency of value: the organisation''s own.';
comment on column stock.quantity is 'Units on hand.';
comment on column stock.value is 'What they cost in all (moving average).';
comment on column stock.reorder_level is 'At or below this many units the stock is low.';
comment on column stock.updated_at is 'When it last moved (server time).';
comment on constraint stock_pk on stock is 'The branch has a stock row of this product already.';
comment on constraint stock_currency_key on stock is
'Lets a movement name its stock together with its currency.';
comment on constraint stock_branch_known on stock is 'There is no such branch.';
comment on constraint stock_product_known on stock is 'There is no such product.';
comment on constraint stock_currency_is_base on stock is
'Stock is valued in the organisation''s own currency.';
comment on constraint stock_not_negative on stock is 'There is not enough stock.';
comment on constraint stock_value_not_negative on stock is 'A stock value is zero or more.';
comment on constraint stock_value_has_quantity on stock is
'Stock that is used up has no value left.';
comment on constraint stock_reorder_level_not_negative on stock is
'A reorder level is zero or more.';
comment on constraint stock_amounts_are_numbers on stock is
'An amount is a number: NaN would be equal to itself and above all limits.';

create table goods_receipt (
    org_id bigint not null,
    id bigint generated always as identity,
    branch_id bigint not null,
    kind text not null,
    reference text,
    supplier_name text,
    currency char(3) not null,
    line_count smallint not null,
    total numeric(20, 4) not null,
    received_on date not null,
    received_by bigint not null,
    created_at timestamptz not null default now(),
    constraint goods_receipt_pk primary key (org_id, id),
    constraint goods_receipt_slots unique (org_id, id, line_count, currency),
    constraint goods_receipt_branch_known foreign key (org_id, branch_id)
    references branch (org_id, id),
    constraint goods_receipt_user_known foreign key (org_id, received_by)
    references app_user (org_id, id),
    constraint goods_receipt_currency_is_base foreign key (org_id, currency)
    references organisation (org_id, base_currency),
    constraint goods_receipt_kind_known check (kind in ('PURCHASE', 'OPENING')),
    constraint goods_receipt_has_lines check (line_count >= 1),
    constraint goods_receipt_total_not_negative check (total >= 0),
    constraint goods_receipt_total_in_minor_units check (
        min_scale(total) <= minor_units(currency)
    ),
    constraint goods_receipt_amounts_are_numbers check (
        total < 'NaN' and isfinite(received_on)
    ),
    constraint goods_receipt_text_not_long check (
        length(reference) <= 100 and length(supplier_name) <= 200
    )
);
comment on table goods_receipt is
'Goods that came in: Dr inventory, Cr payables (PURCHASE) or opening balance equity (OPENING).';
comment on column goods_receipt.org_id is 'The organisation.';
comment on column goods_receipt.id is 'The receipt.';
comment on column goods_receipt.branch_id is 'The branch that took the goods in.';
comment on column goods_receipt.kind is 'PURCHASE, or OPENING for the first count of a new shop.';
comment on column goods_receipt.reference is 'Delivery note or invoice number.';
comment on column goods_receipt.supplier_name is 'Who delivered.';
comment on column goods_receipt.currency is 'Currency of the amounts: the organisation''s own.';
comment on column goods_receipt.line_count is 'How many lines it has: as many slots, all filled.';
comment on column goods_receipt.total is 'Sum of the lines'' values.';
comment on column goods_receipt.received_on is 'Business date; the date of its journal entry.';
comment on column goods_receipt.received_by is 'The user who posted it.';
comment on column goods_receipt.created_at is 'When it was posted (server time).';
comment on constraint goods_receipt_pk on goods_receipt is 'This receipt exists already.';
comment on constraint goods_receipt_slots on goods_receipt is
'Lets a line name its receipt together with the number of its lines.';
comment on constraint goods_receipt_branch_known on goods_receipt is 'There is no such branch.';
comment on constraint goods_receipt_user_known on goods_receipt is 'There is no such user.';
comment on constraint goods_receipt_currency_is_base on goods_receipt is
'Goods are valued in the organisation''s own currency.';
comment on constraint goods_receipt_kind_known on goods_receipt is
'A goods receipt is a PURCHASE or an OPENING.';
comment on constraint goods_receipt_has_lines on goods_receipt is
'A goods receipt needs at least one line.';
comment on constraint goods_receipt_total_not_negative on goods_receipt is
'A total is zero or more.';
comment on constraint goods_receipt_total_in_minor_units on goods_receipt is
'An amount has no more decimals than its currency.';
comment on constraint goods_receipt_amounts_are_numbers on goods_receipt is
'An amount is a number, and a date is one of the calendar.';
comment on constraint goods_receipt_text_not_long on goods_receipt is
'A reference has at most 100 characters, a supplier''s name 200.';

create table goods_receipt_line (
    org_id bigint not null,
    receipt_id bigint not null,
    line_no smallint not null,
    line_count smallint not null,
    currency char(3) not null,
    product_id bigint not null,
    quantity numeric(14, 3) not null,
    unit_cost numeric(20, 4) not null,
    value numeric(20, 4) not null,
    constraint goods_receipt_line_pk primary key (org_id, receipt_id, line_no),
    constraint goods_receipt_line_in_its_slot check (line_no between 1 and line_count),
    constraint goods_receipt_line_receipt_known
    foreign key (org_id, receipt_id, line_count, currency)
    references goods_receipt (org_id, id, line_count, currency),
    constraint goods_receipt_line_product_known foreign key (org_id, product_id, currency)
    references product (org_id, id, currency),
    constraint goods_receipt_line_quantity_above_zero check (quantity > 0),
    constraint goods_receipt_line_cost_not_negative check (unit_cost >= 0),
    constraint goods_receipt_line_value_right check (
        value = round(quantity * unit_cost, minor_units(currency))
    ),
    constraint goods_receipt_line_amounts_are_numbers check (
        greatest(quantity, unit_cost, value) < 'NaN'
    )
);
comment on table goods_receipt_line is 'One product of a goods receipt.';
comment on column goods_receipt_line.org_id is 'The organisation.';
comment on column goods_receipt_line.receipt_id is 'The goods receipt.';
comment on column goods_receipt_line.line_no is 'Slot in the receipt, from 1.';
comment on column goods_receipt_line.line_count is 'The receipt''s number of lines.';
comment on column goods_receipt_line.currency is 'The receipt''s currency.';
comment on column goods_receipt_line.product_id is 'The product.';
comment on column goods_receipt_line.quantity is 'Units received.';
comment on column goods_receipt_line.unit_cost is 'Cost of one unit; up to four decimals.';
comment on column goods_receipt_line.value is 'quantity x unit_cost, rounded to the minor unit.';
comment on constraint goods_receipt_line_pk on goods_receipt_line is
'This line of the receipt exists already.';
comment on constraint goods_receipt_line_in_its_slot on goods_receipt_line is
'A receipt''s lines are numbered from 1 to its number of lines.';
comment on constraint goods_receipt_line_receipt_known on goods_receipt_line is
'This goods receipt does not exist, or has another number of lines.';
comment on constraint goods_receipt_line_product_known on goods_receipt_line is
'There is no such product in this currency.';
comment on constraint goods_receipt_line_quantity_above_zero on goods_receipt_line is
'A quantity is above zero.';
comment on constraint goods_receipt_line_cost_not_negative on goods_receipt_line is
'A cost is zero or more.';
comment on constraint goods_receipt_line_value_right on goods_receipt_line is
'The value of a line is its quantity times its unit cost.';
comment on constraint goods_receipt_line_amounts_are_numbers on goods_receipt_line is
'An amount is a number: NaN would be equal to itself and above all limits.';

create table stock_movement (
    org_id bigint not null,
    id bigint generated always as identity,
    branch_id bigint not null,
    product_id bigint not null,
    currency char(3) not null,
    quantity numeric(14, 3) not null,
    value numeric(20, 4) not null,
    goods_receipt_id bigint,
    created_at timestamptz not null default now(),
    constraint stock_movement_pk primary key (org_id, id),
    constraint stock_movement_stock_known foreign key (org_id, branch_id, product_id, currency)
    references stock (org_id, branch_id, product_id, currency),
    constraint stock_movement_receipt_known foreign key (org_id, goods_receipt_id)
    references goods_receipt (org_id, id),
    constraint stock_movement_moves check (quantity <> 0),
    constraint stock_movement_one_way check (
        (quantity > 0 and value >= 0) or (quantity < 0 and value <= 0)
    ),
    constraint stock_movement_in_minor_units check (
        min_scale(value) <= minor_units(currency)
    ),
    constraint stock_movement_amounts_are_numbers check (greatest(quantity, value) < 'NaN')
);
comment on table stock_movement is
'One document''s effect on the stock of one product in one branch; final.';
comment on column stock_movement.org_id is 'The organisation.';
comment on column stock_movement.id is 'The movement.';
comment on column stock_movement.branch_id is 'The branch.';
comment on column stock_movement.product_id is 'The product.';
comment on column stock_movement.currency is 'Currency of value: the organisation''s own.';
comment on column stock_movement.quantity is 'Units that came in (above zero) or went out (below).';
comment on column stock_movement.value is 'Their cost, with the sign of the quantity.';
comment on column stock_movement.goods_receipt_id is 'The goods receipt that caused it.';
comment on column stock_movement.created_at is 'When it was posted (server time).';
comment on constraint stock_movement_pk on stock_movement is 'This movement exists already.';
comment on constraint stock_movement_stock_known on stock_movement is
'The branch has no stock row of this product in this currency.';
comment on constraint stock_movement_receipt_known on stock_movement is
'There is no such goods receipt.';
comment on constraint stock_movement_moves on stock_movement is
'A movement moves something.';
comment on constraint stock_movement_one_way on stock_movement is
'Quantity and value of a movement have the same sign.';
comment on constraint stock_movement_in_minor_units on stock_movement is
'An amount has no more decimals than its currency.';
comment on constraint stock_movement_amounts_are_numbers on stock_movement is
'An amount is a number: NaN would be equal to itself and above all limits.';
create unique index stock_movement_receipt_once
on stock_movement (org_id, goods_receipt_id, product_id) where goods_receipt_id is not null;
comment on index stock_movement_receipt_once is
'A goods receipt moves the stock of a product once.';
create index stock_movement_by_product on stock_movement (org_id, branch_id, product_id, id);
comment on index stock_movement_by_product is 'The movements of a product in a branch, in order.';

create function issue_cost(
    on_hand numeric, value_on_hand numeric, issued numeric, currency char(3)
) returns numeric
language sql immutable parallel safe
return case
    when issued = on_hand then value_on_hand
    else least(
        value_on_hand,
        round(value_on_hand * issued / nullif(on_hand, 0), minor_units(currency))
    )
end;
comment on function issue_cost(numeric, numeric, numeric, char) is
'Moving average cost: value x issued / quantity, rounded; the last unit takes what is left.';
grant execute on function issue_cost(numeric, numeric, numeric, char)
to sofinance_app, sofinance_readonly, sofinance_backup;

-- One statement moves all rows of a posting. It runs as the owner, because nobody else may write
-- stock.quantity and stock.value: a stock row cannot differ from its movements.
create function stock_follows_movements() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    change record;
    due numeric;
begin
    -- RETURNING may have set another organisation; a policy let only one's rows in at a time, so
    -- rows of two in one statement find no stock and fail below.
    perform set_config('app.org_id', coalesce((select min(org_id)::text from moved), caller), true);

    -- One row at a time, by its key: a join with the transition table is planned without knowing
    -- that it is small, and a plan made on an empty table would read all stock for each.
    for change in
        select org_id, branch_id, product_id, sum(quantity) as quantity, sum(value) as value,
            max(quantity) < 0 as is_issue,
            -- What comes in and goes out in one statement has no cost to go out at.
            min(quantity) < 0 and max(quantity) > 0 as is_mixed
        from moved
        group by org_id, branch_id, product_id
        order by product_id
    loop
        update public.stock
        set quantity = quantity + change.quantity, value = value + change.value, updated_at = now()
        where org_id = change.org_id and branch_id = change.branch_id
            and product_id = change.product_id
        returning public.issue_cost(
            quantity - change.quantity, value - change.value, -change.quantity, currency
        ) into due;

        if not found or change.is_mixed
            or (change.is_issue and change.value is distinct from -due)
        then
            raise exception using
                errcode = 'check_violation', constraint = 'stock_issue_at_cost',
                table = 'stock_movement',
                message = 'stock is issued at another value than its cost',
                detail = jsonb_build_object(
                    'product_id', change.product_id, 'cost_due', due::text
                )::text;
        end if;
    end loop;

    perform set_config('app.org_id', caller, true);
    return null;
end
$$;
comment on function stock_follows_movements() is
'Adds new movements to stock, and holds every issue to the moving average cost.';
create trigger stock_issue_at_cost after insert on stock_movement
referencing new table as moved
for each statement execute function stock_follows_movements();
comment on trigger stock_issue_at_cost on stock_movement is
'Stock is issued at its cost: value times units issued over units on hand.';

-- The one entry of a goods receipt. Checking a new foreign key reads all rows of the table, which
-- forced row security would refuse; the table is locked meanwhile.
alter table journal_entry no force row level security;
alter table journal_entry add column goods_receipt_id bigint;
alter table journal_entry add constraint journal_entry_receipt_known
foreign key (org_id, goods_receipt_id) references goods_receipt (org_id, id);
grant insert (goods_receipt_id) on journal_entry to sofinance_app;
comment on column journal_entry.goods_receipt_id is 'The goods receipt that it is the entry of.';
comment on constraint journal_entry_receipt_known on journal_entry is
'There is no such goods receipt.';
create unique index journal_entry_receipt_once on journal_entry (org_id, goods_receipt_id)
where goods_receipt_id is not null;
alter table journal_entry force row level security;
comment on index journal_entry_receipt_once is 'This goods receipt has its entry already.';

create function goods_receipt_total_matches_lines() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    filled bigint;
    amount numeric;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select count(*), sum(value) into filled, amount
    from public.goods_receipt_line where org_id = new.org_id and receipt_id = new.id;

    if filled is distinct from new.line_count or amount is distinct from new.total then
        raise exception using
            errcode = 'check_violation', constraint = 'goods_receipt_total_matches_lines',
            table = 'goods_receipt', message = 'the receipt is not the sum of its lines',
            detail = jsonb_build_object('lines', filled, 'sum', amount::text)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function goods_receipt_total_matches_lines() is
'At commit: every slot of a goods receipt is filled and its total is the sum of its lines.';
create constraint trigger goods_receipt_total_matches_lines after insert on goods_receipt
deferrable initially deferred for each row execute function goods_receipt_total_matches_lines();
comment on constraint goods_receipt_total_matches_lines on goods_receipt is
'The total of a goods receipt is the sum of its lines.';

create function goods_receipt_stock_matches() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    off jsonb;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select jsonb_agg(product_id) into off
    from (
        select product_id
        from (
            select product_id, quantity, value from public.goods_receipt_line
            where org_id = new.org_id and receipt_id = new.id
            union all
            select product_id, -quantity, -value from public.stock_movement
            where org_id = new.org_id and goods_receipt_id = new.id
                and branch_id = new.branch_id
        ) as both_sides
        group by product_id having sum(quantity) <> 0 or sum(value) <> 0
    ) as differing;

    if off is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'goods_receipt_stock_matches',
            table = 'goods_receipt', message = 'the movements are not those of the receipt',
            detail = jsonb_build_object('product_ids', off)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function goods_receipt_stock_matches() is
'At commit: a goods receipt moved exactly its lines into the stock of its branch.';
create constraint trigger goods_receipt_stock_matches after insert on goods_receipt
deferrable initially deferred for each row execute function goods_receipt_stock_matches();
comment on constraint goods_receipt_stock_matches on goods_receipt is
'A goods receipt moves exactly its lines into stock.';

create function goods_receipt_entry_matches() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    off jsonb;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select jsonb_object_agg(account_id, amount::text) into off
    from (
        select account_id, sum(amount) as amount
        from (
            select acc.id as account_id, due.amount, 0 as line_count
            from (
                values
                ('inventory', new.total),
                (
                    case new.kind when 'OPENING' then 'opening_equity' else 'payables' end,
                    -new.total
                )
            ) as due (role, amount)
            left join public.account as acc on acc.org_id = new.org_id and acc.role = due.role
            union all
            select line.account_id, line.credit - line.debit, 1
            from public.journal_entry as entry
            join public.journal_line as line
                on line.org_id = entry.org_id and line.entry_id = entry.id
            where entry.org_id = new.org_id and entry.goods_receipt_id = new.id
                and entry.posted_on = new.received_on
        ) as both_sides
        -- An account has one line: lines that cancel each other out would blow its turnover up.
        group by account_id having sum(amount) <> 0 or sum(line_count) > 1
    ) as differing;

    if off is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'goods_receipt_entry_matches',
            table = 'goods_receipt', message = 'the entry is not that of the receipt',
            detail = jsonb_build_object('off', off)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function goods_receipt_entry_matches() is
'At commit: Dr inventory, Cr payables or opening balance equity, by the receipt''s total and date.';
create constraint trigger goods_receipt_entry_matches after insert on goods_receipt
deferrable initially deferred for each row execute function goods_receipt_entry_matches();
comment on constraint goods_receipt_entry_matches on goods_receipt is
'A goods receipt has one journal entry of exactly its total, on its date.';

create trigger goods_receipt_is_final before update or delete or truncate on goods_receipt
for each statement execute function is_final();
comment on trigger goods_receipt_is_final on goods_receipt is 'A goods receipt is final.';
create trigger goods_receipt_line_is_final
before update or delete or truncate on goods_receipt_line
for each statement execute function is_final();
comment on trigger goods_receipt_line_is_final on goods_receipt_line is
'A goods receipt is final.';
create trigger stock_movement_is_final before update or delete or truncate on stock_movement
for each statement execute function is_final();
comment on trigger stock_movement_is_final on stock_movement is 'A stock movement is final.';

alter table stock enable row level security;
alter table stock force row level security;
create policy org on stock using (org_id = current_setting('app.org_id')::bigint);
grant select on stock to sofinance_app;
-- A new row starts empty; only movements fill it.
grant insert (org_id, branch_id, product_id, currency, reorder_level) on stock to sofinance_app;
-- Also what lets a posting lock the row (SELECT ... FOR UPDATE).
grant update (reorder_level) on stock to sofinance_app;

alter table goods_receipt enable row level security;
alter table goods_receipt force row level security;
create policy org on goods_receipt using (org_id = current_setting('app.org_id')::bigint);
grant select on goods_receipt to sofinance_app;
grant insert (
    org_id, branch_id, kind, reference, supplier_name, currency, line_count, total, received_on,
    received_by
) on goods_receipt to sofinance_app;

alter table goods_receipt_line enable row level security;
alter table goods_receipt_line force row level security;
create policy org on goods_receipt_line using (org_id = current_setting('app.org_id')::bigint);
grant select, insert on goods_receipt_line to sofinance_app;

alter table stock_movement enable row level security;
alter table stock_movement force row level security;
create policy org on stock_movement using (org_id = current_setting('app.org_id')::bigint);
grant select on stock_movement to sofinance_app;
grant insert (
    org_id, branch_id, product_id, currency, quantity, value, goods_receipt_id
) on stock_movement to sofinance_app;
