-- What surrounds every request: its transaction, its tenant, its idempotency key, its audit row.
-- The statements up to commit_work are also rendered with their values in them and sent several
-- in one message, so text comes as UTF-8 bytes and there are no timestamps among the parameters.

-- name: begin_write :exec
-- Begin a transaction that may change something.
begin;

-- name: begin_read :exec
-- Begin a transaction that only reads.
begin read only;

-- name: begin_report :exec
-- Begin a transaction whose queries all see one and the same state.
begin isolation level repeatable read read only;

-- name: plan_for_values :exec
-- Plan each query of this transaction for its own values: optional filters make the generic plan,
-- which is right for postings, a bad one for lists and reports.
set local plan_cache_mode = 'force_custom_plan';

-- name: plan_with_scans :exec
-- Let the queries of this transaction scan tables; the role forbids it, for the sake of postings.
set local enable_seqscan = 'on';

-- name: set_tenant :one
-- Say whose rows this transaction may see, and how long it may run and wait, until its end.
-- branch_ids is 'all' or an array of them, such as '{1,2}'.
-- nullable: user_id
select
    set_config('app.org_id', :org_id::bigint::text, true) as org_id,
    set_config('app.user_id', :user_id::bigint::text, true) as user_id,
    set_config('app.branch_ids', convert_from(:branch_ids, 'utf8'), true) as branch_ids,
    set_config('statement_timeout', :statement_timeout_ms::int::text, true) as statement_timeout,
    set_config('lock_timeout', :lock_timeout_ms::int::text, true) as lock_timeout;

-- name: set_till :one
-- Say on which till the caller signed in: nothing is sold at another one, until its end.
select set_config('app.till_id', :till_id::bigint::text, true) as till_id;

-- name: admit :exec
-- Let the caller in under what is remembered of them; raises SF401 when that has changed since.
-- nullable: session_id, api_key_id
select admit(:user_id, :session_id, :api_key_id, :access_version);

-- name: demand_replayed :exec
-- Go on only on a standby that has replayed the log up to here: raises SF425 when it is not there
-- yet, SF421 on a server that is no standby.
select demand_replayed(:position::bigint);

-- name: set_limits :one
-- Say how long a transaction without a tenant may run and wait, until its end.
select
    set_config('statement_timeout', :statement_timeout_ms::int::text, true) as statement_timeout,
    set_config('lock_timeout', :lock_timeout_ms::int::text, true) as lock_timeout;

-- name: reserve_key :exec
-- Reserve an idempotency key: 1 when it is ours now, 0 when an earlier request has it.
-- Waits for a request that is still running with the key, at most lock_timeout.
insert into idempotency_key (org_id, key_hash, fingerprint, expires_at)
values (:org_id, :key_hash, :fingerprint, to_timestamp(:expires_at_s::bigint))
on conflict (org_id, key_hash) do nothing;

-- name: store_answer :exec
-- Keep what was answered under a reserved key, for whoever asks again.
-- nullable: etag
update idempotency_key
set status = :status, body = :body, etag = convert_from(:etag, 'utf8')
where org_id = :org_id and key_hash = :key_hash;

-- name: write_audit :exec
-- Say who did what to which thing, and how it was before and after.
-- nullable: user_id, session_id, api_key_id, entity_type, entity_id, before, after, request_id, ip
-- nullable: user_agent
insert into audit_log (
    org_id, user_id, session_id, api_key_id, action, entity_type, entity_id, before, after,
    request_id, ip, user_agent, severity
) values (
    :org_id,
    :user_id,
    :session_id,
    :api_key_id,
    convert_from(:action, 'utf8'),
    convert_from(:entity_type, 'utf8'),
    :entity_id,
    convert_from(:before, 'utf8')::jsonb,
    convert_from(:after, 'utf8')::jsonb,
    convert_from(:request_id, 'utf8'),
    convert_from(:ip, 'utf8')::inet,
    convert_from(:user_agent, 'utf8'),
    convert_from(:severity, 'utf8')
);

-- name: commit_work :exec
-- Commit; the deferred rules speak here.
commit;

-- name: roll_back :exec
-- Undo whatever the transaction did.
rollback;

-- name: find_answer :maybe
-- Read what was answered under an idempotency key, and whether that may still be said.
-- not null: is_expired
select
    fingerprint,
    status,
    body,
    etag,
    expires_at,
    expires_at <= now() as is_expired
from idempotency_key
where org_id = :org_id and key_hash = :key_hash;

-- name: forget_expired_key :exec
-- Make an expired key free again.
delete from idempotency_key
where org_id = :org_id and key_hash = :key_hash and expires_at <= now();

-- name: list_vocabulary :many
-- List every rule that can be broken and its comment, the message that a client reads.
-- Rules are constraints, unique indexes, and triggers that raise under their own name.
-- not null: code, message
select named.code::text as code, named.message
from (
    select conname as code, obj_description(oid, 'pg_constraint') as message
    from pg_constraint
    union all
    select pg_class.relname, obj_description(pg_index.indexrelid, 'pg_class')
    from pg_index
    inner join pg_class on pg_index.indexrelid = pg_class.oid
    where pg_index.indisunique
    union all
    select tgname, obj_description(oid, 'pg_trigger')
    from pg_trigger
    where not tgisinternal
) as named
where named.message is not null;

-- name: ping :value
-- Say that the database answers.
-- not null: answer
select 1 as answer;

-- name: get_position :one
-- Read up to where the log of the primary is on disk, all that anybody was told is committed, and
-- which timeline it is on.
-- not null: timeline, bytes
select
    ('x' || left(pg_walfile_name(flushed.at), 8))::bit(32)::int as timeline,
    (flushed.at - '0/0'::pg_lsn)::bigint as bytes
from (select pg_current_wal_flush_lsn() as at) as flushed;

-- name: get_replay :one
-- Read up to where a standby has replayed the log, on which timeline, of which cluster.
-- not null: is_standby, timeline, cluster
select
    pg_is_in_recovery() as is_standby,
    (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint as bytes,
    (select timeline_id from pg_control_checkpoint()) as timeline,
    (select system_identifier from pg_control_system())::text || ' ' || current_database() as cluster;

-- name: get_cluster :value
-- Read which cluster and database this is: its standbys say the same, and nobody else does.
-- not null: cluster
select system_identifier::text || ' ' || current_database() as cluster from pg_control_system();

-- name: get_database_stats :one
-- Read what the server counts of this database since its counters were last reset.
-- not null: name, server_version, size_bytes, connection_count, commit_count, rollback_count
-- not null: block_hit_count, block_read_count, deadlock_count, temp_bytes
select
    datname::text as name,
    current_setting('server_version') as server_version,
    pg_database_size(datid) as size_bytes,
    numbackends as connection_count,
    xact_commit as commit_count,
    xact_rollback as rollback_count,
    blks_hit as block_hit_count,
    blks_read as block_read_count,
    deadlocks as deadlock_count,
    temp_bytes,
    stats_reset as counted_since
from pg_stat_database
where datname = current_database();

-- name: may_read_migrations :value
-- Say whether the caller may read which migrations the database has: reports may not.
-- not null: is_allowed
select has_table_privilege('_yoyo_migration', 'select') as is_allowed;

-- name: list_newer_migrations :many
-- List the migrations of this database that come after a release's last one.
-- not null: migration_id
select migration_id
from _yoyo_migration
where migration_id > :last_known_id and migration_id ~ '^[0-9]{4}_'
order by migration_id;

-- name: count_migrations :value
-- Count which of these migrations the database has.
-- not null: count
select count(*) as count from _yoyo_migration
where migration_id = any(:ids);
