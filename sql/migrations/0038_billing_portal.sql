-- Which customer at Stripe is ours, so that a customer sees their cards and receipts there.
-- depends: 0037_deletion_reason
set local lock_timeout = '4s';
set local role sofinance_owner;

create table stripe_customer (
    org_id bigint not null,
    customer_id bigint not null,
    token uuid not null default gen_random_uuid(),
    stripe_ref text,
    created_at timestamptz not null default now(),
    constraint stripe_customer_pk primary key (org_id, customer_id),
    constraint stripe_customer_token_taken unique (org_id, token),
    constraint stripe_customer_stripe_ref_taken unique (org_id, stripe_ref),
    constraint stripe_customer_known foreign key (org_id, customer_id)
    references customer (org_id, id),
    constraint stripe_customer_stripe_ref_form check (stripe_ref ~ '^cus_[A-Za-z0-9_]{1,90}$')
);
comment on table stripe_customer is
'Customers who are customers at Stripe; it is told their number, and nothing of the person.';
comment on column stripe_customer.org_id is 'The organisation.';
comment on column stripe_customer.customer_id is 'The customer.';
comment on column stripe_customer.token is
'The Idempotency-Key by which Stripe makes the customer once.';
comment on column stripe_customer.stripe_ref is 'Stripe''s id of the customer (cus_...).';
comment on column stripe_customer.created_at is 'When (server time).';
comment on constraint stripe_customer_pk on stripe_customer is
'This customer is one at Stripe already.';
comment on constraint stripe_customer_token_taken on stripe_customer is
'Another customer has this token.';
comment on constraint stripe_customer_stripe_ref_taken on stripe_customer is
'Another customer is this one at Stripe.';
comment on constraint stripe_customer_known on stripe_customer is 'There is no such customer.';
comment on constraint stripe_customer_stripe_ref_form on stripe_customer is
'A customer at Stripe has an id that begins with cus_.';

create function stripe_customer_ref_stays() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = 'stripe_customer_ref_stays',
        table = 'stripe_customer', message = format('customer %s is %s', old.customer_id, old.stripe_ref);
end
$$;
comment on function stripe_customer_ref_stays() is 'Refuses to make somebody another customer.';
create trigger stripe_customer_ref_stays before update on stripe_customer for each row
when (old.stripe_ref is not null and new.stripe_ref is distinct from old.stripe_ref)
execute function stripe_customer_ref_stays();
comment on trigger stripe_customer_ref_stays on stripe_customer is
'A customer stays the same one at Stripe.';

alter table stripe_customer enable row level security;
alter table stripe_customer force row level security;
create policy org on stripe_customer using (org_id = current_setting('app.org_id')::bigint);
grant select on stripe_customer to sofinance_app, sofinance_readonly;
grant insert (org_id, customer_id) on stripe_customer to sofinance_app;
grant update (stripe_ref) on stripe_customer to sofinance_app;
