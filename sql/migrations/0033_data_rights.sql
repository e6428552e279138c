-- What a person may ask: that their data be deleted. Figures stay, the person goes.
-- depends: 0032_mail
set local lock_timeout = '4s';
set local role sofinance_owner;

create table data_deletion_request (
    org_id bigint not null,
    id bigint generated always as identity,
    customer_id bigint not null,
    reason text not null,
    requested_at timestamptz not null default now(),
    requested_by bigint not null,
    processed_at timestamptz,
    attachments_deleted bigint,
    mails_emptied bigint,
    constraint data_deletion_request_pk primary key (org_id, id),
    constraint data_deletion_request_customer_known foreign key (org_id, customer_id)
    references customer (org_id, id),
    constraint data_deletion_request_requester_known foreign key (org_id, requested_by)
    references app_user (org_id, id),
    constraint data_deletion_request_reason_given check (length(btrim(reason)) between 1 and 500),
    constraint data_deletion_request_counted check (
        (processed_at is null) = (attachments_deleted is null)
        and (processed_at is null) = (mails_emptied is null)
        and attachments_deleted >= 0 and mails_emptied >= 0
    )
);
comment on table data_deletion_request is
'Customers who asked to be forgotten, and what was taken away of each: counts only.';
comment on column data_deletion_request.org_id is 'The organisation.';
comment on column data_deletion_request.id is 'The request.';
comment on column data_deletion_request.customer_id is 'The customer.';
comment on column data_deletion_request.reason is 'Why, and how it was asked for.';
comment on column data_deletion_request.requested_at is 'When it was written down (server time).';
comment on column data_deletion_request.requested_by is 'Who wrote it down.';
comment on column data_deletion_request.processed_at is 'When it was done (server time).';
comment on column data_deletion_request.attachments_deleted is 'Files that were taken away.';
comment on column data_deletion_request.mails_emptied is 'Mails that were emptied.';
comment on constraint data_deletion_request_pk on data_deletion_request is
'This request exists already.';
comment on constraint data_deletion_request_customer_known on data_deletion_request is
'There is no such customer.';
comment on constraint data_deletion_request_requester_known on data_deletion_request is
'There is no such user.';
comment on constraint data_deletion_request_reason_given on data_deletion_request is
'A reason has 1 to 500 characters.';
comment on constraint data_deletion_request_counted on data_deletion_request is
'A request that was done has the time and its counts.';
create unique index data_deletion_request_open_once on data_deletion_request (org_id, customer_id)
where processed_at is null;
comment on index data_deletion_request_open_once is
'This customer''s data is to be deleted already.';

create function data_deletion_request_stays() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using
        errcode = 'check_violation', constraint = 'data_deletion_request_stays',
        table = 'data_deletion_request', message = format('request %s is done', old.id);
end
$$;
comment on function data_deletion_request_stays() is 'Refuses to change a request that is done.';
create trigger data_deletion_request_stays before update on data_deletion_request
for each row when (old.processed_at is not null)
execute function data_deletion_request_stays();
comment on trigger data_deletion_request_stays on data_deletion_request is
'A request that is done stays so.';

alter table data_deletion_request enable row level security;
alter table data_deletion_request force row level security;
create policy org on data_deletion_request
using (org_id = current_setting('app.org_id')::bigint);
grant select on data_deletion_request to sofinance_app;
grant insert (org_id, customer_id, reason, requested_by) on data_deletion_request
to sofinance_app;
grant update (processed_at, attachments_deleted, mails_emptied) on data_deletion_request
to sofinance_app;
