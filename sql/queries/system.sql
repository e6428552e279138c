-- Backups and drills of the whole server, and what its operator asks for.
-- Of no organisation: nothing here is filtered by one. Sizes are in bytes, times in seconds.

-- name: begin_backup :value
-- Write down that a backup is being taken; returns its number.
-- nullable: user_id, org_id
-- not null: id
select begin_backup(:kind, :location, :org_id, :user_id) as id;

-- name: fail_backup :exec
-- Write down why a backup was not taken; nothing when it is not pending.
select fail_backup(:id, :error);

-- name: forget_lost_backups :exec
-- Fail backups that have been pending for so many hours.
select forget_lost_backups(:hours);

-- name: give_up_backup :value
-- Give up a backup: done, unknown, busy or last (the only good one of its kind).
-- not null: outcome
select give_up_backup(:id) as outcome;

-- name: note_backups_removed :exec
-- Write down that the files of backups went.
select note_backups_removed(:location, :file_names);

-- name: ask_backup_task :value
-- Ask a worker to take, verify or restore a backup; null when so many are being restored.
select ask_backup_task(:kind, :backup_id, :org_id, :user_id, :restore_count_max) as id;

-- name: reopen_backup_tasks :exec
-- Queue again what was running when its worker died, and end what is too old or cancelled.
select reopen_backup_tasks(:hours);

-- name: claim_backup_task :maybe
-- Take the next task.
-- not null: id, kind, backup_id, location
select
    claimed.id,
    claimed.kind,
    claimed.backup_id,
    claimed.file_name,
    claimed.location
from claim_backup_task() as claimed;

-- name: end_backup_task :exec
-- Write down what came of a task.
-- nullable: database_name, restored_tables
select end_backup_task(:id, :status, :message, :database_name, :restored_tables);

-- name: cancel_backup_task :value
-- Ask to break off a task; null when it has ended.
select cancel_backup_task(:id) as is_asked;

-- name: issue_backup_confirmation :value
-- Keep the hash of a word that confirms a restore; returns until when it is good.
-- not null: expires_at
select
    issue_backup_confirmation(:token_hash, :backup_id, :org_id, :user_id, :good_for_s)
        as expires_at;

-- name: use_backup_confirmation :value
-- Use up a word that confirms a restore: good, used, expired or unknown.
-- not null: outcome
select use_backup_confirmation(:token_hash, :backup_id, :org_id, :user_id) as outcome;

-- name: get_backup :one
-- Read one that was not given up.
select
    id,
    kind,
    status,
    location,
    file_name,
    size_bytes,
    sha256,
    is_encrypted,
    row_count,
    file_count,
    taken_at,
    created_at,
    ended_at,
    error,
    requested_by,
    verified_at,
    verification_error
from backup
where id = :id and removed_at is null;

-- name: list_backups :many
-- Those that were not given up, the newest first.
-- nullable: kind, status
select
    id,
    kind,
    status,
    location,
    file_name,
    size_bytes,
    sha256,
    is_encrypted,
    row_count,
    file_count,
    taken_at,
    created_at,
    ended_at,
    error,
    requested_by,
    verified_at,
    verification_error
from backup
where
    removed_at is null
    and (:kind::text is null or kind = :kind)
    and (:status::text is null or status = :status)
order by created_at desc, id desc
limit :limit offset :offset;

-- name: count_backups :value
-- Count what list_backups lists.
-- nullable: kind, status
-- not null: count
select count(*) as count
from backup
where
    removed_at is null
    and (:kind::text is null or kind = :kind)
    and (:status::text is null or status = :status);

-- name: list_backups_given_up :many
-- Those whose files are still to go.
-- not null: file_name
select
    id,
    location,
    file_name
from backup
where removed_at is not null and files_removed_at is null and file_name is not null
order by id
limit :limit;

-- name: get_backup_stats :one
-- Sum up the backups that were not given up.
-- not null: total, successful, failed, pending, total_size_bytes
select
    count(*) as total,
    count(*) filter (where status = 'SUCCESS') as successful,
    count(*) filter (where status = 'FAILED') as failed,
    count(*) filter (where status = 'PENDING') as pending,
    coalesce(sum(size_bytes), 0)::bigint as total_size_bytes,
    max(taken_at) filter (where status = 'SUCCESS') as last_backup_at,
    max(verified_at) as last_verified_at
from backup
where removed_at is null;

-- name: list_latest_backups :many
-- The latest good one of each kind, for the metrics.
-- not null: taken_at, size_bytes
select distinct on (kind)
    kind,
    taken_at,
    size_bytes
from backup
where status = 'SUCCESS'
order by kind asc, taken_at desc
limit 10;

-- name: list_latest_drills :many
-- How the latest drill of each kind ended, and when one last ended well, for the metrics.
-- not null: has_failed
select distinct on (latest.kind)
    latest.kind,
    latest.error is not null as has_failed,
    (
        select max(good.ended_at)
        from backup_drill as good
        where good.kind = latest.kind and good.error is null
    ) as last_good_at
from backup_drill as latest
order by latest.kind asc, latest.began_at desc
limit 10;

-- name: get_archiver :one
-- How the server's log is archived; the times are null while nothing was.
-- not null: is_archiving, failed_count
select
    current_setting('archive_mode') <> 'off' as is_archiving,
    archiver.last_archived_time as last_archived_at,
    archiver.failed_count
from pg_stat_archiver as archiver;

-- name: get_server :one
-- What is running here.
-- not null: database_name, server_version, size_bytes, now
select
    current_database() as database_name,
    current_setting('server_version') as server_version,
    pg_database_size(current_database()) as size_bytes,
    now() as now;

-- name: get_backup_task :one
-- Read a task.
-- not null: is_dry_run
select
    id,
    kind,
    kind <> 'RESTORE' as is_dry_run,
    status,
    backup_id,
    requested_by,
    created_at,
    started_at,
    ended_at,
    cancel_requested_at,
    database_name,
    restored_tables,
    message
from backup_task
where id = :id;

-- name: list_backup_tasks :many
-- Tasks, the newest first.
-- not null: is_dry_run
select
    id,
    kind,
    kind <> 'RESTORE' as is_dry_run,
    status,
    backup_id,
    requested_by,
    created_at,
    started_at,
    ended_at,
    cancel_requested_at,
    database_name,
    restored_tables,
    message
from backup_task
order by created_at desc, id desc
limit :limit offset :offset;

-- name: count_backup_tasks :value
-- Count all tasks.
-- not null: count
select count(*) as count from backup_task;

-- name: list_cancelled_tasks :many
-- Tasks that run and shall not any more.
select id from backup_task
where ended_at is null and cancel_requested_at is not null
order by id
limit :limit;

-- name: list_drills :many
-- Drills, the newest first.
select
    id,
    kind,
    backup_name,
    release,
    began_at,
    ended_at,
    error,
    rpo_s,
    rto_s,
    row_count
from backup_drill
order by began_at desc, id desc
limit :limit offset :offset;

-- name: count_drills :value
-- Count all drills.
-- not null: count
select count(*) as count from backup_drill;
