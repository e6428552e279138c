-- Forget the indexes for reading the audit log.
set local role sofinance_owner;
drop index audit_log_by_severity;
drop index audit_log_by_action;
drop index audit_log_by_user;
drop index audit_log_by_time;
