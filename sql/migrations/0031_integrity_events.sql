-- What is wrong with the books and since when, and figures of the business, for whoever watches.
-- Both belong to no organisation: the application reads and writes events through functions only.
-- depends: 0030_notifications
set local lock_timeout = '4s';
set local role sofinance_owner;

create table integrity_event (
    id bigint generated always as identity,
    org_id bigint not null default 0,
    check_name text not null,
    severity text not null,
    broken_count bigint not null,
    first_broken jsonb,
    first_seen_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    seen_count integer not null default 1,
    resolved_at timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by bigint,
    note text,
    constraint integrity_event_pk primary key (id),
    constraint integrity_event_check_form check (check_name ~ '^[a-z][a-z0-9_]{2,99}$'),
    constraint integrity_event_severity_known check (severity in ('WARNING', 'ERROR')),
    constraint integrity_event_counts_above_zero check (broken_count > 0 and seen_count > 0),
    constraint integrity_event_in_order check (
        last_seen_at >= first_seen_at and resolved_at >= last_seen_at
    ),
    constraint integrity_event_acknowledged_by_somebody check (
        (acknowledged_at is null) = (acknowledged_by is null)
    ),
    constraint integrity_event_note_not_long check (length(note) <= 500)
);
comment on table integrity_event is
'What the nightly verification found wrong, from the first time it was seen to the first time it was not.';
comment on column integrity_event.id is 'The event.';
comment on column integrity_event.org_id is
'The organisation whose rows are wrong; 0 where it is the server''s own: a guard. No link: it outlives what it tells of.';
comment on column integrity_event.check_name is 'The check that found it.';
comment on column integrity_event.severity is
'ERROR: the books do not prove. WARNING: somebody should look.';
comment on column integrity_event.broken_count is 'Records that were wrong when it was last seen.';
comment on column integrity_event.first_broken is 'The first of them, when it was last seen.';
comment on column integrity_event.first_seen_at is 'When it was first seen (server time).';
comment on column integrity_event.last_seen_at is 'When it was last seen (server time).';
comment on column integrity_event.seen_count is 'How often it was seen.';
comment on column integrity_event.resolved_at is 'When it was seen no more (server time).';
comment on column integrity_event.acknowledged_at is 'When somebody took it on (server time).';
comment on column integrity_event.acknowledged_by is
'The user who did: of the event''s organisation, or of the operator''s.';
comment on column integrity_event.note is 'What they said.';
comment on constraint integrity_event_pk on integrity_event is 'An event has this number already.';
comment on constraint integrity_event_check_form on integrity_event is
'A check''s name has 3 to 100 lower-case letters, digits and underscores.';
comment on constraint integrity_event_severity_known on integrity_event is
'An event is a WARNING or an ERROR.';
comment on constraint integrity_event_counts_above_zero on integrity_event is
'An event has at least one broken record and was seen at least once.';
comment on constraint integrity_event_in_order on integrity_event is
'An event is seen, seen again and resolved in this order.';
comment on constraint integrity_event_acknowledged_by_somebody on integrity_event is
'An event is acknowledged by somebody, at some time.';
comment on constraint integrity_event_note_not_long on integrity_event is
'A note has at most 500 characters.';
create unique index integrity_event_open_once on integrity_event (org_id, check_name)
where resolved_at is null;
comment on index integrity_event_open_once is 'This is an open event already.';
create index integrity_event_by_organisation on integrity_event (org_id, id);
comment on index integrity_event_by_organisation is 'An organisation''s events, latest first.';
revoke all on integrity_event from sofinance_readonly;

create table business_figure (
    name text not null,
    period text not null,
    currency text not null,
    value numeric not null,
    constraint business_figure_pk primary key (name, period, currency),
    constraint business_figure_name_form check (name ~ '^[a-z][a-z0-9_]{2,49}$'),
    constraint business_figure_period_known check (period in ('now', '1h', '24h')),
    constraint business_figure_currency_form check (currency ~ '^([A-Z]{3})?$'),
    constraint business_figure_amounts_are_numbers check (value < 'NaN' and value > '-Infinity')
);
comment on table business_figure is
'Figures of all organisations together, as a job last counted them; /metrics tells them.';
comment on column business_figure.name is 'What is counted.';
comment on column business_figure.period is 'now, or the last hour, or the last 24.';
comment on column business_figure.currency is 'ISO 4217 code; empty where there is none.';
comment on column business_figure.value is 'How many, or how much in the currency.';
comment on constraint business_figure_pk on business_figure is 'This figure is there already.';
comment on constraint business_figure_name_form on business_figure is
'A figure''s name has 3 to 50 lower-case letters, digits and underscores.';
comment on constraint business_figure_period_known on business_figure is
'A figure is of now, of an hour or of 24.';
comment on constraint business_figure_currency_form on business_figure is
'A currency has three capital letters.';
comment on constraint business_figure_amounts_are_numbers on business_figure is
'A figure is a number.';
grant select on business_figure to sofinance_app;

