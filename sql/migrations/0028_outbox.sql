-- Events: written in the transaction of the deed, told to other systems by the worker afterwards.
-- The deed writes a thin row (outbox_event). A worker takes it from there, writes what is told once
-- (event) and one delivery for each endpoint that wants it. What is due is in lanes: one for each
-- endpoint and thing, because the events of a thing are told in their order.
-- depends: 0027_attachments
set local lock_timeout = '4s';
set local role sofinance_owner;

insert into permission (name, description) values
('webhooks:read', 'See webhook endpoints, events and deliveries.'),
('webhooks:write', 'Create, change and delete webhook endpoints; replay deliveries.');

-- No foreign keys and one index: it is written by every posting. Nobody but the owner reads or
-- writes it, so no program forges an event or reads another organisation's.
create table outbox_event (
    org_id bigint not null,
    id bigint generated always as identity,
    type text not null,
    aggregate text not null,
    aggregate_id bigint not null,
    subject_id bigint not null,
    occurred_at timestamptz not null default now(),
    constraint outbox_event_pk primary key (org_id, id)
);
comment on table outbox_event is
'What happened and no worker has taken up yet; written by triggers, in the deed''s transaction.';
comment on column outbox_event.org_id is 'The organisation.';
comment on column outbox_event.id is 'The event. Of one thing, a later event has a higher number.';
comment on column outbox_event.type is 'What happened: sale.posted.';
comment on column outbox_event.aggregate is 'To what kind of thing: events of one keep their order.';
comment on column outbox_event.aggregate_id is 'To which of them.';
comment on column outbox_event.subject_id is
'What it is about: the thing itself, or a part of it, such as a payment of a sale.';
comment on column outbox_event.occurred_at is 'When (server time).';
comment on constraint outbox_event_pk on outbox_event is 'This event is written already.';
revoke select on outbox_event from sofinance_readonly;

create function write_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    insert into public.outbox_event (org_id, type, aggregate, aggregate_id, subject_id)
    values (new.org_id, tg_argv[0], tg_argv[1], new.id, new.id);
    return null;
end
$$;
comment on function write_event() is
'Writes the event that is named by the trigger, about the row itself.';

create function write_sale_voided() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    insert into public.outbox_event (org_id, type, aggregate, aggregate_id, subject_id)
    values (new.org_id, 'sale.voided', 'sale', new.sale_id, new.sale_id);
    return null;
end
$$;
comment on function write_sale_voided() is 'Writes the event of a void, about its sale.';

create function write_payment_posted() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    insert into public.outbox_event (org_id, type, aggregate, aggregate_id, subject_id)
    values (new.org_id, 'payment.posted', 'sale', new.sale_id, new.id);
    return null;
end
$$;
comment on function write_payment_posted() is 'Writes the event of a payment, about its sale.';

create trigger sale_is_told after insert on sale
for each row execute function write_event('sale.posted', 'sale');
comment on trigger sale_is_told on sale is 'Writes the event of a sale.';
create trigger sale_void_is_told after insert on sale_void
for each row execute function write_sale_voided();
comment on trigger sale_void_is_told on sale_void is 'Writes the event of a void.';
-- What is paid at the till is told with the sale.
create trigger payment_is_told after insert on payment
for each row when (new.paid_before >= new.sale_paid) execute function write_payment_posted();
comment on trigger payment_is_told on payment is 'Writes the event of a later payment.';
create trigger goods_receipt_is_told after insert on goods_receipt
for each row execute function write_event('goods_receipt.posted', 'goods_receipt');
comment on trigger goods_receipt_is_told on goods_receipt is 'Writes the event of a receipt.';
-- The entry of a document is told with the document.
create trigger journal_entry_is_told after insert on journal_entry
for each row when (new.kind in ('MANUAL', 'REVERSAL'))
execute function write_event('journal_entry.posted', 'journal_entry');
comment on trigger journal_entry_is_told on journal_entry is
'Writes the event of an entry that no document has.';
create trigger customer_is_told after insert on customer
for each row execute function write_event('customer.created', 'customer');
comment on trigger customer_is_told on customer is 'Writes the event of a new customer.';
create trigger customer_change_is_told after update on customer
for each row when (old.version < new.version)
execute function write_event('customer.changed', 'customer');
comment on trigger customer_change_is_told on customer is 'Writes the event of a change.';
create trigger product_is_told after insert on product
for each row execute function write_event('product.created', 'product');
comment on trigger product_is_told on product is 'Writes the event of a new product.';
create trigger product_change_is_told after update on product
for each row when (old.version < new.version)
execute function write_event('product.changed', 'product');
comment on trigger product_change_is_told on product is 'Writes the event of a change.';
create trigger accounting_period_closing_is_told after update of is_closed on accounting_period
for each row when (new.is_closed and not old.is_closed)
execute function write_event('period.closed', 'period');
comment on trigger accounting_period_closing_is_told on accounting_period is
'Writes the event of a period''s closing.';
create trigger accounting_period_reopening_is_told after update of is_closed on accounting_period
for each row when (old.is_closed and not new.is_closed)
execute function write_event('period.reopened', 'period');
comment on trigger accounting_period_reopening_is_told on accounting_period is
'Writes the event of a period''s reopening.';

