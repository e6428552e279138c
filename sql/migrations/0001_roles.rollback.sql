-- Take the grants back; the roles stay, since other databases of the server may use them.
drop extension if exists btree_gist;
alter default privileges for role sofinance_owner in schema public
revoke select on sequences from sofinance_backup;
alter default privileges for role sofinance_owner in schema public
revoke select on tables from sofinance_readonly, sofinance_backup;
alter default privileges for role sofinance_owner grant execute on functions to public;
revoke usage on schema public from sofinance_app, sofinance_readonly, sofinance_backup;
revoke usage, create on schema public from sofinance_owner;
