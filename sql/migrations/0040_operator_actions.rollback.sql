-- Forget what was changed for everybody, and by whom.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop trigger flag_retiring_noted on flag;
drop trigger flag_setting_noted on flag;
drop trigger flag_first_setting_noted on flag;
drop trigger job_steering_noted on job;
drop function note_operator_action();
drop table operator_action;
