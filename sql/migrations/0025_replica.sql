-- A standby can be asked for what it has replayed, so that a report on it misses nothing committed.
-- depends: 0024_search_paths
set local lock_timeout = '4s';
set local role sofinance_owner;

create function demand_replayed(p_position bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- A standby that was promoted would tell the last position of its former life.
    if not pg_is_in_recovery() then
        raise exception using errcode = 'SF421', message = 'this server is no standby';
    end if;
    if coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn < p_position, true) then
        raise exception using errcode = 'SF425', message = 'the standby is not there yet';
    end if;
end
$$;
comment on function demand_replayed(bigint) is
'Goes on only on a standby that has replayed the log up to a position; raises SF425 when it is not
there yet, SF421 on a server that is no standby.';
grant execute on function demand_replayed(bigint) to sofinance_app;
