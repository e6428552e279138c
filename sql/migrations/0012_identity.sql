-- Who may do what: an organisation's roles, users' permissions and branches, sessions, API keys.
-- What a user may do has a version, which each request shows to be current (admit).
-- depends: 0011_balances
set local lock_timeout = '4s';
set local role sofinance_owner;

-- -- permissions -----------------------------------------------------------------------------

create table permission (
    name text not null,
    description text not null,
    constraint permission_pk primary key (name),
    constraint permission_form check (name ~ '^[a-z_]+:[a-z_]+$'),
    constraint permission_described check (length(description) between 1 and 200)
);
comment on table permission is
'Every permission that an endpoint or a handler asks for. The same everywhere.';
comment on column permission.name is 'resource:action, as endpoints declare it.';
comment on column permission.description is 'What it lets one do.';
comment on constraint permission_pk on permission is 'This permission exists already.';
comment on constraint permission_form on permission is 'A permission is written resource:action.';
comment on constraint permission_described on permission is
'A permission has a description of 1 to 200 characters.';
grant select on permission to sofinance_app;

insert into permission (name, description) values
('accounts:read', 'See the chart of accounts and balances.'),
('accounts:write', 'Create, change and close accounts.'),
('api_keys:write', 'Make and revoke API keys for oneself.'),
('audit:read', 'Read the audit log.'),
('branches:read', 'See branches and tills.'),
('branches:write', 'Create and change branches and tills.'),
('categories:read', 'See product categories.'),
('categories:write', 'Create, change and delete product categories.'),
('customers:read', 'See customers and what they owe.'),
('customers:write', 'Create and change customers.'),
('inventory:read', 'See stock.'),
('inventory:write', 'Receive goods and adjust stock.'),
('journal:read', 'Read the journal and the trial balance.'),
('journal:write', 'Post and reverse manual journal entries.'),
('organisation:write', 'Change the organisation''s settings.'),
('payments:read', 'See payments.'),
('payments:write', 'Take payments.'),
('periods:read', 'See accounting periods.'),
('periods:write', 'Open, close and reopen accounting periods.'),
('products:read', 'See products.'),
('products:write', 'Create and change products.'),
('reports:read', 'Read reports.'),
('roles:read', 'See roles and what they may do.'),
('roles:write', 'Create roles and change what roles and users may do.'),
('sales:backdate', 'Post a sale on an earlier date.'),
('sales:override_price', 'Sell at another price than the catalogue''s.'),
('sales:read', 'See sales.'),
('sales:void', 'Void a sale.'),
('sales:write', 'Post sales.'),
('system:manage', 'Administer the service: break glass, maintenance.'),
('tax:read', 'See tax codes.'),
('tax:write', 'Create and change tax codes.'),
('tills:pair', 'Pair a till with its device and take it back.'),
('users:read', 'See users and their sessions.'),
('users:write', 'Create, change and disable users.');

insert into role_permission (role, permission) values
('MANAGER', 'api_keys:write'),
('MANAGER', 'roles:read'),
('MANAGER', 'tills:pair'),
('MANAGER', 'users:read'),
('MANAGER', 'users:write');

alter table role_permission
add constraint role_permission_permission_known foreign key (permission)
references permission (name) not valid;
-- A table of some dozen rows.
-- squawk-ignore constraint-missing-not-valid
alter table role_permission validate constraint role_permission_permission_known;
comment on constraint role_permission_permission_known on role_permission is
'There is no such permission.';
comment on table role_permission is
'What each built-in role may do, unless an organisation says otherwise (role_grant). ADMIN may do
everything and has no rows. The same everywhere.';

-- -- roles -----------------------------------------------------------------------------------

