-- Backups: which there are, what the operator asked for, and what drills showed.
-- The application changes them through functions only; they belong to no organisation.
-- depends: 0028_outbox
set local lock_timeout = '4s';
set local role sofinance_owner;

create table backup (
    id bigint generated always as identity,
    kind text not null,
    status text not null default 'PENDING',
    location text not null,
    file_name text,
    size_bytes bigint,
    sha256 text,
    is_encrypted boolean,
    row_count bigint,
    file_count bigint,
    taken_at timestamptz,
    created_at timestamptz not null default now(),
    ended_at timestamptz,
    error text,
    requested_by_org_id bigint,
    requested_by bigint,
    verified_at timestamptz,
    verification_error text,
    removed_at timestamptz,
    files_removed_at timestamptz,
    constraint backup_pk primary key (id),
    constraint backup_kind_known check (kind in ('FULL', 'BASE')),
    constraint backup_status_known check (status in ('PENDING', 'SUCCESS', 'FAILED')),
    constraint backup_ends check ((status = 'PENDING') = (ended_at is null)),
    constraint backup_success_has_file check (
        status <> 'SUCCESS'
        or num_nulls(file_name, size_bytes, sha256, is_encrypted, taken_at) = 0
    ),
    constraint backup_failure_has_error check ((status = 'FAILED') = (error is not null)),
    constraint backup_sums_in_form check (
        sha256 ~ '^[0-9a-f]{64}$' and size_bytes >= 0 and row_count >= 0 and file_count >= 0
    ),
    constraint backup_texts_not_long check (
        length(location) <= 500 and length(file_name) <= 200
        and length(error) <= 1000 and length(verification_error) <= 1000
    ),
    constraint backup_removed_in_order check (
        (removed_at is null or ended_at is not null)
        and (files_removed_at is null or removed_at is not null)
    )
);
comment on table backup is
'Backups that were taken, or tried; the operator''s, of no organisation.';
comment on column backup.id is 'The backup''s number.';
comment on column backup.kind is
'FULL: a dump of all organisations, with their files; BASE: the server''s files, for a moment in time.';
comment on column backup.status is 'PENDING while it is taken, then SUCCESS or FAILED.';
comment on column backup.location is 'The directory or bucket that it is in.';
comment on column backup.file_name is 'Its file there.';
comment on column backup.size_bytes is 'The size of that file.';
comment on column backup.sha256 is 'Its SHA-256, in hex.';
comment on column backup.is_encrypted is 'Whether it is encrypted.';
comment on column backup.row_count is 'Rows in it; none are counted of a BASE.';
comment on column backup.file_count is 'Files of the store that are in it.';
comment on column backup.taken_at is 'When its state was the database''s.';
comment on column backup.created_at is 'When it was begun (server time).';
comment on column backup.ended_at is 'When it was done, or failed (server time).';
comment on column backup.error is 'Why it failed.';
comment on column backup.requested_by_org_id is
'The organisation of who asked for it; none: the schedule or a command did.';
comment on column backup.requested_by is 'Who asked for it.';
comment on column backup.verified_at is 'When it was last restored elsewhere, and verified.';
comment on column backup.verification_error is 'Why the latest such try failed.';
comment on column backup.removed_at is 'When it was given up.';
comment on column backup.files_removed_at is 'When its files went.';
comment on constraint backup_pk on backup is 'This backup is there already.';
comment on constraint backup_kind_known on backup is 'A backup is FULL or BASE.';
comment on constraint backup_status_known on backup is
'A backup is PENDING, SUCCESS or FAILED.';
comment on constraint backup_ends on backup is 'A backup has an end when it is not pending.';
comment on constraint backup_success_has_file on backup is
'A backup that succeeded has a file, a size, a checksum and a time.';
comment on constraint backup_failure_has_error on backup is 'A backup that failed says why.';
comment on constraint backup_sums_in_form on backup is
'A checksum is a SHA-256 in hex, and counts are not negative.';
comment on constraint backup_texts_not_long on backup is
'A location has at most 500 characters, a file''s name 200, an error 1000.';
comment on constraint backup_removed_in_order on backup is
'A backup is taken, then given up, then its files go.';
create unique index backup_file_once on backup (location, file_name);
comment on index backup_file_once is 'This file is a backup already.';
create index backup_open on backup (id) where status = 'PENDING';
comment on index backup_open is 'Those that are being taken.';
create index backup_by_time on backup (created_at desc, id desc);
comment on index backup_by_time is 'Lists, the newest first.';
grant select on backup to sofinance_app;

