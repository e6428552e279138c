-- The data that the plan files in sql/plans are made on: ten organisations, the first with a third
-- of everything, a year of sales, all made of arithmetic, so that every run loads the very same
-- rows. Triggers and foreign keys are off meanwhile, CHECKs are not; amounts are plain on purpose:
-- a plan depends on how many rows there are and how they spread, not on what they add up to.
set session_replication_role = replica;
set max_parallel_workers_per_gather = 0;

create temporary table org as select generate_series(1, 10)::bigint as id;

insert into organisation (org_id, name, base_currency)
overriding system value
select id, 'Retailer ' || id, 'USD' from org;

insert into org_role (org_id, name, is_built_in)
select org.id, role, true
from org
cross join
    unnest(array['ADMIN', 'MANAGER', 'CASHIER', 'INVENTORY_CLERK', 'ACCOUNTANT']) as role;
insert into org_role (org_id, name) select id, 'SPARE' from org;

insert into app_user (
    org_id, id, email, password_hash, first_name, last_name, role, all_branches
)
overriding system value
select org.id, org.id * 10 + n, 'user' || n || '@org' || org.id || '.example', 'none', 'Una',
    'User', case n when 1 then 'ADMIN' else 'CASHIER' end, n = 1
from org cross join generate_series(1, 5) as n;

insert into sign_in_address (email, org_id, user_id) select email, org_id, id from app_user;

insert into branch (org_id, id, name, time_zone)
overriding system value
select org.id, org.id * 100 + n, 'Branch ' || n, 'UTC'
from org cross join generate_series(1, 8) as n;

insert into user_branch (org_id, user_id, branch_id)
select app_user.org_id, app_user.id, app_user.org_id * 100 + n
from app_user cross join generate_series(1, 2) as n
where not app_user.all_branches;

-- A hundred sign-ins a user, the last three of which go on.
insert into user_session (
    org_id, id, user_id, kind, created_at, idle_until, expires_at, revoked_at, revoked_why
)
overriding system value
select app_user.org_id, app_user.id * 1000 + n, app_user.id, 'password', '2025-12-01 00:00Z',
    '2099-01-01 00:00Z', '2099-01-01 00:00Z',
    case when n <= 97 then timestamptz '2025-12-02 00:00Z' end,
    case when n <= 97 then 'sign_out' end
from app_user cross join generate_series(1, 100) as n;

insert into refresh_token (org_id, token_hash, session_id, used_at)
select org_id, sha256(int8send(id * 10 + n)), id,
    case when n < 3 or id = 11099 then created_at end -- 11099 is being renewed
from user_session cross join generate_series(1, 3) as n;

insert into password_reset (org_id, user_id, slot, token_hash, created_at, expires_at, used_at)
select org_id, id, n, sha256(int8send(id * 10 + n)), '2025-12-01 00:00Z', '2025-12-01 00:30Z',
    case when n = 1 then timestamptz '2025-12-01 00:10Z' end
from app_user cross join generate_series(1, 3) as n;

insert into api_key (
    org_id, id, user_id, name, secret_hash, permissions, created_at, expires_at
)
overriding system value
select org_id, id * 10 + n, id, 'Key ' || n, sha256(int8send(id * 10 + n)), array['sales:read'],
    '2025-12-01 00:00Z', '2026-11-30 00:00Z'
from app_user cross join generate_series(1, 3) as n;

insert into till (org_id, id, branch_id, name)
overriding system value
select org_id, branch.id * 10 + n, branch.id, 'T' || n
from branch cross join generate_series(1, 3) as n;

-- Everybody but the first of each organisation uses an authenticator; two tills of three are paired.
insert into user_totp (org_id, user_id, secret, begun_at, confirmed_at, last_step)
select org_id, id, '\x01'::bytea || decode(repeat('00', 52), 'hex'), '2025-12-01 00:00Z',
    case when id % 10 > 1 then timestamptz '2025-12-01 00:01Z' end,
    case when id % 10 > 1 then 58817000 end
from app_user;

insert into recovery_code (org_id, user_id, code_no, code_hash)
select org_id, user_id, n, sha256(int8send(user_id * 10 + n))
from user_totp cross join generate_series(1, 10) as n
where confirmed_at is not null;

