-- Files attached to documents: what is known of each, what the store must forget, used links.
-- A file is in the store before its row is here: until then a tombstone stands for it, which the
-- row takes away in its own transaction. What never got a row, or lost it, the janitor removes.
-- depends: 0026_flags
set local lock_timeout = '4s';
set local role sofinance_owner;

insert into permission (name, description) values
('attachments:read', 'See and download files attached to what one may see.'),
('attachments:write', 'Attach files to what one may see, and remove them.');
insert into role_permission (role, permission)
select
    role,
    permission
from unnest(array['MANAGER', 'ACCOUNTANT', 'CASHIER', 'INVENTORY_CLERK']) as role
cross join unnest(array['attachments:read', 'attachments:write']) as permission;

create table storage_tombstone (
    org_id bigint not null,
    id bigint generated always as identity,
    object_key text not null,
    created_at timestamptz not null default now(),
    due_at timestamptz not null,
    attempt_count integer not null default 0,
    last_error text,
    given_up_at timestamptz,
    constraint storage_tombstone_pk primary key (org_id, id),
    constraint storage_tombstone_object_taken unique (org_id, object_key),
    constraint storage_tombstone_organisation_known foreign key (org_id)
    references organisation (org_id),
    constraint storage_tombstone_object_is_own check (
        object_key ~ ('^org/' || org_id || '/[a-z_]+/[0-9a-f]{32}$')
    ),
    constraint storage_tombstone_attempts_bounded check (attempt_count between 0 and 5),
    constraint storage_tombstone_given_up_last check (
        given_up_at is null or attempt_count = 5
    ),
    constraint storage_tombstone_error_not_long check (length(last_error) <= 200)
);
comment on table storage_tombstone is
'Objects that the store must forget: files whose row is gone, and files that never got one.';
comment on column storage_tombstone.org_id is 'The organisation.';
comment on column storage_tombstone.id is 'The tombstone.';
comment on column storage_tombstone.object_key is 'The object in the store.';
comment on column storage_tombstone.created_at is 'When it was written (server time).';
comment on column storage_tombstone.due_at is 'When the object is to be removed, or tried again.';
comment on column storage_tombstone.attempt_count is 'How often that was tried; five at most.';
comment on column storage_tombstone.last_error is 'Why it failed last.';
comment on column storage_tombstone.given_up_at is 'When the fifth attempt failed (server time).';
comment on constraint storage_tombstone_pk on storage_tombstone is
'This tombstone exists already.';
comment on constraint storage_tombstone_object_taken on storage_tombstone is
'This object has a tombstone already.';
comment on constraint storage_tombstone_organisation_known on storage_tombstone is
'There is no such organisation.';
comment on constraint storage_tombstone_object_is_own on storage_tombstone is
'An organisation''s objects are below org/ and its number.';
comment on constraint storage_tombstone_attempts_bounded on storage_tombstone is
'An object is tried to be removed five times at most.';
comment on constraint storage_tombstone_given_up_last on storage_tombstone is
'An object is given up after the fifth attempt.';
comment on constraint storage_tombstone_error_not_long on storage_tombstone is
'An error is told in at most 200 characters.';
create index storage_tombstone_open on storage_tombstone (org_id, due_at)
where given_up_at is null;
comment on index storage_tombstone_open is 'What is to be removed next.';
alter table storage_tombstone enable row level security;
alter table storage_tombstone force row level security;
create policy org on storage_tombstone using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on storage_tombstone to sofinance_app;
grant insert (org_id, object_key, due_at) on storage_tombstone to sofinance_app;
grant update (due_at, attempt_count, last_error, given_up_at) on storage_tombstone
to sofinance_app;

create table attachment_usage (
    org_id bigint not null,
    file_count bigint not null default 0,
    size_bytes bigint not null default 0,
    quota_bytes bigint not null default 10737418240,
    constraint attachment_usage_pk primary key (org_id),
    constraint attachment_usage_organisation_known foreign key (org_id)
    references organisation (org_id),
    constraint attachment_usage_within_quota check (size_bytes <= quota_bytes),
    constraint attachment_usage_not_negative check (file_count >= 0 and size_bytes >= 0)
);
comment on table attachment_usage is
'How much each organisation has attached, and how much it may: triggers count, the owner allows.';
comment on column attachment_usage.org_id is 'The organisation.';
comment on column attachment_usage.file_count is 'Its files.';
comment on column attachment_usage.size_bytes is 'Their bytes together.';
comment on column attachment_usage.quota_bytes is 'How many there may be; 10 GiB unless changed.';
comment on constraint attachment_usage_pk on attachment_usage is
'The usage of this organisation is counted already.';
comment on constraint attachment_usage_organisation_known on attachment_usage is
'There is no such organisation.';
comment on constraint attachment_usage_within_quota on attachment_usage is
'The organisation''s files would take more space than it has; remove some first.';
comment on constraint attachment_usage_not_negative on attachment_usage is
'Counts are not negative.';
alter table attachment_usage enable row level security;
alter table attachment_usage force row level security;
create policy org on attachment_usage using (org_id = current_setting('app.org_id')::bigint);
grant select on attachment_usage to sofinance_app;

