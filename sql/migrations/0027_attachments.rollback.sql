-- Forget what is attached; the files stay in the store.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop table signed_url_use;
drop table attachment;
drop function attachment_counted();
drop function attachment_leaves_tombstone();
drop function attachment_is_uploaded();
drop table attachment_usage;
drop table storage_tombstone;
-- In every organisation: row security binds the owner, too, unless it is told not to.
alter table user_permission no force row level security;
alter table role_grant no force row level security;
delete from user_permission
where permission in ('attachments:read', 'attachments:write');
delete from role_grant
where permission in ('attachments:read', 'attachments:write');
alter table user_permission force row level security;
alter table role_grant force row level security;
delete from role_permission
where permission in ('attachments:read', 'attachments:write');
delete from permission
where name in ('attachments:read', 'attachments:write');