insert into user_pin (org_id, user_id, pin_hash)
select org_id, id, '$argon2id$none' from app_user;

insert into till_pairing_code (org_id, till_id, code_hash, issued_by, issued_at, expires_at)
select org_id, id, sha256(int8send(id)), org_id * 10 + 1, '2025-12-01 00:00Z', '2025-12-01 00:10Z'
from till;

insert into till_credential (org_id, id, till_id, secret_hash, paired_by, created_at, revoked_at)
overriding system value
select org_id, id * 10 + n, id, sha256(int8send(id * 10 + n)), org_id * 10 + 1,
    '2025-12-01 00:00Z', case when n > 1 then timestamptz '2025-12-02 00:00Z' end
from till cross join generate_series(1, 3) as n
where id % 10 < 3;

insert into tax_code (org_id, id, code, name, rate_percent)
overriding system value
select org.id, org.id * 10 + n, case n when 1 then 'STD' else 'ZERO' end, 'Rate', 20 - 10 * n
from org cross join generate_series(1, 2) as n;

insert into category (org_id, id, name)
overriding system value
select org.id, org.id * 100 + n, 'Category ' || n from org cross join generate_series(1, 20) as n;

insert into product (org_id, id, sku, barcode, name, category_id, tax_code_id, currency, cost, price)
overriding system value
select org.id, org.id * 1000 + n, 'SKU' || n, '400' || n, 'Product ' || n,
    org.id * 100 + 1 + n % 20, org.id * 10 + 1, 'USD', 6, 10
from org cross join generate_series(1, 400) as n;

insert into customer (org_id, id, name, email, phone, currency, credit_limit)
overriding system value
select org.id, org.id * 1000 + n, 'Customer ' || n, 'c' || n || '@example.com',
    '+100000' || lpad(n::text, 5, '0'), 'USD', 1000000
from org cross join generate_series(1, 300) as n;

insert into account (org_id, id, code, name, type, role, currency, takes_payments)
overriding system value
select org.id, org.id * 100 + chart.n, (1000 + 10 * chart.n)::text, 'Account ' || chart.n,
    case when chart.n <= 6 then 'ASSET' else 'EXPENSE' end, chart.role, 'USD', chart.n <= 4
from org cross join unnest(array[
    'cash', 'bank', 'card_clearing', 'mobile_money', 'receivable', 'inventory', 'payables',
    'tax_payable', 'retained_earnings', 'opening_equity', 'revenue', 'discounts', 'returns', 'cogs',
    'shrinkage', null, null, null, null, null, null
]) with ordinality as chart (role, n);

-- The months of the sales, and the month that posting functions post into when this runs.
insert into accounting_period (org_id, id, starts_on, ends_on)
overriding system value
select org.id, org.id * 100 + month.n, month.starts_on,
    (month.starts_on + interval '1 month - 1 day')::date
from org cross join (
    select n, ('2025-01-01'::date + make_interval(months => n - 1))::date as starts_on
    from generate_series(1, 12) as n
    union all
    select 13, date_trunc('month', now() at time zone 'UTC')::date
) as month;

insert into stock (org_id, branch_id, product_id, currency, quantity, value)
select branch.org_id, branch.id, product.id, 'USD', 1000, 6000
from branch inner join product using (org_id);

insert into goods_receipt (
    org_id, id, branch_id, kind, currency, line_count, total, received_on, received_by
)
overriding system value
select org_id, id, id, 'OPENING', 'USD', 100, 600000, '2025-01-01', org_id * 10 + 1 from branch;

insert into goods_receipt_line (
    org_id, receipt_id, line_no, line_count, currency, product_id, quantity, unit_cost, value
)
select org_id, id, n, 100, 'USD', org_id * 1000 + n, 1000, 6, 6000
from goods_receipt cross join generate_series(1, 100) as n;

-- Sale i: its organisation by a square, so that the first has a third and the last a twentieth.
-- Every fifth is on credit, every hundredth void.
create temporary table made as
select i, org, branch, customer, branch * 10 + 1 + (i / 8) % 3 as till,
    case when i % 5 = 0 then 13 else 33 end as paid,
    '2025-01-01'::date + (i * 365 / 15001)::int as sold_on
