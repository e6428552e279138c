-- Sales, their lines, payments, receivables and voids.
-- A sale is one transaction: header, lines, payments, stock movements and journal entry commit
-- together, and the deferred rules below refuse anything that does not agree to the last unit.
-- depends: 0008_stock
set local lock_timeout = '4s';
set local role sofinance_owner;

create table sale (
    org_id bigint not null,
    id bigint generated always as identity,
    branch_id bigint not null,
    till_id bigint not null,
    receipt_no bigint not null,
    prior_receipt_no bigint generated always as (nullif(receipt_no - 1, 0)) stored,
    client_sale_id uuid,
    customer_id bigint,
    cashier_id bigint not null,
    currency char(3) not null,
    prices_include_tax boolean not null,
    line_count smallint not null,
    subtotal numeric(20, 4) not null,
    discount numeric(20, 4) not null,
    tax numeric(20, 4) not null,
    total numeric(20, 4) not null,
    paid numeric(20, 4) not null,
    sold_on date not null,
    sold_at timestamptz not null default now(),
    till_at timestamptz,
    notes text,
    constraint sale_pk primary key (org_id, id),
    constraint sale_slots unique (org_id, id, line_count, currency, prices_include_tax),
    constraint sale_amounts_key unique (org_id, id, currency, total, paid),
    constraint sale_receipt_no_taken unique (org_id, till_id, receipt_no),
    constraint sale_client_sale_taken unique (org_id, client_sale_id),
    constraint sale_till_known foreign key (org_id, branch_id, till_id)
    references till (org_id, branch_id, id),
    constraint sale_receipt_no_follows foreign key (org_id, till_id, prior_receipt_no)
    references sale (org_id, till_id, receipt_no),
    constraint sale_customer_known foreign key (org_id, customer_id)
    references customer (org_id, id),
    constraint sale_cashier_known foreign key (org_id, cashier_id)
    references app_user (org_id, id),
    constraint sale_has_lines check (line_count between 1 and 500),
    constraint sale_receipt_no_from_one check (receipt_no >= 1),
    constraint sale_discount_within_subtotal check (discount between 0 and subtotal),
    constraint sale_tax_not_negative check (tax >= 0),
    constraint sale_total_right check (
        total = subtotal - discount + case when prices_include_tax then 0 else tax end
    ),
    constraint sale_paid_within_total check (paid between 0 and total),
    constraint sale_credit_has_customer check (paid = total or customer_id is not null),
    constraint sale_in_minor_units check (
        greatest(min_scale(subtotal), min_scale(discount), min_scale(tax), min_scale(paid))
        <= minor_units(currency)
    ),
    constraint sale_amounts_are_numbers check (
        greatest(subtotal, discount, tax, total, paid) < 'NaN' and isfinite(sold_on)
    ),
    constraint sale_notes_not_long check (length(notes) <= 1000)
);
comment on table sale is 'A sale: final once posted; a mistake is voided, not changed.';
comment on column sale.org_id is 'The organisation.';
comment on column sale.id is 'The sale.';
comment on column sale.branch_id is 'The branch whose stock was sold.';
comment on column sale.till_id is 'The till that sold.';
comment on column sale.receipt_no is 'Number in the till''s series, from 1, without holes.';
comment on column sale.prior_receipt_no is 'The number before; must exist, which leaves no hole.';
comment on column sale.client_sale_id is 'The till''s own UUID: the natural key against posting twice.';
comment on column sale.customer_id is 'Who bought; needed where something stays unpaid.';
comment on column sale.cashier_id is 'The user who sold.';
comment on column sale.currency is 'Currency of all its amounts: the organisation''s own.';
comment on column sale.prices_include_tax is 'Whether unit prices contain the tax.';
comment on column sale.line_count is 'How many lines it has: as many slots, all filled.';
comment on column sale.subtotal is 'Sum of quantity x unit price.';
comment on column sale.discount is 'Sum of all discounts, of lines and of the whole sale.';
comment on column sale.tax is 'Sum of the lines'' tax.';
comment on column sale.total is 'What the customer has to pay.';
comment on column sale.paid is 'What was paid at the till; the rest is a receivable.';
comment on column sale.sold_on is 'Business date in the branch''s time zone.';
comment on column sale.sold_at is 'When it was posted (server time).';
comment on column sale.till_at is 'When the till says it was: a claim.';
comment on column sale.notes is 'Remarks.';
comment on constraint sale_pk on sale is 'This sale exists already.';
comment on constraint sale_slots on sale is
'Lets a line name its sale together with the number of its lines.';
comment on constraint sale_amounts_key on sale is
'Lets a payment name its sale together with what is to be paid.';
comment on constraint sale_receipt_no_taken on sale is
'Another sale of this till has this receipt number.';
comment on constraint sale_client_sale_taken on sale is
'A sale with this client_sale_id has been posted already.';
comment on constraint sale_till_known on sale is 'There is no such till in this branch.';
comment on constraint sale_receipt_no_follows on sale is
'Receipt numbers of a till have no holes: the number before does not exist.';
comment on constraint sale_customer_known on sale is 'There is no such customer.';
comment on constraint sale_cashier_known on sale is 'There is no such user.';
comment on constraint sale_has_lines on sale is 'A sale has 1 to 500 lines.';
comment on constraint sale_receipt_no_from_one on sale is 'Receipt numbers begin at 1.';
comment on constraint sale_discount_within_subtotal on sale is
'A discount is not below zero and not above the subtotal.';
comment on constraint sale_tax_not_negative on sale is 'Tax is zero or more.';
comment on constraint sale_total_right on sale is
'The total is the subtotal less the discount plus the tax.';
comment on constraint sale_paid_within_total on sale is
'What is paid is not below zero and not above the total.';
comment on constraint sale_credit_has_customer on sale is
'A sale that is not fully paid needs a customer.';
comment on constraint sale_in_minor_units on sale is
'An amount has no more decimals than its currency.';
comment on constraint sale_amounts_are_numbers on sale is
'An amount is a number, and a date is one of the calendar.';
comment on constraint sale_notes_not_long on sale is 'Notes have at most 1000 characters.';
create index sale_by_date on sale (org_id, sold_on, id);
comment on index sale_by_date is 'Sales in the order of their dates: lists and daily figures.';
create index sale_by_branch on sale (org_id, branch_id, id);
comment on index sale_by_branch is 'Sales of a branch, latest first.';
create index sale_by_customer on sale (org_id, customer_id, id) where customer_id is not null;
comment on index sale_by_customer is 'Sales of a customer, latest first.';