create table event (
    org_id bigint not null,
    id bigint not null,
    message_id text not null default 'msg_' || replace(gen_random_uuid()::text, '-', ''),
    type text not null,
    aggregate text not null,
    aggregate_id bigint not null,
    subject_id bigint not null,
    occurred_at timestamptz not null,
    body text,
    constraint event_pk primary key (org_id, id),
    constraint event_message_id_form check (message_id ~ '^msg_[0-9a-f]{32}$'),
    constraint event_body_below_20_kb check (octet_length(body) < 20000)
);
comment on table event is 'What happened, and what is told of it: the same bytes to everybody, each time.';
comment on column event.org_id is 'The organisation.';
comment on column event.id is 'The event.';
comment on column event.message_id is
'What a receiver knows it by (webhook-id). Random: after a restore numbers are given again.';
comment on column event.type is 'What happened: sale.posted.';
comment on column event.aggregate is 'To what kind of thing: events of one keep their order.';
comment on column event.aggregate_id is 'To which of them.';
comment on column event.subject_id is 'What it is about: the thing itself, or a part of it.';
comment on column event.occurred_at is 'When (server time).';
comment on column event.body is 'What is sent, byte for byte; nothing where nobody listened.';
comment on constraint event_pk on event is 'This event is written already.';
comment on constraint event_message_id_form on event is
'A message is known by msg_ and 32 hexadecimal digits.';
comment on constraint event_body_below_20_kb on event is 'What is sent is less than 20,000 bytes.';
create index event_by_aggregate on event (org_id, aggregate, aggregate_id, id);
comment on index event_by_aggregate is 'What happened to one thing.';
alter table event enable row level security;
alter table event force row level security;
create policy org on event using (org_id = current_setting('app.org_id')::bigint);
grant select on event to sofinance_app;

create table webhook_endpoint (
    org_id bigint not null,
    id bigint generated always as identity,
    slot smallint not null,
    url text not null,
    description text not null default '',
    event_types text[],
    signature text not null,
    is_active boolean not null default true,
    disabled_at timestamptz,
    disabled_reason text,
    created_at timestamptz not null default now(),
    created_by bigint not null,
    updated_at timestamptz not null default now(),
    version bigint not null default 1,
    constraint webhook_endpoint_pk primary key (org_id, id),
    constraint webhook_endpoint_slots unique (org_id, slot),
    constraint webhook_endpoint_organisation_known foreign key (org_id)
    references organisation (org_id),
    constraint webhook_endpoint_user_known foreign key (org_id, created_by)
    references app_user (org_id, id),
    constraint webhook_endpoint_at_most_20 check (slot between 1 and 20),
    constraint webhook_endpoint_url_form check (
        url ~ '^https?://[^[:space:]]+$' and length(url) <= 2000
    ),
    constraint webhook_endpoint_description_not_long check (length(description) <= 200),
    constraint webhook_endpoint_types_few check (cardinality(event_types) between 1 and 50),
    constraint webhook_endpoint_signature_known check (signature in ('hmac', 'ed25519')),
    constraint webhook_endpoint_disabled_with_reason check (
        (disabled_at is null) = (disabled_reason is null)
        and (disabled_at is null or not is_active)
        and length(disabled_reason) between 1 and 200
    )
);
comment on table webhook_endpoint is 'Where an organisation has its events sent.';
comment on column webhook_endpoint.org_id is 'The organisation.';
comment on column webhook_endpoint.id is 'The endpoint.';
comment on column webhook_endpoint.slot is 'Its place among those of the organisation, from 1.';
comment on column webhook_endpoint.url is 'Where to send.';
comment on column webhook_endpoint.description is 'What it is for.';
comment on column webhook_endpoint.event_types is 'Which events; nothing means every.';
comment on column webhook_endpoint.signature is 'How messages are signed: hmac or ed25519.';
comment on column webhook_endpoint.is_active is 'False: nothing is sent, and nothing new is queued.';
comment on column webhook_endpoint.disabled_at is 'When the service disabled it, if it did.';
comment on column webhook_endpoint.disabled_reason is 'Why the service disabled it.';
comment on column webhook_endpoint.created_at is 'When it was created (server time).';
comment on column webhook_endpoint.created_by is 'Who created it.';
comment on column webhook_endpoint.updated_at is 'When it was last changed (server time).';
comment on column webhook_endpoint.version is 'How often it was changed, from 1; in the ETag.';
comment on constraint webhook_endpoint_pk on webhook_endpoint is 'This endpoint exists already.';
comment on constraint webhook_endpoint_slots on webhook_endpoint is
'Another endpoint was created at the same moment: try again.';
comment on constraint webhook_endpoint_organisation_known on webhook_endpoint is
'There is no such organisation.';
comment on constraint webhook_endpoint_user_known on webhook_endpoint is 'There is no such user.';
comment on constraint webhook_endpoint_at_most_20 on webhook_endpoint is
'An organisation has at most 20 endpoints: delete one first.';
comment on constraint webhook_endpoint_url_form on webhook_endpoint is
'A URL begins with https:// and has at most 2,000 characters.';
comment on constraint webhook_endpoint_description_not_long on webhook_endpoint is
'A description has at most 200 characters.';
comment on constraint webhook_endpoint_types_few on webhook_endpoint is
'Name 1 to 50 types of event, or none for all.';
comment on constraint webhook_endpoint_signature_known on webhook_endpoint is
'A signature is hmac or ed25519.';
comment on constraint webhook_endpoint_disabled_with_reason on webhook_endpoint is
'An endpoint that the service disabled is not active and says why.';
create trigger webhook_endpoint_version_counted before update on webhook_endpoint
for each row execute function version_counted();
comment on trigger webhook_endpoint_version_counted on webhook_endpoint is
'Counts the version up with each change.';
alter table webhook_endpoint enable row level security;
alter table webhook_endpoint force row level security;
create policy org on webhook_endpoint using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on webhook_endpoint to sofinance_app;
grant insert (
    org_id, slot, url, description, event_types, signature, created_by
) on webhook_endpoint to sofinance_app;
grant update (
    url, description, event_types, is_active, disabled_at, disabled_reason, updated_at
) on webhook_endpoint to sofinance_app;