from (
    select i, org, org * 100 + 1 + i % 8 as branch,
        case when i % 10 < 3 or i % 5 = 0 then org * 1000 + 1 + (i * 7) % 300 end as customer
    from (
        select i, (1 + floor(10 * ((i * 7919 % 1000) / 1000.0) ^ 2))::bigint as org
        from generate_series(1, 15000) as i
    ) as spread
) as placed;

insert into sale (
    org_id, id, branch_id, till_id, receipt_no, client_sale_id, customer_id, cashier_id, currency,
    prices_include_tax, line_count, subtotal, discount, tax, total, paid, sold_on, sold_at
)
overriding system value
select org, i, branch, till, row_number() over (partition by till order by i), md5(i::text)::uuid,
    customer, org * 10 + 2 + i % 4, 'USD', false, 3, 30, 0, 3, 33, paid, sold_on, sold_on + time '12:00'
from made order by i;

update till set receipt_count = given.receipt_count
from (
    select org_id, till_id, count(*) as receipt_count from sale group by org_id, till_id
) as given
where given.org_id = till.org_id and given.till_id = till.id;

insert into sale_line (
    org_id, sale_id, line_no, line_count, currency, prices_include_tax, product_id, quantity,
    list_price, unit_price, subtotal, discount, sale_discount, tax_code, tax_rate_percent, tax, total
)
select org, i, n, 3, 'USD', false, org * 1000 + 1 + (i * 37 + n * 101) % 400, 1, 10, 10, 10, 0, 0,
    'STD', 10, 1, 11
from made cross join generate_series(1, 3) as n order by i, n;

insert into payment (
    org_id, id, sale_id, payment_no, currency, sale_total, sale_paid, paid_before, amount, method,
    account_id, received_on, received_by
)
overriding system value
select org, i, i, 1, 'USD', 33, paid, 0, paid, 'CASH', org * 100 + 1, sold_on, org * 10 + 2
from made order by i;

insert into payment (
    org_id, id, sale_id, payment_no, currency, sale_total, sale_paid, paid_before, amount, method,
    account_id, received_on, received_by
)
overriding system value
select org, 100000 + i, i, 2, 'USD', 33, 13, 13, 5, 'CASH', org * 100 + 1, sold_on + 7, org * 10 + 2
from made where i % 10 = 0 order by i;

insert into sale_void (org_id, sale_id, reason, voided_on, voided_by)
select org, i, 'by mistake', sold_on, org * 10 + 1 from made where i % 100 = 1 order by i;

insert into receivable (org_id, sale_id, customer_id, currency, sold_on, amount, settled)
select org, i, customer, 'USD', sold_on, 20,
    case when i % 50 = 0 then 5 when i % 20 = 5 then 0 else 20 end
from made where i % 5 = 0 order by i;

insert into stock_movement (org_id, id, branch_id, product_id, currency, quantity, value, goods_receipt_id)
overriding system value
select org_id, receipt_id * 1000 + line_no, receipt_id, product_id, 'USD', quantity, value, receipt_id
from goods_receipt_line;

insert into stock_movement (
    org_id, id, branch_id, product_id, currency, quantity, value, sale_id, created_at
)
overriding system value
select org, 10000000 + i * 3 + n, branch, org * 1000 + 1 + (i * 37 + n * 101) % 400, 'USD', -1, -6,
    i, sold_on
from made cross join generate_series(1, 3) as n order by i, n;

insert into journal_entry (
    org_id, id, period_id, posted_on, kind, line_count, sale_id, payment_id, created_by, memo
)
overriding system value
select org, i, org * 100 + extract(month from sold_on), sold_on,
    case when i % 30 = 29 then 'MANUAL' else 'SALE' end, 5, case when i % 30 <> 29 then i end, null,
    org * 10 + 2, case when i % 30 = 29 then 'by hand' end
from made order by i;

