-- Flags: what of the product is switched on for whom, beyond what the release declares.
-- depends: 0025_replica
set local lock_timeout = '4s';
set local role sofinance_owner;

create table flag (
    name text not null,
    percent integer,
    is_killed boolean not null default false,
    declared_at timestamptz not null default now(),
    changed_at timestamptz,
    last_evaluated_at timestamptz,
    evaluation_count bigint not null default 0,
    constraint flag_pk primary key (name),
    constraint flag_name_form check (name ~ '^[a-z][a-z0-9_]{1,59}$'),
    constraint flag_percent_in_range check (percent between 0 and 100),
    constraint flag_count_not_negative check (evaluation_count >= 0)
);
comment on table flag is
'What holds for a flag on the whole server, and how much it is used. A release declares the flags.';
comment on column flag.name is 'Its name: low_stock_notices.';
comment on column flag.percent is
'For how many of all it is on, by a stable hash; null: as the release declares it.';
comment on column flag.is_killed is 'True: off for everybody, whatever else is set.';
comment on column flag.declared_at is 'When a process first knew it (server time).';
comment on column flag.changed_at is 'When it was last set or killed (server time).';
comment on column flag.last_evaluated_at is
'When somebody last asked for it (server time), give or take a minute.';
comment on column flag.evaluation_count is 'How often it was asked for, as processes report it.';
comment on constraint flag_pk on flag is 'A flag has this name already.';
comment on constraint flag_name_form on flag is
'A flag''s name has 2 to 60 lower-case letters, digits and underscores.';
comment on constraint flag_percent_in_range on flag is 'A percentage is 0 to 100.';
comment on constraint flag_count_not_negative on flag is 'A count is not negative.';
grant select on flag to sofinance_app;

create table flag_override (
    org_id bigint not null,
    id bigint generated always as identity,
    flag text not null,
    branch_id bigint,
    user_id bigint,
    percent integer not null,
    changed_by bigint,
    changed_at timestamptz not null default now(),
    constraint flag_override_pk primary key (org_id, id),
    constraint flag_override_taken
    unique nulls not distinct (org_id, user_id, branch_id, flag),
    constraint flag_override_organisation_known foreign key (org_id)
    references organisation (org_id),
    constraint flag_override_branch_known foreign key (org_id, branch_id)
    references branch (org_id, id),
    constraint flag_override_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint flag_override_changer_known foreign key (org_id, changed_by)
    references app_user (org_id, id),
    constraint flag_override_name_form check (flag ~ '^[a-z][a-z0-9_]{1,59}$'),
    constraint flag_override_one_scope check (branch_id is null or user_id is null),
    constraint flag_override_percent_in_range check (percent between 0 and 100),
    constraint flag_override_all_or_none check (
        percent in (0, 100) or (branch_id is null and user_id is null)
    )
);
comment on table flag_override is
'What an organisation has set for a flag: for all of it, for a branch or for a user.';
comment on column flag_override.org_id is 'The organisation.';
comment on column flag_override.id is 'The override.';
comment on column flag_override.flag is 'The flag. No foreign key: a release declares the flags.';
comment on column flag_override.branch_id is 'The branch for which it holds; null for no branch.';
comment on column flag_override.user_id is 'The user for whom it holds; null for no user.';
comment on column flag_override.percent is
'100 is on, 0 is off; between them it is on for so many, by a stable hash.';
comment on column flag_override.changed_by is 'Who set it; null for the operator''s command.';
comment on column flag_override.changed_at is 'When it was set (server time).';
comment on constraint flag_override_pk on flag_override is 'This override exists already.';
comment on constraint flag_override_taken on flag_override is
'The flag is set for this scope already.';
comment on constraint flag_override_organisation_known on flag_override is
'There is no such organisation.';
comment on constraint flag_override_branch_known on flag_override is 'There is no such branch.';
comment on constraint flag_override_user_known on flag_override is 'There is no such user.';
comment on constraint flag_override_changer_known on flag_override is
'A flag is set by a user of the organisation.';
comment on constraint flag_override_name_form on flag_override is
'The name of a flag has 2 to 60 lower-case letters, digits and underscores.';
comment on constraint flag_override_one_scope on flag_override is
'A flag is set for a branch or for a user, not for both at once.';
comment on constraint flag_override_percent_in_range on flag_override is
'A flag is set to 0 to 100 percent.';
comment on constraint flag_override_all_or_none on flag_override is
'For a branch or a user a flag is on (100) or off (0), nothing between.';

alter table flag_override enable row level security;
alter table flag_override force row level security;
create policy org on flag_override using (org_id = current_setting('app.org_id')::bigint);
create policy branch on flag_override as restrictive to sofinance_app
using (branch_id is null or is_branch_seen(branch_id));
grant select, delete on flag_override to sofinance_app;
grant insert (org_id, flag, branch_id, user_id, percent, changed_by)
on flag_override to sofinance_app;
grant update (percent, changed_by, changed_at) on flag_override to sofinance_app;

create function note_flags(p_names text[], p_counts bigint[]) returns void
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    insert into flag (name, evaluation_count, last_evaluated_at)
    select
        noted.name,
        noted.count,
        case when noted.count > 0 then now() end
    from unnest(p_names, p_counts) as noted (name, count)
    order by noted.name
    on conflict (name) do update
        set
            evaluation_count = flag.evaluation_count + excluded.evaluation_count,
            last_evaluated_at = now()
        where excluded.evaluation_count > 0;
end;
comment on function note_flags(text[], bigint[]) is
'Makes flags known and adds up how often they were asked for.';
grant execute on function note_flags(text[], bigint[]) to sofinance_app;

create function set_flag(p_name text, p_percent integer, p_is_killed boolean) returns void
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    insert into flag (name, percent, is_killed, changed_at)
    values (p_name, p_percent, p_is_killed, now())
    on conflict (name) do update
        set
            percent = excluded.percent,
            is_killed = excluded.is_killed,
            changed_at = excluded.changed_at;
end;
comment on function set_flag(text, integer, boolean) is
'Sets a flag for the whole server, or kills it; without a percentage it is as declared.';
grant execute on function set_flag(text, integer, boolean) to sofinance_app;

create function retire_flag(p_name text) returns boolean
language sql security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    delete from flag where name = p_name returning true;
end;
comment on function retire_flag(text) is
'Forgets a flag that no release declares any more; nothing when there is none of this name.';
grant execute on function retire_flag(text) to sofinance_app;

insert into permission (name, description) values
('flags:read', 'See flags and for whom they are on.'),
('flags:write', 'Switch flags on and off for the organisation, its branches and users.');