create table backup_confirmation (
    token_hash bytea not null,
    backup_id bigint not null,
    org_id bigint not null,
    user_id bigint not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    constraint backup_confirmation_pk primary key (token_hash),
    constraint backup_confirmation_backup_known foreign key (backup_id) references backup (id),
    constraint backup_confirmation_is_a_hash check (length(token_hash) = 32)
);
comment on table backup_confirmation is
'Words that confirm a restore: good once, for five minutes, for one backup and who asked.';
comment on column backup_confirmation.token_hash is 'The SHA-256 of the word.';
comment on column backup_confirmation.backup_id is 'The backup.';
comment on column backup_confirmation.org_id is 'The organisation of who asked.';
comment on column backup_confirmation.user_id is 'Who asked.';
comment on column backup_confirmation.expires_at is 'Until when it is good.';
comment on column backup_confirmation.used_at is 'When it was used.';
comment on constraint backup_confirmation_pk on backup_confirmation is
'This confirmation is there already.';
comment on constraint backup_confirmation_backup_known on backup_confirmation is
'There is no such backup.';
comment on constraint backup_confirmation_is_a_hash on backup_confirmation is
'Of a confirmation only the SHA-256 is kept.';
grant select on backup_confirmation to sofinance_app;
create index backup_confirmation_by_backup on backup_confirmation (backup_id);
comment on index backup_confirmation_by_backup is 'The confirmations of a backup.';

create table backup_task (
    id bigint generated always as identity,
    kind text not null,
    status text not null default 'QUEUED',
    backup_id bigint not null,
    requested_by_org_id bigint not null,
    requested_by bigint not null,
    attempt_count integer not null default 0,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    ended_at timestamptz,
    cancel_requested_at timestamptz,
    database_name text,
    restored_tables text[],
    message text,
    constraint backup_task_pk primary key (id),
    constraint backup_task_backup_known foreign key (backup_id) references backup (id),
    constraint backup_task_kind_known check (kind in ('CREATE', 'VERIFY', 'DRY_RUN', 'RESTORE')),
    constraint backup_task_status_known check (
        status in ('QUEUED', 'RUNNING', 'SUCCESS', 'FAILED', 'CANCELLED')
    ),
    constraint backup_task_ends check ((status in ('QUEUED', 'RUNNING')) = (ended_at is null)),
    constraint backup_task_attempts_bounded check (attempt_count between 0 and 3),
    constraint backup_task_texts_not_long check (
        length(message) <= 1000 and length(database_name) <= 63
    )
);
comment on table backup_task is
'What operators asked for: taking, verifying and restoring backups; a worker does it.';
comment on column backup_task.id is 'The task''s number.';
comment on column backup_task.kind is
'CREATE, VERIFY and DRY_RUN (restored elsewhere, compared, taken away again), or RESTORE: into a new database.';
comment on column backup_task.status is 'QUEUED, RUNNING, SUCCESS, FAILED or CANCELLED.';
comment on column backup_task.backup_id is 'The backup that it is about.';
comment on column backup_task.requested_by_org_id is 'The organisation of who asked.';
comment on column backup_task.requested_by is 'Who asked.';
comment on column backup_task.attempt_count is 'How often it was begun.';
comment on column backup_task.created_at is 'When it was asked for (server time).';
comment on column backup_task.started_at is 'When it was last begun (server time).';
comment on column backup_task.ended_at is 'When it ended (server time).';
comment on column backup_task.cancel_requested_at is 'When somebody asked to break it off.';
comment on column backup_task.database_name is 'The new database of a RESTORE.';
comment on column backup_task.restored_tables is 'Tables that were restored and are equal.';
comment on column backup_task.message is 'What came of it.';
comment on constraint backup_task_pk on backup_task is 'This task is there already.';
comment on constraint backup_task_backup_known on backup_task is 'There is no such backup.';
comment on constraint backup_task_kind_known on backup_task is
'A task is CREATE, VERIFY, DRY_RUN or RESTORE.';
comment on constraint backup_task_status_known on backup_task is
'A task is QUEUED, RUNNING, SUCCESS, FAILED or CANCELLED.';
comment on constraint backup_task_ends on backup_task is
'A task has an end when it is neither queued nor running.';
comment on constraint backup_task_attempts_bounded on backup_task is
'A task is begun three times at most.';
comment on constraint backup_task_texts_not_long on backup_task is
'A task''s message has at most 1000 characters, its database''s name 63.';
create index backup_task_open on backup_task (id) where ended_at is null;
comment on index backup_task_open is 'What is still to be done, in order.';
create index backup_task_by_time on backup_task (created_at desc, id desc);
comment on index backup_task_by_time is 'Lists, the newest first.';
create index backup_task_by_backup on backup_task (backup_id);
comment on index backup_task_by_backup is 'The tasks of a backup.';
grant select on backup_task to sofinance_app;

