-- Notifications: what a user is told, numbered per user in the order in which it is committed.
-- depends: 0029_backups
set local lock_timeout = '4s';
set local role sofinance_owner;

-- The number of the latest one, in a row of its own: whoever tells a user something waits here for
-- whoever told them before. So a reader who has seen up to a number has missed nothing.
create table notification_inbox (
    org_id bigint not null,
    user_id bigint not null,
    last_id bigint not null,
    constraint notification_inbox_pk primary key (org_id, user_id),
    constraint notification_inbox_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint notification_inbox_counts_up check (last_id >= 1)
);
comment on table notification_inbox is 'How far the notifications of each user are numbered.';
comment on column notification_inbox.org_id is 'The organisation.';
comment on column notification_inbox.user_id is 'The user.';
comment on column notification_inbox.last_id is 'The number of the latest notification.';
comment on constraint notification_inbox_pk on notification_inbox is 'A user has one inbox.';
comment on constraint notification_inbox_user_known on notification_inbox is
'There is no such user to be told.';
comment on constraint notification_inbox_counts_up on notification_inbox is
'Notifications are numbered from 1.';

create table notification (
    org_id bigint not null,
    user_id bigint not null,
    id bigint not null,
    type text not null,
    title text not null,
    message text not null default '',
    data jsonb not null default '{}',
    sent_by bigint,
    dedupe_key text,
    created_at timestamptz not null default now(),
    read_at timestamptz,
    constraint notification_pk primary key (org_id, user_id, id),
    constraint notification_user_known foreign key (org_id, user_id)
    references app_user (org_id, id),
    constraint notification_sender_known foreign key (org_id, sent_by)
    references app_user (org_id, id),
    constraint notification_type_form check (type ~ '^[a-z][a-z0-9_]{1,39}$'),
    constraint notification_title_not_empty check (length(btrim(title)) between 1 and 200),
    constraint notification_message_not_long check (length(message) <= 2000),
    constraint notification_data_is_small check (
        jsonb_typeof(data) = 'object' and octet_length(data::text) <= 4000
    ),
    constraint notification_dedupe_key_not_long check (length(dedupe_key) between 1 and 200)
);
comment on table notification is
'What a user is told, and whether it was read: the latest 1,000 of each user, for 90 days.';
comment on column notification.org_id is 'The organisation.';
comment on column notification.user_id is 'Who is told.';
comment on column notification.id is 'Counts the notifications of the user, without exception.';
comment on column notification.type is 'What kind it is: low_stock, message.';
comment on column notification.title is 'What it is about, in a line.';
comment on column notification.message is 'The rest.';
comment on column notification.data is 'What a program needs of it: ids, above all.';
comment on column notification.sent_by is 'The user who sent it; null for the service itself.';
comment on column notification.dedupe_key is 'Of two with the same key a user is told one.';
comment on column notification.created_at is 'When it was told (server time).';
comment on column notification.read_at is 'When it was marked as read (server time).';
comment on constraint notification_pk on notification is 'This notification exists already.';
comment on constraint notification_user_known on notification is 'There is no such user to tell.';
comment on constraint notification_sender_known on notification is
'A notification is sent by a user of the organisation.';
comment on constraint notification_type_form on notification is
'A type has 2 to 40 lower-case letters, digits and underscores.';
comment on constraint notification_title_not_empty on notification is
'A title has 1 to 200 characters.';
comment on constraint notification_message_not_long on notification is
'A message has at most 2,000 characters.';
comment on constraint notification_data_is_small on notification is
'The data of a notification is an object of at most 4,000 bytes.';
comment on constraint notification_dedupe_key_not_long on notification is
'A key against telling twice has 1 to 200 characters.';
create unique index notification_told_once on notification (org_id, user_id, dedupe_key)
where dedupe_key is not null;
comment on index notification_told_once is 'The user was told this already.';
create index notification_by_unread on notification (org_id, user_id, id) where read_at is null;
comment on index notification_by_unread is 'What a user has not read.';
create index notification_by_age on notification (org_id, created_at);
comment on index notification_by_age is 'What may be forgotten.';

create function number_notification() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    insert into public.notification_inbox as inbox (org_id, user_id, last_id)
    values (new.org_id, new.user_id, 1)
    on conflict (org_id, user_id) do update set last_id = inbox.last_id + 1
    returning inbox.last_id into new.id;
    delete from public.notification
    where org_id = new.org_id and user_id = new.user_id and id <= new.id - 1000;
    return new;
end
$$;
comment on function number_notification() is
'Numbers a notification within its user, whose earlier ones are committed by then, and forgets the
oldest above 1,000.';
create trigger notification_numbered before insert on notification
for each row execute function number_notification();
comment on trigger notification_numbered on notification is
'Numbers a notification within its user.';

create table notification_ticket (
    org_id bigint not null,
    token_hash bytea not null,
    session_id bigint not null,
    expires_at timestamptz not null,
    constraint notification_ticket_pk primary key (org_id, token_hash),
    constraint notification_ticket_session_known foreign key (org_id, session_id)
    references user_session (org_id, id) on delete cascade,
    constraint notification_ticket_is_digest check (octet_length(token_hash) = 32)
);
comment on table notification_ticket is
'Tickets with which a browser opens a WebSocket in its session: good once, for half a minute.';
comment on column notification_ticket.org_id is 'The organisation.';
comment on column notification_ticket.token_hash is 'SHA-256 of the ticket.';
comment on column notification_ticket.session_id is 'The session that asked for it.';
comment on column notification_ticket.expires_at is 'When it ends (server time).';
comment on constraint notification_ticket_pk on notification_ticket is
'This ticket exists already.';
comment on constraint notification_ticket_session_known on notification_ticket is
'A ticket belongs to a session.';
comment on constraint notification_ticket_is_digest on notification_ticket is
'A ticket is kept as its SHA-256 digest.';
create index notification_ticket_by_session on notification_ticket (org_id, session_id);
comment on index notification_ticket_by_session is 'The tickets of a session.';

