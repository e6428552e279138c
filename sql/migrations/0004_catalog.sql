-- Tax codes, categories and products. Prices are in the organisation's own currency.
-- depends: 0003_branches
set local lock_timeout = '4s';
set local role sofinance_owner;

create table tax_code (
    org_id bigint not null,
    id bigint generated always as identity,
    code text not null,
    name text not null,
    rate_percent numeric(7, 4) not null,
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint tax_code_pk primary key (org_id, id),
    constraint tax_code_organisation_known foreign key (org_id) references organisation (org_id),
    constraint tax_code_taken unique (org_id, code),
    constraint tax_code_not_empty check (
        length(btrim(code)) between 1 and 20 and length(btrim(name)) between 1 and 100
    ),
    constraint tax_code_rate_in_range check (rate_percent between 0 and 100)
);
comment on table tax_code is 'How a product is taxed. A sale keeps the code and rate of its day.';
comment on column tax_code.org_id is 'The organisation.';
comment on column tax_code.id is 'The tax code.';
comment on column tax_code.code is 'Short code printed on receipts, such as STD.';
comment on column tax_code.name is 'What it is.';
comment on column tax_code.rate_percent is 'Rate in percent: 15 is fifteen percent.';
comment on column tax_code.is_active is 'False: not offered for new products.';
comment on column tax_code.created_at is 'When it was created (server time).';
comment on column tax_code.updated_at is 'When it was last changed (server time).';
comment on constraint tax_code_pk on tax_code is 'This tax code exists already.';
comment on constraint tax_code_organisation_known on tax_code is 'There is no such organisation.';
comment on constraint tax_code_taken on tax_code is 'Another tax code has this code.';
comment on constraint tax_code_not_empty on tax_code is
'A code has 1 to 20 characters, a name 1 to 100.';
comment on constraint tax_code_rate_in_range on tax_code is 'A tax rate is 0 to 100 percent.';

create table category (
    org_id bigint not null,
    id bigint generated always as identity,
    name text not null,
    description text,
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint category_pk primary key (org_id, id),
    constraint category_organisation_known foreign key (org_id) references organisation (org_id),
    constraint category_name_taken unique (org_id, name),
    constraint category_name_not_empty check (length(btrim(name)) between 1 and 100),
    constraint category_description_not_long check (length(description) <= 1000)
);
comment on table category is 'A group of products.';
comment on column category.org_id is 'The organisation.';
comment on column category.id is 'The category.';
comment on column category.name is 'Its name, unique in the organisation.';
comment on column category.description is 'What belongs in it.';
comment on column category.is_active is 'False: not offered for new products.';
comment on column category.created_at is 'When it was created (server time).';
comment on column category.updated_at is 'When it was last changed (server time).';
comment on constraint category_pk on category is 'This category exists already.';
comment on constraint category_organisation_known on category is 'There is no such organisation.';
comment on constraint category_name_taken on category is 'Another category has this name.';
comment on constraint category_name_not_empty on category is 'A name has 1 to 100 characters.';
comment on constraint category_description_not_long on category is
'A description has at most 1000 characters.';

