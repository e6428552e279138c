-- Close the customers' portal.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop trigger customer_leaves_portal on customer;
drop function customer_leaves_portal();
drop table portal_session;
drop function portal_session_link_good();
drop table portal_link;
alter table user_permission no force row level security;
alter table role_grant no force row level security;
delete from user_permission
where permission = 'customers:portal';
delete from role_grant
where permission = 'customers:portal';
alter table user_permission force row level security;
alter table role_grant force row level security;
delete from role_permission
where permission = 'customers:portal';
delete from permission
where name = 'customers:portal';
