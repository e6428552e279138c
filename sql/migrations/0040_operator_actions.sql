-- Whoever changes something for everybody is written down: it is in no organisation's audit log.
-- depends: 0039_job_outcomes
set local lock_timeout = '4s';
set local role sofinance_owner;

create table operator_action (
    id bigint generated always as identity,
    done_at timestamptz not null default clock_timestamp(),
    action text not null,
    subject text not null,
    before jsonb,
    after jsonb,
    who text not null,
    database_role text not null default session_user,
    client_address inet default inet_client_addr(),
    org_id bigint,
    user_id bigint,
    constraint operator_action_pk primary key (id),
    constraint operator_action_form check (action ~ '^[a-z_]{2,40}\.[a-z_]{2,40}$'),
    constraint operator_action_of_something check (length(subject) between 1 and 200),
    constraint operator_action_changes_something check (num_nonnulls(before, after) > 0),
    constraint operator_action_by_somebody check (length(who) between 1 and 300),
    constraint operator_action_user_has_organisation check (user_id is null or org_id is not null)
);
comment on table operator_action is
'What was changed for everybody on the server: who, what, when; append-only.';
comment on column operator_action.id is 'The action''s number.';
comment on column operator_action.done_at is 'When (server time).';
comment on column operator_action.action is 'What was done, such as jobs.change.';
comment on column operator_action.subject is 'To what: the name of a job or of a flag.';
comment on column operator_action.before is 'How it was; null: it was not there.';
comment on column operator_action.after is 'How it is; null: it is gone.';
comment on column operator_action.who is
'Who, as the command says: account@machine; the database''s role where nobody says.';
comment on column operator_action.database_role is 'The role that was signed in at the database.';
comment on column operator_action.client_address is
'From where, as the database sees it; null: from its own machine.';
comment on column operator_action.org_id is
'The organisation of who did it over the API. No foreign key: it stays when that goes.';
comment on column operator_action.user_id is 'The user who did it over the API.';
comment on constraint operator_action_pk on operator_action is
'This action is written down already.';
comment on constraint operator_action_form on operator_action is
'An action is named like jobs.change.';
comment on constraint operator_action_of_something on operator_action is
'An action is one on something, named in 1 to 200 characters.';
comment on constraint operator_action_changes_something on operator_action is
'An action has how it was before, or after.';
comment on constraint operator_action_by_somebody on operator_action is
'An action is somebody''s, named in 1 to 300 characters.';
comment on constraint operator_action_user_has_organisation on operator_action is
'A user is one of an organisation.';
create trigger operator_action_is_final before update or delete or truncate on operator_action
for each statement execute function is_final();
comment on trigger operator_action_is_final on operator_action is
'What an operator did stays written down.';
revoke select on operator_action from sofinance_readonly;
grant select on operator_action to sofinance_app;

-- Arguments: the action, then the columns that say how it is. By triggers, so that whichever way
-- something is changed, by the owner in psql too, it is written down with the change or not at all.
create function note_operator_action() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
declare
    was constant jsonb := to_jsonb(old);
    is_now constant jsonb := to_jsonb(new);
    kept constant text[] := tg_argv[1:];
begin
    insert into operator_action (action, subject, before, after, who, org_id, user_id)
    select
        tg_argv[0],
        coalesce(is_now, was) ->> 'name',
        (select jsonb_object_agg(key, value) from jsonb_each(was) where key = any(kept)),
        (select jsonb_object_agg(key, value) from jsonb_each(is_now) where key = any(kept)),
        left(coalesce(nullif(current_setting('app.operator', true), ''), session_user), 300),
        nullif(current_setting('app.org_id', true), '')::bigint,
        nullif(current_setting('app.user_id', true), '')::bigint;
    return null;
end
$$;
comment on function note_operator_action() is
'Writes down who changed something for everybody, and how it was before and is after.';

create trigger job_steering_noted after update of is_paused, is_requested on job for each row
when (new.is_paused <> old.is_paused or (new.is_requested and not old.is_requested))
execute function note_operator_action('jobs.change', 'is_paused', 'is_requested');
comment on trigger job_steering_noted on job is
'Who pauses a job, resumes it or has it run is written down.';
create trigger flag_first_setting_noted after insert on flag for each row
when (new.percent is not null or new.is_killed)
execute function note_operator_action('flags.change', 'percent', 'is_killed');
comment on trigger flag_first_setting_noted on flag is
'Who sets a flag for everybody is written down.';
create trigger flag_setting_noted after update of percent, is_killed on flag for each row
when ((new.percent, new.is_killed) is distinct from (old.percent, old.is_killed))
execute function note_operator_action('flags.change', 'percent', 'is_killed');
comment on trigger flag_setting_noted on flag is
'Who sets a flag for everybody, or kills it, is written down.';
create trigger flag_retiring_noted after delete on flag for each row
execute function note_operator_action('flags.retire', 'percent', 'is_killed');
comment on trigger flag_retiring_noted on flag is
'Who retires a flag is written down.';
