-- Undo organisations, users and permissions.
drop table role_permission;
drop function find_sign_in(text);
drop table sign_in_address;
drop table app_user;
drop function remember_sign_in_address();
drop table organisation;
drop function is_final();
drop function minor_units(char);
