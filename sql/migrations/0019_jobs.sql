-- What happens later: jobs, who runs them, and what came of each run.
-- The application changes them through functions only; they belong to no organisation.
-- depends: 0018_sign_in
set local lock_timeout = '4s';
set local role sofinance_owner;

create table job (
    name text not null,
    description text not null,
    every_s integer not null,
    offset_s integer not null,
    lease_s integer not null,
    is_paused boolean not null default false,
    is_requested boolean not null default false,
    next_run_at timestamptz not null,
    claim_no bigint not null default 0,
    runner text,
    started_at timestamptz,
    last_heartbeat_at timestamptz,
    lease_until timestamptz,
    last_success_at timestamptz,
    last_error_at timestamptz,
    last_error text,
    consecutive_failures integer not null default 0,
    error_count bigint not null default 0,
    constraint job_pk primary key (name),
    constraint job_name_form check (name ~ '^[a-z][a-z0-9-]{1,39}$'),
    constraint job_described check (length(description) between 1 and 200),
    constraint job_interval_in_range check (every_s between 1 and 2678400),
    constraint job_offset_within_interval check (offset_s between 0 and every_s - 1),
    constraint job_lease_in_range check (lease_s between 1 and 3600),
    constraint job_claimed_by_runner check ((runner is null) = (lease_until is null)),
    constraint job_error_not_long check (length(last_error) <= 500),
    constraint job_counts_not_negative check (
        claim_no >= 0 and consecutive_failures >= 0 and error_count >= consecutive_failures
    )
);
comment on table job is 'What is done regularly, by whichever worker claims it first.';
comment on column job.name is 'Its name: balances-roll-up.';
comment on column job.description is 'What it does.';
comment on column job.every_s is 'Seconds between the beginnings of two runs.';
comment on column job.offset_s is 'Seconds after a multiple of every_s (UTC): 1800 of 86400 is 00:30.';
comment on column job.lease_s is 'Seconds for which a claim holds without a sign of life.';
comment on column job.is_paused is 'True: nobody runs it.';
comment on column job.is_requested is 'True: it is run as soon as a worker is free.';
comment on column job.next_run_at is 'When it is due; runs that were missed are made up for by one.';
comment on column job.claim_no is 'Counts claims; only the latest may renew and finish.';
comment on column job.runner is 'The worker that runs it now.';
comment on column job.started_at is 'When the latest run began (server time).';
comment on column job.last_heartbeat_at is 'The latest sign of life of a run (server time).';
comment on column job.lease_until is 'When another worker may take it over.';
comment on column job.last_success_at is 'When a run last ended well (server time).';
comment on column job.last_error_at is 'When a run last failed (server time).';
comment on column job.last_error is 'Why.';
comment on column job.consecutive_failures is 'Runs that failed since the last that did not.';
comment on column job.error_count is 'Runs that ever failed.';
comment on constraint job_pk on job is 'A job has this name already.';
comment on constraint job_name_form on job is
'A job''s name has 2 to 40 lower-case letters, digits and hyphens.';
comment on constraint job_described on job is 'A job has a description of 1 to 200 characters.';
comment on constraint job_interval_in_range on job is 'A job runs every second to every 31 days.';
comment on constraint job_offset_within_interval on job is
'A job''s offset is less than its interval.';
comment on constraint job_lease_in_range on job is 'A lease is 1 second to 1 hour.';
comment on constraint job_claimed_by_runner on job is 'A claimed job has a runner and a lease.';
comment on constraint job_error_not_long on job is 'An error is told in at most 500 characters.';
comment on constraint job_counts_not_negative on job is 'A job''s counts are not negative.';
grant select on job to sofinance_app;

create table job_run (
    job text not null,
    claim_no bigint not null,
    runner text not null,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    outcome text not null,
    told text not null,
    constraint job_run_pk primary key (job, claim_no),
    constraint job_run_job_known foreign key (job) references job (name),
    constraint job_run_outcome_known check (
        outcome in ('succeeded', 'failed', 'stopped', 'lost')
    ),
    constraint job_run_told_not_long check (length(told) <= 500)
);
comment on table job_run is 'What came of each run of a job.';
comment on column job_run.job is 'The job.';
comment on column job_run.claim_no is 'The claim under which it ran.';
comment on column job_run.runner is 'The worker that ran it.';
comment on column job_run.started_at is 'When it began (server time).';
comment on column job_run.ended_at is 'When it ended, or was found lost (server time).';
comment on column job_run.outcome is
'succeeded, failed, stopped with its worker, or lost: its worker was not heard of any more.';
comment on column job_run.told is 'What it did, or why it failed.';
comment on constraint job_run_pk on job_run is 'This run has ended already.';
comment on constraint job_run_job_known on job_run is 'There is no such job.';
comment on constraint job_run_outcome_known on job_run is
'A run has succeeded, failed, was stopped or is lost.';
comment on constraint job_run_told_not_long on job_run is
'What a run says has at most 500 characters.';
create index job_run_by_end on job_run (ended_at);
comment on index job_run_by_end is 'Runs to be forgotten, oldest first.';
grant select on job_run to sofinance_app;

