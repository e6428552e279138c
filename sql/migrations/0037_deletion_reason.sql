-- What was written down of a person's wish to be forgotten goes with the person.
-- depends: 0036_billing
set local lock_timeout = '4s';
set local role sofinance_owner;

grant update (reason) on data_deletion_request to sofinance_app;
comment on column data_deletion_request.reason is
'Why, and how it was asked for; "deleted" once it is done, since it may name the person.';
