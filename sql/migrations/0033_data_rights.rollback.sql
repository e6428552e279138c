-- Forget who asked to be forgotten.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop table data_deletion_request;
drop function data_deletion_request_stays();
