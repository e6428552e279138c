-- Archives of the audit log: old rows go into the store of files, proven equal, and only so.
-- depends: 0033_data_rights
set local lock_timeout = '4s';
set local role sofinance_owner;

-- What a row looks like in an archive: a line of JSON, the same whatever the session's settings.
create function audit_line(p_row audit_log) returns text
language sql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC'
return row_to_json(p_row)::text;
comment on function audit_line(audit_log) is
'Writes an audit row as the line of JSON that it is in an archive.';
grant execute on function audit_line(audit_log) to sofinance_app;

create table audit_archive (
    org_id bigint not null,
    archive_no bigint not null,
    month date not null,
    first_id bigint not null,
    last_id bigint not null,
    row_count bigint not null,
    lines_sha256 bytea not null,
    chain bytea not null,
    object_key text not null,
    size_bytes bigint not null,
    object_sha256 bytea not null,
    archived_at timestamptz not null default now(),
    constraint audit_archive_pk primary key (org_id, archive_no),
    constraint audit_archive_object_taken unique (org_id, object_key),
    constraint audit_archive_organisation_known foreign key (org_id)
    references organisation (org_id),
    constraint audit_archive_of_a_month check (extract(day from month) = 1),
    constraint audit_archive_is_old check (
        month + interval '1 month 90 days' <= archived_at at time zone 'UTC'
    ),
    constraint audit_archive_counts_rows check (
        row_count between 1 and last_id - first_id + 1
    ),
    constraint audit_archive_has_bytes check (size_bytes > 0),
    constraint audit_archive_are_digests check (
        octet_length(lines_sha256) = 32 and octet_length(chain) = 32
        and octet_length(object_sha256) = 32
    ),
    constraint audit_archive_object_is_own check (
        object_key ~ ('^org/' || org_id || '/audit/[0-9a-f]{32}$')
    )
);
comment on table audit_archive is
'Parts of the audit log that are in the store of files, in place of rows; append-only.';
comment on column audit_archive.org_id is 'The organisation.';
comment on column audit_archive.archive_no is 'Its number in the organisation: 1, 2, 3, ...';
comment on column audit_archive.month is 'The month of its rows (UTC), by its first day.';
comment on column audit_archive.first_id is 'The first audit row.';
comment on column audit_archive.last_id is
'The last audit row; it has all of the month from the first to this one.';
comment on column audit_archive.row_count is 'How many rows.';
comment on column audit_archive.lines_sha256 is
'SHA-256 of its rows as lines of JSON, by id, each with its end of line; proven when it was made.';
comment on column audit_archive.chain is
'SHA-256 of the chain of the archive before (none for the first) and lines_sha256.';
comment on column audit_archive.object_key is 'The object in the store: the lines, gzipped.';
comment on column audit_archive.size_bytes is 'The bytes of the object.';
comment on column audit_archive.object_sha256 is 'SHA-256 of the object.';
comment on column audit_archive.archived_at is 'When its rows went (server time).';
comment on constraint audit_archive_pk on audit_archive is 'There is an archive of this number.';
comment on constraint audit_archive_object_taken on audit_archive is
'This object is an archive already.';
comment on constraint audit_archive_organisation_known on audit_archive is
'There is no such organisation.';
comment on constraint audit_archive_of_a_month on audit_archive is
'An archive is of a month, said by its first day.';
comment on constraint audit_archive_is_old on audit_archive is
'What is archived is of months that ended 90 days ago or earlier.';
comment on constraint audit_archive_counts_rows on audit_archive is
'An archive has at least one row, and at most one for each number.';
comment on constraint audit_archive_has_bytes on audit_archive is 'An object has bytes.';
comment on constraint audit_archive_are_digests on audit_archive is
'Digests are SHA-256, 32 bytes each.';
comment on constraint audit_archive_object_is_own on audit_archive is
'An organisation''s archives are below org/ and its number, in audit/.';

create trigger audit_archive_is_final before update or delete or truncate on audit_archive
for each statement execute function is_final();
comment on trigger audit_archive_is_final on audit_archive is 'An archive is final.';

create function audit_archive_follows() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
declare
    before record;
begin
    select archive.archive_no, archive.chain into before
    from public.audit_archive as archive
    where archive.org_id = new.org_id and archive.archive_no < new.archive_no
    order by archive.archive_no desc
    limit 1;
    if new.archive_no <> coalesce(before.archive_no, 0) + 1
        or new.chain is distinct from sha256(coalesce(before.chain, '') || new.lines_sha256)
    then
        raise exception using
            errcode = 'check_violation', constraint = 'audit_archive_follows',
            table = 'audit_archive', message = 'it does not follow the archive before';
    end if;
    return null;
end
$$;
comment on function audit_archive_follows() is
'Demands the next number, and the digest that chains an archive to the one before.';
create trigger audit_archive_follows after insert on audit_archive
for each row execute function audit_archive_follows();
comment on trigger audit_archive_follows on audit_archive is
'An archive has the next number, and is chained to the one before.';