create table sale_line (
    org_id bigint not null,
    sale_id bigint not null,
    line_no smallint not null,
    line_count smallint not null,
    currency char(3) not null,
    prices_include_tax boolean not null,
    product_id bigint not null,
    quantity numeric(14, 3) not null,
    list_price numeric(20, 4) not null,
    unit_price numeric(20, 4) not null,
    overridden_by bigint,
    subtotal numeric(20, 4) not null,
    discount numeric(20, 4) not null,
    sale_discount numeric(20, 4) not null,
    tax_code text not null,
    tax_rate_percent numeric(7, 4) not null,
    tax numeric(20, 4) not null,
    total numeric(20, 4) not null,
    constraint sale_line_pk primary key (org_id, sale_id, line_no),
    constraint sale_line_in_its_slot check (line_no between 1 and line_count),
    constraint sale_line_sale_known
    foreign key (org_id, sale_id, line_count, currency, prices_include_tax)
    references sale (org_id, id, line_count, currency, prices_include_tax),
    constraint sale_line_product_known foreign key (org_id, product_id, currency)
    references product (org_id, id, currency),
    constraint sale_line_quantity_above_zero check (quantity > 0),
    constraint sale_line_price_not_negative check (unit_price >= 0 and list_price >= 0),
    constraint sale_line_price_override_allowed check (
        (unit_price = list_price) = (overridden_by is null)
    ),
    constraint sale_line_overrider_known foreign key (org_id, overridden_by)
    references app_user (org_id, id),
    constraint sale_line_subtotal_right check (
        subtotal = round(quantity * unit_price, minor_units(currency))
    ),
    constraint sale_line_discount_within_subtotal check (
        discount >= 0 and sale_discount >= 0 and discount + sale_discount <= subtotal
    ),
    constraint sale_line_tax_right check (
        tax = round(
            (subtotal - discount - sale_discount) * tax_rate_percent
            / (100 + case when prices_include_tax then tax_rate_percent else 0 end),
            minor_units(currency)
        )
    ),
    constraint sale_line_total_right check (
        total = subtotal - discount - sale_discount
        + case when prices_include_tax then 0 else tax end
    ),
    constraint sale_line_in_minor_units check (
        greatest(min_scale(unit_price), min_scale(discount), min_scale(sale_discount))
        <= minor_units(currency)
    ),
    constraint sale_line_amounts_are_numbers check (
        greatest(
            quantity, list_price, unit_price, subtotal, discount, sale_discount, tax, total
        ) < 'NaN'
    )
);
comment on table sale_line is 'One line of a sale, with the price, tax code and rate of its day.';
comment on column sale_line.org_id is 'The organisation.';
comment on column sale_line.sale_id is 'The sale.';
comment on column sale_line.line_no is 'Slot in the sale, from 1.';
comment on column sale_line.line_count is 'The sale''s number of lines.';
comment on column sale_line.currency is 'The sale''s currency.';
comment on column sale_line.prices_include_tax is 'The sale''s kind of prices.';
comment on column sale_line.product_id is 'The product.';
comment on column sale_line.quantity is 'Units sold.';
comment on column sale_line.list_price is 'The product''s shelf price at the time.';
comment on column sale_line.unit_price is 'Price asked; another than list_price was overridden.';
comment on column sale_line.overridden_by is
'The user who asked another price than the shelf price; empty where it is the shelf price.';
comment on column sale_line.subtotal is 'quantity x unit_price, rounded half up to the minor unit.';
comment on column sale_line.discount is 'Discount given on the line.';
comment on column sale_line.sale_discount is 'The line''s share of the discount on the whole sale.';
comment on column sale_line.tax_code is 'Tax code at the time.';
comment on column sale_line.tax_rate_percent is 'Tax rate at the time, in percent.';
comment on column sale_line.tax is 'Tax of the line, rounded half up to the minor unit.';
comment on column sale_line.total is 'What the customer pays for the line.';
comment on constraint sale_line_pk on sale_line is 'This line of the sale exists already.';
comment on constraint sale_line_in_its_slot on sale_line is
'A sale''s lines are numbered from 1 to its number of lines.';
comment on constraint sale_line_sale_known on sale_line is
'This sale does not exist, or has another number of lines.';
comment on constraint sale_line_product_known on sale_line is
'There is no such product, or it is not for sale, or not in this currency.';
comment on constraint sale_line_quantity_above_zero on sale_line is 'A quantity is above zero.';
comment on constraint sale_line_price_not_negative on sale_line is 'A price is zero or more.';
comment on constraint sale_line_price_override_allowed on sale_line is
'Another price than the shelf price needs the permission sales:override_price.';
comment on constraint sale_line_overrider_known on sale_line is 'There is no such user.';
comment on constraint sale_line_subtotal_right on sale_line is
'The subtotal of a line is its quantity times its unit price.';
comment on constraint sale_line_discount_within_subtotal on sale_line is
'A discount is not below zero and not above the line''s subtotal.';
comment on constraint sale_line_tax_right on sale_line is
'The tax of a line is its rate of the discounted amount (of what it contains, where prices include tax).';
comment on constraint sale_line_total_right on sale_line is
'The total of a line is its subtotal less its discounts plus its tax.';
comment on constraint sale_line_in_minor_units on sale_line is
'An amount has no more decimals than its currency.';
comment on constraint sale_line_amounts_are_numbers on sale_line is
'An amount is a number: NaN would be equal to itself and above all limits.';
create index sale_line_by_product on sale_line (org_id, product_id, sale_id);
comment on index sale_line_by_product is 'The sales of a product.';