create table backup_drill (
    id bigint generated always as identity,
    kind text not null,
    backup_name text not null,
    release text not null,
    began_at timestamptz not null,
    ended_at timestamptz not null default now(),
    error text,
    rpo_s numeric,
    rto_s numeric,
    row_count bigint,
    constraint backup_drill_pk primary key (id),
    constraint backup_drill_kind_known check (kind in ('DUMP', 'POINT_IN_TIME')),
    constraint backup_drill_times_not_negative check (
        rpo_s >= 0 and rto_s >= 0 and 'NaN' not in (rpo_s, rto_s)
    ),
    constraint backup_drill_good_has_times check (
        error is not null or num_nulls(rpo_s, rto_s) = 0
    ),
    constraint backup_drill_texts_not_long check (
        length(backup_name) <= 200 and length(release) <= 100 and length(error) <= 1000
    )
);
comment on table backup_drill is
'Drills: a backup was restored elsewhere, compared and verified; what it took.';
comment on column backup_drill.id is 'The drill''s number.';
comment on column backup_drill.kind is
'DUMP: from a dump; POINT_IN_TIME: from a base backup and the log.';
comment on column backup_drill.backup_name is 'The file that was restored.';
comment on column backup_drill.release is 'The release that did it.';
comment on column backup_drill.began_at is 'When it began.';
comment on column backup_drill.ended_at is 'When it ended (server time).';
comment on column backup_drill.error is 'Why it failed; none: all was equal, and verified.';
comment on column backup_drill.rpo_s is 'Seconds of work that would have been lost.';
comment on column backup_drill.rto_s is 'Seconds from nothing to a verified database.';
comment on column backup_drill.row_count is 'Rows that were restored and are equal.';
comment on constraint backup_drill_pk on backup_drill is 'This drill is there already.';
comment on constraint backup_drill_kind_known on backup_drill is
'A drill is DUMP or POINT_IN_TIME.';
comment on constraint backup_drill_times_not_negative on backup_drill is
'A drill''s times are not negative.';
comment on constraint backup_drill_good_has_times on backup_drill is
'A drill that went well says how long it took, and what would have been lost.';
comment on constraint backup_drill_texts_not_long on backup_drill is
'A file''s name has at most 200 characters, a release 100, an error 1000.';
create index backup_drill_by_time on backup_drill (began_at desc, id desc);
comment on index backup_drill_by_time is 'Lists, the newest first.';
grant select on backup_drill to sofinance_app;

-- -- taking ------------------------------------------------------------------------------------

create function begin_backup(
    p_kind text, p_location text, p_org_id bigint default null, p_user_id bigint default null
) returns bigint
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    insert into backup (kind, location, requested_by_org_id, requested_by)
    values (p_kind, left(p_location, 500), p_org_id, p_user_id)
    returning id;
end;
comment on function begin_backup(text, text, bigint, bigint) is
'Writes down that a backup is being taken; returns its number.';
grant execute on function begin_backup(text, text, bigint, bigint)
to sofinance_app, sofinance_backup;

create function finish_backup(
    p_id bigint,
    p_location text,
    p_file_name text,
    p_size_bytes bigint,
    p_sha256 text,
    p_is_encrypted boolean,
    p_row_count bigint,
    p_file_count bigint,
    p_taken_at timestamptz
) returns boolean
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    update backup set
        status = 'SUCCESS', ended_at = now(), location = left(p_location, 500),
        file_name = p_file_name, size_bytes = p_size_bytes, sha256 = p_sha256,
        is_encrypted = p_is_encrypted, row_count = p_row_count, file_count = p_file_count,
        taken_at = p_taken_at, error = null
    where id = p_id and status <> 'SUCCESS'
    returning true;
end;
comment on function finish_backup(
    bigint, text, text, bigint, text, boolean, bigint, bigint, timestamptz
) is 'Writes down that a backup was taken, also when it had failed before; nothing when it was taken.';
grant execute on function finish_backup(
    bigint, text, text, bigint, text, boolean, bigint, bigint, timestamptz
) to sofinance_app, sofinance_backup;

create function fail_backup(p_id bigint, p_error text) returns boolean
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    update backup set
        status = 'FAILED', ended_at = now(), error = left(coalesce(p_error, ''), 1000)
    where id = p_id and status = 'PENDING'
    returning true;
end;
comment on function fail_backup(bigint, text) is
'Writes down why a backup was not taken; nothing when it is not pending.';
grant execute on function fail_backup(bigint, text) to sofinance_app, sofinance_backup;