create table attachment (
    org_id bigint not null,
    id bigint generated always as identity,
    sale_id bigint,
    product_id bigint,
    customer_id bigint,
    goods_receipt_id bigint,
    journal_entry_id bigint,
    entity text generated always as (
        case
            when sale_id is not null then 'sale'
            when product_id is not null then 'product'
            when customer_id is not null then 'customer'
            when goods_receipt_id is not null then 'goods_receipt'
            else 'journal_entry'
        end
    ) stored not null,
    entity_id bigint generated always as (
        coalesce(sale_id, product_id, customer_id, goods_receipt_id, journal_entry_id)
    ) stored not null,
    object_key text not null,
    filename text not null,
    content_type text not null,
    size_bytes bigint not null,
    sha256 bytea not null,
    created_at timestamptz not null default now(),
    created_by bigint not null,
    constraint attachment_pk primary key (org_id, id),
    constraint attachment_object_taken unique (org_id, object_key),
    constraint attachment_content_taken unique (org_id, entity, entity_id, sha256),
    constraint attachment_sale_known foreign key (org_id, sale_id) references sale (org_id, id),
    constraint attachment_product_known foreign key (org_id, product_id)
    references product (org_id, id),
    constraint attachment_customer_known foreign key (org_id, customer_id)
    references customer (org_id, id),
    constraint attachment_goods_receipt_known foreign key (org_id, goods_receipt_id)
    references goods_receipt (org_id, id),
    constraint attachment_journal_entry_known foreign key (org_id, journal_entry_id)
    references journal_entry (org_id, id),
    constraint attachment_creator_known foreign key (org_id, created_by)
    references app_user (org_id, id),
    constraint attachment_of_one_document check (
        num_nonnulls(sale_id, product_id, customer_id, goods_receipt_id, journal_entry_id) = 1
    ),
    constraint attachment_filename_form check (
        length(filename) between 1 and 200 and filename !~ '[[:cntrl:]/\\]'
    ),
    constraint attachment_content_type_form check (
        content_type ~ '^[a-z]+/[a-z0-9.+-]{1,100}$'
    ),
    constraint attachment_size_in_range check (size_bytes between 1 and 1073741824),
    constraint attachment_is_digest check (octet_length(sha256) = 32)
);
comment on table attachment is
'Files that are attached to documents. Their bytes are in the store, never changed.';
comment on column attachment.org_id is 'The organisation.';
comment on column attachment.id is 'The attachment.';
comment on column attachment.sale_id is 'The sale, if it is one.';
comment on column attachment.product_id is 'The product, if it is one.';
comment on column attachment.customer_id is 'The customer, if it is one.';
comment on column attachment.goods_receipt_id is 'The goods receipt, if it is one.';
comment on column attachment.journal_entry_id is 'The journal entry, if it is one.';
comment on column attachment.entity is
'To what it is attached: sale, product, customer, goods_receipt or journal_entry.';
comment on column attachment.entity_id is 'To which of them.';
comment on column attachment.object_key is 'The object in the store.';
comment on column attachment.filename is 'Its name, as it was sent, without any path.';
comment on column attachment.content_type is 'What its bytes are, not what was said of them.';
comment on column attachment.size_bytes is 'Its bytes.';
comment on column attachment.sha256 is 'Their SHA-256.';
comment on column attachment.created_at is 'When it was attached (server time).';
comment on column attachment.created_by is 'Who attached it.';
comment on constraint attachment_pk on attachment is 'This attachment exists already.';
comment on constraint attachment_object_taken on attachment is 'This object is attached already.';
comment on constraint attachment_content_taken on attachment is
'This very file is attached to it already.';
comment on constraint attachment_sale_known on attachment is 'There is no such sale.';
comment on constraint attachment_product_known on attachment is 'There is no such product.';
comment on constraint attachment_customer_known on attachment is 'There is no such customer.';
comment on constraint attachment_goods_receipt_known on attachment is
'There is no such goods receipt.';
comment on constraint attachment_journal_entry_known on attachment is
'There is no such journal entry.';
comment on constraint attachment_creator_known on attachment is 'There is no such user.';
comment on constraint attachment_of_one_document on attachment is
'A file is attached to one sale, product, customer, goods receipt or journal entry.';
comment on constraint attachment_filename_form on attachment is
'A file''s name has 1 to 200 characters, no slashes and no control characters.';
comment on constraint attachment_content_type_form on attachment is
'A content type is written type/subtype, in lower case.';
comment on constraint attachment_size_in_range on attachment is
'A file has 1 byte to 1 GiB.';
comment on constraint attachment_is_digest on attachment is
'The digest of a file is its SHA-256.';

