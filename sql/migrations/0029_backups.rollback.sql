-- Forget which backups there are; the backups stay.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop function use_backup_confirmation(bytea, bigint, bigint, bigint);
drop function issue_backup_confirmation(bytea, bigint, bigint, bigint, integer);
drop function cancel_backup_task(bigint);
drop function end_backup_task(bigint, text, text, text, text[]);
drop function claim_backup_task();
drop function reopen_backup_tasks(integer);
drop function ask_backup_task(text, bigint, bigint, bigint, integer);
drop function record_drill(text, text, text, timestamptz, text, numeric, numeric, bigint);
drop function give_up_backup(bigint);
drop function note_backups_removed(text, text[]);
drop function note_backup_verified(text, text, text);
drop function forget_lost_backups(integer);
drop function fail_backup(bigint, text);
drop function finish_backup(
    bigint, text, text, bigint, text, boolean, bigint, bigint, timestamptz
);
drop function begin_backup(text, text, bigint, bigint);
drop table backup_drill;
drop table backup_task;
drop table backup_confirmation;
drop table backup;
