-- Forget password resets; let what is over be changed.
set local lock_timeout = '4s';
set local role sofinance_owner;
drop table password_reset;
drop index refresh_token_by_session;
drop index user_session_by_end;
revoke delete on user_session from sofinance_app;
drop trigger user_session_is_kept on user_session;
drop trigger refresh_token_stays_used on refresh_token;
drop trigger user_session_stays_ended on user_session;
drop function stays_over();