create table webhook_secret (
    org_id bigint not null,
    id bigint generated always as identity,
    endpoint_id bigint not null,
    sealed bytea not null,
    public_key text,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    constraint webhook_secret_pk primary key (org_id, id),
    constraint webhook_secret_endpoint_known foreign key (org_id, endpoint_id)
    references webhook_endpoint (org_id, id) on delete cascade,
    constraint webhook_secret_is_sealed check (octet_length(sealed) between 49 and 200),
    constraint webhook_secret_public_key_form check (public_key ~ '^whpk_[A-Za-z0-9+/]{43}=$')
);
comment on table webhook_secret is 'What an endpoint''s messages are signed with.';
comment on column webhook_secret.org_id is 'The organisation.';
comment on column webhook_secret.id is 'The secret.';
comment on column webhook_secret.endpoint_id is 'The endpoint.';
comment on column webhook_secret.sealed is 'The secret, sealed with DATA_ENCRYPTION_KEY.';
comment on column webhook_secret.public_key is 'What verifies, where the signature is ed25519.';
comment on column webhook_secret.created_at is 'When it was made (server time).';
comment on column webhook_secret.expires_at is 'Until when it signs as well, once there is a newer one.';
comment on constraint webhook_secret_pk on webhook_secret is 'This secret exists already.';
comment on constraint webhook_secret_endpoint_known on webhook_secret is
'There is no such endpoint.';
comment on constraint webhook_secret_is_sealed on webhook_secret is 'A secret is stored sealed.';
comment on constraint webhook_secret_public_key_form on webhook_secret is
'A public key is written whpk_ and base64.';
create unique index webhook_secret_current_once on webhook_secret (org_id, endpoint_id)
where expires_at is null;
comment on index webhook_secret_current_once is 'An endpoint has one secret that does not end.';
create index webhook_secret_by_endpoint on webhook_secret (org_id, endpoint_id, id);
comment on index webhook_secret_by_endpoint is 'The secrets of an endpoint.';
alter table webhook_secret enable row level security;
alter table webhook_secret force row level security;
create policy org on webhook_secret using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on webhook_secret to sofinance_app;
grant insert (org_id, endpoint_id, sealed, public_key) on webhook_secret to sofinance_app;
grant update (sealed, expires_at) on webhook_secret to sofinance_app;
revoke select on webhook_secret from sofinance_readonly;
grant select (org_id, endpoint_id) on webhook_secret to sofinance_readonly;

create table webhook_delivery (
    org_id bigint not null,
    id bigint generated always as identity,
    endpoint_id bigint not null,
    event_id bigint not null,
    aggregate text not null,
    aggregate_id bigint not null,
    status text not null default 'pending',
    attempts integer not null default 0,
    last_attempt_at timestamptz,
    last_status smallint,
    last_error text,
    delivered_at timestamptz,
    replay_count integer not null default 0,
    last_replayed_at timestamptz,
    last_replayed_by bigint,
    constraint webhook_delivery_pk primary key (org_id, id),
    constraint webhook_delivery_event_taken unique (org_id, endpoint_id, event_id),
    constraint webhook_delivery_endpoint_known foreign key (org_id, endpoint_id)
    references webhook_endpoint (org_id, id) on delete cascade,
    constraint webhook_delivery_event_known foreign key (org_id, event_id)
    references event (org_id, id),
    constraint webhook_delivery_status_known check (
        status in ('pending', 'delivered', 'dead', 'given_up')
    ),
    constraint webhook_delivery_delivered_at_a_time check (
        (status = 'delivered') = (delivered_at is not null)
    ),
    constraint webhook_delivery_error_not_long check (length(last_error) <= 200)
);
comment on table webhook_delivery is 'What became of an event at an endpoint.';
comment on column webhook_delivery.org_id is 'The organisation.';
comment on column webhook_delivery.id is 'The delivery.';
comment on column webhook_delivery.endpoint_id is 'The endpoint.';
comment on column webhook_delivery.event_id is 'The event.';
comment on column webhook_delivery.aggregate is 'What kind of thing the event happened to.';
comment on column webhook_delivery.aggregate_id is 'Which of them.';
comment on column webhook_delivery.status is
'pending, delivered, dead (all attempts failed: later events of the thing wait), or given_up.';
comment on column webhook_delivery.attempts is 'How often it was sent since it last began.';
comment on column webhook_delivery.last_attempt_at is 'When it was last sent (server time).';
comment on column webhook_delivery.last_status is 'The HTTP status that was answered last.';
comment on column webhook_delivery.last_error is 'Why it failed last: a code.';
comment on column webhook_delivery.delivered_at is 'When it arrived (server time).';
comment on column webhook_delivery.replay_count is 'How often it was begun again after it was dead.';
comment on column webhook_delivery.last_replayed_at is 'When it was last begun again (server time).';
comment on column webhook_delivery.last_replayed_by is 'Who did; nobody where the service did.';
comment on constraint webhook_delivery_pk on webhook_delivery is 'This delivery exists already.';
comment on constraint webhook_delivery_event_taken on webhook_delivery is
'An event has one delivery to an endpoint.';
comment on constraint webhook_delivery_endpoint_known on webhook_delivery is
'There is no such endpoint.';
comment on constraint webhook_delivery_event_known on webhook_delivery is
'There is no such event.';
comment on constraint webhook_delivery_status_known on webhook_delivery is
'A delivery is pending, delivered, dead or given up.';
comment on constraint webhook_delivery_delivered_at_a_time on webhook_delivery is
'What is delivered was delivered at a time.';
comment on constraint webhook_delivery_error_not_long on webhook_delivery is
'A code has at most 200 characters.';
create index webhook_delivery_by_lane
on webhook_delivery (org_id, endpoint_id, aggregate, aggregate_id, id)
where status in ('pending', 'dead');
comment on index webhook_delivery_by_lane is 'What is to be sent of one thing, in its order.';
create index webhook_delivery_by_event on webhook_delivery (org_id, event_id);
comment on index webhook_delivery_by_event is 'The deliveries of an event.';
create index webhook_delivery_by_death on webhook_delivery (org_id, id) where status = 'dead';
comment on index webhook_delivery_by_death is 'Dead letters.';
alter table webhook_delivery enable row level security;
alter table webhook_delivery force row level security;
create policy org on webhook_delivery using (org_id = current_setting('app.org_id')::bigint);
grant select on webhook_delivery to sofinance_app;

