-- Undo the journal.
drop trigger account_closes_at_zero on account;
drop function account_closes_at_zero();
drop table journal_line;
drop table journal_entry;
drop function journal_entry_balances();
drop function journal_entry_accounts_open();
drop function journal_entry_spares_control_accounts();
drop function journal_entry_period_open();
drop function journal_reversal_mirrors();
drop function journal_entry_under_way();
