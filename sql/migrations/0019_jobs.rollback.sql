-- Forget jobs and their runs.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop function forget_job_runs(integer, integer);
drop function leave_runner(text);
drop function beat_runner(text, text);
drop function steer_job(text, text);
drop function finish_job(text, bigint, text, text);
drop function renew_job(text, bigint);
drop function claim_job(text, text[]);
drop function declare_job(text, text, integer, integer, integer);
drop function next_due(integer, integer);
drop table job_runner;
drop table job_run;
drop table job;
