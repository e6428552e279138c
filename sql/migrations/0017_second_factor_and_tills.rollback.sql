-- Undo second factors, pairings and PINs; sessions on tills end with them.
set local role sofinance_owner;
drop trigger sale_at_its_till on sale;
drop function sale_at_its_till();
alter table permission drop column at_till;
drop table user_pin;
drop index user_session_by_till;
drop trigger user_session_till_paired on user_session;
drop function user_session_till_paired();
drop table till_credential;
drop function end_sessions_of_till();
drop function till_credential_revoked_stays();
drop table till_pairing_code;
drop function till_pairing_code_used_once();
drop table recovery_code;
drop function recovery_code_used_once();
drop table user_totp;
drop function user_totp_confirmed_stays();
drop function user_totp_step_advances();
