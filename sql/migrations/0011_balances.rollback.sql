-- Undo the snapshots of balances.
drop table account_day;
drop table balance_roll_up;