create function record_integrity(
    p_org_ids bigint[], p_checks text[], p_severities text[], p_broken_counts bigint[],
    p_first_broken text[]
) returns table (
    org_id bigint, check_name text, severity text, broken_count bigint, first_broken text,
    is_open boolean
)
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with found as (
        select
            given.org_id,
            given.check_name,
            given.severity,
            given.broken_count,
            given.first_broken::jsonb as first_broken
        from unnest(p_org_ids, p_checks, p_severities, p_broken_counts, p_first_broken)
            as given (org_id, check_name, severity, broken_count, first_broken)
    ),

    seen as (
        insert into integrity_event (org_id, check_name, severity, broken_count, first_broken)
        select
            found.org_id,
            found.check_name,
            found.severity,
            found.broken_count,
            found.first_broken
        from found
        order by found.org_id, found.check_name
        on conflict (org_id, check_name) where resolved_at is null do update
            set
                severity = excluded.severity,
                broken_count = excluded.broken_count,
                first_broken = excluded.first_broken,
                last_seen_at = now(),
                seen_count = integrity_event.seen_count + 1
        returning *
    ),

    gone as (
        update integrity_event set resolved_at = now()
        where
            integrity_event.resolved_at is null
            and not exists (
                select from found
                where
                    found.org_id = integrity_event.org_id
                    and found.check_name = integrity_event.check_name
            )
        returning *
    )

    select
        seen.org_id,
        seen.check_name,
        seen.severity,
        seen.broken_count,
        seen.first_broken::text,
        true
    from seen
    where seen.seen_count = 1
    union all
    select
        gone.org_id,
        gone.check_name,
        gone.severity,
        gone.broken_count,
        gone.first_broken::text,
        false
    from gone;
end;
comment on function record_integrity(bigint[], text[], text[], bigint[], text[]) is
'Writes down all that a verification of everything found; what it did not find any more is resolved.
Returns what is new and what is resolved.';
grant execute on function record_integrity(bigint[], text[], text[], bigint[], text[])
to sofinance_app;

create function list_integrity_events(p_of_server boolean, p_is_open boolean, p_limit integer)
returns setof integrity_event
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select
        event.id,
        event.org_id,
        event.check_name,
        event.severity,
        event.broken_count,
        event.first_broken,
        event.first_seen_at,
        event.last_seen_at,
        event.seen_count,
        event.resolved_at,
        event.acknowledged_at,
        event.acknowledged_by,
        event.note
    from integrity_event as event
    where
        (
            event.org_id = current_setting('app.org_id')::bigint
            or (p_of_server and event.org_id = 0)
        )
        and (p_is_open is null or (event.resolved_at is null) = p_is_open)
    order by event.id desc
    limit p_limit;
end;
comment on function list_integrity_events(boolean, boolean, integer) is
'The events of the current organisation, latest first, and on demand those of the server itself.';
grant execute on function list_integrity_events(boolean, boolean, integer) to sofinance_app;

create function acknowledge_integrity_event(
    p_id bigint, p_of_server boolean, p_user_id bigint, p_note text
) returns setof integrity_event
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    update integrity_event set
        acknowledged_at = now(), acknowledged_by = p_user_id, note = p_note
    where
        id = p_id
        and (
            org_id = current_setting('app.org_id')::bigint or (p_of_server and org_id = 0)
        )
    returning *;
end;
comment on function acknowledge_integrity_event(bigint, boolean, bigint, text) is
'Notes who took on an event of the current organisation, or on demand of the server itself.';
grant execute on function acknowledge_integrity_event(bigint, boolean, bigint, text)
to sofinance_app;

create function count_integrity_events()
returns table (check_name text, severity text, event_count bigint)
language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select
        event.check_name,
        event.severity,
        count(*)
    from integrity_event as event
    where event.resolved_at is null
    group by event.check_name, event.severity;
end;
comment on function count_integrity_events() is
'Crosses organisations: how many events are open, by check, and nothing else about them.';
grant execute on function count_integrity_events() to sofinance_app;

create function write_business_figures(
    p_names text[], p_periods text[], p_currencies text[], p_values numeric[]
) returns void
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    insert into business_figure (name, period, currency, value)
    select given.name, given.period, given.currency, given.value
    from unnest(p_names, p_periods, p_currencies, p_values)
        as given (name, period, currency, value)
    order by given.name, given.period, given.currency
    on conflict (name, period, currency) do update set value = excluded.value;
    -- What is counted no more would stand for ever as it was.
    update business_figure set value = 0
    where not exists (
        select from unnest(p_names, p_periods, p_currencies) as given (name, period, currency)
        where
            given.name = business_figure.name and given.period = business_figure.period
            and given.currency = business_figure.currency
    );
end
$$;
comment on function write_business_figures(text[], text[], text[], numeric[]) is
'Writes figures down; one that is not among them is 0.';
grant execute on function write_business_figures(text[], text[], text[], numeric[])
to sofinance_app;
