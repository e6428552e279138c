-- The journal: entries and lines that balance, are final, and belong to one organisation.
-- Immutable by slots: an entry says how many lines it has, each line takes a numbered slot of that
-- many, and at commit every slot is full, so nothing can ever be added.
-- depends: 0006_accounts
set local lock_timeout = '4s';
set local role sofinance_owner;

create table journal_entry (
    org_id bigint not null,
    id bigint generated always as identity,
    period_id bigint not null,
    posted_on date not null,
    kind text not null,
    line_count smallint not null,
    memo text,
    reference_type text,
    reference_id text,
    reverses_id bigint,
    created_by bigint not null,
    created_at timestamptz not null default now(),
    constraint journal_entry_pk primary key (org_id, id),
    constraint journal_entry_slots unique (org_id, id, line_count),
    constraint journal_entry_period_known foreign key (org_id, period_id)
    references accounting_period (org_id, id),
    constraint journal_entry_user_known foreign key (org_id, created_by)
    references app_user (org_id, id),
    constraint journal_entry_reversed_known foreign key (org_id, reverses_id)
    references journal_entry (org_id, id),
    constraint journal_entry_has_two_lines check (line_count >= 2),
    constraint journal_entry_text_not_long check (
        length(memo) <= 500 and length(reference_type) <= 50 and length(reference_id) <= 100
    )
);
comment on table journal_entry is
'A journal entry: balanced, dated in an open period, final. A correction is another entry.';
comment on column journal_entry.org_id is 'The organisation.';
comment on column journal_entry.id is 'The entry.';
comment on column journal_entry.period_id is 'The accounting period that posted_on lies in.';
comment on column journal_entry.posted_on is 'Business date: the date in the books.';
comment on column journal_entry.kind is
'What posted it: MANUAL, REVERSAL, or the document that it is the one entry of.';
comment on column journal_entry.line_count is 'How many lines it has: as many slots, all filled.';
comment on column journal_entry.memo is 'What it is for.';
comment on column journal_entry.reference_type is 'Of a manual entry: the kind of outside paper.';
comment on column journal_entry.reference_id is 'Of a manual entry: the outside paper''s number.';
comment on column journal_entry.reverses_id is 'Of a reversal: the manual entry it takes back.';
comment on column journal_entry.created_by is 'The user who posted it.';
comment on column journal_entry.created_at is 'When it was posted (server time).';
comment on constraint journal_entry_pk on journal_entry is 'This entry exists already.';
comment on constraint journal_entry_slots on journal_entry is
'Lets a line name its entry together with the number of its lines.';
comment on constraint journal_entry_period_known on journal_entry is
'No accounting period can take this date: create one, or choose another date.';
comment on constraint journal_entry_user_known on journal_entry is 'There is no such user.';
comment on constraint journal_entry_reversed_known on journal_entry is
'The entry to reverse does not exist.';
comment on constraint journal_entry_has_two_lines on journal_entry is
'An entry needs at least two lines.';
comment on constraint journal_entry_text_not_long on journal_entry is
'A memo has at most 500 characters, a reference type 50, a reference 100.';

create unique index journal_entry_reversed_once on journal_entry (org_id, reverses_id)
where reverses_id is not null;
comment on index journal_entry_reversed_once is 'This entry has been reversed already.';
create index journal_entry_by_date on journal_entry (org_id, posted_on, id);
comment on index journal_entry_by_date is 'The journal in the order of its dates.';

create table journal_line (
    org_id bigint not null,
    entry_id bigint not null,
    line_no smallint not null,
    line_count smallint not null,
    account_id bigint not null,
    currency char(3) not null,
    debit numeric(20, 4) not null default 0,
    credit numeric(20, 4) not null default 0,
    description text,
    constraint journal_line_pk primary key (org_id, entry_id, line_no),
    constraint journal_line_in_its_slot check (line_no between 1 and line_count),
    constraint journal_line_entry_known foreign key (org_id, entry_id, line_count)
    references journal_entry (org_id, id, line_count),
    constraint journal_line_account_known foreign key (org_id, account_id, currency)
    references account (org_id, id, currency),
    constraint journal_line_one_sided check (
        (debit > 0 and credit = 0) or (credit > 0 and debit = 0)
    ),
    constraint journal_line_in_minor_units check (
        min_scale(debit + credit) <= minor_units(currency)
    ),
    constraint journal_line_amounts_are_numbers check (greatest(debit, credit) < 'NaN'),
    constraint journal_line_description_not_long check (length(description) <= 500)
);
comment on table journal_line is 'One line of an entry: a debit or a credit of one account.';
comment on column journal_line.org_id is 'The organisation.';
comment on column journal_line.entry_id is 'The entry.';
comment on column journal_line.line_no is 'Slot in the entry, from 1.';
comment on column journal_line.line_count is 'The entry''s number of lines.';
comment on column journal_line.account_id is 'The account.';
comment on column journal_line.currency is 'The account''s currency (ISO 4217).';
comment on column journal_line.debit is 'Amount debited, in the line''s currency; else 0.';
comment on column journal_line.credit is 'Amount credited, in the line''s currency; else 0.';
comment on column journal_line.description is 'What the line is for.';
comment on constraint journal_line_pk on journal_line is
'This line of the entry exists already.';
comment on constraint journal_line_in_its_slot on journal_line is
'An entry''s lines are numbered from 1 to its number of lines.';
comment on constraint journal_line_entry_known on journal_line is
'This entry does not exist, or has another number of lines.';
comment on constraint journal_line_account_known on journal_line is
'There is no such account in this currency.';
comment on constraint journal_line_one_sided on journal_line is
'A line has either a debit or a credit, above zero.';
comment on constraint journal_line_in_minor_units on journal_line is
'An amount has no more decimals than its currency.';
comment on constraint journal_line_amounts_are_numbers on journal_line is
'An amount is a number: NaN would be equal to itself and above all limits.';
comment on constraint journal_line_description_not_long on journal_line is
'A description has at most 500 characters.';
create index journal_line_by_account on journal_line (org_id, account_id, entry_id);
comment on index journal_line_by_account is 'The lines of an account.';

