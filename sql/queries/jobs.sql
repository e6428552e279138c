-- What happens later: claiming jobs, running them, telling how they are.

-- name: declare_job :exec
-- Make a job known, or change when it runs.
select declare_job(:name, :description, :every_s, :offset_s, :lease_s);

-- name: claim_job :maybe
-- Take the job that has been due longest and that nobody runs.
-- not null: name, claim_no, lease_s
select
    claimed.name,
    claimed.claim_no,
    claimed.lease_s
from claim_job(:runner, :names) as claimed;

-- name: renew_job :value
-- Show a sign of life; null when somebody else has the job by now.
select renew_job(:name, :claim_no) as is_ours;

-- name: finish_job :value
-- Write down what came of a run; false when somebody else has the job by now.
-- not null: is_ours
select finish_job(:name, :claim_no, :outcome, :told) as is_ours;

-- name: steer_job :value
-- Pause a job, resume it, or have it run soon; null when there is none of this name.
select steer_job(:name, :action) as is_known;

-- name: beat_runner :exec
-- Show that a worker lives.
select beat_runner(:name, :version);

-- name: leave_runner :exec
-- Take a worker off the list.
select leave_runner(:name);

-- name: forget_job_runs :value
-- Forget old runs, at most so many; returns how many.
-- not null: count
select forget_job_runs(:keep_days, :limit) as count;

-- name: forget_expired_keys :exec
-- Forget idempotency keys whose answers are not kept any more, at most so many; another that does
-- the same at the same time takes others.
delete from idempotency_key
where
    org_id = :org_id and key_hash in (
        select old.key_hash
        from idempotency_key as old
        where old.org_id = :org_id and old.expires_at < now()
        order by old.expires_at
        limit :limit
        for update skip locked
    );

-- name: forget_sessions :exec
-- Forget sessions that were over so many days ago, and their refresh tokens, at most so many.
delete from user_session
where
    org_id = :org_id and id in (
        select old.id
        from user_session as old
        where
            old.org_id = :org_id
            and old.expires_at < now() - make_interval(days => :keep_days::integer)
        order by old.id
        limit :limit
        for update skip locked
    );

-- name: list_jobs :many
-- List every job and how it is: a handful, which the release declares.
-- not null: is_running, failed_count
select
    name,
    description,
    every_s,
    is_paused,
    is_requested,
    next_run_at,
    runner,
    coalesce(lease_until > now(), false) as is_running,
    started_at,
    last_heartbeat_at,
    last_success_at,
    last_error_at,
    last_error,
    consecutive_failures,
    error_count - lost_count as failed_count,
    lost_count,
    stopped_count
from job
order by name;

-- name: get_heartbeat :one
-- Get when a worker last showed a sign of life, if ever, and how many live.
-- not null: runner_count
select
    max(last_heartbeat_at) as last_heartbeat_at,
    extract(epoch from now() - max(last_heartbeat_at))::float8 as age_s,
    count(*) filter (
        where last_heartbeat_at > now() - make_interval(secs => :ttl_s)
    ) as runner_count
from job_runner;

-- name: list_job_runs :many
-- List the latest runs of a job, latest first.
select
    claim_no,
    runner,
    started_at,
    ended_at,
    outcome,
    told
from job_run
where job = :job
order by claim_no desc
limit :limit;