create table org_role (
    org_id bigint not null,
    name text not null,
    description text not null default '',
    is_built_in boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint org_role_pk primary key (org_id, name),
    constraint org_role_organisation_known foreign key (org_id) references organisation (org_id),
    constraint org_role_name_form check (name ~ '^[A-Z][A-Z0-9_]{1,39}$'),
    constraint org_role_description_not_long check (length(description) <= 200),
    constraint org_role_built_in_is_known check (
        is_built_in
        = (name in ('ADMIN', 'MANAGER', 'CASHIER', 'INVENTORY_CLERK', 'ACCOUNTANT'))
    )
);
comment on table org_role is 'The roles of an organisation: the five built-in ones and its own.';
comment on column org_role.org_id is 'The organisation.';
comment on column org_role.name is 'Its name, in capitals: MANAGER, SHIFT_LEAD.';
comment on column org_role.description is 'What it is for.';
comment on column org_role.is_built_in is 'True: every organisation has it; never deleted.';
comment on column org_role.created_at is 'When it was created (server time).';
comment on column org_role.updated_at is 'When it was last changed (server time).';
comment on constraint org_role_pk on org_role is 'A role has this name already.';
comment on constraint org_role_organisation_known on org_role is 'There is no such organisation.';
comment on constraint org_role_name_form on org_role is
'A role''s name has 2 to 40 capital letters, digits and underscores and begins with a letter.';
comment on constraint org_role_description_not_long on org_role is
'A role''s description has at most 200 characters.';
comment on constraint org_role_built_in_is_known on org_role is
'ADMIN, MANAGER, CASHIER, INVENTORY_CLERK and ACCOUNTANT are built in, no other role is.';

alter table organisation no force row level security;
alter table app_user no force row level security;

insert into org_role (org_id, name, is_built_in)
select
    organisation.org_id,
    built_in.name,
    true
from organisation
cross join (
    values ('ADMIN'), ('MANAGER'), ('CASHIER'), ('INVENTORY_CLERK'), ('ACCOUNTANT')
) as built_in (name);

grant select, delete on org_role to sofinance_app;
grant insert (org_id, name, description) on org_role to sofinance_app;
grant update (description, updated_at) on org_role to sofinance_app;

create function keep_built_in_roles() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    if old.is_built_in then
        raise exception using
            errcode = 'check_violation', constraint = 'org_role_built_in_stays',
            table = 'org_role', message = format('role %s is built in', old.name);
    end if;
    return old;
end
$$;
comment on function keep_built_in_roles() is 'Refuses to delete a built-in role.';
create trigger org_role_built_in_stays before delete on org_role
for each row execute function keep_built_in_roles();
comment on trigger org_role_built_in_stays on org_role is 'A built-in role cannot be deleted.';

-- -- users -----------------------------------------------------------------------------------

alter table app_user
add column all_branches boolean not null default false,
add column must_change_password boolean not null default false,
add column password_changed_at timestamptz not null default now(),
add column access_version bigint not null default 1;
update app_user set all_branches = true;

comment on column app_user.all_branches is
'True: sees and acts in every branch, later ones too; false: in those of user_branch.';
comment on column app_user.must_change_password is
'True: may do nothing but change the password, which somebody else knows.';
comment on column app_user.password_changed_at is 'When the password was last set (server time).';
comment on column app_user.access_version is
'Counts changes of what the user may do; a request admitted under an older one is refused.';

-- The same name again, below, as a foreign key.
-- squawk-ignore ban-drop-constraint
alter table app_user drop constraint app_user_role_known;
alter table app_user
add constraint app_user_role_known foreign key (org_id, role)
references org_role (org_id, name) not valid,
add constraint app_user_admin_has_all_branches check (role <> 'ADMIN' or all_branches) not valid;
-- Users are few: thousands on a large server.
-- squawk-ignore constraint-missing-not-valid
alter table app_user validate constraint app_user_role_known;
-- squawk-ignore constraint-missing-not-valid
alter table app_user validate constraint app_user_admin_has_all_branches;
comment on constraint app_user_role_known on app_user is
'A role is ADMIN, MANAGER, CASHIER, INVENTORY_CLERK, ACCOUNTANT or one of your own.';
comment on constraint app_user_admin_has_all_branches on app_user is
'An administrator has all branches.';
-- squawk-ignore require-concurrent-index-creation
create index app_user_by_role on app_user (org_id, role);
comment on index app_user_by_role is 'Whose access changes with a role.';

alter table organisation force row level security;
alter table app_user force row level security;
alter table org_role enable row level security;
alter table org_role force row level security;
create policy org on org_role using (org_id = current_setting('app.org_id')::bigint);

grant insert (all_branches, must_change_password) on app_user to sofinance_app;
grant update (all_branches, must_change_password, password_changed_at) on app_user
to sofinance_app;
grant select (all_branches, must_change_password, password_changed_at, access_version)
on app_user to sofinance_readonly;

