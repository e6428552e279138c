-- Forget what is archived; the objects stay in the store, and so do the rows that are in the log.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop trigger storage_tombstone_spares_archives on storage_tombstone;
drop function storage_tombstone_spares_archives();
drop trigger audit_log_goes_archived on audit_log;
drop function audit_log_goes_archived();
drop table audit_archive;
drop function audit_archive_matches();
drop function audit_archive_is_uploaded();
drop function audit_archive_follows();
drop function audit_line(audit_log);
drop trigger audit_log_is_final on audit_log;
create trigger audit_log_is_final before update or delete or truncate on audit_log
for each statement execute function is_final();
comment on trigger audit_log_is_final on audit_log is 'An audit row is final.';
