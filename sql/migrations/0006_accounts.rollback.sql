-- Undo the chart of accounts and the periods.
drop table accounting_period;
drop table account;
