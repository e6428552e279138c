-- What is wrong with the books, as events that begin and end.

-- name: record_integrity :many
-- Write down what a verification of everything found; returns what is new and what is resolved.
-- not null: org_id, check_name, severity, broken_count, is_open
select
    event.org_id,
    event.check_name,
    event.severity,
    event.broken_count,
    event.first_broken,
    event.is_open
from record_integrity(
    :org_ids, :checks, :severities, :broken_counts, :first_broken
) as event;

-- name: list_integrity_events :many
-- List the current organisation's events, latest first; of_server adds the server's own.
-- nullable: is_open
-- not null: id, check_name, severity, broken_count, first_seen_at, last_seen_at, seen_count
select
    event.id,
    nullif(event.org_id, 0) as organisation_id,
    event.check_name,
    event.severity,
    event.broken_count,
    event.first_broken::text as first_broken,
    event.first_seen_at,
    event.last_seen_at,
    event.seen_count,
    event.resolved_at,
    event.acknowledged_at,
    event.acknowledged_by,
    event.note
from list_integrity_events(:of_server, :is_open, :limit) as event;

-- name: acknowledge_integrity_event :one
-- Note who took on an event.
-- nullable: note
-- not null: id, check_name, severity, broken_count, first_seen_at, last_seen_at, seen_count
select
    event.id,
    nullif(event.org_id, 0) as organisation_id,
    event.check_name,
    event.severity,
    event.broken_count,
    event.first_broken::text as first_broken,
    event.first_seen_at,
    event.last_seen_at,
    event.seen_count,
    event.resolved_at,
    event.acknowledged_at,
    event.acknowledged_by,
    event.note
from acknowledge_integrity_event(:id, :of_server, :user_id, :note) as event;

-- name: count_integrity_events :many
-- Count open events by check, of all organisations; a row per check that found something.
-- not null: check_name, severity, event_count
select
    counted.check_name,
    counted.severity,
    counted.event_count
from count_integrity_events() as counted;

-- name: manual_entries_are_not_twice :one
-- No manual entry of the last week was posted again within ten minutes by the same user, with the
-- same date, memo, reference and sums. Twice may be right, so this only makes somebody look.
-- not null: checked, broken
with lately as (
    select
        entry.id,
        entry.created_by,
        entry.posted_on,
        entry.created_at,
        entry.memo,
        entry.reference_id,
        array_agg(
            row(line.account_id, line.currency, line.debit, line.credit)::text
            order by line.account_id, line.currency, line.debit, line.credit
        ) as lines
    from journal_entry as entry
    inner join journal_line as line on line.org_id = entry.org_id and line.entry_id = entry.id
    where
        entry.org_id = :org_id and entry.kind = 'MANUAL'
        and entry.posted_on >= current_date - 31
        and entry.created_at > now() - interval '7 days'
    group by
        entry.id, entry.created_by, entry.posted_on, entry.created_at, entry.memo,
        entry.reference_id
),

compared as (
    select
        id,
        created_at,
        lag(id) over same as earlier_id,
        lag(created_at) over same as earlier_at
    from lately
    window same as (
        partition by created_by, posted_on, memo, reference_id, lines
        order by id
    )
),

broken as (
    select
        jsonb_build_object('entry_id', id, 'same_as_entry_id', earlier_id) as details,
        id
    from compared
    where created_at - earlier_at < interval '10 minutes'
)

select
    (select count(*) from lately) as checked,
    (select count(*) from broken) as broken,
    (
        select details::text
        from broken
        order by id
        limit 1
    ) as example;

-- name: keys_are_answered :one
-- Every idempotency key has its answer: one without keeps its client waiting until it expires.
-- not null: checked, broken
with broken as (
    select
        jsonb_build_object(
            'key_hash', encode(key_hash, 'hex'), 'created_at', created_at
        )::text as details
    from idempotency_key
    where org_id = :org_id and status is null and created_at < now() - interval '1 hour'
)

select
    (
        select count(*)
        from idempotency_key
        where org_id = :org_id
    ) as checked,
    (select count(*) from broken) as broken,
    (select min(details) from broken) as example;