-- The queue. It belongs to the server, since a worker asks it for what is due in any organisation,
-- and has no more than numbers in it; only functions touch it.
create table webhook_lane (
    org_id bigint not null,
    endpoint_id bigint not null,
    aggregate text not null,
    aggregate_id bigint not null,
    delivery_id bigint not null,
    open_count bigint not null,
    attempts integer not null default 0,
    is_stopped boolean not null default false,
    next_attempt_at timestamptz not null default now(),
    waiting_since timestamptz not null default now(),
    claim_no bigint not null default 0,
    constraint webhook_lane_pk primary key (org_id, endpoint_id, aggregate, aggregate_id)
);
comment on table webhook_lane is
'What is due: for each endpoint and thing the delivery at the head. No lane, nothing to send.';
comment on column webhook_lane.org_id is 'The organisation.';
comment on column webhook_lane.endpoint_id is 'The endpoint.';
comment on column webhook_lane.aggregate is 'The kind of thing.';
comment on column webhook_lane.aggregate_id is 'Which of them.';
comment on column webhook_lane.delivery_id is 'The delivery at the head: the only one that is sent.';
comment on column webhook_lane.open_count is 'How many deliveries there are, with the head.';
comment on column webhook_lane.attempts is 'How often the head was sent.';
comment on column webhook_lane.is_stopped is 'The head is dead: those behind it wait.';
comment on column webhook_lane.next_attempt_at is
'When the head is due; while it is being sent, when another worker may take it over.';
comment on column webhook_lane.waiting_since is 'Since when the head has been at the head.';
comment on column webhook_lane.claim_no is 'Which claim is the valid one.';
comment on constraint webhook_lane_pk on webhook_lane is 'This lane exists already.';
create index webhook_lane_by_due on webhook_lane (org_id, endpoint_id, next_attempt_at)
where not is_stopped;
comment on index webhook_lane_by_due is 'What is due at an endpoint.';
revoke select on webhook_lane from sofinance_readonly;

create table webhook_circuit (
    org_id bigint not null,
    endpoint_id bigint not null,
    is_active boolean not null default true,
    failures integer not null default 0,
    open_until timestamptz,
    last_attempt_at timestamptz,
    delivered_count bigint not null default 0,
    failed_count bigint not null default 0,
    dead_count bigint not null default 0,
    constraint webhook_circuit_pk primary key (org_id, endpoint_id)
);
comment on table webhook_circuit is
'How an endpoint does: one that is down is asked now and then, and nothing else waits for it.';
comment on column webhook_circuit.org_id is 'The organisation.';
comment on column webhook_circuit.endpoint_id is 'The endpoint.';
comment on column webhook_circuit.is_active is 'Whether the endpoint is.';
comment on column webhook_circuit.failures is 'How often it was down since it last answered.';
comment on column webhook_circuit.open_until is 'Nothing is sent before; then one message, to try.';
comment on column webhook_circuit.last_attempt_at is 'When something was last sent (server time).';
comment on column webhook_circuit.delivered_count is 'Attempts that arrived.';
comment on column webhook_circuit.failed_count is 'Attempts that failed.';
comment on column webhook_circuit.dead_count is 'Deliveries that died.';
comment on constraint webhook_circuit_pk on webhook_circuit is 'This circuit exists already.';
revoke select on webhook_circuit from sofinance_readonly;

create function webhook_endpoint_has_a_circuit() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    if tg_op = 'DELETE' then
        delete from public.webhook_lane
        where org_id = old.org_id and endpoint_id = old.id;
        -- Kept for what it counted: a counter never goes back.
        update public.webhook_circuit set is_active = false
        where org_id = old.org_id and endpoint_id = old.id;
    else
        insert into public.webhook_circuit as circuit (org_id, endpoint_id, is_active)
        values (new.org_id, new.id, new.is_active)
        on conflict (org_id, endpoint_id) do update
        set is_active = excluded.is_active, failures = 0, open_until = null;
    end if;
    return null;
