-- Undo whose second factor and PIN it is.
set local role sofinance_owner;
drop trigger user_totp_taken_within_own_access on user_totp;
drop function taken_within_own_access();
drop trigger user_pin_of_oneself on user_pin;
drop trigger recovery_code_of_oneself on recovery_code;
drop trigger user_totp_of_oneself on user_totp;
drop function of_oneself();