create table job_runner (
    name text not null,
    version text not null,
    started_at timestamptz not null default now(),
    last_heartbeat_at timestamptz not null default now(),
    constraint job_runner_pk primary key (name),
    constraint job_runner_name_not_long check (length(name) between 1 and 200)
);
comment on table job_runner is 'The workers that are at work, or were until lately.';
comment on column job_runner.name is 'Host, process and a random part.';
comment on column job_runner.version is 'The release that it runs.';
comment on column job_runner.started_at is 'When it began (server time).';
comment on column job_runner.last_heartbeat_at is 'Its latest sign of life (server time).';
comment on constraint job_runner_pk on job_runner is 'A worker has this name already.';
comment on constraint job_runner_name_not_long on job_runner is
'A worker''s name has 1 to 200 characters.';
grant select on job_runner to sofinance_app;

create function next_due(p_every_s integer, p_offset_s integer) returns timestamptz
language sql stable set search_path = pg_catalog
begin atomic
    select to_timestamp(
        (floor((extract(epoch from now()) - p_offset_s) / p_every_s) + 1) * p_every_s + p_offset_s
    );
end;
comment on function next_due(integer, integer) is
'The next moment after now that is a multiple of an interval and an offset (UTC).';

create function declare_job(
    p_name text, p_description text, p_every_s integer, p_offset_s integer, p_lease_s integer
) returns void
language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    insert into job (name, description, every_s, offset_s, lease_s, next_run_at)
    values (
        p_name, p_description, p_every_s, p_offset_s, p_lease_s, next_due(p_every_s, p_offset_s)
    )
    on conflict (name) do update
    set
        description = excluded.description,
        every_s = excluded.every_s,
        offset_s = excluded.offset_s,
        lease_s = excluded.lease_s,
        next_run_at = least(job.next_run_at, excluded.next_run_at)
    where
        (job.description, job.every_s, job.offset_s, job.lease_s)
        is distinct from
        (excluded.description, excluded.every_s, excluded.offset_s, excluded.lease_s);
end
$$;
comment on function declare_job(text, text, integer, integer, integer) is
'Makes a job known, or changes when it runs.';
grant execute on function declare_job(text, text, integer, integer, integer) to sofinance_app;

create function claim_job(p_runner text, p_names text[])
returns table (name text, claim_no bigint, lease_s integer)
language plpgsql security definer set search_path = pg_catalog, public as $$
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
comment on function claim_job(text, text[]) is
'Gives a worker the job that has been due longest; nothing when none is due or free. A job whose
lease has run out is taken over, and its run written down as lost.';
grant execute on function claim_job(text, text[]) to sofinance_app;

create function renew_job(p_name text, p_claim_no bigint) returns boolean
language sql security definer set search_path = pg_catalog, public
begin atomic
    update job set
        last_heartbeat_at = now(),
        lease_until = now() + make_interval(secs => lease_s)
    where name = p_name and claim_no = p_claim_no and runner is not null
    returning true;
end;
comment on function renew_job(text, bigint) is
'Shows a sign of life; nothing when the claim is no longer the job''s.';
grant execute on function renew_job(text, bigint) to sofinance_app;

create function finish_job(p_name text, p_claim_no bigint, p_outcome text, p_told text)
returns boolean
language plpgsql security definer set search_path = pg_catalog, public as $$
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
comment on function finish_job(text, bigint, text, text) is
'Writes down what came of a run: succeeded, failed or stopped. A failed one is tried again after 30
seconds, doubled with each failure, at most an hour, and not later than it is due. False when the
claim is no longer the job''s.';
grant execute on function finish_job(text, bigint, text, text) to sofinance_app;

create function steer_job(p_name text, p_action text) returns boolean
language sql security definer set search_path = pg_catalog, public
begin atomic
    update job set
        is_paused = p_action = 'pause' or (is_paused and p_action <> 'resume'),
        is_requested = is_requested or p_action = 'run'
    where name = p_name and p_action in ('pause', 'resume', 'run')
    returning true;
end;
comment on function steer_job(text, text) is
'Pauses a job, resumes it, or has it run as soon as a worker is free.';
grant execute on function steer_job(text, text) to sofinance_app;

create function beat_runner(p_name text, p_version text) returns void
language sql security definer set search_path = pg_catalog, public
begin atomic
    insert into job_runner (name, version) values (p_name, p_version)
    on conflict (name) do update set last_heartbeat_at = now();
end;
comment on function beat_runner(text, text) is 'Shows that a worker lives.';
grant execute on function beat_runner(text, text) to sofinance_app;

create function leave_runner(p_name text) returns void
language sql security definer set search_path = pg_catalog, public
begin atomic
    delete from job_runner where name = p_name;
end;
comment on function leave_runner(text) is 'Takes a worker off the list that ends as it should.';
grant execute on function leave_runner(text) to sofinance_app;

create function forget_job_runs(p_keep_days integer, p_limit integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    gone bigint;
begin
    delete from job_runner where last_heartbeat_at < now() - interval '1 day';
    delete from job_run where (job, claim_no) in (
        select old.job, old.claim_no from job_run as old
        where old.ended_at < now() - make_interval(days => greatest(p_keep_days, 1))
        order by old.ended_at
        limit p_limit
    );
    get diagnostics gone = row_count;
    return gone;
end
$$;
comment on function forget_job_runs(integer, integer) is
'Forgets runs that ended so many days ago, some at a time, and workers not heard of for a day.';
grant execute on function forget_job_runs(integer, integer) to sofinance_app;
