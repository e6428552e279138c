-- Forget what was to be sent, and who wants no mail.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop table mail_block;
drop table mail;
drop function mail_sent_stays();