alter table notification_inbox enable row level security;
alter table notification_inbox force row level security;
create policy org on notification_inbox using (org_id = current_setting('app.org_id')::bigint);
grant select on notification_inbox to sofinance_app;

alter table notification enable row level security;
alter table notification force row level security;
create policy org on notification using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on notification to sofinance_app;
grant insert (org_id, user_id, type, title, message, data, sent_by, dedupe_key)
on notification to sofinance_app;
grant update (read_at) on notification to sofinance_app;

alter table notification_ticket enable row level security;
alter table notification_ticket force row level security;
create policy org on notification_ticket using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on notification_ticket to sofinance_app;
grant insert (org_id, token_hash, session_id, expires_at) on notification_ticket to sofinance_app;
revoke select on notification_ticket from sofinance_readonly;
grant select (org_id, session_id, expires_at) on notification_ticket to sofinance_readonly;

create function list_news(
    p_org_ids bigint[], p_user_ids bigint[], p_after_ids bigint[], p_limit integer
) returns table (
    org_id bigint, user_id bigint, last_id bigint, id bigint, type text, title text, message text,
    data jsonb, created_at timestamptz, read_at timestamptz
)
language plpgsql stable set search_path = pg_catalog, public, pg_temp as $$
#variable_conflict use_column
declare
    asked record;
    found_count integer;
    room integer := p_limit;
begin
    for asked in
        select one.org_id, array_agg(one.user_id) as user_ids, array_agg(one.after_id) as after_ids
        from unnest(p_org_ids, p_user_ids, p_after_ids) as one (org_id, user_id, after_id)
        group by one.org_id
        order by one.org_id
    loop
        exit when room <= 0;
        perform set_config('app.org_id', asked.org_id::text, true);
        return query
        select
            asked.org_id, inbox.user_id, inbox.last_id, told.id, told.type, told.title,
            told.message, told.data, told.created_at, told.read_at
        from unnest(asked.user_ids, asked.after_ids) as one (user_id, after_id)
        join public.notification_inbox as inbox
            on inbox.org_id = asked.org_id and inbox.user_id = one.user_id
            and inbox.last_id > one.after_id
        left join lateral (
            select notification.* from public.notification
            where
                notification.org_id = asked.org_id and notification.user_id = one.user_id
                and notification.id > one.after_id and notification.id <= inbox.last_id
            order by notification.id
            limit room
        ) as told on true
        order by inbox.user_id, told.id
        limit room;
        get diagnostics found_count = row_count;
        room := room - found_count;
    end loop;
    perform set_config('app.org_id', '', true);
end
$$;
comment on function list_news(bigint[], bigint[], bigint[], integer) is
'What some users, of whichever organisations, were told since a number each; with the caller''s
rights, in the organisation of each in turn. A user whose news are deleted has a row without any.';
grant execute on function list_news(bigint[], bigint[], bigint[], integer) to sofinance_app;

create function list_ended(
    p_org_ids bigint[], p_user_ids bigint[], p_session_ids bigint[], p_key_ids bigint[]
) returns setof bigint
language plpgsql stable set search_path = pg_catalog, public, pg_temp as $$
declare
    asked record;
begin
    for asked in
        select
            one.org_id, array_agg(one.place) as places, array_agg(one.user_id) as user_ids,
            array_agg(one.session_id) as session_ids, array_agg(one.key_id) as key_ids
        from unnest(p_org_ids, p_user_ids, p_session_ids, p_key_ids) with ordinality
            as one (org_id, user_id, session_id, key_id, place)
        group by one.org_id
    loop
        perform set_config('app.org_id', asked.org_id::text, true);
        return query
        select one.place
        from unnest(asked.places, asked.user_ids, asked.session_ids, asked.key_ids)
            as one (place, user_id, session_id, key_id)
        where not exists (
            select from public.app_user
            where
                app_user.org_id = asked.org_id and app_user.id = one.user_id
                and app_user.is_active
        ) or not (
            exists (
                select from public.user_session
                where
                    user_session.org_id = asked.org_id and user_session.id = one.session_id
                    and user_session.user_id = one.user_id and user_session.revoked_at is null
                    and user_session.expires_at > now()
            ) or exists (
                select from public.api_key
                where
                    api_key.org_id = asked.org_id and api_key.id = one.key_id
                    and api_key.user_id = one.user_id and api_key.revoked_at is null
                    and api_key.expires_at > now()
            )
        );
    end loop;
    perform set_config('app.org_id', '', true);
end
$$;
comment on function list_ended(bigint[], bigint[], bigint[], bigint[]) is
'Which of some callers, of whichever organisations, have no live session or key any more: their
places in the arrays; with the caller''s rights, in the organisation of each in turn.';
grant execute on function list_ended(bigint[], bigint[], bigint[], bigint[]) to sofinance_app;

insert into permission (name, description) values
('notifications:send', 'Send notifications to users of the organisation.');
insert into role_permission (role, permission) values ('MANAGER', 'notifications:send');