insert into journal_entry (
    org_id, id, period_id, posted_on, kind, line_count, payment_id, created_by
)
overriding system value
select org, 100000 + i, org * 100 + 1, sold_on, 'PAYMENT', 2, 100000 + i, org * 10 + 2
from made where i % 10 = 0 order by i;

insert into journal_line (
    org_id, entry_id, line_no, line_count, account_id, currency, debit, credit
)
select org, i, line.n, 5,
    org * 100 + case when i % 30 = 29 then 15 + line.n else line.account end, 'USD', line.debit,
    line.credit
from made cross join (
    values (1, 1, 33, 0), (2, 11, 0, 30), (3, 8, 0, 3), (4, 14, 18, 0), (5, 6, 0, 18)
) as line (n, account, debit, credit)
order by i, line.n;

insert into journal_line (
    org_id, entry_id, line_no, line_count, account_id, currency, debit, credit
)
select org, 100000 + i, line.n, 2, org * 100 + line.account, 'USD', line.debit, line.credit
from made cross join (values (1, 1, 5, 0), (2, 5, 0, 5)) as line (n, account, debit, credit)
where i % 10 = 0
order by i, line.n;

-- Snapshots reach all but the last few hundred entries, as on a day in the life of a service.
insert into balance_roll_up (org_id, through_entry_id, safe_entry_id)
select id, 101000, 101000 from org;
insert into account_day (org_id, account_id, posted_on, debit, credit)
select line.org_id, line.account_id, entry.posted_on, sum(line.debit), sum(line.credit)
from journal_entry as entry
inner join journal_line as line on entry.org_id = line.org_id and entry.id = line.entry_id
where entry.id <= 101000
group by line.org_id, line.account_id, entry.posted_on
order by line.org_id, line.account_id, entry.posted_on;

insert into audit_log (org_id, id, created_at, user_id, action, entity_type, entity_id, after)
overriding system value
select org, i, sold_on, org * 10 + 2, 'sales.post_sale', 'sales', i, jsonb_build_object('id', i)
from made order by i;

insert into audit_archive (
    org_id, archive_no, month, first_id, last_id, row_count, lines_sha256, chain, object_key,
    size_bytes, object_sha256
)
select id, n, '2024-01-01', n * 1000 - 999, n * 1000, 1000, sha256('x'), sha256('x'),
    'org/' || id || '/audit/' || md5(n::text), 1000, sha256('x')
from org cross join generate_series(1, 100) as n;

insert into break_glass (org_id, user_id, reason, token_hash, expires_at)
select id, id * 10 + 1, 'a drill, no fire', sha256(n::text::bytea), now() + interval '1 hour'
from org cross join generate_series(1, 60) as n;

insert into operator_action (action, subject, after, who)
select 'flags.change', 'flag_' || n, '{}', 'ada@office' from generate_series(1, 2000) as n;
insert into flag (name, percent)
select 'flag_' || n, case when n % 10 = 0 then 25 end from generate_series(1, 40) as n;

insert into flag_override (org_id, flag, branch_id, user_id, percent)
select org.id, 'flag_' || n, who.branch_id, who.user_id, 100
from org
cross join generate_series(1, 40) as n
cross join lateral (
    select null::bigint as branch_id, null::bigint as user_id
    union all
    select id, null from branch where org_id = org.id
    union all
    select null, id from app_user where org_id = org.id
) as who;
insert into integrity_event (org_id, check_name, severity, broken_count, resolved_at)
select org.id, 'check_' || n, 'ERROR', 1, case when n > 3 then now() end
from org cross join generate_series(1, 60) as n;
insert into business_figure (name, period, currency, value)
select 'figure_' || n, '1h', 'EUR', n from generate_series(1, 20) as n;

insert into notification_inbox (org_id, user_id, last_id) select org_id, id, 1000 from app_user;

insert into notification (org_id, user_id, id, type, title, created_at, read_at)
select org_id, app_user.id, n, 'message', 'New', timestamptz '2025-12-01' + make_interval(mins => n),
    case when n <= 970 then timestamptz '2025-12-02' end
from app_user cross join generate_series(1, 1000) as n;

insert into notification_ticket (org_id, token_hash, session_id, expires_at)
select org_id, sha256(int8send(id)), id, timestamptz '2099-01-01' from user_session
where id % 10 = 0;

