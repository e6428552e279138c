-- Undo idempotency records and the audit log.
drop table audit_log;
drop table idempotency_key;
