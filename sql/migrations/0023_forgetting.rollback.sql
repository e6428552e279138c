-- Find expired idempotency keys across organisations again.
set local role sofinance_owner;
drop index idempotency_key_by_expiry;
create index idempotency_key_by_expiry on idempotency_key (expires_at);
comment on index idempotency_key_by_expiry is 'What may be forgotten.';
