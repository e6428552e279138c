-- What a ledger with stored balances has: a row per account, which every entry on it updates. The
-- rows are locked in the order of the accounts, so that there are no deadlocks.
create table stored.balance (
    org_id bigint not null,
    account_id bigint not null,
    amount numeric(20, 4) not null,
    primary key (org_id, account_id)
);

insert into stored.balance (org_id, account_id, amount)
select
    org_id,
    id,
    0
from account;

create function stored.keep_balances() returns trigger
language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    perform from stored.balance
    where (org_id, account_id) in (select org_id, account_id from added)
    order by org_id, account_id
    for no key update;

    update stored.balance set amount = balance.amount + change.amount
    from (
        select org_id, account_id, sum(debit - credit) as amount
        from added group by org_id, account_id
    ) as change
    where balance.org_id = change.org_id and balance.account_id = change.account_id;
    return null;
end
$$;

create trigger keep_balances after insert on stored.journal_line
referencing new table as added
for each statement execute function stored.keep_balances();
