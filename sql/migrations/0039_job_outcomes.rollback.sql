-- Count runs that failed and runs that were lost together again.
set local lock_timeout = '4s';
set local role sofinance_owner;

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

comment on column job.error_count is 'Runs that ever failed.';
alter table job drop constraint job_counts_by_outcome;
alter table job drop column stopped_count;
alter table job drop column lost_count;