end
$$;
comment on function webhook_endpoint_has_a_circuit() is
'Keeps the queue to the endpoints that there are.';
create trigger webhook_endpoint_has_a_circuit
after insert or update or delete on webhook_endpoint
for each row execute function webhook_endpoint_has_a_circuit();
comment on trigger webhook_endpoint_has_a_circuit on webhook_endpoint is
'Keeps the queue to the endpoints that there are.';

-- -- from the outbox to the endpoints ---------------------------------------------------------

create function list_outboxes(p_limit integer) returns table (org_id bigint)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with recursive holder as (
        (
            select
                first.org_id,
                1 as place
            from outbox_event as first
            order by first.org_id
            limit 1
        )
        union all
        select
            (
                select later.org_id
                from outbox_event as later
                where later.org_id > holder.org_id
                order by later.org_id
                limit 1
            ) as org_id,
            holder.place + 1 as place
        from holder
        where holder.org_id is not null and holder.place < p_limit
    )

    select holder.org_id
    from holder
    where holder.org_id is not null;
end;
comment on function list_outboxes(integer) is
'Crosses organisations: the numbers of those that have events to be taken up, at most so many.';
grant execute on function list_outboxes(integer) to sofinance_app;

create function take_events(p_limit integer) returns table (
    id bigint, type text, aggregate text, aggregate_id bigint, subject_id bigint,
    occurred_at timestamptz
)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
#variable_conflict use_column
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using errcode = 'active_sql_transaction',
            message = 'take_events needs a read committed transaction';
    end if;
    -- One at a time for each organisation, or a later event of a thing could overtake an earlier.
    if not pg_try_advisory_xact_lock(8, hashint8(own_org_id)) then
        return;
    end if;
    -- What is not committed yet is not seen, and is there the next time: nothing is skipped. Who
    -- writes the later event of a thing has waited for who wrote the earlier, and took its number
    -- after that: whoever sees the later one sees the earlier, with a lower number.
    return query
    with taken as (
        delete from outbox_event
        where org_id = own_org_id and id in (
            select due.id
            from outbox_event as due
            where due.org_id = own_org_id
            order by due.id
            limit p_limit
        )
        returning id, type, aggregate, aggregate_id, subject_id, occurred_at
    )

    select taken.id, taken.type, taken.aggregate, taken.aggregate_id, taken.subject_id,
        taken.occurred_at
    from taken
    order by taken.id;
end
$$;
comment on function take_events(integer) is
'Takes the first events out of an organisation''s outbox, to be stored in the same transaction.
Nothing while another worker does that.';
grant execute on function take_events(integer) to sofinance_app;

create function store_events(
    p_ids bigint[], p_types text[], p_aggregates text[], p_aggregate_ids bigint[],
    p_subject_ids bigint[], p_occurred_at timestamptz[], p_bodies text[]
) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
    queued bigint;
begin
    insert into event (
        org_id, id, type, aggregate, aggregate_id, subject_id, occurred_at, body
    )
    select
        own_org_id, told.id, told.type, told.aggregate, told.aggregate_id, told.subject_id,
        told.occurred_at, told.body
    from unnest(
            p_ids, p_types, p_aggregates, p_aggregate_ids, p_subject_ids, p_occurred_at, p_bodies
        ) as told (id, type, aggregate, aggregate_id, subject_id, occurred_at, body);

    with delivery as (
        insert into webhook_delivery (org_id, endpoint_id, event_id, aggregate, aggregate_id)
        select own_org_id, endpoint.id, event.id, event.aggregate, event.aggregate_id
        from event
        join webhook_endpoint as endpoint
            on endpoint.org_id = event.org_id and endpoint.is_active
            and (endpoint.event_types is null or event.type = any(endpoint.event_types))
        where event.org_id = own_org_id and event.id = any(p_ids) and event.body is not null
        order by event.id, endpoint.id
        returning id, endpoint_id, aggregate, aggregate_id
    ),

    lane as (
        -- In the order of the key, as in settle_deliveries: neither waits for the other in a ring.
        insert into webhook_lane as known (
            org_id, endpoint_id, aggregate, aggregate_id, delivery_id, open_count
        )
        select own_org_id, endpoint_id, aggregate, aggregate_id, min(id), count(*)
        from delivery
        group by endpoint_id, aggregate, aggregate_id
        order by endpoint_id, aggregate, aggregate_id
        on conflict (org_id, endpoint_id, aggregate, aggregate_id) do update
        set open_count = known.open_count + excluded.open_count
    )

    select count(*) into queued from delivery;
    return queued;
end
$$;
comment on function store_events(
    bigint[], text[], text[], bigint[], bigint[], timestamptz[], text[]
) is
'Stores events of the transaction''s organisation, and a delivery to every endpoint that wants one
that has a body; returns how many deliveries.';
grant execute on function store_events(
    bigint[], text[], text[], bigint[], bigint[], timestamptz[], text[]
) to sofinance_app;

create function send_test_event(p_endpoint_id bigint, p_body text) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
    new_id constant bigint := nextval('public.outbox_event_id_seq');
    delivery_id bigint;
begin
    insert into event (
        org_id, id, type, aggregate, aggregate_id, subject_id, occurred_at, body
    )
    values (
        own_org_id, new_id, 'webhook.test', 'webhook_endpoint', p_endpoint_id, p_endpoint_id,
        now(), p_body
    );
    insert into webhook_delivery (org_id, endpoint_id, event_id, aggregate, aggregate_id)
    values (own_org_id, p_endpoint_id, new_id, 'webhook_endpoint', p_endpoint_id)
    returning id into delivery_id;
    insert into webhook_lane as known (
        org_id, endpoint_id, aggregate, aggregate_id, delivery_id, open_count
    )
    values (own_org_id, p_endpoint_id, 'webhook_endpoint', p_endpoint_id, delivery_id, 1)
    on conflict (org_id, endpoint_id, aggregate, aggregate_id) do update
    set open_count = known.open_count + 1;
    return delivery_id;
