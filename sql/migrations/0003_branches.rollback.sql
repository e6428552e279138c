-- Undo branches and tills.
drop table till;
drop table branch;
