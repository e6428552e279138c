-- The audit log, read: who did what to which thing, when and from where; and its archives. Months
-- are UTC, said by their first day; lines of an archive are JSON, in the order of their ids.

-- name: list_logs :many
-- List what was done in a span of time, the latest first, after the row `before_id`.
-- `search` looks in what was done, the request's id, the address and the client's program.
-- nullable: before_id, action, entity_type, entity_id, user_id, severity, search
select
    audit_log.id,
    audit_log.created_at,
    audit_log.action,
    audit_log.entity_type,
    audit_log.entity_id,
    audit_log.user_id,
    app_user.first_name || ' ' || app_user.last_name as user_name,
    audit_log.session_id,
    audit_log.api_key_id,
    audit_log.before,
    audit_log.after,
    audit_log.request_id,
    host(audit_log.ip) as ip,
    audit_log.user_agent,
    audit_log.severity
from audit_log
left join app_user
    on audit_log.org_id = app_user.org_id and audit_log.user_id = app_user.id
where
    audit_log.org_id = :org_id
    and audit_log.created_at >= :starts_at
    and audit_log.created_at < :ends_at
    -- Where a page begins is a bound of the index, so that a late page costs what the first does.
    and audit_log.created_at <= case
        when :before_id::bigint is null then :ends_at
        else (
            select seen.created_at from audit_log as seen
            where seen.org_id = :org_id and seen.id = :before_id
        )
    end
    and (
        :before_id::bigint is null
        or audit_log.id < :before_id
        or audit_log.created_at < (
            select seen.created_at from audit_log as seen
            where seen.org_id = :org_id and seen.id = :before_id
        )
    )
    and (:action::text is null or audit_log.action = :action)
    and (:entity_type::text is null or audit_log.entity_type = :entity_type)
    and (:entity_id::bigint is null or audit_log.entity_id = :entity_id)
    and (:user_id::bigint is null or audit_log.user_id = :user_id)
    and (:severity::text is null or audit_log.severity = :severity)
    and (
        :search::text is null
        or concat_ws(
            ' ', audit_log.action, audit_log.request_id, host(audit_log.ip), audit_log.user_agent
        ) ilike '%' || :search || '%'
    )
order by audit_log.created_at desc, audit_log.id desc
limit :limit;

-- name: find_archivable :maybe
-- Find the next rows to archive, of the oldest month, if it ended so many days ago.
-- not null: month, first_id, last_id, row_count
with oldest as (
    select
        date_trunc('month', min(created_at) at time zone 'UTC')::date as month,
        date_trunc('month', min(created_at) at time zone 'UTC') at time zone 'UTC' as starts_at,
        (date_trunc('month', min(created_at) at time zone 'UTC') + interval '1 month')
        at time zone 'UTC' as ends_at
    from audit_log
    where org_id = :org_id
),

part as (
    select id
    from audit_log
    where
        org_id = :org_id
        and created_at >= (select starts_at from oldest)
        and created_at < (select ends_at from oldest)
        and (select ends_at from oldest)
        <= :now::timestamptz - make_interval(days => :keep_days::integer)
    order by id
    limit :limit
)

select
    (select month from oldest) as month,
    min(id) as first_id,
    max(id) as last_id,
    count(*) as row_count
from part
having count(*) > 0;

-- name: list_lines :many
-- List the lines of an archive that is to be.
-- not null: line
select audit_line(log) as line
from audit_log as log
where
    log.org_id = :org_id and log.id between :first_id and :last_id
    and log.created_at >= :month::date::timestamp at time zone 'UTC'
    and log.created_at < (:month::date + interval '1 month') at time zone 'UTC'
order by log.id
limit :limit;

-- name: archive_rows :one
-- Write down an archive whose object was read back; takes its rows out of the log, and its
-- tombstone away. Refused by audit_archive_matches if the rows are not those of the lines.
insert into audit_archive (
    org_id, archive_no, month, first_id, last_id, row_count, lines_sha256, chain, object_key,
    size_bytes, object_sha256
)
select
    :org_id,
    coalesce(max(before.archive_no), 0) + 1,
    :month,
    :first_id,
    :last_id,
    :row_count,
    :lines_sha256,
    sha256(
        coalesce((array_agg(before.chain order by before.archive_no desc))[1], '')
        || :lines_sha256::bytea
    ),
    :object_key,
    :size_bytes,
    :object_sha256
from (
    select
        archive_no,
        chain
    from audit_archive
    where org_id = :org_id
    order by archive_no desc
    limit 1
) as before
returning archive_no;

-- name: list_archives :many
-- List archives from behind a number on, in the order in which they were made.
select
    archive_no,
    month,
    first_id,
    last_id,
    row_count,
    lines_sha256,
    chain,
    object_key,
    size_bytes,
    object_sha256,
    archived_at
from audit_archive
where org_id = :org_id and archive_no > :after_no
order by archive_no
limit :limit;
