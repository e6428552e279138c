-- Forget what is wrong with the books, and the figures of the business.
set local lock_timeout = '4s';
set local role sofinance_owner;

drop function write_business_figures(text[], text[], text[], numeric[]);
drop function count_integrity_events();
drop function acknowledge_integrity_event(bigint, boolean, bigint, text);
drop function list_integrity_events(boolean, boolean, integer);
drop function record_integrity(bigint[], text[], text[], bigint[], text[]);
drop table business_figure;
drop table integrity_event;