create table product (
    org_id bigint not null,
    id bigint generated always as identity,
    sku text not null,
    barcode text,
    name text not null,
    description text,
    category_id bigint,
    tax_code_id bigint not null,
    currency char(3) not null,
    cost numeric(20, 4) not null,
    price numeric(20, 4) not null,
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint product_pk primary key (org_id, id),
    constraint product_currency_key unique (org_id, id, currency),
    constraint product_sku_taken unique (org_id, sku),
    constraint product_barcode_taken unique (org_id, barcode),
    constraint product_category_known foreign key (org_id, category_id)
    references category (org_id, id),
    constraint product_tax_code_known foreign key (org_id, tax_code_id)
    references tax_code (org_id, id),
    constraint product_currency_is_base foreign key (org_id, currency)
    references organisation (org_id, base_currency),
    constraint product_sku_not_empty check (length(btrim(sku)) between 1 and 50),
    constraint product_barcode_not_empty check (length(btrim(barcode)) between 1 and 50),
    constraint product_name_not_empty check (length(btrim(name)) between 1 and 200),
    constraint product_description_not_long check (length(description) <= 2000),
    constraint product_cost_not_negative check (cost >= 0),
    constraint product_price_covers_cost check (price >= cost),
    constraint product_price_in_minor_units check (
        price = round(price, minor_units(currency)) and cost = round(cost, minor_units(currency))
    ),
    constraint product_amounts_are_numbers check (greatest(cost, price) < 'NaN')
);
comment on table product is 'What is sold. Its stock is counted per branch, in stock.';
comment on column product.org_id is 'The organisation.';
comment on column product.id is 'The product.';
comment on column product.sku is 'Stock keeping unit: the retailer''s own code, unique.';
comment on column product.barcode is 'What a scanner reads (EAN, UPC); unique where given.';
comment on column product.name is 'Its name, as printed on receipts.';
comment on column product.description is 'More about it.';
comment on column product.category_id is 'Its category.';
comment on column product.tax_code_id is 'How it is taxed.';
comment on column product.currency is 'Currency of cost and price: the organisation''s own.';
comment on column product.cost is 'Standard cost of one unit; what stock really cost is in stock.';
comment on column product.price is 'Shelf price of one unit, with or without tax as the organisation says.';
comment on column product.is_active is 'False: cannot be sold. Never deleted.';
comment on column product.created_at is 'When it was created (server time).';
comment on column product.updated_at is 'When it was last changed (server time).';
comment on constraint product_pk on product is 'This product exists already.';
comment on constraint product_currency_key on product is
'Lets a line name its product together with its currency.';
comment on constraint product_sku_taken on product is 'Another product has this SKU.';
comment on constraint product_barcode_taken on product is 'Another product has this barcode.';
comment on constraint product_category_known on product is 'There is no such category, or products still belong to it.';
comment on constraint product_tax_code_known on product is 'There is no such tax code.';
comment on constraint product_currency_is_base on product is
'A product is priced in the organisation''s own currency.';
comment on constraint product_sku_not_empty on product is 'A SKU has 1 to 50 characters.';
comment on constraint product_barcode_not_empty on product is 'A barcode has 1 to 50 characters.';
comment on constraint product_name_not_empty on product is 'A name has 1 to 200 characters.';
comment on constraint product_description_not_long on product is
'A description has at most 2000 characters.';
comment on constraint product_cost_not_negative on product is 'A cost is zero or more.';
comment on constraint product_price_covers_cost on product is
'A selling price is not below the cost.';
comment on constraint product_price_in_minor_units on product is
'An amount has no more decimals than its currency.';
comment on constraint product_amounts_are_numbers on product is
'An amount is a number: NaN would be equal to itself and above all limits.';
create index product_by_category on product (org_id, category_id, id);
comment on index product_by_category is 'Products of a category; the foreign key''s own look-up.';

alter table tax_code enable row level security;
alter table tax_code force row level security;
create policy org on tax_code using (org_id = current_setting('app.org_id')::bigint);
grant select on tax_code to sofinance_app;
grant insert (
    org_id, code, name, rate_percent, is_active
) on tax_code to sofinance_app;
grant update (code, name, rate_percent, is_active, updated_at) on tax_code to sofinance_app;

alter table category enable row level security;
alter table category force row level security;
create policy org on category using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on category to sofinance_app;
grant insert (
    org_id, name, description, is_active
) on category to sofinance_app;
grant update (name, description, is_active, updated_at) on category to sofinance_app;

alter table product enable row level security;
alter table product force row level security;
create policy org on product using (org_id = current_setting('app.org_id')::bigint);
grant select on product to sofinance_app;
grant insert (
    org_id, sku, barcode, name, description, category_id, tax_code_id, currency, cost, price,
    is_active
) on product to sofinance_app;
grant update (
    sku, barcode, name, description, category_id, tax_code_id, cost, price, is_active, updated_at
) on product to sofinance_app;