insert into idempotency_key (org_id, key_hash, fingerprint, status, body, expires_at)
select org, sha256(i::text::bytea), sha256(i::text::bytea), 201, convert_to(repeat('x', 200), 'utf8'),
    timestamptz '2099-01-01' + make_interval(mins => i)
from made order by i;

-- A file for every fourth sale, and some that the store is to forget.
insert into attachment_usage (org_id) select id from org;
insert into attachment (
    org_id, id, sale_id, object_key, filename, content_type, size_bytes, sha256, created_by
)
overriding system value
select
    org, i, i, 'org/' || org || '/attachments/' || md5(i::text), 'receipt.pdf',
    'application/pdf', 1000, sha256(i::text::bytea), org * 10 + 1
from made where i % 4 = 1 order by i;
insert into storage_tombstone (org_id, object_key, due_at)
select id, 'org/' || id || '/attachments/' || md5(n::text), now() + make_interval(hours => n)
from org cross join generate_series(-20, 40) as n
union all
select 1, 'org/1/attachments/' || repeat('a', 32), now() + interval '1 hour';
insert into signed_url_use (org_id, token_id, expires_at)
select id, substr(sha256(n::text::bytea), 1, 16), now() + make_interval(hours => n)
from org cross join generate_series(-20, 40) as n;
insert into backup (
    id, kind, status, location, file_name, size_bytes, sha256, is_encrypted, row_count, taken_at,
    created_at, ended_at, removed_at, files_removed_at
)
overriding system value
select n, case n % 7 when 0 then 'BASE' else 'FULL' end, 'SUCCESS', '/srv/backups', 'backup ' || n,
    1000, repeat('0', 64), true, 10, at, at, at, case when n > 90 then at end,
    case when n > 95 then at end
from generate_series(1, 100) as n, lateral (
    select timestamptz '2026-01-01' - make_interval(days => n) as at
) as taken;

insert into backup_task (id, kind, status, backup_id, requested_by_org_id, requested_by, ended_at)
overriding system value
select n, 'VERIFY', case n when 1 then 'QUEUED' else 'SUCCESS' end, n, 1, 11,
    case n when 1 then null else now() end
from generate_series(1, 60) as n;

insert into backup_drill (kind, backup_name, release, began_at, rpo_s, rto_s)
select 'DUMP', 'backup ' || n, '1', timestamptz '2026-01-01' - make_interval(days => n), 1, 1
from generate_series(1, 60) as n;

-- Three endpoints; each event went to all of them, but for what died or waits at the first.
insert into webhook_endpoint (org_id, id, slot, url, signature, created_by)
overriding system value
select id, id * 10 + n, n, 'https://example.com/' || n, 'hmac', id * 10 + 1
from org cross join generate_series(1, 3) as n order by id, n;
insert into webhook_secret (org_id, id, endpoint_id, sealed)
overriding system value
select id, id * 10 + n, id * 10 + n, decode(repeat('00', 53), 'hex')
from org cross join generate_series(1, 2) as n order by id, n;
insert into webhook_circuit (org_id, endpoint_id)
select id, id * 10 + n from org cross join generate_series(1, 3) as n order by id, n;
insert into event (org_id, id, message_id, type, aggregate, aggregate_id, subject_id, occurred_at, body)
select org, i, 'msg_' || md5(i::text), 'sale.posted', 'sale', i, i, sold_on, '{}'
from made order by i;
insert into webhook_delivery (
    org_id, id, endpoint_id, event_id, aggregate, aggregate_id, status, attempts, last_attempt_at,
    delivered_at
)
overriding system value
select
    org, i * 10 + n, org * 10 + n, i, 'sale', i,
    case when n > 1 or i % 60 > 1 then 'delivered' when i % 60 = 0 then 'pending' else 'dead' end,
    1, sold_on, case when n > 1 or i % 60 > 1 then sold_on end
