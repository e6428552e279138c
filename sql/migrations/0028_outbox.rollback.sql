-- Tell nobody of anything any more; what was not sent is lost.
set local lock_timeout = '4s';
set local role sofinance_owner;
drop function list_circuits(integer);
drop function read_outbox();
drop function forget_events(integer, integer);
drop function give_up_delivery(bigint);
drop function replay_deliveries(bigint[], bigint, integer);
drop function settle_deliveries(
    bigint[], bigint[], text[], integer[], text[], integer[], boolean[], integer, integer
);
drop function advance_lane(webhook_lane);
drop function claim_deliveries(integer, integer, integer, bigint[]);
drop function send_test_event(bigint, text);
drop function store_events(
    bigint[], text[], text[], bigint[], bigint[], timestamptz[], text[]
);
drop function take_events(integer);
drop function list_outboxes(integer);
drop table webhook_circuit, webhook_lane, webhook_delivery, webhook_secret, webhook_endpoint, event;
drop function webhook_endpoint_has_a_circuit();
drop trigger accounting_period_reopening_is_told on accounting_period;
drop trigger accounting_period_closing_is_told on accounting_period;
drop trigger product_change_is_told on product;
drop trigger product_is_told on product;
drop trigger customer_change_is_told on customer;
drop trigger customer_is_told on customer;
drop trigger journal_entry_is_told on journal_entry;
drop trigger goods_receipt_is_told on goods_receipt;
drop trigger payment_is_told on payment;
drop trigger sale_void_is_told on sale_void;
drop trigger sale_is_told on sale;
drop function write_payment_posted();
drop function write_sale_voided();
drop function write_event();
drop table outbox_event;
delete from permission
where name in ('webhooks:read', 'webhooks:write');