-- Payments of a sale form a chain: each begins where the one before ended, and none ends above the
-- total. So the database refuses an overpayment without a lock, a sum or a trigger.
create table payment (
    org_id bigint not null,
    id bigint generated always as identity,
    sale_id bigint not null,
    payment_no smallint not null,
    prior_payment_no smallint generated always as (nullif(payment_no - 1, 0)) stored,
    currency char(3) not null,
    sale_total numeric(20, 4) not null,
    sale_paid numeric(20, 4) not null,
    paid_before numeric(20, 4) not null,
    amount numeric(20, 4) not null,
    paid_after numeric(20, 4) generated always as (paid_before + amount) stored,
    method text not null,
    account_id bigint not null,
    takes_payments boolean generated always as (true) stored,
    reference text,
    received_on date not null,
    received_at timestamptz not null default now(),
    received_by bigint not null,
    constraint payment_pk primary key (org_id, id),
    constraint payment_chain_key unique (org_id, sale_id, payment_no, paid_after),
    constraint payment_no_taken unique (org_id, sale_id, payment_no),
    constraint payment_sale_known foreign key (org_id, sale_id, currency, sale_total, sale_paid)
    references sale (org_id, id, currency, total, paid),
    constraint payment_follows foreign key (org_id, sale_id, prior_payment_no, paid_before)
    references payment (org_id, sale_id, payment_no, paid_after),
    constraint payment_account_known foreign key (org_id, account_id, currency, takes_payments)
    references account (org_id, id, currency, takes_payments),
    constraint payment_user_known foreign key (org_id, received_by)
    references app_user (org_id, id),
    constraint payment_first_begins_at_zero check (
        payment_no >= 1 and (payment_no > 1 or paid_before = 0)
    ),
    constraint payment_amount_above_zero check (amount > 0),
    constraint payment_within_total check (paid_before + amount <= sale_total),
    constraint payment_method_known check (
        method in ('CASH', 'CARD', 'BANK_TRANSFER', 'MOBILE_MONEY', 'CHEQUE', 'OTHER')
    ),
    constraint payment_in_minor_units check (min_scale(amount) <= minor_units(currency)),
    constraint payment_reference_not_long check (length(reference) <= 100)
);
comment on table payment is 'Money received for a sale, at the till or later; final.';
comment on column payment.org_id is 'The organisation.';
comment on column payment.id is 'The payment.';
comment on column payment.sale_id is 'The sale.';
comment on column payment.payment_no is 'Its number among the sale''s payments, from 1.';
comment on column payment.prior_payment_no is 'The number before; must exist.';
comment on column payment.currency is 'The sale''s currency.';
comment on column payment.sale_total is 'The sale''s total.';
comment on column payment.sale_paid is 'What was paid at the till: above it, a payment is a later one.';
comment on column payment.paid_before is 'What had been paid before this payment.';
comment on column payment.amount is 'The amount received.';
comment on column payment.paid_after is 'What has been paid with this payment.';
comment on column payment.method is 'How it was paid.';
comment on column payment.account_id is 'The account that received it.';
comment on column payment.takes_payments is 'Always true: the account must be one that takes payments.';
comment on column payment.reference is 'Number of the card slip, transfer or cheque.';
comment on column payment.received_on is 'Business date.';
comment on column payment.received_at is 'When it was posted (server time).';
comment on column payment.received_by is 'The user who took it.';
comment on constraint payment_pk on payment is 'This payment exists already.';
comment on constraint payment_chain_key on payment is
'Lets the next payment begin where this one ends.';
comment on constraint payment_no_taken on payment is
'Another payment of this sale has this number.';
comment on constraint payment_sale_known on payment is
'There is no such sale with this total in this currency.';
comment on constraint payment_follows on payment is
'A payment begins where the one before it ended.';
comment on constraint payment_account_known on payment is
'There is no account of this currency that takes payments.';
comment on constraint payment_user_known on payment is 'There is no such user.';
comment on constraint payment_first_begins_at_zero on payment is
'The first payment of a sale begins at zero.';
comment on constraint payment_amount_above_zero on payment is 'A payment is above zero.';
comment on constraint payment_within_total on payment is
'Payments of a sale are not above its total.';
comment on constraint payment_method_known on payment is
'A method is CASH, CARD, BANK_TRANSFER, MOBILE_MONEY, CHEQUE or OTHER.';
comment on constraint payment_in_minor_units on payment is
'An amount has no more decimals than its currency.';
comment on constraint payment_reference_not_long on payment is
'A reference has at most 100 characters.';