end
$$;
comment on function send_test_event(bigint, text) is
'Queues a test event for one endpoint of the transaction''s organisation; returns the delivery.';
grant execute on function send_test_event(bigint, text) to sofinance_app;

-- -- delivering -------------------------------------------------------------------------------

create function claim_deliveries(
    p_limit integer, p_per_endpoint integer, p_lease_s integer, p_busy_endpoint_ids bigint[]
) returns table (org_id bigint, endpoint_id bigint, delivery_id bigint, claim_no bigint)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
#variable_conflict use_column
declare
    lease constant interval := make_interval(secs => p_lease_s);
    trial record;
begin
    -- An endpoint that was down gets one message; until that is settled no other worker tries.
    for trial in
        select circuit.org_id, circuit.endpoint_id
        from webhook_circuit as circuit
        where circuit.is_active and circuit.open_until <= now()
        order by circuit.open_until
        limit p_limit
        for update skip locked
    loop
        return query
        update webhook_lane as lane
        set next_attempt_at = now() + lease, claim_no = lane.claim_no + 1
        where (lane.org_id, lane.endpoint_id, lane.aggregate, lane.aggregate_id) in (
            select due.org_id, due.endpoint_id, due.aggregate, due.aggregate_id
            from webhook_lane as due
            where due.org_id = trial.org_id and due.endpoint_id = trial.endpoint_id
                and not due.is_stopped and due.next_attempt_at <= now()
            order by due.next_attempt_at, due.delivery_id
            limit 1
            for update skip locked
        )
        returning lane.org_id, lane.endpoint_id, lane.delivery_id, lane.claim_no;
        if found then
            update webhook_circuit as circuit set open_until = now() + lease
            where circuit.org_id = trial.org_id and circuit.endpoint_id = trial.endpoint_id;
        end if;
    end loop;

    -- Every endpoint has its share: a slow one keeps none of the others waiting.
    return query
    update webhook_lane as lane
    set next_attempt_at = now() + lease, claim_no = lane.claim_no + 1
    where (lane.org_id, lane.endpoint_id, lane.aggregate, lane.aggregate_id) in (
        select due.org_id, due.endpoint_id, due.aggregate, due.aggregate_id
        from (
            select circuit.org_id, circuit.endpoint_id
            from webhook_circuit as circuit
            where circuit.is_active and circuit.open_until is null
                and circuit.endpoint_id <> all(p_busy_endpoint_ids)
                and exists (
                    select from webhook_lane as any_due
                    where any_due.org_id = circuit.org_id
                        and any_due.endpoint_id = circuit.endpoint_id
                        and not any_due.is_stopped and any_due.next_attempt_at <= now()
                )
            order by circuit.last_attempt_at nulls first
            limit p_limit
        ) as circuit
        cross join lateral (
            select ripe.org_id, ripe.endpoint_id, ripe.aggregate, ripe.aggregate_id
            from webhook_lane as ripe
            where ripe.org_id = circuit.org_id and ripe.endpoint_id = circuit.endpoint_id
                and not ripe.is_stopped and ripe.next_attempt_at <= now()
            order by ripe.next_attempt_at
            limit p_per_endpoint
            for update skip locked
        ) as due
        limit p_limit
    )
    returning lane.org_id, lane.endpoint_id, lane.delivery_id, lane.claim_no;
end
$$;
comment on function claim_deliveries(integer, integer, integer, bigint[]) is
'Crosses organisations: gives a worker deliveries that are due, for so many seconds. Numbers only.';
grant execute on function claim_deliveries(integer, integer, integer, bigint[]) to sofinance_app;

create function settle_deliveries(
    p_delivery_ids bigint[], p_claim_nos bigint[], p_outcomes text[], p_statuses integer[],
    p_errors text[], p_retries_s integer[], p_are_down boolean[],
    p_failures_max integer, p_open_s integer
) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
    sent record;
    lane webhook_lane;
    settled bigint[] := '{}';
