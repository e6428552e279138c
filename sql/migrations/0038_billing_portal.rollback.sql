-- Forget who is whom at Stripe.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop table stripe_customer;
drop function stripe_customer_ref_stays();
