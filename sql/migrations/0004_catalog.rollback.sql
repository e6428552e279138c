-- Undo the catalogue.
drop table product;
drop table category;
drop table tax_code;