begin
    for sent in
        select
            result.id, result.claim_no, result.outcome, result.status, result.error,
            result.retry_s, delivery.endpoint_id, delivery.aggregate, delivery.aggregate_id
        from unnest(
                p_delivery_ids, p_claim_nos, p_outcomes, p_statuses, p_errors, p_retries_s
            ) as result (id, claim_no, outcome, status, error, retry_s)
        join webhook_delivery as delivery
            on delivery.org_id = own_org_id and delivery.id = result.id
        order by delivery.endpoint_id, delivery.aggregate, delivery.aggregate_id
    loop
        select known.* into lane from webhook_lane as known
        where known.org_id = own_org_id and known.endpoint_id = sent.endpoint_id
            and known.aggregate = sent.aggregate and known.aggregate_id = sent.aggregate_id
            and known.delivery_id = sent.id and known.claim_no = sent.claim_no
        for update;
        continue when not found;  -- the lease ran out, and another worker has it
        settled := settled || sent.id;

        update webhook_delivery as delivery
        set
            status = case sent.outcome
                when 'delivered' then 'delivered' when 'dead' then 'dead' else 'pending'
            end,
            attempts = lane.attempts + 1, last_attempt_at = now(),
            last_status = sent.status, last_error = left(sent.error, 200),
            delivered_at = case sent.outcome when 'delivered' then now() end
        where delivery.org_id = own_org_id and delivery.id = sent.id;

        if sent.outcome = 'delivered' then
            perform advance_lane(lane);
        else
            update webhook_lane as known
            set
                attempts = lane.attempts + 1,
                is_stopped = sent.outcome = 'dead',
                next_attempt_at = now() + make_interval(secs => sent.retry_s),
                claim_no = lane.claim_no + 1
            where known.org_id = own_org_id and known.endpoint_id = lane.endpoint_id
                and known.aggregate = lane.aggregate and known.aggregate_id = lane.aggregate_id;
        end if;
    end loop;

    update webhook_circuit as circuit
    set
        failures = new.failures,
        open_until = case
            when new.failures >= p_failures_max then now() + make_interval(secs => p_open_s)
        end,
        last_attempt_at = now(),
        delivered_count = circuit.delivered_count + new.delivered,
        failed_count = circuit.failed_count + new.failed,
        dead_count = circuit.dead_count + new.dead
    from (
        select
            known.endpoint_id,
            case
                when tally.has_answered then 0 else known.failures + tally.down::integer
            end as failures,
            tally.delivered, tally.failed, tally.dead
        from (
            select
                delivery.endpoint_id, bool_or(not result.is_down) as has_answered,
                count(*) filter (where result.is_down) as down,
                count(*) filter (where result.outcome = 'delivered') as delivered,
                count(*) filter (where result.outcome <> 'delivered') as failed,
                count(*) filter (where result.outcome = 'dead') as dead
            from unnest(p_delivery_ids, p_outcomes, p_are_down) as result (id, outcome, is_down)
            join webhook_delivery as delivery
                on delivery.org_id = own_org_id and delivery.id = result.id
            where result.id = any(settled)
            group by delivery.endpoint_id
        ) as tally
        join webhook_circuit as known
            on known.org_id = own_org_id and known.endpoint_id = tally.endpoint_id
        order by known.endpoint_id
        for update of known
    ) as new
    where circuit.org_id = own_org_id and circuit.endpoint_id = new.endpoint_id;
    return cardinality(settled);
end
$$;
comment on function settle_deliveries(
    bigint[], bigint[], text[], integer[], text[], integer[], boolean[], integer, integer
) is
'Writes down what came of deliveries that a worker claimed: delivered, failed (again in so many
seconds) or dead. Returns how many were still the worker''s.';
grant execute on function settle_deliveries(
    bigint[], bigint[], text[], integer[], text[], integer[], boolean[], integer, integer
) to sofinance_app;

create function advance_lane(p_lane webhook_lane) returns void
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
declare
    next_id bigint;
begin
    select min(delivery.id) into next_id
    from webhook_delivery as delivery
    where delivery.org_id = p_lane.org_id and delivery.endpoint_id = p_lane.endpoint_id
        and delivery.aggregate = p_lane.aggregate and delivery.aggregate_id = p_lane.aggregate_id
        and delivery.status in ('pending', 'dead') and delivery.id > p_lane.delivery_id;
    if next_id is null then
        delete from webhook_lane as known
        where known.org_id = p_lane.org_id and known.endpoint_id = p_lane.endpoint_id
            and known.aggregate = p_lane.aggregate and known.aggregate_id = p_lane.aggregate_id;
    else
        update webhook_lane as known
        set
            delivery_id = next_id, open_count = p_lane.open_count - 1, attempts = 0,
            is_stopped = false, next_attempt_at = now(), waiting_since = now(),
            claim_no = p_lane.claim_no + 1
        where known.org_id = p_lane.org_id and known.endpoint_id = p_lane.endpoint_id
            and known.aggregate = p_lane.aggregate and known.aggregate_id = p_lane.aggregate_id;
    end if;
end
$$;
comment on function advance_lane(webhook_lane) is
'Puts the next delivery of a lane at its head; without one the lane goes. The caller has locked it.';

-- -- dead letters -----------------------------------------------------------------------------

create function replay_deliveries(p_ids bigint[], p_user_id bigint, p_attempts integer)
returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
    again record;
    replayed bigint := 0;
begin
    for again in
        select known.endpoint_id, known.aggregate, known.aggregate_id, delivery.id
        from webhook_delivery as delivery
        join webhook_lane as known
            on known.org_id = delivery.org_id and known.endpoint_id = delivery.endpoint_id
            and known.aggregate = delivery.aggregate
            and known.aggregate_id = delivery.aggregate_id
            and known.delivery_id = delivery.id and known.is_stopped
        where delivery.org_id = own_org_id and delivery.id = any(p_ids)
            and delivery.status = 'dead'
        order by known.endpoint_id, known.aggregate, known.aggregate_id
        for update of known
    loop
        update webhook_delivery as delivery
        set
            status = 'pending', attempts = p_attempts,
            replay_count = delivery.replay_count + 1, last_replayed_at = now(),
            last_replayed_by = p_user_id
        where delivery.org_id = own_org_id and delivery.id = again.id;
        update webhook_lane as known
        set
            is_stopped = false, attempts = p_attempts, next_attempt_at = now(),
            waiting_since = now(), claim_no = known.claim_no + 1
        where known.org_id = own_org_id and known.endpoint_id = again.endpoint_id
            and known.aggregate = again.aggregate and known.aggregate_id = again.aggregate_id;
        replayed := replayed + 1;
    end loop;
    return replayed;