create table sale_void (
    org_id bigint not null,
    sale_id bigint not null,
    reason text not null,
    voided_on date not null,
    voided_at timestamptz not null default now(),
    voided_by bigint not null,
    constraint sale_void_pk primary key (org_id, sale_id),
    constraint sale_void_sale_known foreign key (org_id, sale_id) references sale (org_id, id),
    constraint sale_void_user_known foreign key (org_id, voided_by)
    references app_user (org_id, id),
    constraint sale_void_has_reason check (length(btrim(reason)) between 1 and 500),
    constraint sale_void_date_is_finite check (isfinite(voided_on))
);
comment on table sale_void is
'A sale taken back whole: its goods return, its money is paid back, its entries are reversed.';
comment on column sale_void.org_id is 'The organisation.';
comment on column sale_void.sale_id is 'The sale.';
comment on column sale_void.reason is 'Why.';
comment on column sale_void.voided_on is 'Business date; the date of its journal entry.';
comment on column sale_void.voided_at is 'When it was posted (server time).';
comment on column sale_void.voided_by is 'The user who voided it.';
comment on constraint sale_void_pk on sale_void is 'This sale has been voided already.';
comment on constraint sale_void_sale_known on sale_void is 'There is no such sale.';
comment on constraint sale_void_user_known on sale_void is 'There is no such user.';
comment on constraint sale_void_has_reason on sale_void is
'A void needs a reason of 1 to 500 characters.';
comment on constraint sale_void_date_is_finite on sale_void is
'A date is one of the calendar.';

create table receivable (
    org_id bigint not null,
    sale_id bigint not null,
    customer_id bigint not null,
    currency char(3) not null,
    sold_on date not null,
    amount numeric(20, 4) not null,
    settled numeric(20, 4) not null default 0,
    cancelled numeric(20, 4) not null default 0,
    outstanding numeric(20, 4) generated always as (amount - settled - cancelled) stored,
    constraint receivable_pk primary key (org_id, sale_id),
    constraint receivable_sale_known foreign key (org_id, sale_id) references sale (org_id, id),
    constraint receivable_customer_known foreign key (org_id, customer_id)
    references customer (org_id, id),
    constraint receivable_amount_above_zero check (amount > 0),
    constraint receivable_not_oversettled check (
        settled >= 0 and cancelled >= 0 and settled + cancelled <= amount
    )
);
comment on table receivable is
'What a customer owes for a sale. Written only by triggers on sale, payment and sale_void.';
comment on column receivable.org_id is 'The organisation.';
comment on column receivable.sale_id is 'The sale.';
comment on column receivable.customer_id is 'Who owes it.';
comment on column receivable.currency is 'The sale''s currency.';
comment on column receivable.sold_on is 'Business date of the sale; its age counts from here.';
comment on column receivable.amount is 'What was not paid at the till.';
comment on column receivable.settled is 'What has been paid since.';
comment on column receivable.cancelled is 'What a void took back.';
comment on column receivable.outstanding is 'What is still owed.';
comment on constraint receivable_pk on receivable is 'This sale has its receivable already.';
comment on constraint receivable_sale_known on receivable is 'There is no such sale.';
comment on constraint receivable_customer_known on receivable is 'There is no such customer.';
comment on constraint receivable_amount_above_zero on receivable is
'A receivable is above zero.';
comment on constraint receivable_not_oversettled on receivable is
'A receivable is settled by no more than its amount.';
create index receivable_open on receivable (org_id, customer_id, sold_on)
include (outstanding) where outstanding > 0;
comment on index receivable_open is 'What is owed: a customer''s balance, and the ageing.';

-- Links from movements and entries to their documents. Checking a new foreign key reads all rows,
-- which forced row security would refuse; both tables are locked meanwhile.
alter table stock_movement no force row level security;
alter table journal_entry no force row level security;
alter table stock_movement add column sale_id bigint;
alter table stock_movement add column void_sale_id bigint;
alter table stock_movement add constraint stock_movement_sale_known
foreign key (org_id, sale_id) references sale (org_id, id);
alter table stock_movement add constraint stock_movement_void_known
foreign key (org_id, void_sale_id) references sale_void (org_id, sale_id);
alter table stock_movement add constraint stock_movement_has_one_document check (
    num_nonnulls(goods_receipt_id, sale_id, void_sale_id) = 1
);
alter table stock_movement add constraint stock_movement_direction check (
    (sale_id is null) = (quantity > 0)
);
grant insert (sale_id, void_sale_id) on stock_movement to sofinance_app;
comment on column stock_movement.sale_id is 'The sale that caused it.';
comment on column stock_movement.void_sale_id is 'The voided sale whose goods came back.';
comment on constraint stock_movement_sale_known on stock_movement is 'There is no such sale.';
comment on constraint stock_movement_void_known on stock_movement is
'This sale has not been voided.';
comment on constraint stock_movement_has_one_document on stock_movement is
'A movement belongs to exactly one document.';
comment on constraint stock_movement_direction on stock_movement is
'Sales take stock out; receipts and voids bring it in.';
create unique index stock_movement_sale_once on stock_movement (org_id, sale_id, product_id)
where sale_id is not null;
comment on index stock_movement_sale_once is 'A sale moves the stock of a product once.';
create unique index stock_movement_void_once
on stock_movement (org_id, void_sale_id, product_id) where void_sale_id is not null;
comment on index stock_movement_void_once is 'A void moves the stock of a product once.';