create table role_grant (
    org_id bigint not null,
    role text not null,
    permission text not null,
    effect text not null,
    constraint role_grant_pk primary key (org_id, role, permission),
    constraint role_grant_role_known foreign key (org_id, role)
    references org_role (org_id, name) on delete cascade,
    constraint role_grant_permission_known foreign key (permission) references permission (name),
    constraint role_grant_effect_known check (effect in ('ALLOW', 'DENY')),
    constraint role_grant_spares_admin check (role <> 'ADMIN')
);
comment on table role_grant is
'What an organisation''s role may do: all of a role of its own, and what it changed of a built-in
one (role_permission).';
comment on column role_grant.org_id is 'The organisation.';
comment on column role_grant.role is 'The role.';
comment on column role_grant.permission is 'The permission.';
comment on column role_grant.effect is 'ALLOW adds the permission, DENY takes it away.';
comment on constraint role_grant_pk on role_grant is 'The role has this already.';
comment on constraint role_grant_role_known on role_grant is 'There is no such role.';
comment on constraint role_grant_permission_known on role_grant is 'There is no such permission.';
comment on constraint role_grant_effect_known on role_grant is 'An effect is ALLOW or DENY.';
comment on constraint role_grant_spares_admin on role_grant is
'ADMIN may do everything; that cannot be changed.';

create table user_permission (
    org_id bigint not null,
    user_id bigint not null,
    permission text not null,
    effect text not null,
    constraint user_permission_pk primary key (org_id, user_id, permission),
    constraint user_permission_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint user_permission_permission_known foreign key (permission)
    references permission (name),
    constraint user_permission_effect_known check (effect in ('ALLOW', 'DENY'))
);
comment on table user_permission is
'What one user may do beyond the role, or not although the role may.';
comment on column user_permission.org_id is 'The organisation.';
comment on column user_permission.user_id is 'The user.';
comment on column user_permission.permission is 'The permission.';
comment on column user_permission.effect is 'ALLOW or DENY, which wins over the role.';
comment on constraint user_permission_pk on user_permission is 'The user has this already.';
comment on constraint user_permission_user_known on user_permission is 'There is no such user.';
comment on constraint user_permission_permission_known on user_permission is
'There is no such permission.';
comment on constraint user_permission_effect_known on user_permission is
'An effect is ALLOW or DENY.';

create table user_branch (
    org_id bigint not null,
    user_id bigint not null,
    branch_id bigint not null,
    constraint user_branch_pk primary key (org_id, user_id, branch_id),
    constraint user_branch_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint user_branch_branch_known foreign key (org_id, branch_id)
    references branch (org_id, id)
);
comment on table user_branch is 'The branches in which a user sees and acts.';
comment on column user_branch.org_id is 'The organisation.';
comment on column user_branch.user_id is 'The user.';
comment on column user_branch.branch_id is 'The branch.';
comment on constraint user_branch_pk on user_branch is 'The user has this branch already.';
comment on constraint user_branch_user_known on user_branch is 'There is no such user.';
comment on constraint user_branch_branch_known on user_branch is 'There is no such branch.';

alter table role_grant enable row level security;
alter table role_grant force row level security;
create policy org on role_grant using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on role_grant to sofinance_app;
grant insert (org_id, role, permission, effect) on role_grant to sofinance_app;
grant update (effect) on role_grant to sofinance_app;

alter table user_permission enable row level security;
alter table user_permission force row level security;
create policy org on user_permission using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on user_permission to sofinance_app;
grant insert (org_id, user_id, permission, effect) on user_permission to sofinance_app;
grant update (effect) on user_permission to sofinance_app;

alter table user_branch enable row level security;
alter table user_branch force row level security;
create policy org on user_branch using (org_id = current_setting('app.org_id')::bigint);
grant select, insert, delete on user_branch to sofinance_app;

-- -- what changes a user's access ---------------------------------------------------------------

create function count_user_change() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    if (old.role, old.is_active, old.all_branches, old.must_change_password, old.password_hash)
        is distinct from
        (new.role, new.is_active, new.all_branches, new.must_change_password, new.password_hash)
    then
        new.access_version := old.access_version + 1;
    end if;
    return new;
end
$$;
comment on function count_user_change() is
'Raises access_version when a user''s role, state, branches or password change.';
create trigger app_user_access_counted before update on app_user
for each row execute function count_user_change();
comment on trigger app_user_access_counted on app_user is
'Raises access_version when a user''s role, state, branches or password change.';

