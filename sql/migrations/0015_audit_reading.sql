-- Indexes for reading the audit log: by time, by who did it, by what was done, by how grave it is.
-- depends: 0014_versions
set local lock_timeout = '4s';
set local role sofinance_owner;

-- A transaction of its own per index would not lock out writers; audit logs of this age are small.
-- squawk-ignore require-concurrent-index-creation
create index audit_log_by_time on audit_log (org_id, created_at, id);
comment on index audit_log_by_time is 'What was done in a span of time.';
-- squawk-ignore require-concurrent-index-creation
create index audit_log_by_user on audit_log (org_id, user_id, created_at, id);
comment on index audit_log_by_user is 'What somebody did.';
-- squawk-ignore require-concurrent-index-creation
create index audit_log_by_action on audit_log (org_id, action, created_at, id);
comment on index audit_log_by_action is 'When something was done.';
-- squawk-ignore require-concurrent-index-creation
create index audit_log_by_severity on audit_log (org_id, severity, created_at, id)
where severity <> 'INFO';
comment on index audit_log_by_severity is 'What is out of the ordinary, denials first of all.';