create function audit_archive_is_uploaded() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    delete from public.storage_tombstone
    where org_id = new.org_id and object_key = new.object_key and attempt_count = 0;
    if not found then
        raise exception using
            errcode = 'unique_violation', constraint = 'audit_archive_is_uploaded',
            table = 'audit_archive', message = 'no upload of this object is under way';
    end if;
    return null;
end
$$;
comment on function audit_archive_is_uploaded() is
'Takes away the tombstone that stands for an object until it is an archive.';
create trigger audit_archive_is_uploaded after insert on audit_archive
for each row execute function audit_archive_is_uploaded();
comment on trigger audit_archive_is_uploaded on audit_archive is
'This upload took too long, or was never begun.';

-- Only this takes rows out of the audit log: those whose lines have the digest of the archive.
-- That the object is in the store with these lines, whoever asks has looked (jobs/archiving.py).
create function audit_archive_matches() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    starts_at constant timestamptz := new.month::timestamp at time zone 'UTC';
    ends_at constant timestamptz := (new.month + interval '1 month') at time zone 'UTC';
    lines record;
    gone bigint;
begin
    select
        count(*) as row_count,
        min(log.id) as first_id,
        max(log.id) as last_id,
        sha256(convert_to(string_agg(public.audit_line(log) || e'\n', '' order by log.id), 'utf8'))
            as digest
    into lines
    from public.audit_log as log
    where
        log.org_id = new.org_id and log.id between new.first_id and new.last_id
        and log.created_at >= starts_at and log.created_at < ends_at;
    if (lines.row_count, lines.first_id, lines.last_id, lines.digest)
        is distinct from (new.row_count, new.first_id, new.last_id, new.lines_sha256)
    then
        raise exception using
            errcode = 'check_violation', constraint = 'audit_archive_matches',
            table = 'audit_archive', message = 'the audit log has other rows';
    end if;
    delete from public.audit_log as log
    where
        log.org_id = new.org_id and log.id between new.first_id and new.last_id
        and log.created_at >= starts_at and log.created_at < ends_at;
    get diagnostics gone = row_count;
    if gone <> new.row_count then
        raise exception using
            errcode = 'check_violation', constraint = 'audit_archive_matches',
            table = 'audit_archive', message = 'not all rows went';
    end if;
    insert into public.audit_log (org_id, action, entity_type, entity_id, after)
    values (
        new.org_id, 'audit.archive', 'audit_archive', new.archive_no,
        jsonb_build_object(
            'month', new.month, 'first_id', new.first_id, 'last_id', new.last_id,
            'row_count', new.row_count, 'chain', encode(new.chain, 'hex')
        )
    );
    return null;
end
$$;
comment on function audit_archive_matches() is
'Takes the rows of an archive out of the log, if their lines are its lines, and says so in the log.';
create trigger audit_archive_matches after insert on audit_archive
for each row execute function audit_archive_matches();
comment on trigger audit_archive_matches on audit_archive is
'An archive has the very rows of the audit log that it says.';

-- DELETE is refused row by row, so that archived ones may go; everything else as before.
drop trigger audit_log_is_final on audit_log;
create trigger audit_log_is_final before update or truncate on audit_log
for each statement execute function is_final();
comment on trigger audit_log_is_final on audit_log is 'An audit row is final.';

create function audit_log_goes_archived() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    if not exists (
        select from public.audit_archive as archive
        where
            archive.org_id = old.org_id
            and old.id between archive.first_id and archive.last_id
            and archive.month
            = date_trunc('month', old.created_at at time zone 'UTC')::date
    ) then
        raise exception using
            errcode = 'check_violation', constraint = 'audit_log_is_final',
            table = 'audit_log', message = 'audit_log rows are final';
    end if;
    return old;
end
$$;
comment on function audit_log_goes_archived() is
'Refuses to delete an audit row that no archive has.';
create trigger audit_log_goes_archived before delete on audit_log
for each row execute function audit_log_goes_archived();
comment on trigger audit_log_goes_archived on audit_log is
'An audit row goes only when an archive has it.';

create function storage_tombstone_spares_archives() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    if exists (
        select from public.audit_archive
        where org_id = new.org_id and object_key = new.object_key
    ) then
        raise exception using
            errcode = 'unique_violation', constraint = 'storage_tombstone_spares_archives',
            table = 'storage_tombstone', message = 'this object is an archive';
    end if;
    return null;
end
$$;
comment on function storage_tombstone_spares_archives() is
'Refuses to have the store forget an archive.';
create trigger storage_tombstone_spares_archives after insert on storage_tombstone
for each row execute function storage_tombstone_spares_archives();
comment on trigger storage_tombstone_spares_archives on storage_tombstone is
'An archive of the audit log is not removed.';

alter table audit_archive enable row level security;
alter table audit_archive force row level security;
create policy org on audit_archive using (org_id = current_setting('app.org_id')::bigint);
grant select on audit_archive to sofinance_app;
grant insert (
    org_id, archive_no, month, first_id, last_id, row_count, lines_sha256, chain, object_key,
    size_bytes, object_sha256
) on audit_archive to sofinance_app;