create function count_access_change() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    of_old constant bigint := case when tg_op = 'INSERT' then null else old.user_id end;
    of_new constant bigint := case when tg_op = 'DELETE' then null else new.user_id end;
begin
    update public.app_user set access_version = access_version + 1
    where org_id = current_setting('app.org_id')::bigint and id in (of_old, of_new);
    return null;
end
$$;
comment on function count_access_change() is
'Raises access_version of the user whose permissions or branches change.';
create trigger user_permission_counted after insert or update or delete on user_permission
for each row execute function count_access_change();
comment on trigger user_permission_counted on user_permission is
'Raises access_version of the user whose permissions change.';
create trigger user_branch_counted after insert or update or delete on user_branch
for each row execute function count_access_change();
comment on trigger user_branch_counted on user_branch is
'Raises access_version of the user whose branches change.';

create function count_role_change() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    of_old constant text := case when tg_op = 'INSERT' then null else old.role end;
    of_new constant text := case when tg_op = 'DELETE' then null else new.role end;
begin
    -- In key order, so that two changes of roles never wait for each other.
    perform from public.app_user
    where org_id = current_setting('app.org_id')::bigint and role in (of_old, of_new)
    order by id for no key update;
    update public.app_user set access_version = access_version + 1
    where org_id = current_setting('app.org_id')::bigint and role in (of_old, of_new);
    return null;
end
$$;
comment on function count_role_change() is
'Raises access_version of everybody in the role whose permissions change.';
create trigger role_grant_counted after insert or update or delete on role_grant
for each row execute function count_role_change();
comment on trigger role_grant_counted on role_grant is
'Raises access_version of everybody in the role whose permissions change.';

create function effective_permissions(p_user_id bigint) returns setof text
language sql stable set search_path = pg_catalog, public
begin atomic
    -- ADMIN, then the user's DENY, the user's ALLOW, the organisation's role, the built-in role.
    select known.name
    from public.app_user
    cross join public.permission as known
    left join public.user_permission as own
        on
            app_user.org_id = own.org_id and app_user.id = own.user_id
            and known.name = own.permission
    left join public.role_grant as granted
        on
            app_user.org_id = granted.org_id and app_user.role = granted.role
            and known.name = granted.permission
    left join public.role_permission as built_in
        on app_user.role = built_in.role and known.name = built_in.permission
    where
        app_user.org_id = current_setting('app.org_id')::bigint and app_user.id = p_user_id
        and (
            app_user.role = 'ADMIN'
            or coalesce(own.effect = 'ALLOW', granted.effect = 'ALLOW', built_in.role is not null)
        );
end;
comment on function effective_permissions(bigint) is
'What a user may do, all things considered: ADMIN, then DENY and ALLOW of the user, then the role.';
grant execute on function effective_permissions(bigint) to sofinance_app;

-- -- sessions --------------------------------------------------------------------------------