create function attachment_is_uploaded() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    delete from public.storage_tombstone
    where org_id = new.org_id and object_key = new.object_key and attempt_count = 0;
    if not found then
        raise exception using
            errcode = 'unique_violation', constraint = 'attachment_is_uploaded',
            table = 'attachment', message = 'no upload of this object is under way';
    end if;
    return null;
end
$$;
comment on function attachment_is_uploaded() is
'Takes away the tombstone that stands for a file until it has its row; refuses one that has none.';
create trigger attachment_is_uploaded after insert on attachment
for each row execute function attachment_is_uploaded();
comment on trigger attachment_is_uploaded on attachment is
'This upload took too long, or was never begun; send the file again.';

create function attachment_leaves_tombstone() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    insert into public.storage_tombstone (org_id, object_key, due_at)
    values (old.org_id, old.object_key, now());
    return null;
end
$$;
comment on function attachment_leaves_tombstone() is
'Has the store forget a file whose row is gone.';
create trigger attachment_leaves_tombstone after delete on attachment
for each row execute function attachment_leaves_tombstone();
comment on trigger attachment_leaves_tombstone on attachment is
'Has the store forget a file whose row is gone.';

create function attachment_counted() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    if tg_op = 'INSERT' then
        insert into public.attachment_usage as used (org_id, file_count, size_bytes)
        values (new.org_id, 1, new.size_bytes)
        on conflict on constraint attachment_usage_pk do update
        set
            file_count = used.file_count + 1,
            size_bytes = used.size_bytes + excluded.size_bytes;
    else
        update public.attachment_usage
        set file_count = file_count - 1, size_bytes = size_bytes - old.size_bytes
        where org_id = old.org_id;
    end if;
    return null;
end
$$;
comment on function attachment_counted() is 'Keeps attachment_usage equal to the files.';
create trigger attachment_counted after insert or delete on attachment
for each row execute function attachment_counted();
comment on trigger attachment_counted on attachment is
'Keeps attachment_usage equal to the files.';

alter table attachment enable row level security;
alter table attachment force row level security;
create policy org on attachment using (org_id = current_setting('app.org_id')::bigint);
-- Who sees a document sees what is attached to it: the inner queries see the caller's branches.
create policy document on attachment as restrictive to sofinance_app
using (
    case entity
        when 'sale'
            then
                exists (
                    select from sale
                    where sale.org_id = attachment.org_id and sale.id = entity_id
                )
        when 'goods_receipt'
            then
                exists (
                    select from goods_receipt as receipt
                    where receipt.org_id = attachment.org_id and receipt.id = entity_id
                )
        when 'journal_entry' then current_setting('app.branch_ids') = 'all'
        else true
    end
);
grant select, delete on attachment to sofinance_app;
grant insert (
    org_id, sale_id, product_id, customer_id, goods_receipt_id, journal_entry_id, object_key,
    filename, content_type, size_bytes, sha256, created_by
) on attachment to sofinance_app;

create table signed_url_use (
    org_id bigint not null,
    token_id bytea not null,
    used_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint signed_url_use_pk primary key (org_id, token_id),
    constraint signed_url_use_organisation_known foreign key (org_id)
    references organisation (org_id),
    constraint signed_url_use_token_length check (octet_length(token_id) = 16)
);
comment on table signed_url_use is 'Signed links that were good for one download, and are used.';
comment on column signed_url_use.org_id is 'The organisation.';
comment on column signed_url_use.token_id is 'The number of the link, random.';
comment on column signed_url_use.used_at is 'When it was used (server time).';
comment on column signed_url_use.expires_at is 'When it is over anyway, and this is forgotten.';
comment on constraint signed_url_use_pk on signed_url_use is 'This link has been used already.';
comment on constraint signed_url_use_organisation_known on signed_url_use is
'There is no such organisation.';
comment on constraint signed_url_use_token_length on signed_url_use is
'The number of a link has 16 bytes.';
create index signed_url_use_by_expiry on signed_url_use (org_id, expires_at);
comment on index signed_url_use_by_expiry is 'What may be forgotten.';
alter table signed_url_use enable row level security;
alter table signed_url_use force row level security;
create policy org on signed_url_use using (org_id = current_setting('app.org_id')::bigint);
grant select, delete on signed_url_use to sofinance_app;
grant insert (org_id, token_id, expires_at) on signed_url_use to sofinance_app;
