-- Card payments through Stripe: what customers were asked to pay, and what Stripe says of it.
-- A payment that was made and that its sale refuses is kept here until somebody has settled it.
-- depends: 0035_customer_portal
set local lock_timeout = '4s';
set local role sofinance_owner;

create table stripe_checkout (
    org_id bigint not null,
    id bigint generated always as identity,
    token uuid not null default gen_random_uuid(),
    sale_id bigint not null,
    currency char(3) not null,
    amount numeric(20, 4) not null,
    status text not null default 'starting',
    session_id text,
    url text,
    created_by bigint not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    payment_no smallint,
    payment_ref text,
    ended_at timestamptz,
    constraint stripe_checkout_pk primary key (org_id, id),
    constraint stripe_checkout_token_taken unique (org_id, token),
    constraint stripe_checkout_session_taken unique (org_id, session_id),
    constraint stripe_checkout_payment_taken unique (org_id, sale_id, payment_no),
    constraint stripe_checkout_payment_ref_taken unique (org_id, payment_ref),
    constraint stripe_checkout_sale_known foreign key (org_id, sale_id)
    references sale (org_id, id),
    constraint stripe_checkout_user_known foreign key (org_id, created_by)
    references app_user (org_id, id),
    constraint stripe_checkout_payment_known foreign key (org_id, sale_id, payment_no)
    references payment (org_id, sale_id, payment_no),
    constraint stripe_checkout_amount_above_zero check (amount > 0),
    constraint stripe_checkout_amounts_are_numbers check (amount < 'NaN'),
    constraint stripe_checkout_in_minor_units check (min_scale(amount) <= minor_units(currency)),
    constraint stripe_checkout_status_known check (
        status in ('starting', 'open', 'paid', 'expired')
    ),
    constraint stripe_checkout_session_form check (session_id ~ '^cs_[A-Za-z0-9_]{1,250}$'),
    constraint stripe_checkout_url_form check (url ~ '^https?://' and length(url) <= 2048),
    constraint stripe_checkout_open_at_stripe check (
        status <> 'open' or (session_id is not null and url is not null)
    ),
    constraint stripe_checkout_paid_by_payment check (
        (status = 'paid') = (payment_no is not null)
        and (status = 'paid') = (payment_ref is not null)
    ),
    constraint stripe_checkout_payment_ref_form check (
        payment_ref ~ '^[a-z]{2,5}_[A-Za-z0-9_]{1,90}$'
    ),
    constraint stripe_checkout_ended_at_a_time check (
        (status in ('paid', 'expired')) = (ended_at is not null)
    ),
    constraint stripe_checkout_times_are_finite check (
        isfinite(created_at) and isfinite(expires_at)
    )
);
comment on table stripe_checkout is
'A page at Stripe on which a customer pays what is open of a sale by card.';
comment on column stripe_checkout.org_id is 'The organisation.';
comment on column stripe_checkout.id is 'The checkout.';
comment on column stripe_checkout.token is
'What Stripe tells us it by, and its Idempotency-Key: no other deployment makes the same.';
comment on column stripe_checkout.sale_id is 'The sale that is paid.';
comment on column stripe_checkout.currency is 'The sale''s currency.';
comment on column stripe_checkout.amount is 'What was open of the sale.';
comment on column stripe_checkout.status is
'starting: Stripe is being asked; open: the customer may pay; paid; expired: ended without a payment.';
comment on column stripe_checkout.session_id is 'Stripe''s id of the page (cs_...).';
comment on column stripe_checkout.url is 'Where the customer pays.';
comment on column stripe_checkout.created_by is 'Who asked for it; its payment is posted by them.';
comment on column stripe_checkout.created_at is 'When (server time).';
comment on column stripe_checkout.expires_at is 'Until when the customer may pay.';
comment on column stripe_checkout.payment_no is 'The number of the sale''s payment.';
comment on column stripe_checkout.payment_ref is 'Stripe''s id of the payment (pi_...).';
comment on column stripe_checkout.ended_at is 'When it was paid or ended (server time).';
comment on constraint stripe_checkout_pk on stripe_checkout is 'This checkout exists already.';
comment on constraint stripe_checkout_token_taken on stripe_checkout is
'Another checkout has this token.';
comment on constraint stripe_checkout_session_taken on stripe_checkout is
'Another checkout has this page at Stripe.';
comment on constraint stripe_checkout_payment_taken on stripe_checkout is
'Another checkout led to this payment.';
comment on constraint stripe_checkout_payment_ref_taken on stripe_checkout is
'This payment at Stripe has been posted already.';
comment on constraint stripe_checkout_sale_known on stripe_checkout is 'There is no such sale.';
comment on constraint stripe_checkout_user_known on stripe_checkout is 'There is no such user.';
comment on constraint stripe_checkout_payment_known on stripe_checkout is
'The sale has no such payment.';
comment on constraint stripe_checkout_amount_above_zero on stripe_checkout is
'A checkout is about an amount above zero.';
comment on constraint stripe_checkout_amounts_are_numbers on stripe_checkout is
'An amount is a number: NaN would be above all limits.';
comment on constraint stripe_checkout_in_minor_units on stripe_checkout is
'An amount has no more decimals than its currency.';
comment on constraint stripe_checkout_status_known on stripe_checkout is
'A checkout is starting, open, paid or expired.';
comment on constraint stripe_checkout_session_form on stripe_checkout is
'A page at Stripe has an id that begins with cs_.';
comment on constraint stripe_checkout_url_form on stripe_checkout is
'A customer pays at a URL of at most 2048 characters.';
comment on constraint stripe_checkout_open_at_stripe on stripe_checkout is
'A checkout that is open has its page at Stripe.';
comment on constraint stripe_checkout_paid_by_payment on stripe_checkout is
'A checkout that is paid, and no other, names its payment here and at Stripe.';
comment on constraint stripe_checkout_payment_ref_form on stripe_checkout is
'A payment at Stripe has an id such as pi_123.';
comment on constraint stripe_checkout_ended_at_a_time on stripe_checkout is
'A checkout that has ended, and no other, has the time.';
comment on constraint stripe_checkout_times_are_finite on stripe_checkout is
'A time is one of the calendar.';
create unique index stripe_checkout_open_once on stripe_checkout (org_id, sale_id)
where status in ('starting', 'open');
comment on index stripe_checkout_open_once is 'A sale has one checkout at a time.';