create table user_session (
    org_id bigint not null,
    id bigint generated always as identity,
    user_id bigint not null,
    kind text not null,
    till_id bigint,
    has_second_factor boolean not null default false,
    device text not null default '',
    ip inet,
    created_at timestamptz not null default now(),
    last_used_at timestamptz not null default now(),
    idle_until timestamptz not null,
    expires_at timestamptz not null,
    revoked_at timestamptz,
    revoked_why text,
    constraint user_session_pk primary key (org_id, id),
    constraint user_session_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint user_session_till_known foreign key (org_id, till_id)
    references till (org_id, id),
    constraint user_session_kind_known check (kind in ('password', 'token', 'till')),
    constraint user_session_till_matches_kind check ((kind = 'till') = (till_id is not null)),
    constraint user_session_device_not_long check (length(device) <= 500),
    constraint user_session_ends check (idle_until <= expires_at and expires_at > created_at),
    constraint user_session_revoked_with_reason check (
        (revoked_at is null) = (revoked_why is null)
    ),
    constraint user_session_reason_known check (
        revoked_why in (
            'sign_out', 'sign_out_all', 'too_many', 'reuse', 'password', 'second_factor',
            'disabled', 'till', 'administrator'
        )
    )
);
comment on table user_session is
'A sign-in, for as long as its refresh tokens are renewed. An access token names its session.';
comment on column user_session.org_id is 'The organisation.';
comment on column user_session.id is 'The session: the sid of its access tokens.';
comment on column user_session.user_id is 'Who signed in.';
comment on column user_session.kind is
'password: by address and password; token: the same, by a tool (OAuth2); till: by PIN on a till.';
comment on column user_session.till_id is 'The till on which a cashier signed in by PIN.';
comment on column user_session.has_second_factor is 'True: a one-time code was given, too.';
comment on column user_session.device is 'The program that signed in, as it says itself.';
comment on column user_session.ip is 'The address it signed in from.';
comment on column user_session.created_at is 'When it began (server time).';
comment on column user_session.last_used_at is 'When its tokens were last renewed (server time).';
comment on column user_session.idle_until is 'When it ends unless its tokens are renewed.';
comment on column user_session.expires_at is 'When it ends in any case.';
comment on column user_session.revoked_at is 'When it was ended early; its tokens died with it.';
comment on column user_session.revoked_why is 'Why it was ended early.';
comment on constraint user_session_pk on user_session is 'This session exists already.';
comment on constraint user_session_user_known on user_session is 'There is no such user.';
comment on constraint user_session_till_known on user_session is 'There is no such till.';
comment on constraint user_session_kind_known on user_session is
'A session''s kind is password, token or till.';
comment on constraint user_session_till_matches_kind on user_session is
'A session on a till names its till, no other does.';
comment on constraint user_session_device_not_long on user_session is
'A device''s name has at most 500 characters.';
comment on constraint user_session_ends on user_session is
'A session ends after it began, and its idle time not after that.';
comment on constraint user_session_revoked_with_reason on user_session is
'A revoked session has a time and a reason.';
comment on constraint user_session_reason_known on user_session is
'There is no such reason to end a session.';
create index user_session_by_user on user_session (org_id, user_id, id)
where revoked_at is null;
comment on index user_session_by_user is 'The sessions of a user that were not ended early.';

create table refresh_token (
    org_id bigint not null,
    token_hash bytea not null,
    session_id bigint not null,
    created_at timestamptz not null default now(),
    used_at timestamptz,
    constraint refresh_token_pk primary key (org_id, token_hash),
    constraint refresh_token_session_known foreign key (org_id, session_id)
    references user_session (org_id, id) on delete cascade,
    constraint refresh_token_is_digest check (octet_length(token_hash) = 32)
);
comment on table refresh_token is
'Refresh tokens by digest: each is good once, and its second use ends the session.';
comment on column refresh_token.org_id is 'The organisation.';
comment on column refresh_token.token_hash is 'SHA-256 of the token''s secret.';
comment on column refresh_token.session_id is 'The session that it renews.';
comment on column refresh_token.created_at is 'When it was issued (server time).';
comment on column refresh_token.used_at is 'When it was used (server time).';
comment on constraint refresh_token_pk on refresh_token is 'This token exists already.';
comment on constraint refresh_token_session_known on refresh_token is 'There is no such session.';
comment on constraint refresh_token_is_digest on refresh_token is
'A token is kept as its SHA-256 digest.';
create unique index refresh_token_unused_once on refresh_token (org_id, session_id)
where used_at is null;
comment on index refresh_token_unused_once is 'A session has one refresh token that is not used.';

create table api_key (
    org_id bigint not null,
    id bigint generated always as identity,
    user_id bigint not null,
    name text not null,
    secret_hash bytea not null,
    permissions text[] not null,
    branch_ids bigint[],
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    last_used_on date,
    revoked_at timestamptz,
    constraint api_key_pk primary key (org_id, id),
    constraint api_key_user_known foreign key (org_id, user_id) references app_user (org_id, id),
    constraint api_key_name_not_empty check (length(btrim(name)) between 1 and 100),
    constraint api_key_is_digest check (octet_length(secret_hash) = 32),
    constraint api_key_has_permissions check (cardinality(permissions) between 1 and 200),
    constraint api_key_branches_bounded check (cardinality(branch_ids) between 1 and 1000),
    constraint api_key_ends check (
        expires_at > created_at and expires_at <= created_at + interval '366 days'
    )
);
comment on table api_key is
'Keys for machines: each acts for its user, and may do what both it and the user may.';
comment on column api_key.org_id is 'The organisation.';
comment on column api_key.id is 'The key.';
comment on column api_key.user_id is 'The user for whom it acts.';
comment on column api_key.name is 'What it is for.';
comment on column api_key.secret_hash is 'SHA-256 of its secret, which is shown once.';
comment on column api_key.permissions is 'What it may do at most.';
comment on column api_key.branch_ids is 'The branches it is for; null for all that the user has.';
comment on column api_key.created_at is 'When it was made (server time).';
comment on column api_key.expires_at is 'When it ends: at most 366 days after it was made.';
comment on column api_key.last_used_on is 'The last day on which it was seen (UTC).';
comment on column api_key.revoked_at is 'When it was ended early (server time).';
comment on constraint api_key_pk on api_key is 'This key exists already.';
comment on constraint api_key_user_known on api_key is 'There is no such user.';
comment on constraint api_key_name_not_empty on api_key is 'A name has 1 to 100 characters.';
comment on constraint api_key_is_digest on api_key is 'A key is kept as its SHA-256 digest.';
comment on constraint api_key_has_permissions on api_key is 'A key has 1 to 200 permissions.';
comment on constraint api_key_branches_bounded on api_key is
'A key is for all branches or for 1 to 1,000.';
comment on constraint api_key_ends on api_key is 'A key ends within 366 days.';
create index api_key_by_user on api_key (org_id, user_id, id);
comment on index api_key_by_user is 'The keys of a user.';

