-- Undo row security by branch.
set local role sofinance_owner;
drop policy branch on account;
drop policy branch on sale;
drop policy branch on stock_movement;
drop policy branch on goods_receipt;
drop policy branch on stock;
drop policy branch on till;
drop policy branch on branch;
drop function is_branch_seen(bigint);
