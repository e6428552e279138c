-- Undo customers.
drop table customer;