alter table journal_entry add column sale_id bigint;
alter table journal_entry add column payment_id bigint;
alter table journal_entry add column void_sale_id bigint;
alter table journal_entry add constraint journal_entry_sale_known
foreign key (org_id, sale_id) references sale (org_id, id);
alter table journal_entry add constraint journal_entry_payment_known
foreign key (org_id, payment_id) references payment (org_id, id);
alter table journal_entry add constraint journal_entry_void_known
foreign key (org_id, void_sale_id) references sale_void (org_id, sale_id);
alter table journal_entry add constraint journal_entry_has_its_document check (
    num_nonnulls(sale_id, payment_id, void_sale_id, goods_receipt_id, reverses_id)
    = (kind <> 'MANUAL')::int
    and case kind
        when 'SALE' then sale_id is not null
        when 'PAYMENT' then payment_id is not null
        when 'VOID' then void_sale_id is not null
        when 'GOODS_RECEIPT' then goods_receipt_id is not null
        when 'REVERSAL' then reverses_id is not null
        else kind = 'MANUAL'
    end
);
grant insert (sale_id, payment_id, void_sale_id) on journal_entry to sofinance_app;
comment on column journal_entry.sale_id is 'The sale that it is the entry of.';
comment on column journal_entry.payment_id is 'The later payment that it is the entry of.';
comment on column journal_entry.void_sale_id is 'The voided sale that it takes back.';
comment on constraint journal_entry_sale_known on journal_entry is 'There is no such sale.';
comment on constraint journal_entry_payment_known on journal_entry is 'There is no such payment.';
comment on constraint journal_entry_void_known on journal_entry is
'This sale has not been voided.';
comment on constraint journal_entry_has_its_document on journal_entry is
'An entry of a document names exactly that document; a manual entry names none.';
create unique index journal_entry_sale_once on journal_entry (org_id, sale_id)
where sale_id is not null;
comment on index journal_entry_sale_once is 'This sale has its entry already.';
create unique index journal_entry_payment_once on journal_entry (org_id, payment_id)
where payment_id is not null;
comment on index journal_entry_payment_once is 'This payment has its entry already.';
create unique index journal_entry_void_once on journal_entry (org_id, void_sale_id)
where void_sale_id is not null;
comment on index journal_entry_void_once is 'This void has its entry already.';
alter table stock_movement force row level security;
alter table journal_entry force row level security;

-- A document that moves no money has no entry, and a payment at the till has none of its own: the
-- rules of documents look when the document is posted, so nothing may be attached to it later.
create function journal_entry_is_expected() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    expected boolean;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    case new.kind
        when 'SALE' then
            expected := exists (
                select from public.sale
                where org_id = new.org_id and id = new.sale_id and (total > 0 or discount > 0)
            ) or exists (
                select from public.stock_movement
                where org_id = new.org_id and sale_id = new.sale_id and value <> 0
            );
        when 'PAYMENT' then
            expected := exists (
                select from public.payment
                where org_id = new.org_id and id = new.payment_id and paid_after > sale_paid
            );
        when 'VOID' then
            expected := exists (
                select from public.journal_entry
                where org_id = new.org_id and sale_id = new.void_sale_id
            );
        else
            expected := exists (
                select from public.goods_receipt
                where org_id = new.org_id and id = new.goods_receipt_id and total > 0
            );
    end case;

    if not expected then
        raise exception using
            errcode = 'check_violation', constraint = 'journal_entry_is_expected',
            table = 'journal_entry', message = 'the document has no entry of its own';
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function journal_entry_is_expected() is
'At commit: the document of an entry is one that has an entry of its own.';
create constraint trigger journal_entry_is_expected after insert on journal_entry
deferrable initially deferred for each row when (new.kind not in ('MANUAL', 'REVERSAL'))
execute function journal_entry_is_expected();
comment on constraint journal_entry_is_expected on journal_entry is
'This document has no entry of its own: it moves no money, or is part of another document''s entry.';

-- A movement is held to its document as it is written, so that none can be added to an old one. The
-- lines of a document are written before its movements.
create function stock_movement_is_its_documents() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    document record;
    wrong jsonb;
begin
    perform set_config(
        'app.org_id', coalesce((select min(org_id)::text from moved), caller), true
    );

    -- One document as a rule, and each by its keys: a join of all of them at once would be planned
    -- by statistics, which a new shop does not have.
    for document in
        select distinct org_id, sale_id, void_sale_id, goods_receipt_id from moved
    loop
        -- Each kind has a statement of its own: starting a plan costs by its size, not by its rows.
        if document.sale_id is not null then
            -- What an issue is worth is the business of stock_issue_at_cost.
            select jsonb_agg(product_id order by product_id) into wrong
            from (
                select product_id, branch_id, quantity from moved
                where org_id = document.org_id and sale_id = document.sale_id
                except
                select line.product_id, sale.branch_id, -sum(line.quantity)
                from public.sale
                join public.sale_line as line
                    on line.org_id = sale.org_id and line.sale_id = sale.id
                where sale.org_id = document.org_id and sale.id = document.sale_id
                group by line.product_id, sale.branch_id
            ) as strange;
        elsif document.void_sale_id is not null then
            select jsonb_agg(product_id order by product_id) into wrong
            from (
                select product_id, branch_id, quantity, value from moved
                where org_id = document.org_id and void_sale_id = document.void_sale_id
                except
                select product_id, branch_id, -quantity, -value
                from public.stock_movement
                where org_id = document.org_id and sale_id = document.void_sale_id
            ) as strange;
        else
            select jsonb_agg(product_id order by product_id) into wrong
            from (
                select product_id, branch_id, quantity, value from moved
                where org_id = document.org_id and goods_receipt_id = document.goods_receipt_id
                except
                select line.product_id, receipt.branch_id, sum(line.quantity), sum(line.value)
                from public.goods_receipt as receipt
                join public.goods_receipt_line as line
                    on line.org_id = receipt.org_id and line.receipt_id = receipt.id
                where receipt.org_id = document.org_id and receipt.id = document.goods_receipt_id
                group by line.product_id, receipt.branch_id
            ) as strange;
        end if;

        if wrong is not null then
            raise exception using
                errcode = 'check_violation', constraint = 'stock_movement_is_its_documents',
                table = 'stock_movement', message = 'the movement is not that of its document',
                detail = jsonb_build_object('product_ids', wrong)::text;
        end if;
    end loop;

    perform set_config('app.org_id', caller, true);
    return null;
