-- Runs that did not end well are counted by how: failed, lost with its worker, or stopped.
-- depends: 0038_billing_portal
set local lock_timeout = '4s';
set local role sofinance_owner;

alter table job add column lost_count bigint not null default 0;
alter table job add column stopped_count bigint not null default 0;
comment on column job.error_count is 'Runs that ever failed or were lost.';
comment on column job.lost_count is
'Those of error_count whose worker was not heard of any more.';
comment on column job.stopped_count is 'Runs that ever were stopped with their worker.';

-- Of runs that are forgotten by now nobody knows any more: those count as failed.
update job set
    lost_count = least(job.error_count, told.lost_count),
    stopped_count = told.stopped_count
from (
    select
        job_run.job,
        count(*) filter (where job_run.outcome = 'lost') as lost_count,
        count(*) filter (where job_run.outcome = 'stopped') as stopped_count
    from job_run
    group by job_run.job
) as told
where told.job = job.name;

alter table job add constraint job_counts_by_outcome check (
    lost_count between 0 and error_count and stopped_count >= 0
) not valid;
-- A table of some twenty rows.
-- squawk-ignore constraint-missing-not-valid
alter table job validate constraint job_counts_by_outcome;
comment on constraint job_counts_by_outcome on job is
'Runs that were lost are some of those that failed, and no count is negative.';

create or replace function claim_job(p_runner text, p_names text[])
returns table (name text, claim_no bigint, lease_s integer)
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    due job;
    why constant text := 'its worker was not heard of any more';
begin
    select job.* into due from job
    where
        job.name = any(p_names) and not job.is_paused
        and (job.is_requested or job.next_run_at <= now())
        and (job.lease_until is null or job.lease_until < now())
    order by job.next_run_at, job.name
    limit 1
    for update skip locked;
    if not found then
        return;
    end if;
    if due.runner is not null then
        insert into job_run (job, claim_no, runner, started_at, ended_at, outcome, told)
        values (due.name, due.claim_no, due.runner, due.started_at, now(), 'lost', why);
        update job set
            last_error = why, last_error_at = now(), error_count = job.error_count + 1,
            lost_count = job.lost_count + 1,
            consecutive_failures = job.consecutive_failures + 1
        where job.name = due.name;
    end if;
    return query
    update job set
        claim_no = job.claim_no + 1, runner = p_runner, is_requested = false,
        started_at = now(), last_heartbeat_at = now(),
        lease_until = now() + make_interval(secs => job.lease_s)
    where job.name = due.name
    returning job.name, job.claim_no, job.lease_s;
end
$$;

create or replace function finish_job(p_name text, p_claim_no bigint, p_outcome text, p_told text)
returns boolean
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    mine job;
    has_failed constant boolean := p_outcome = 'failed';
begin
    select job.* into mine from job
    where job.name = p_name and job.claim_no = p_claim_no and job.runner is not null
    for update;
    if not found then
        return false;
    end if;
    insert into job_run (job, claim_no, runner, started_at, ended_at, outcome, told)
    values (
        mine.name, mine.claim_no, mine.runner, mine.started_at, now(), p_outcome, left(p_told, 500)
    );
    update job set
        runner = null,
        lease_until = null,
        last_heartbeat_at = now(),
        last_success_at = case when p_outcome = 'succeeded' then now() else job.last_success_at end,
        last_error_at = case when has_failed then now() else job.last_error_at end,
        last_error = case when has_failed then left(p_told, 500) else job.last_error end,
        error_count = job.error_count + has_failed::int,
        stopped_count = job.stopped_count + (p_outcome = 'stopped')::int,
        consecutive_failures = case p_outcome
            when 'succeeded' then 0 else job.consecutive_failures + has_failed::int
        end,
        next_run_at = case p_outcome
            when 'succeeded' then next_due(job.every_s, job.offset_s)
            when 'stopped' then now()
            else least(
                next_due(job.every_s, job.offset_s),
                now() + make_interval(secs => 30 * 2 ^ least(job.consecutive_failures, 7))
            )
        end
    where job.name = p_name;
    return true;
end
$$;