alter table user_session enable row level security;
alter table user_session force row level security;
create policy org on user_session using (org_id = current_setting('app.org_id')::bigint);
grant select on user_session to sofinance_app;
grant insert (
    org_id, user_id, kind, till_id, has_second_factor, device, ip, idle_until, expires_at
) on user_session to sofinance_app;
grant update (
    last_used_at, idle_until, has_second_factor, revoked_at, revoked_why
) on user_session to sofinance_app;

alter table refresh_token enable row level security;
alter table refresh_token force row level security;
create policy org on refresh_token using (org_id = current_setting('app.org_id')::bigint);
grant select on refresh_token to sofinance_app;
grant insert (org_id, token_hash, session_id) on refresh_token to sofinance_app;
grant update (used_at) on refresh_token to sofinance_app;
revoke select on refresh_token from sofinance_readonly;
grant select (org_id, session_id, created_at, used_at) on refresh_token to sofinance_readonly;

alter table api_key enable row level security;
alter table api_key force row level security;
create policy org on api_key using (org_id = current_setting('app.org_id')::bigint);
grant select on api_key to sofinance_app;
grant insert (
    org_id, user_id, name, secret_hash, permissions, branch_ids, expires_at
) on api_key to sofinance_app;
grant update (secret_hash, expires_at, last_used_on, revoked_at) on api_key to sofinance_app;
revoke select on api_key from sofinance_readonly;
grant select (
    org_id, id, user_id, name, permissions, branch_ids, created_at, expires_at, last_used_on,
    revoked_at
) on api_key to sofinance_readonly;

-- -- admission -------------------------------------------------------------------------------

create function admit(p_user_id bigint, p_session_id bigint, p_key_id bigint, p_version bigint)
returns void
language plpgsql stable set search_path = pg_catalog, public as $$
declare
    p_org_id constant bigint := current_setting('app.org_id')::bigint;
begin
    if exists (
        select from public.app_user
        where org_id = p_org_id and id = p_user_id and access_version = p_version and is_active
    ) and (
        exists (
            select from public.user_session
            where
                org_id = p_org_id and id = p_session_id and user_id = p_user_id
                and revoked_at is null and expires_at > now()
        ) or exists (
            select from public.api_key
            where
                org_id = p_org_id and id = p_key_id and user_id = p_user_id
                and revoked_at is null and expires_at > now()
        )
    ) then
        return;
    end if;
    raise exception using errcode = 'SF401', message = 'what the caller may do has changed';
end
$$;
comment on function admit(bigint, bigint, bigint, bigint) is
'Lets a request in under what its worker remembers of the caller; raises SF401 when the user, the
session or the key has changed since, and the worker asks anew.';
grant execute on function admit(bigint, bigint, bigint, bigint) to sofinance_app;

-- -- who did it ------------------------------------------------------------------------------

alter table audit_log
add column session_id bigint,
add column api_key_id bigint;
comment on column audit_log.session_id is
'The session in which it was done. No foreign key: sessions go, the log stays.';
comment on column audit_log.api_key_id is 'The API key that did it for the user.';
grant insert (session_id, api_key_id) on audit_log to sofinance_app;
