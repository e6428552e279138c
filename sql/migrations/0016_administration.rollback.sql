-- Forget broken glasses; let the currency be changed.
set local role sofinance_owner;
drop trigger organisation_currency_is_fixed on organisation;
drop function keep_base_currency();
drop table break_glass;
drop function keep_revoked();