end
$$;
comment on function replay_deliveries(bigint[], bigint, integer) is
'Begins dead letters of the transaction''s organisation again, as if so many attempts were made.';
grant execute on function replay_deliveries(bigint[], bigint, integer) to sofinance_app;

create function give_up_delivery(p_id bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
    lane webhook_lane;
begin
    select known.* into lane
    from webhook_delivery as delivery
    join webhook_lane as known
        on known.org_id = delivery.org_id and known.endpoint_id = delivery.endpoint_id
        and known.aggregate = delivery.aggregate and known.aggregate_id = delivery.aggregate_id
        and known.delivery_id = delivery.id and known.is_stopped
    where delivery.org_id = own_org_id and delivery.id = p_id and delivery.status = 'dead'
    for update of known;
    if not found then
        return false;
    end if;
    update webhook_delivery as delivery set status = 'given_up'
    where delivery.org_id = own_org_id and delivery.id = p_id;
    perform advance_lane(lane);
    return true;
end
$$;
comment on function give_up_delivery(bigint) is
'Gives a dead letter up, so that later events of its thing are sent; false where it is not dead.';
grant execute on function give_up_delivery(bigint) to sofinance_app;

create function forget_events(p_keep_days integer, p_limit integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
    old_ids bigint[];
begin
    select array_agg(old.id) into old_ids
    from (
        select event.id
        from event
        -- One look-up for each event, never a join over all that is open.
        cross join lateral (
            select count(*) as open_count
            from webhook_delivery as delivery
            where delivery.org_id = own_org_id and delivery.event_id = event.id
                and delivery.status in ('pending', 'dead')
        ) as known
        where event.org_id = own_org_id
            and event.occurred_at < now() - make_interval(days => greatest(p_keep_days, 1))
            and known.open_count = 0
        order by event.id
        limit p_limit
        for update of event skip locked
    ) as old;
    delete from webhook_delivery as delivery
    where delivery.org_id = own_org_id and delivery.event_id = any(old_ids);
    delete from event where event.org_id = own_org_id and event.id = any(old_ids);
    return coalesce(cardinality(old_ids), 0);
end
$$;
comment on function forget_events(integer, integer) is
'Forgets events of the transaction''s organisation that are so many days old and have arrived or
were given up everywhere, some at a time.';
grant execute on function forget_events(integer, integer) to sofinance_app;

create function read_outbox() returns table (
    new_count bigint, pending_count bigint, retry_count bigint, dead_count bigint,
    blocked_count bigint, paused_count bigint, oldest_age_s double precision,
    delivered_total bigint, failed_total bigint, dead_total bigint
)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with fresh as (
        select
            count(*) as new_count,
            min(new.occurred_at) as since
        from outbox_event as new
    ),

    lane as (
        select
            known.open_count,
            known.waiting_since,
            not circuit.is_active as is_paused,
            known.is_stopped,
            known.attempts
        from webhook_lane as known
        inner join webhook_circuit as circuit
            on known.org_id = circuit.org_id and known.endpoint_id = circuit.endpoint_id
    ),

    counted as (
        select
            count(*) filter (where not lane.is_paused and not lane.is_stopped and lane.attempts = 0)
                as pending_count,
            count(*) filter (where not lane.is_paused and not lane.is_stopped and lane.attempts > 0)
                as retry_count,
            count(*) filter (where lane.is_stopped) as dead_count,
            coalesce(sum(lane.open_count - 1) filter (
                where not lane.is_paused or lane.is_stopped
            ), 0)::bigint as blocked_count,
            coalesce(sum(lane.open_count) filter (
                where lane.is_paused and not lane.is_stopped
            ), 0)::bigint as paused_count,
            min(lane.waiting_since) filter (
                where not lane.is_paused and not lane.is_stopped and lane.attempts = 0
            ) as since
        from lane
    ),

    total as (
        select
            coalesce(sum(circuit.delivered_count), 0)::bigint as delivered,
            coalesce(sum(circuit.failed_count), 0)::bigint as failed,
            coalesce(sum(circuit.dead_count), 0)::bigint as dead
        from webhook_circuit as circuit
    )

    select
        fresh.new_count,
        counted.pending_count,
        counted.retry_count,
        counted.dead_count,
        counted.blocked_count,
        counted.paused_count,
        coalesce(
            extract(epoch from now() - least(fresh.since, counted.since)), 0
        )::double precision,
        total.delivered,
        total.failed,
        total.dead
    from fresh cross join counted cross join total;
end;
comment on function read_outbox() is
'Crosses organisations: how many events and deliveries wait for what; numbers only.';
grant execute on function read_outbox() to sofinance_app;

create function list_circuits(p_limit integer) returns table (
    org_id bigint, endpoint_id bigint, is_active boolean, failures integer,
    open_until timestamptz, delivered_count bigint, failed_count bigint, dead_count bigint
)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select
        circuit.org_id,
        circuit.endpoint_id,
        circuit.is_active,
        circuit.failures,
        circuit.open_until,
        circuit.delivered_count,
        circuit.failed_count,
        circuit.dead_count
    from webhook_circuit as circuit
    order by circuit.open_until nulls last, circuit.endpoint_id
    limit p_limit;
end;
comment on function list_circuits(integer) is
'Crosses organisations: how endpoints do, those that are down first; numbers only.';
grant execute on function list_circuits(integer) to sofinance_app;
