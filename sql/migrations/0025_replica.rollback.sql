-- Ask no standby any more.
set local role sofinance_owner;
drop function demand_replayed(bigint);