end
$$;
comment on function stock_movement_is_its_documents() is
'A movement has the branch, product, quantity and (coming in) value that its document says.';
create trigger stock_movement_is_its_documents after insert on stock_movement
referencing new table as moved
for each statement execute function stock_movement_is_its_documents();
comment on trigger stock_movement_is_its_documents on stock_movement is
'A movement of stock has the branch, product, quantity and value of its document.';

-- Rules of a sale, checked at commit. See journal_entry_balances for why they are written so.
create function sale_total_matches_lines() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    sums record;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select count(*) as lines, sum(subtotal) as subtotal, sum(discount + sale_discount) as discount,
        sum(tax) as tax, sum(total) as total
    into sums
    from public.sale_line where org_id = new.org_id and sale_id = new.id;

    if (sums.lines, sums.subtotal, sums.discount, sums.tax, sums.total)
        is distinct from (new.line_count, new.subtotal, new.discount, new.tax, new.total)
    then
        raise exception using
            errcode = 'check_violation', constraint = 'sale_total_matches_lines',
            table = 'sale', message = 'the sale is not the sum of its lines',
            detail = jsonb_build_object('lines', sums.lines, 'total', sums.total::text)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function sale_total_matches_lines() is
'At commit: every slot of a sale is filled, and its amounts are the sums of its lines.';
create constraint trigger sale_total_matches_lines after insert on sale
deferrable initially deferred for each row execute function sale_total_matches_lines();
comment on constraint sale_total_matches_lines on sale is
'The subtotal, discount, tax and total of a sale are the sums of its lines.';

create function sale_payments_match() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    received numeric;
    same_day boolean;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select coalesce(max(paid_after), 0), coalesce(bool_and(received_on = new.sold_on), true)
    into received, same_day
    from public.payment where org_id = new.org_id and sale_id = new.id;

    if received is distinct from new.paid or not same_day then
        raise exception using
            errcode = 'check_violation', constraint = 'sale_payments_match',
            table = 'sale', message = 'the payments are not what the sale says was paid',
            detail = jsonb_build_object('received', received::text)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function sale_payments_match() is
'At commit: the payments of a sale end at what it says was paid at the till, on its date.';
create constraint trigger sale_payments_match after insert on sale
deferrable initially deferred for each row execute function sale_payments_match();
comment on constraint sale_payments_match on sale is
'The payments of a sale add up to what it says was paid.';

create function sale_stock_matches() returns trigger
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
            select product_id, quantity from public.sale_line
            where org_id = new.org_id and sale_id = new.id
            union all
            select product_id, quantity from public.stock_movement
            where org_id = new.org_id and sale_id = new.id and branch_id = new.branch_id
        ) as both_sides
        group by product_id having sum(quantity) <> 0
    ) as differing;

    if off is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'sale_stock_matches',
            table = 'sale', message = 'the movements are not those of the sale',
            detail = jsonb_build_object('product_ids', off)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function sale_stock_matches() is
'At commit: a sale took exactly its lines out of the stock of its branch.';
create constraint trigger sale_stock_matches after insert on sale
deferrable initially deferred for each row execute function sale_stock_matches();
comment on constraint sale_stock_matches on sale is
'A sale takes exactly its lines out of the stock of its branch.';

create function sale_entry_matches() returns trigger
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
            select account_id, amount, 0 as line_count from public.payment
            where org_id = new.org_id and sale_id = new.id and paid_after <= new.paid
            union all
            select acc.id, due.amount, 0
            from (
                select coalesce(-sum(value), 0) as cost from public.stock_movement
                where org_id = new.org_id and sale_id = new.id
            ) as goods
            cross join lateral (
                values
                ('receivable', new.total - new.paid),
                ('discounts', new.discount),
                ('revenue', new.tax - new.total - new.discount),
                ('tax_payable', -new.tax),
                ('cogs', goods.cost),
                ('inventory', -goods.cost)
            ) as due (role, amount)
            join public.account as acc on acc.org_id = new.org_id and acc.role = due.role
            union all
            select line.account_id, line.credit - line.debit, 1
            from public.journal_entry as entry
            join public.journal_line as line
                on line.org_id = entry.org_id and line.entry_id = entry.id
            where entry.org_id = new.org_id and entry.sale_id = new.id
                and entry.posted_on = new.sold_on
        ) as both_sides
        -- An account has one line: lines that cancel each other out would blow its turnover up.
        group by account_id having sum(amount) <> 0 or sum(line_count) > 1
    ) as differing;

    if off is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'sale_entry_matches',
            table = 'sale', message = 'the entry is not that of the sale',
            detail = jsonb_build_object('off', off)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function sale_entry_matches() is
'At commit: Dr payments, receivable, discounts and cost of goods; Cr revenue, tax and inventory.';
create constraint trigger sale_entry_matches after insert on sale
deferrable initially deferred for each row execute function sale_entry_matches();
comment on constraint sale_entry_matches on sale is
'A sale has one journal entry of exactly its amounts, on its date.';

create function payment_entry_matches() returns trigger
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
            select new.account_id as account_id, new.amount as amount, 0 as line_count
            union all
            select id, -new.amount, 0 from public.account
            where org_id = new.org_id and role = 'receivable'
            union all
            select line.account_id, line.credit - line.debit, 1
            from public.journal_entry as entry
            join public.journal_line as line
                on line.org_id = entry.org_id and line.entry_id = entry.id
            where entry.org_id = new.org_id and entry.payment_id = new.id
                and entry.posted_on = new.received_on
        ) as both_sides
        group by account_id having sum(amount) <> 0 or sum(line_count) > 1
    ) as differing;

    if off is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'payment_entry_matches',
            table = 'payment', message = 'the entry is not that of the payment',
            detail = jsonb_build_object('off', off)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function payment_entry_matches() is
