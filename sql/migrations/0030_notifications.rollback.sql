-- Forget notifications and tickets.
set local lock_timeout = '4s';
set local role sofinance_owner;

alter table user_permission no force row level security;
alter table role_grant no force row level security;
delete from user_permission
where permission = 'notifications:send';
delete from role_grant
where permission = 'notifications:send';
alter table user_permission force row level security;
alter table role_grant force row level security;
delete from role_permission
where permission = 'notifications:send';
delete from permission
where name = 'notifications:send';
drop function list_ended(bigint[], bigint[], bigint[], bigint[]);
drop function list_news(bigint[], bigint[], bigint[], integer);
drop table notification_ticket;
drop table notification;
drop function number_notification();
drop table notification_inbox;
