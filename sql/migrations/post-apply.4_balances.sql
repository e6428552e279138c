-- Roll-up and rebuild of the balance snapshots. Owner's functions: nobody else may write them.
-- In two transactions, so that postings wait for an instant only: mark_roll_up, then
-- roll_up_balances, which reads what the mark made safe while postings go on.
set local role sofinance_owner;

-- They work on the organisation of app.org_id and no other, so they cross nothing. READ COMMITTED
-- only: in a transaction with an older view an entry that committed meanwhile would stay unseen.


create or replace function mark_roll_up() returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
    safe bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using errcode = 'active_sql_transaction',
            message = 'mark_roll_up needs a read committed transaction of its own';
    end if;
    insert into public.balance_roll_up (org_id) values (own_org_id) on conflict do nothing;
    -- First wait for a roll-up that is still running, which holds nobody else up.
    perform from public.balance_roll_up where org_id = own_org_id for update;

    -- Granted when no posting of this organisation is under way: every entry up to the highest
    -- number seen after this line is committed, and later ones get higher numbers.
    perform pg_advisory_xact_lock(7, hashint8(own_org_id));

    update public.balance_roll_up
    set safe_entry_id = greatest(safe_entry_id, coalesce(
        (select max(id) from public.journal_entry where org_id = own_org_id), 0
    ))
    where org_id = own_org_id
    returning safe_entry_id into safe;
    return safe;
end
$$;
comment on function mark_roll_up() is
'Notes the highest entry number below which nothing is under way. Commit at once.';
grant execute on function mark_roll_up() to sofinance_app;

create or replace function roll_up_balances() returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
    mark record;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using errcode = 'active_sql_transaction',
            message = 'roll_up_balances needs a read committed transaction';
    end if;
    select through_entry_id as since, safe_entry_id as safe into mark
    from public.balance_roll_up where org_id = own_org_id for update;
    if not found or mark.safe = mark.since then
        return coalesce(mark.since, 0);
    end if;

    insert into public.account_day as known (org_id, account_id, posted_on, debit, credit)
    select own_org_id, line.account_id, entry.posted_on, sum(line.debit), sum(line.credit)
    from public.journal_entry as entry
    join public.journal_line as line on line.org_id = entry.org_id and line.entry_id = entry.id
    where entry.org_id = own_org_id and entry.id > mark.since and entry.id <= mark.safe
        and line.org_id = own_org_id and line.entry_id > mark.since and line.entry_id <= mark.safe
    group by line.account_id, entry.posted_on
    on conflict (org_id, account_id, posted_on) do update
    set debit = known.debit + excluded.debit, credit = known.credit + excluded.credit;

    update public.balance_roll_up
    set through_entry_id = mark.safe, rolled_up_at = now()
    where org_id = own_org_id;
    return mark.safe;
end
$$;
comment on function roll_up_balances() is
'Adds the entries up to the mark to the daily snapshots; returns the number they now reach.';
grant execute on function roll_up_balances() to sofinance_app;

create or replace function rebuild_balances() returns bigint
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    own_org_id constant bigint := current_setting('app.org_id')::bigint;
begin
    perform from public.balance_roll_up where org_id = own_org_id for update;
    delete from public.account_day where org_id = own_org_id;
    update public.balance_roll_up set through_entry_id = 0 where org_id = own_org_id;
    return public.roll_up_balances();
end
$$;
comment on function rebuild_balances() is
'Throws the snapshots of an organisation away and makes them again from the journal.';
grant execute on function rebuild_balances() to sofinance_app;
