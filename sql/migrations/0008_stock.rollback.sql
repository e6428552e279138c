-- Undo stock and goods receipts.
alter table journal_entry drop column goods_receipt_id;
drop table stock_movement;
drop table goods_receipt_line;
drop table goods_receipt;
drop table stock;
drop function stock_follows_movements();
drop function issue_cost(numeric, numeric, numeric, char);
drop function goods_receipt_total_matches_lines();
drop function goods_receipt_stock_matches();
drop function goods_receipt_entry_matches();