'At commit: a later payment posted Dr its account, Cr receivable.';
create constraint trigger payment_entry_matches after insert on payment
deferrable initially deferred for each row when (new.paid_after > new.sale_paid)
execute function payment_entry_matches();
comment on constraint payment_entry_matches on payment is
'A later payment has one journal entry of exactly its amount, on its date.';

create function payment_sale_not_void() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    is_void boolean;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select exists (
        select from public.sale_void where org_id = new.org_id and sale_id = new.sale_id
    ) into is_void;

    if is_void then
        raise exception using
            errcode = 'check_violation', constraint = 'payment_sale_not_void',
            table = 'payment', message = 'the sale is void',
            detail = jsonb_build_object('sale_id', new.sale_id)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function payment_sale_not_void() is
'At commit: the sale is not void. Its foreign key holds the sale, and a void waits for it.';
create constraint trigger payment_sale_not_void after insert on payment
deferrable initially deferred for each row execute function payment_sale_not_void();
comment on constraint payment_sale_not_void on payment is
'This sale has been voided: nothing is left to be paid.';

create function sale_void_stock_matches() returns trigger
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
        from public.stock_movement
        where org_id = new.org_id and (sale_id = new.sale_id or void_sale_id = new.sale_id)
        group by branch_id, product_id having sum(quantity) <> 0 or sum(value) <> 0
    ) as differing;

    if off is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'sale_void_stock_matches',
            table = 'sale_void', message = 'the movements do not take the sale back',
            detail = jsonb_build_object('product_ids', off)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function sale_void_stock_matches() is
'At commit: the goods of a voided sale came back at the cost they left with.';
create constraint trigger sale_void_stock_matches after insert on sale_void
deferrable initially deferred for each row execute function sale_void_stock_matches();
comment on constraint sale_void_stock_matches on sale_void is
'A void brings back exactly the goods of the sale, at their cost.';

create function sale_void_entry_matches() returns trigger
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
        select line.account_id, sum(line.debit - line.credit) as amount
        from (
            -- Not one condition with OR: that would read every entry of the organisation.
            select id, false as is_void from public.journal_entry
            where org_id = new.org_id and sale_id = new.sale_id
            union all
            select id, true from public.journal_entry
            where org_id = new.org_id and void_sale_id = new.sale_id and posted_on = new.voided_on
            union all
            select entry.id, false
            from public.payment
            join public.journal_entry as entry
                on entry.org_id = payment.org_id and entry.payment_id = payment.id
            where payment.org_id = new.org_id and payment.sale_id = new.sale_id
        ) as posted
        join public.journal_line as line
            on line.org_id = new.org_id and line.entry_id = posted.id
        group by line.account_id
        having sum(line.debit - line.credit) <> 0 or count(*) filter (where posted.is_void) > 1
    ) as differing;

    if off is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'sale_void_entry_matches',
            table = 'sale_void', message = 'the entries do not take the sale back',
            detail = jsonb_build_object('off', off)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function sale_void_entry_matches() is
'At commit: the entries of a voided sale, of its payments and of the void add up to nothing.';
create constraint trigger sale_void_entry_matches after insert on sale_void
deferrable initially deferred for each row execute function sale_void_entry_matches();
comment on constraint sale_void_entry_matches on sale_void is
'A void has one journal entry that takes back the entries of the sale and its payments.';

create function customer_credit_limit() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    buyer record;
    owed numeric;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    -- Sales on credit to one customer wait for each other here, so none overlooks another.
    select status, credit_limit into buyer
    from public.customer where org_id = new.org_id and id = new.customer_id
    for no key update;

    select sum(outstanding) into owed
    from public.receivable
    where org_id = new.org_id and customer_id = new.customer_id and outstanding > 0;

    if buyer.status is distinct from 'ACTIVE' or owed > buyer.credit_limit then
        raise exception using
            errcode = 'check_violation', constraint = 'customer_credit_limit',
            table = 'receivable', message = 'the customer may not owe this',
            detail = jsonb_build_object(
                'customer_id', new.customer_id, 'customer_status', buyer.status,
                'credit_limit', buyer.credit_limit::text, 'would_owe', owed::text
            )::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function customer_credit_limit() is
'At commit: the customer is active and owes no more than the credit limit.';
create constraint trigger customer_credit_limit after insert on receivable
deferrable initially deferred for each row execute function customer_credit_limit();
comment on constraint customer_credit_limit on receivable is
'The customer is not active, or would owe more than the credit limit.';

-- Prices and rates are the catalogue's, whoever writes the line. Immediate, and a serialization
-- failure: where a price changed between reading it and writing the line, trying again is right.
create function sale_line_priced_from_catalogue() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    product_ids bigint[];
begin
    select array_agg(line.product_id order by line.product_id) into product_ids
    from sold as line
    left join public.product on product.org_id = line.org_id and product.id = line.product_id
    left join public.tax_code
        on tax_code.org_id = product.org_id and tax_code.id = product.tax_code_id
    where (line.list_price, line.tax_code, line.tax_rate_percent, true)
        is distinct from (product.price, tax_code.code, tax_code.rate_percent, product.is_active);

    if product_ids is not null then
        raise exception using
            errcode = 'serialization_failure', constraint = 'sale_line_priced_from_catalogue',
            table = 'sale_line', message = 'the catalogue says otherwise',
            detail = jsonb_build_object('product_ids', product_ids)::text;
    end if;
    return null;
