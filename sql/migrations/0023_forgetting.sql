-- Find expired idempotency keys by organisation, as the job that forgets them goes through them.
-- depends: 0022_second_factor_access
set local lock_timeout = '4s';
set local role sofinance_owner;

-- The table holds the keys of a day.
-- squawk-ignore require-concurrent-index-deletion
drop index idempotency_key_by_expiry;
-- squawk-ignore require-concurrent-index-creation
create index idempotency_key_by_expiry on idempotency_key (org_id, expires_at);
comment on index idempotency_key_by_expiry is 'What may be forgotten.';