-- A deferred rule speaks at COMMIT, when the application could have set another app.org_id (and
-- RETURNING can do so before an immediate one speaks), and
-- FORCE makes row-level security hold for the owner too. So a rule runs as the owner, with a fixed
-- search_path, and looks with the eyes of the row's own organisation; NULL counts as broken.
-- As a rule that organisation is set already, and setting it again would cost as much as looking.
create function journal_entry_balances() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    filled bigint;
    off jsonb;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select sum(currency_lines), jsonb_object_agg(
        currency, jsonb_build_object(
            'debits', debits::text, 'credits', credits::text, 'difference', (debits - credits)::text
        )
    ) filter (where debits is distinct from credits)
    into filled, off
    from (
        select currency, count(*) as currency_lines, sum(debit) as debits, sum(credit) as credits
        from public.journal_line where org_id = new.org_id and entry_id = new.id
        group by currency
    ) as per_currency;

    if filled is distinct from new.line_count or off is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'journal_entry_balances',
            table = 'journal_entry', message = 'entry is not balanced or not complete',
            detail = jsonb_build_object(
                'entry_id', new.id, 'lines', coalesce(filled, 0), 'off', coalesce(off, '{}')
            )::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function journal_entry_balances() is
'At commit: every slot of an entry is filled, and its debits equal its credits per currency.';
create constraint trigger journal_entry_balances after insert on journal_entry
deferrable initially deferred for each row execute function journal_entry_balances();
comment on constraint journal_entry_balances on journal_entry is
'The debits and credits of an entry must be equal in each currency.';

-- Closing an account or a period changes a key column, which waits for the key-share locks that
-- foreign keys took: so a posting that saw it open commits before it closes.
create function journal_entry_accounts_open() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    closed jsonb;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select jsonb_agg(distinct line.account_id) into closed
    from public.journal_line as line
    join public.account as acc on acc.org_id = line.org_id and acc.id = line.account_id
    where line.org_id = new.org_id and line.entry_id = new.id and not acc.is_active;

    if closed is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'journal_entry_accounts_open',
            table = 'journal_entry', message = 'an account is inactive',
            detail = jsonb_build_object('account_ids', closed)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function journal_entry_accounts_open() is
'At commit: no line of the entry is on a closed account.';
create constraint trigger journal_entry_accounts_open after insert on journal_entry
deferrable initially deferred for each row execute function journal_entry_accounts_open();
comment on constraint journal_entry_accounts_open on journal_entry is
'An account of this entry is inactive: nothing can be posted to it.';

-- Customers' debts and the value of stock are kept row by row; their accounts stay equal to them
-- only if nothing but the documents that change those rows is posted there.
create function journal_entry_spares_control_accounts() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    touched jsonb;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select jsonb_agg(distinct acc.role) into touched
    from public.journal_line as line
    join public.account as acc on acc.org_id = line.org_id and acc.id = line.account_id
    where line.org_id = new.org_id and line.entry_id = new.id
        and acc.role in ('receivable', 'inventory');

    if touched is not null then
        raise exception using
            errcode = 'check_violation', constraint = 'journal_entry_spares_control_accounts',
            table = 'journal_entry', message = 'only documents are posted to control accounts',
            detail = jsonb_build_object('roles', touched)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function journal_entry_spares_control_accounts() is
'At commit: a manual entry or its reversal leaves receivables and inventory alone.';
create constraint trigger journal_entry_spares_control_accounts after insert on journal_entry
deferrable initially deferred for each row when (new.kind in ('MANUAL', 'REVERSAL'))
execute function journal_entry_spares_control_accounts();
comment on constraint journal_entry_spares_control_accounts on journal_entry is
'Receivables and inventory are posted by their documents only: what customers owe and what stock is worth must stay equal to these accounts.';

create function journal_entry_period_open() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    if not exists (
        select from public.accounting_period
        where org_id = new.org_id and id = new.period_id and not is_closed
            and new.posted_on between starts_on and ends_on
    ) then
        raise exception using
            errcode = 'check_violation', constraint = 'journal_entry_period_open',
            table = 'journal_entry', message = 'the period is closed or is not that of the date',
            detail = jsonb_build_object('posted_on', new.posted_on)::text;
    end if;
    return null;