create function stripe_checkout_ends_for_good() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = 'stripe_checkout_ends_for_good',
        table = 'stripe_checkout', message = format('checkout %s was %s', old.id, old.status);
end
$$;
comment on function stripe_checkout_ends_for_good() is 'Refuses to open what has ended.';
create trigger stripe_checkout_ends_for_good before update on stripe_checkout for each row
when (old.status = 'paid' or (old.status = 'expired' and new.status not in ('expired', 'paid')))
execute function stripe_checkout_ends_for_good();
comment on trigger stripe_checkout_ends_for_good on stripe_checkout is
'A checkout that was paid stays as it is, and one that expired does not open again.';

-- What is posted is what the customer was asked for.
create function stripe_checkout_payment_matches() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    if exists (
        select from public.payment
        where
            org_id = new.org_id and sale_id = new.sale_id and payment_no = new.payment_no
            and (method, amount, currency, reference)
            is distinct from ('CARD', new.amount, new.currency, new.payment_ref)
    ) then
        raise exception using
            errcode = 'check_violation', constraint = 'stripe_checkout_payment_matches',
            table = 'stripe_checkout', message = format('checkout %s: another payment', new.id);
    end if;
    return new;
end
$$;
comment on function stripe_checkout_payment_matches() is
'Refuses a payment of another amount, of another method or with another reference.';
create trigger stripe_checkout_payment_matches before update on stripe_checkout for each row
when (new.status = 'paid')
execute function stripe_checkout_payment_matches();
comment on trigger stripe_checkout_payment_matches on stripe_checkout is
'What was paid at Stripe is a card payment of the same amount, by Stripe''s reference.';

alter table stripe_checkout enable row level security;
alter table stripe_checkout force row level security;
create policy org on stripe_checkout using (org_id = current_setting('app.org_id')::bigint);
grant select on stripe_checkout to sofinance_app, sofinance_readonly;
grant insert (org_id, sale_id, currency, amount, created_by, expires_at) on stripe_checkout
to sofinance_app;
grant update (status, session_id, url, payment_no, payment_ref, ended_at) on stripe_checkout
to sofinance_app;

