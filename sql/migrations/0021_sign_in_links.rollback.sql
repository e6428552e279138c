-- Let links for a new password outlive what they were sent for.
set local lock_timeout = '4s';
set local role sofinance_owner;
drop trigger app_user_closes_resets on app_user;
drop function app_user_closes_resets();
