-- Forget what was paid at Stripe; the payments themselves stay.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop table stripe_event;
drop table stripe_checkout;
drop function stripe_event_done_stays();
drop function stripe_checkout_payment_matches();
drop function stripe_checkout_ends_for_good();
