-- The accounting period of a date. Re-applied after every migration run; reviewed like a query.
set local role sofinance_owner;

create or replace function open_period(p_org_id bigint, p_date date) returns bigint
language plpgsql as $$
declare
    found_id bigint;
begin
    select id into found_id
    from accounting_period
    where org_id = p_org_id and starts_on <= p_date and ends_on >= p_date;
    if found then
        return found_id;
    end if;

    -- A month is opened when it is first posted into, so that no sale fails because nobody opened
    -- one; but never before a closed period, and not more than a year ahead.
    insert into accounting_period (org_id, starts_on, ends_on)
    select p_org_id, month.starts_on, (month.starts_on + interval '1 month - 1 day')::date
    from (select date_trunc('month', p_date)::date as starts_on) as month
    where p_date <= current_date + 366
        and not exists (
            select from accounting_period
            where org_id = p_org_id and is_closed and starts_on > p_date
        )
    on conflict do nothing
    returning id into found_id;

    if found_id is null then
        -- Somebody else opened it meanwhile, or it cannot be opened.
        select id into found_id
        from accounting_period
        where org_id = p_org_id and starts_on <= p_date and ends_on >= p_date;
    end if;
    if found_id is null then
        raise exception using
            errcode = 'foreign_key_violation', constraint = 'journal_entry_period_known',
            table = 'journal_entry', message = 'no period takes this date',
            detail = jsonb_build_object('posted_on', p_date)::text;
    end if;
    return found_id;
end
$$;
comment on function open_period(bigint, date) is
'The period of a date; opens its month if there is none yet, unless a later one is closed.';
grant execute on function open_period(bigint, date) to sofinance_app;