create function forget_lost_backups(p_hours integer) returns bigint
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with lost as (
        update backup set
            status = 'FAILED', ended_at = now(), error = 'whoever took it was not heard of again'
        where status = 'PENDING' and created_at < now() - make_interval(hours => p_hours)
        returning id
    )

    select count(*) from lost;
end;
comment on function forget_lost_backups(integer) is
'Fails backups that are pending for so many hours; also what a restored database says of its own.';
grant execute on function forget_lost_backups(integer) to sofinance_app, sofinance_backup;

create function note_backup_verified(p_location text, p_file_name text, p_error text)
returns boolean
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    update backup set
        verified_at = case when p_error is null then now() else verified_at end,
        verification_error = left(p_error, 1000)
    where location = left(p_location, 500) and file_name = p_file_name
    returning true;
end;
comment on function note_backup_verified(text, text, text) is
'Writes down that a backup was restored elsewhere and verified, or why it was not.';
grant execute on function note_backup_verified(text, text, text)
to sofinance_app, sofinance_backup;

create function note_backups_removed(p_location text, p_file_names text[]) returns bigint
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with gone as (
        update backup set
            removed_at = coalesce(removed_at, now()), files_removed_at = now()
        where
            location = left(p_location, 500) and file_name = any(p_file_names)
            and status = 'SUCCESS'
        returning id
    )

    select count(*) from gone;
end;
comment on function note_backups_removed(text, text[]) is
'Writes down that the files of backups went.';
grant execute on function note_backups_removed(text, text[]) to sofinance_app, sofinance_backup;

create function give_up_backup(p_id bigint) returns text
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    unwanted backup;
begin
    perform pg_advisory_xact_lock(hashtextextended('give_up_backup', 0));
    select backup.* into unwanted from backup
    where backup.id = p_id and backup.removed_at is null
    for update;
    if not found then
        return 'unknown';
    end if;
    if unwanted.status = 'PENDING' or exists (
        select from backup_task where backup_id = p_id and ended_at is null
    ) then
        return 'busy';
    end if;
    if unwanted.status = 'SUCCESS' and not exists (
        select from backup
        where
            backup.kind = unwanted.kind and backup.status = 'SUCCESS'
            and backup.removed_at is null and backup.id <> p_id
            and backup.verification_error is null
    ) then
        return 'last';
    end if;
    update backup set removed_at = now() where backup.id = p_id;
    return 'done';
end
$$;
comment on function give_up_backup(bigint) is
'Gives up a backup, whose files go later: done, unknown, busy, or last: the only good one of its kind.';
grant execute on function give_up_backup(bigint) to sofinance_app;

create function record_drill(
    p_kind text,
    p_backup_name text,
    p_release text,
    p_began_at timestamptz,
    p_error text,
    p_rpo_s numeric,
    p_rto_s numeric,
    p_row_count bigint
) returns bigint
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    insert into backup_drill
    (kind, backup_name, release, began_at, error, rpo_s, rto_s, row_count)
    values (
        p_kind, p_backup_name, p_release, p_began_at, left(p_error, 1000), p_rpo_s, p_rto_s,
        p_row_count
    )
    returning id;
end;
comment on function record_drill(
    text, text, text, timestamptz, text, numeric, numeric, bigint
) is 'Writes down what a drill showed.';
grant execute on function record_drill(
    text, text, text, timestamptz, text, numeric, numeric, bigint
) to sofinance_app, sofinance_backup;

-- -- what operators ask for --------------------------------------------------------------------

create function ask_backup_task(
    p_kind text, p_backup_id bigint, p_org_id bigint, p_user_id bigint, p_restore_count_max integer
) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    asked_id bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('ask_backup_task', 0));
    if p_kind <> 'CREATE' and p_restore_count_max <= (
        select count(*) from backup_task where ended_at is null and kind <> 'CREATE'
    ) then
        return null;
    end if;
    insert into backup_task (kind, backup_id, requested_by_org_id, requested_by)
    values (p_kind, p_backup_id, p_org_id, p_user_id)
    returning id into asked_id;
    update job set is_requested = true where name = 'backup-tasks';
    return asked_id;
end
$$;
comment on function ask_backup_task(text, bigint, bigint, bigint, integer) is
'Asks a worker to take, verify or restore a backup; nothing when so many are restored already.';
grant execute on function ask_backup_task(text, bigint, bigint, bigint, integer) to sofinance_app;

