-- Customers. What one owes is never stored here: it is the sum of their open receivables.
-- depends: 0004_catalog
set local lock_timeout = '4s';
set local role sofinance_owner;

create table customer (
    org_id bigint not null,
    id bigint generated always as identity,
    name text not null,
    email text,
    phone text,
    address text,
    customer_type text not null default 'INDIVIDUAL',
    currency char(3) not null,
    credit_limit numeric(20, 4) not null,
    status text not null default 'ACTIVE',
    notes text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint customer_pk primary key (org_id, id),
    constraint customer_email_taken unique (org_id, email),
    constraint customer_phone_taken unique (org_id, phone),
    constraint customer_currency_is_base foreign key (org_id, currency)
    references organisation (org_id, base_currency),
    constraint customer_name_not_empty check (length(btrim(name)) between 1 and 200),
    constraint customer_email_is_lower_case check (
        email = lower(email) and email ~ '^[^@[:space:]]+@[^@[:space:]]+$' and length(email) <= 254
    ),
    constraint customer_phone_has_ten_digits check (
        length(regexp_replace(phone, '[^0-9]', '', 'g')) >= 10 and length(phone) <= 40
    ),
    constraint customer_text_not_long check (length(address) <= 500 and length(notes) <= 1000),
    constraint customer_type_known check (customer_type in ('INDIVIDUAL', 'COMPANY')),
    constraint customer_status_known check (status in ('ACTIVE', 'INACTIVE', 'BLACKLISTED')),
    constraint customer_credit_limit_not_negative check (credit_limit >= 0),
    constraint customer_credit_limit_in_minor_units check (
        credit_limit = round(credit_limit, minor_units(currency))
    ),
    constraint customer_amounts_are_numbers check (credit_limit < 'NaN')
);
comment on table customer is 'Who buys by name, and may owe. The debt is the sum of receivable.';
comment on column customer.org_id is 'The organisation.';
comment on column customer.id is 'The customer.';
comment on column customer.name is 'Full name, of a person or a company.';
comment on column customer.email is 'E-mail address, lower case, unique where given.';
comment on column customer.phone is 'Telephone number with ten digits or more, unique where given.';
comment on column customer.address is 'Postal address.';
comment on column customer.customer_type is 'INDIVIDUAL or COMPANY.';
comment on column customer.currency is 'Currency of the credit limit: the organisation''s own.';
comment on column customer.credit_limit is 'What the customer may owe at most; 0 means no credit.';
comment on column customer.status is 'ACTIVE, INACTIVE, or BLACKLISTED, who buys nothing on credit.';
comment on column customer.notes is 'Remarks.';
comment on column customer.created_at is 'When it was created (server time).';
comment on column customer.updated_at is 'When it was last changed (server time).';
comment on constraint customer_pk on customer is 'This customer exists already.';
comment on constraint customer_email_taken on customer is 'Another customer has this e-mail address.';
comment on constraint customer_phone_taken on customer is 'Another customer has this phone number.';
comment on constraint customer_currency_is_base on customer is
'A credit limit is in the organisation''s own currency.';
comment on constraint customer_name_not_empty on customer is 'A name has 1 to 200 characters.';
comment on constraint customer_email_is_lower_case on customer is
'An e-mail address has the form name@host, in lower case, of at most 254 characters.';
comment on constraint customer_phone_has_ten_digits on customer is
'A phone number has ten digits or more, and at most 40 characters.';
comment on constraint customer_text_not_long on customer is
'An address has at most 500 characters, notes 1000.';
comment on constraint customer_type_known on customer is
'A customer is an INDIVIDUAL or a COMPANY.';
comment on constraint customer_status_known on customer is
'A customer is ACTIVE, INACTIVE or BLACKLISTED.';
comment on constraint customer_credit_limit_not_negative on customer is
'A credit limit is zero or more.';
comment on constraint customer_credit_limit_in_minor_units on customer is
'An amount has no more decimals than its currency.';
comment on constraint customer_amounts_are_numbers on customer is
'An amount is a number: NaN would be equal to itself and above all limits.';

alter table customer enable row level security;
alter table customer force row level security;
create policy org on customer using (org_id = current_setting('app.org_id')::bigint);
grant select on customer to sofinance_app;
grant insert (
    org_id, name, email, phone, address, customer_type, currency, credit_limit, status, notes
) on customer to sofinance_app;
grant update (
    name, email, phone, address, customer_type, credit_limit, status, notes, updated_at
) on customer to sofinance_app;
