-- Let what was written down stay.
set local lock_timeout = '4s';
set local role sofinance_owner;

comment on column data_deletion_request.reason is 'Why, and how it was asked for.';
revoke update (reason) on data_deletion_request from sofinance_app;
