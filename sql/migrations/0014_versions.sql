-- A version on everything that may be changed, so that nobody overwrites what they have not seen.
-- It is in the ETag; If-Match names it. It counts once for each transaction that changes the row,
-- so what a request changed was at the version before, however many statements it took.
-- depends: 0013_branch_scope
set local lock_timeout = '4s';
set local role sofinance_owner;

create function version_counted() returns trigger
language plpgsql as $$
begin
    if old.xmin <> pg_current_xact_id()::xid then
        new.version := old.version + 1;
    end if;
    return new;
end
$$;
comment on function version_counted() is
'Counts a row''s version up, once for each transaction that changes the row.';

alter table organisation add column version bigint not null default 1;
comment on column organisation.version is 'How often it was changed, from 1; in the ETag.';
create trigger organisation_version_counted before update on organisation
for each row execute function version_counted();
comment on trigger organisation_version_counted on organisation is 'Counts the version up with each change.';

alter table app_user add column version bigint not null default 1;
comment on column app_user.version is 'How often it was changed, from 1; in the ETag.';
create trigger app_user_version_counted before update on app_user
for each row execute function version_counted();
comment on trigger app_user_version_counted on app_user is 'Counts the version up with each change.';

alter table branch add column version bigint not null default 1;
comment on column branch.version is 'How often it was changed, from 1; in the ETag.';
create trigger branch_version_counted before update on branch
for each row execute function version_counted();
comment on trigger branch_version_counted on branch is 'Counts the version up with each change.';

alter table till add column version bigint not null default 1;
comment on column till.version is 'How often it was changed, from 1; in the ETag.';
create trigger till_version_counted before update on till
for each row
when (old.receipt_count = new.receipt_count) execute function version_counted();
comment on trigger till_version_counted on till is 'Counts the version up with each change.';

alter table tax_code add column version bigint not null default 1;
comment on column tax_code.version is 'How often it was changed, from 1; in the ETag.';
create trigger tax_code_version_counted before update on tax_code
for each row execute function version_counted();
comment on trigger tax_code_version_counted on tax_code is 'Counts the version up with each change.';

alter table category add column version bigint not null default 1;
comment on column category.version is 'How often it was changed, from 1; in the ETag.';
create trigger category_version_counted before update on category
for each row execute function version_counted();
comment on trigger category_version_counted on category is 'Counts the version up with each change.';

alter table product add column version bigint not null default 1;
comment on column product.version is 'How often it was changed, from 1; in the ETag.';
create trigger product_version_counted before update on product
for each row execute function version_counted();
comment on trigger product_version_counted on product is 'Counts the version up with each change.';

alter table customer add column version bigint not null default 1;
comment on column customer.version is 'How often it was changed, from 1; in the ETag.';
create trigger customer_version_counted before update on customer
for each row execute function version_counted();
comment on trigger customer_version_counted on customer is 'Counts the version up with each change.';

alter table account add column version bigint not null default 1;
comment on column account.version is 'How often it was changed, from 1; in the ETag.';
create trigger account_version_counted before update on account
for each row execute function version_counted();
comment on trigger account_version_counted on account is 'Counts the version up with each change.';

alter table accounting_period add column version bigint not null default 1;
comment on column accounting_period.version is 'How often it was changed, from 1; in the ETag.';
create trigger accounting_period_version_counted before update on accounting_period
for each row execute function version_counted();
comment on trigger accounting_period_version_counted on accounting_period is 'Counts the version up with each change.';

-- Reports read users by column.
grant select (version) on app_user to sofinance_readonly;

alter table idempotency_key add column etag text;
comment on column idempotency_key.etag is 'The ETag of the answer, if it had one.';
grant update (etag) on idempotency_key to sofinance_app;
