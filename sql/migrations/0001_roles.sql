-- The four database roles, because nobody who serves requests may own or change the schema.
-- Roles belong to the whole server, so each is created only where it is missing; passwords are
-- set outside migrations. Run by a superuser (the backup role needs BYPASSRLS).
set local lock_timeout = '4s';

do $$
declare
    role_name text;
begin
    foreach role_name in array array[
        'sofinance_owner', 'sofinance_app', 'sofinance_readonly', 'sofinance_backup'
    ] loop
        begin
            execute format('create role %I login', role_name);
        exception when duplicate_object or unique_violation then
            raise notice 'role % is there already', role_name;
        end;
    end loop;
end
$$;

alter role sofinance_backup bypassrls;

-- One generic plan per query: the planner's work is a third of a short posting.
alter role sofinance_app set plan_cache_mode = 'force_generic_plan';
-- A plan cached while a table was empty would scan it until the next ANALYZE: postings look rows up
-- by key, always. Transactions that read switch scans on again (sql/queries/request.sql).
alter role sofinance_app set enable_seqscan = 'off';
-- Every wait has a bound: a lock, a forgotten transaction, a runaway statement.
alter role sofinance_app set lock_timeout = '5s';
alter role sofinance_app set idle_in_transaction_session_timeout = '30s';
alter role sofinance_readonly set default_transaction_read_only = 'on';

revoke create on schema public from public;
grant usage, create on schema public to sofinance_owner;
grant usage on schema public to sofinance_app, sofinance_readonly, sofinance_backup;

alter default privileges for role sofinance_owner revoke execute on functions from public;
alter default privileges for role sofinance_owner in schema public
grant select on tables to sofinance_readonly, sofinance_backup;
alter default privileges for role sofinance_owner in schema public
grant select on sequences to sofinance_backup;

-- Exclusion of overlapping periods compares an organisation (=) and a range (&&) in one index.
create extension if not exists btree_gist;

comment on role sofinance_owner is 'Owns the schema; runs migrations; serves no request.';
comment on role sofinance_app is 'What the service connects as: DML on what it needs, no DDL.';
comment on role sofinance_readonly is 'Reports and BI: SELECT, one organisation at a time.';
comment on role sofinance_backup is 'Backups and whole-database audits: SELECT past row security.';