create function reopen_backup_tasks(p_hours integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    reopened bigint;
begin
    update backup_task set
        status = case when cancel_requested_at is null then 'FAILED' else 'CANCELLED' end,
        ended_at = now(),
        message = case
            when cancel_requested_at is not null then 'broken off'
            when attempt_count >= 3 then 'its worker was not heard of again, three times'
            else 'nobody did it in time'
        end
    where ended_at is null and (
        cancel_requested_at is not null
        or (status = 'RUNNING' and attempt_count >= 3)
        or created_at < now() - make_interval(hours => p_hours)
    );
    update backup_task set status = 'QUEUED' where status = 'RUNNING';
    get diagnostics reopened = row_count;
    return reopened;
end
$$;
comment on function reopen_backup_tasks(integer) is
'Queues again what was running when its worker died; who calls is the only one that does tasks.';
grant execute on function reopen_backup_tasks(integer) to sofinance_app;

create function claim_backup_task() returns table (
    id bigint, kind text, backup_id bigint, file_name text, location text
)
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    with next as (
        select backup_task.id from backup_task
        where backup_task.status = 'QUEUED'
        order by backup_task.id
        limit 1
        for update skip locked
    ),

    claimed as (
        update backup_task set
            status = 'RUNNING', started_at = now(), attempt_count = attempt_count + 1
        from next
        where backup_task.id = next.id
        returning backup_task.id, backup_task.kind, backup_task.backup_id
    )

    select
        claimed.id,
        claimed.kind,
        claimed.backup_id,
        backup.file_name,
        backup.location
    from claimed
    inner join backup on claimed.backup_id = backup.id;
end;
comment on function claim_backup_task() is 'Gives a worker the next task; nothing when all is done.';
grant execute on function claim_backup_task() to sofinance_app;

create function end_backup_task(
    p_id bigint, p_status text, p_message text, p_database_name text, p_restored_tables text[]
) returns boolean
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    update backup_task set
        status = p_status, ended_at = now(), message = left(p_message, 1000),
        database_name = p_database_name, restored_tables = p_restored_tables
    where id = p_id and ended_at is null
    returning true;
end;
comment on function end_backup_task(bigint, text, text, text, text[]) is
'Writes down what came of a task; nothing when it has ended.';
grant execute on function end_backup_task(bigint, text, text, text, text[]) to sofinance_app;

create function cancel_backup_task(p_id bigint) returns boolean
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    update backup_task set
        cancel_requested_at = coalesce(cancel_requested_at, now()),
        status = case status when 'QUEUED' then 'CANCELLED' else status end,
        ended_at = case status when 'QUEUED' then now() end,
        message = case status when 'QUEUED' then 'broken off before it began' end
    where id = p_id and ended_at is null
    returning true;
end;
comment on function cancel_backup_task(bigint) is
'Asks to break off a task, at once when nobody has begun it; nothing when it has ended.';
grant execute on function cancel_backup_task(bigint) to sofinance_app;

create function issue_backup_confirmation(
    p_token_hash bytea, p_backup_id bigint, p_org_id bigint, p_user_id bigint, p_good_for_s integer
) returns timestamptz
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    until timestamptz := now() + make_interval(secs => p_good_for_s);
begin
    delete from backup_confirmation where expires_at < now() - interval '1 day';
    insert into backup_confirmation (token_hash, backup_id, org_id, user_id, expires_at)
    values (p_token_hash, p_backup_id, p_org_id, p_user_id, until);
    return until;
end
$$;
comment on function issue_backup_confirmation(bytea, bigint, bigint, bigint, integer) is
'Keeps the hash of a word that confirms a restore; returns until when it is good.';
grant execute on function issue_backup_confirmation(bytea, bigint, bigint, bigint, integer)
to sofinance_app;

create function use_backup_confirmation(
    p_token_hash bytea, p_backup_id bigint, p_org_id bigint, p_user_id bigint
) returns text
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    given backup_confirmation;
begin
    select backup_confirmation.* into given from backup_confirmation
    where token_hash = p_token_hash
    for update;
    if not found or (given.backup_id, given.org_id, given.user_id)
        is distinct from (p_backup_id, p_org_id, p_user_id) then
        return 'unknown';
    end if;
    if given.used_at is not null then
        return 'used';
    end if;
    if given.expires_at < now() then
        return 'expired';
    end if;
    update backup_confirmation set used_at = now() where token_hash = p_token_hash;
    return 'good';
end
$$;
comment on function use_backup_confirmation(bytea, bigint, bigint, bigint) is
'Uses up a word that confirms a restore: good, used, expired or unknown.';
grant execute on function use_backup_confirmation(bytea, bigint, bigint, bigint)
to sofinance_app;