end
$$;
comment on function journal_entry_period_open() is
'An entry is dated inside its period, and the period is open.';
create constraint trigger journal_entry_period_open after insert on journal_entry
for each row execute function journal_entry_period_open();
comment on constraint journal_entry_period_open on journal_entry is
'The accounting period of this date is closed.';

create function journal_reversal_mirrors() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    differs boolean;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select count(*) > 0 or (
        select kind from public.journal_entry where org_id = new.org_id and id = new.reverses_id
    ) is distinct from 'MANUAL' into differs
    from (
        select line_no, account_id, currency, debit, credit
        from public.journal_line where org_id = new.org_id and entry_id = new.id
    ) as mine
    full join (
        select line_no, account_id, currency, credit as debit, debit as credit
        from public.journal_line where org_id = new.org_id and entry_id = new.reverses_id
    ) as mirrored using (line_no, account_id, currency, debit, credit)
    where mine.line_no is null or mirrored.line_no is null;

    if differs then
        raise exception using
            errcode = 'check_violation', constraint = 'journal_reversal_mirrors',
            table = 'journal_entry', message = 'a reversal mirrors a manual entry line by line';
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function journal_reversal_mirrors() is
'At commit: a reversal has the lines of the manual entry it takes back, with the sides swapped.';
create constraint trigger journal_reversal_mirrors after insert on journal_entry
deferrable initially deferred for each row when (new.reverses_id is not null)
execute function journal_reversal_mirrors();
comment on constraint journal_reversal_mirrors on journal_entry is
'Only a manual entry can be reversed, by exactly its lines with debit and credit exchanged; a document''s entry is taken back by voiding the document.';

-- Snapshots of balances need to know that no entry with a lower number is still under way: every
-- posting holds this lock in share mode, the roll-up takes it exclusively for an instant. The
-- trigger is per statement and before, so the lock is held before a number is drawn.
create function journal_entry_under_way() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    -- With the view of its own beginning, a rule at commit would overlook what others committed
    -- meanwhile: a void, another sale on credit.
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception using
            errcode = 'active_sql_transaction', constraint = 'journal_entry_under_way',
            table = 'journal_entry', message = 'a posting needs a read committed transaction';
    end if;
    perform pg_advisory_xact_lock_shared(7, hashint8(current_setting('app.org_id')::bigint));
    return null;
end
$$;
comment on function journal_entry_under_way() is
'Holds advisory lock (7, organisation) in share mode until the posting, read committed, commits.';
create trigger journal_entry_under_way before insert on journal_entry
for each statement execute function journal_entry_under_way();
comment on trigger journal_entry_under_way on journal_entry is
'A posting runs at the isolation level read committed; the roll-up of balances waits for it.';

create trigger journal_entry_is_final before update or delete or truncate on journal_entry
for each statement execute function is_final();
comment on trigger journal_entry_is_final on journal_entry is
'A journal entry is final: correct it with another entry.';
create trigger journal_line_is_final before update or delete or truncate on journal_line
for each statement execute function is_final();
comment on trigger journal_line_is_final on journal_line is
'A journal line is final: correct it with another entry.';

create function account_closes_at_zero() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    caller constant text := current_setting('app.org_id', true);
    balance numeric;
begin
    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', new.org_id::text, true);
    end if;

    select coalesce(sum(debit - credit), 0) into balance
    from public.journal_line where org_id = new.org_id and account_id = new.id;

    -- A transaction with an older view would overlook what was posted meanwhile.
    if balance <> 0 or new.role is not null
        or current_setting('transaction_isolation') not in ('read committed', 'read uncommitted')
    then
        raise exception using
            errcode = 'check_violation', constraint = 'account_closes_at_zero',
            table = 'account', message = 'the account has a balance or a role',
            detail = jsonb_build_object('balance', balance::text, 'role', new.role)::text;
    end if;

    if caller is distinct from new.org_id::text then
        perform set_config('app.org_id', caller, true);
    end if;
    return null;
end
$$;
comment on function account_closes_at_zero() is
'An account is closed only with a zero balance, and never while postings need it by its role.';
create constraint trigger account_closes_at_zero after update of is_active on account
for each row when (old.is_active and not new.is_active)
execute function account_closes_at_zero();
comment on constraint account_closes_at_zero on account is
'An account can be closed when its balance is zero and no posting needs it by its role.';

alter table journal_entry enable row level security;
alter table journal_entry force row level security;
create policy org on journal_entry using (org_id = current_setting('app.org_id')::bigint);
grant select on journal_entry to sofinance_app;
grant insert (
    org_id, period_id, posted_on, kind, line_count, memo, reference_type, reference_id,
    reverses_id, created_by
) on journal_entry to sofinance_app;

alter table journal_line enable row level security;
alter table journal_line force row level security;
create policy org on journal_line using (org_id = current_setting('app.org_id')::bigint);
grant select, insert on journal_line to sofinance_app;