create table stripe_event (
    org_id bigint not null,
    event_id text not null,
    type text not null,
    payload_sha256 bytea not null,
    checkout_id bigint not null,
    status text not null default 'processing',
    attempt_count integer not null default 1,
    payment_ref text,
    currency char(3),
    amount numeric(20, 4),
    last_error text,
    note text,
    received_at timestamptz not null default now(),
    processed_at timestamptz,
    constraint stripe_event_pk primary key (org_id, event_id),
    constraint stripe_event_checkout_known foreign key (org_id, checkout_id)
    references stripe_checkout (org_id, id),
    constraint stripe_event_id_form check (event_id ~ '^evt_[A-Za-z0-9_]{1,250}$'),
    constraint stripe_event_type_form check (type ~ '^[a-z0-9_.]{1,100}$'),
    constraint stripe_event_payload_is_hashed check (length(payload_sha256) = 32),
    constraint stripe_event_status_known check (
        status in ('processing', 'succeeded', 'ignored', 'error', 'settled')
    ),
    constraint stripe_event_processed_at_a_time check (
        (status = 'processing') = (processed_at is null)
    ),
    constraint stripe_event_error_has_reason check (
        (status in ('error', 'settled')) = (last_error is not null)
    ),
    constraint stripe_event_error_not_long check (length(last_error) <= 100),
    constraint stripe_event_settled_with_note check (
        (status = 'settled') = (note is not null) and length(note) between 1 and 500
    ),
    constraint stripe_event_payment_ref_form check (
        payment_ref ~ '^[a-z]{2,5}_[A-Za-z0-9_]{1,90}$'
    ),
    constraint stripe_event_amount_above_zero check (amount > 0),
    constraint stripe_event_amounts_are_numbers check (amount < 'NaN'),
    constraint stripe_event_payment_whole check (
        num_nonnulls(payment_ref, currency, amount) in (0, 3)
    ),
    constraint stripe_event_attempts_from_one check (attempt_count >= 1)
);
comment on table stripe_event is 'What Stripe told us about a checkout, and what came of it.';
comment on column stripe_event.org_id is 'The organisation.';
comment on column stripe_event.event_id is 'Stripe''s id of the event (evt_...).';
comment on column stripe_event.type is 'Stripe''s type of the event.';
comment on column stripe_event.payload_sha256 is 'The hash of what was signed.';
comment on column stripe_event.checkout_id is 'The checkout that it is about.';
comment on column stripe_event.status is
'processing: delivered, not yet done; succeeded; ignored: says nothing to us; error: a payment that
its sale refuses; settled: such a one that somebody has dealt with.';
comment on column stripe_event.attempt_count is 'How often it was begun.';
comment on column stripe_event.payment_ref is 'Stripe''s id of the payment (pi_...).';
comment on column stripe_event.currency is 'The currency that was paid.';
comment on column stripe_event.amount is 'The amount that was paid.';
comment on column stripe_event.last_error is 'The rule that refuses the payment.';
comment on column stripe_event.note is 'How somebody dealt with it.';
comment on column stripe_event.received_at is 'When it came first (server time).';
comment on column stripe_event.processed_at is 'When it was done, or refused (server time).';
comment on constraint stripe_event_pk on stripe_event is 'This event has been told already.';
comment on constraint stripe_event_checkout_known on stripe_event is
'There is no such checkout.';
comment on constraint stripe_event_id_form on stripe_event is
'An event of Stripe''s has an id that begins with evt_.';
comment on constraint stripe_event_type_form on stripe_event is
'A type of event is written in lower case, with dots.';
comment on constraint stripe_event_payload_is_hashed on stripe_event is
'What was signed is kept as its SHA-256 hash.';
comment on constraint stripe_event_status_known on stripe_event is
'An event is processing, succeeded, ignored, error or settled.';
comment on constraint stripe_event_processed_at_a_time on stripe_event is
'An event that is done, and no other, has the time.';
comment on constraint stripe_event_error_has_reason on stripe_event is
'An event that could not be posted, and no other, says why.';
comment on constraint stripe_event_error_not_long on stripe_event is
'The rule that refuses has a name of at most 100 characters.';
comment on constraint stripe_event_settled_with_note on stripe_event is
'An event that is settled, and no other, says how in 1 to 500 characters.';
comment on constraint stripe_event_payment_ref_form on stripe_event is
'A payment at Stripe has an id such as pi_123.';
comment on constraint stripe_event_amount_above_zero on stripe_event is
'What was paid is above zero.';
comment on constraint stripe_event_amounts_are_numbers on stripe_event is
'An amount is a number: NaN would be above all limits.';
comment on constraint stripe_event_payment_whole on stripe_event is
'A payment has its id, its currency and its amount.';
comment on constraint stripe_event_attempts_from_one on stripe_event is
'An event was begun once or more.';
create index stripe_event_open on stripe_event (org_id, received_at, event_id)
where status in ('processing', 'error');
comment on index stripe_event_open is 'What Stripe told and is not in the books.';
create index stripe_event_by_time on stripe_event (org_id, received_at, event_id);
comment on index stripe_event_by_time is 'What Stripe told, latest first.';

create function stripe_event_done_stays() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = 'stripe_event_done_stays',
        table = 'stripe_event', message = format('event %s is %s', old.event_id, old.status);
end
$$;
comment on function stripe_event_done_stays() is 'Refuses to do again what was done.';
create trigger stripe_event_done_stays before update on stripe_event for each row
when (
    (new.status, new.last_error, new.note, new.processed_at)
    is distinct from (old.status, old.last_error, old.note, old.processed_at)
    and (
        old.status in ('succeeded', 'ignored', 'settled')
        or (old.status <> 'error' and new.status = 'settled')
        or (old.status = 'error' and new.status in ('processing', 'ignored'))
    )
)
execute function stripe_event_done_stays();
comment on trigger stripe_event_done_stays on stripe_event is
'An event is done once; only one that was refused is settled or tried again.';

alter table stripe_event enable row level security;
alter table stripe_event force row level security;
create policy org on stripe_event using (org_id = current_setting('app.org_id')::bigint);
grant select on stripe_event to sofinance_app, sofinance_readonly;
grant insert (org_id, event_id, type, payload_sha256, checkout_id, payment_ref, currency, amount)
on stripe_event to sofinance_app;
grant update (status, attempt_count, last_error, note, processed_at) on stripe_event
to sofinance_app;
