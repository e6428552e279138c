-- Forget flags and what was set for them.
set local lock_timeout = '4s';
set local role sofinance_owner;

alter table user_permission no force row level security;
alter table role_grant no force row level security;
delete from user_permission
where permission in ('flags:read', 'flags:write');
delete from role_grant
where permission in ('flags:read', 'flags:write');
alter table user_permission force row level security;
alter table role_grant force row level security;
delete from permission
where name in ('flags:read', 'flags:write');
drop function retire_flag(text);
drop function set_flag(text, integer, boolean);
drop function note_flags(text[], bigint[]);
drop table flag_override;
drop table flag;