from made cross join generate_series(1, 3) as n order by i, n;
insert into webhook_lane (
    org_id, endpoint_id, aggregate, aggregate_id, delivery_id, open_count, is_stopped,
    next_attempt_at
)
select org, org * 10 + 1, 'sale', i, i * 10 + 1, 1, i % 60 = 1, now() - interval '1 minute'
from made where i % 60 < 2 order by i;
insert into outbox_event (org_id, id, type, aggregate, aggregate_id, subject_id)
overriding system value
select org, 50000000 + i, 'sale.posted', 'sale', i, i from made where i % 20 = 0 order by i;

-- A thousand mails, most of them sent, some that wait, some that were given up.
insert into mail (org_id, id, dedupe_key, kind, recipient, subject, body, status, sent_at,
    attempt_count)
overriding system value
select
    1, n, 'low-stock:' || n, 'low_stock', 'm' || n % 50 || '@example.com', 'Low', 'Low.',
    case when n <= 900 then 'sent' when n <= 950 then 'dead' else 'pending' end,
    case when n <= 900 then now() end, case when n <= 900 then 1 when n <= 950 then 5 else 0 end
from generate_series(1, 1000) as n;
insert into mail_block (org_id, address, reason)
select 1, 'no' || n || '@example.com', 'unsubscribed' from generate_series(1, 50) as n;

insert into data_deletion_request (org_id, id, customer_id, reason, requested_by)
overriding system value
select 1, customer.id, customer.id, 'asked by letter', 11
from customer where customer.org_id = 1 order by customer.id limit 12;

-- Used links to the portal with their sessions; one customer has an open link and a session.
insert into portal_link (org_id, id, customer_id, slot, token_hash, issued_at, expires_at, used_at)
overriding system value
select
    customer.org_id, customer.id * 10 + n, customer.id, n, sha256(int8send(customer.id * 10 + n)),
    '2025-12-01 00:00Z', '2025-12-01 00:30Z', '2025-12-01 00:10Z'
from customer cross join generate_series(1, 3) as n;
insert into portal_session (org_id, id, customer_id, link_id, secret_hash, began_at, expires_at)
overriding system value
select org_id, id, customer_id, id, token_hash, used_at, used_at + interval '1 hour'
from portal_link;
insert into portal_link (org_id, id, customer_id, slot, token_hash, expires_at)
overriding system value
values (1, 1, 1296, 1, decode(repeat('00', 32), 'hex'), now() + interval '30 minutes');
-- A fifth of the customers have been at Stripe.
insert into stripe_customer (org_id, customer_id, token, stripe_ref)
select org_id, id, md5(id::text)::uuid, case when id % 10 = 0 then 'cus_' || id end
from customer where id % 5 = 0;

-- A checkout of every tenth sale, most of them ended, and what Stripe told of each.
insert into stripe_checkout (
    org_id, id, token, sale_id, currency, amount, status, session_id, url, created_by, created_at,
    expires_at, ended_at
)
overriding system value
select
    org, i, md5(i::text)::uuid, i, 'USD', 20,
    case when i % 100 = 0 then 'open' else 'expired' end, 'cs_' || i, 'https://example.com/' || i,
    org * 10 + 1, sold_on, sold_on + interval '23 hours', case when i % 100 > 0 then sold_on end
from made where i % 10 = 0 order by i;
insert into stripe_event (
    org_id, event_id, type, payload_sha256, checkout_id, status, payment_ref, currency, amount,
    last_error, received_at, processed_at
)
select
    org, 'evt_' || i, 'checkout.session.completed', sha256('e'), i,
    case when i % 100 = 0 then 'processing' when i % 100 = 10 then 'error' else 'ignored' end,
    'pi_' || i, 'USD', 20, case when i % 100 = 10 then 'payment_within_total' end,
    sold_on, case when i % 100 > 0 then sold_on end
from made where i % 10 = 0 order by i;

-- What is posted from here on gets numbers of its own; organisations are numbered without holes.
do $$
declare
    sequence_name text;
begin
    for sequence_name in
        select relname from pg_class
        where relkind = 'S' and relnamespace = 'public'::regnamespace
    loop
        perform setval(sequence_name, case sequence_name
            when 'organisation_org_id_seq' then 10 else 100000000
        end);
    end loop;
end
$$;
drop table made;
drop table org;
reset session_replication_role;