end
$$;
comment on function sale_line_priced_from_catalogue() is
'Shelf price, tax code and rate of new sale lines are those of the catalogue at this moment.';
create trigger sale_line_priced_from_catalogue after insert on sale_line
referencing new table as sold
for each statement execute function sale_line_priced_from_catalogue();
comment on trigger sale_line_priced_from_catalogue on sale_line is
'Shelf price, tax code and tax rate of a line are the catalogue''s.';

-- The count of a till follows its sales; nobody else may write it.
create function sale_counts_on_its_till() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
begin
    -- RETURNING may have set another organisation already.
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    update public.till set receipt_count = new.receipt_no
    where org_id = new.org_id and id = new.till_id and receipt_count = new.receipt_no - 1;
    if not found then
        raise exception using
            errcode = 'foreign_key_violation', constraint = 'sale_receipt_no_follows',
            table = 'sale', message = 'the number before was not the last one';
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function sale_counts_on_its_till() is
'Counts a sale''s receipt on its till; its number is the next one, or the sale is refused.';
create trigger sale_counts_on_its_till after insert on sale
for each row execute function sale_counts_on_its_till();
comment on trigger sale_counts_on_its_till on sale is 'Counts the receipt on its till.';

-- Receivables follow sales, payments and voids; nobody else may write them.
create function receivable_follows() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
begin
    -- RETURNING may have set another organisation already.
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;
    case tg_table_name
        when 'sale' then
            insert into public.receivable (
                org_id, sale_id, customer_id, currency, sold_on, amount
            )
            values (
                new.org_id, new.id, new.customer_id, new.currency, new.sold_on,
                new.total - new.paid
            );
        when 'payment' then
            -- One statement may insert a later payment before an earlier one.
            update public.receivable
            set settled = greatest(settled, new.paid_after - new.sale_paid)
            where org_id = new.org_id and sale_id = new.sale_id;
        when 'sale_void' then
            update public.receivable set cancelled = amount - settled
            where org_id = new.org_id and sale_id = new.sale_id;
    end case;
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function receivable_follows() is
'Opens a receivable for what a sale leaves unpaid, settles it by payments, cancels it by a void.';
create trigger receivable_follows after insert on sale
for each row when (new.total > new.paid) execute function receivable_follows();
comment on trigger receivable_follows on sale is 'Opens the receivable.';
create trigger receivable_follows after insert on payment
for each row when (new.paid_after > new.sale_paid) execute function receivable_follows();
comment on trigger receivable_follows on payment is 'Settles the receivable.';
create trigger receivable_follows after insert on sale_void
for each row execute function receivable_follows();
comment on trigger receivable_follows on sale_void is 'Cancels what is left of the receivable.';

-- Payments and voids of one sale wait for each other on the sale's own row. The application may
-- not update a sale, so it cannot lock one either: these two do it for it.
create function lock_sale(wanted_sale_id bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    perform from public.sale
    where org_id = current_setting('app.org_id')::bigint and id = wanted_sale_id
    for no key update;
    return found;
end
$$;
comment on function lock_sale(bigint) is
'Locks a sale of the current organisation until commit; false where there is none.';
grant execute on function lock_sale(bigint) to sofinance_app;

create function sale_void_waits() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;
    perform from public.sale where org_id = new.org_id and id = new.sale_id for update;
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return new;
end
$$;
comment on function sale_void_waits() is
'A void waits for the payments that are under way, and lets none begin.';
create trigger sale_void_waits before insert on sale_void
for each row execute function sale_void_waits();
comment on trigger sale_void_waits on sale_void is
'A void waits for the payments that are under way, and lets none begin.';

create trigger sale_is_final before update or delete or truncate on sale
for each statement execute function is_final();
comment on trigger sale_is_final on sale is 'A sale is final: void it instead.';
create trigger sale_line_is_final before update or delete or truncate on sale_line
for each statement execute function is_final();
comment on trigger sale_line_is_final on sale_line is 'A sale is final: void it instead.';
create trigger payment_is_final before update or delete or truncate on payment
for each statement execute function is_final();
comment on trigger payment_is_final on payment is 'A payment is final.';
create trigger sale_void_is_final before update or delete or truncate on sale_void
for each statement execute function is_final();
comment on trigger sale_void_is_final on sale_void is 'A void is final.';

alter table sale enable row level security;
alter table sale force row level security;
create policy org on sale using (org_id = current_setting('app.org_id')::bigint);
grant select on sale to sofinance_app;
grant insert (
    org_id, branch_id, till_id, receipt_no, client_sale_id, customer_id, cashier_id, currency,
    prices_include_tax, line_count, subtotal, discount, tax, total, paid, sold_on, till_at,
    notes
) on sale to sofinance_app;

alter table sale_line enable row level security;
alter table sale_line force row level security;
create policy org on sale_line using (org_id = current_setting('app.org_id')::bigint);
grant select, insert on sale_line to sofinance_app;

alter table payment enable row level security;
alter table payment force row level security;
create policy org on payment using (org_id = current_setting('app.org_id')::bigint);
grant select on payment to sofinance_app;
grant insert (
    org_id, sale_id, payment_no, currency, sale_total, sale_paid, paid_before, amount, method,
    account_id, reference, received_on, received_by
) on payment to sofinance_app;

alter table sale_void enable row level security;
alter table sale_void force row level security;
create policy org on sale_void using (org_id = current_setting('app.org_id')::bigint);
grant select on sale_void to sofinance_app;
grant insert (
    org_id, sale_id, reason, voided_on, voided_by
) on sale_void to sofinance_app;

alter table receivable enable row level security;
alter table receivable force row level security;
create policy org on receivable using (org_id = current_setting('app.org_id')::bigint);
grant select on receivable to sofinance_app;
