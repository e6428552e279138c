"""The journal: manual entries, reversals, and the trial balance."""

from __future__ import annotations

from decimal import Decimal
from itertools import groupby
from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Id, Money, PageQuery, Timestamp
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

LINES_MAX = 500
KINDS = ["MANUAL", "REVERSAL", "SALE", "PAYMENT", "VOID", "GOODS_RECEIPT"]


class NewLine(Schema):
    """A debit or a credit, in the currency of the account."""

    account_id = Id(required=True)
    debit = Money(load_default=Decimal(0), sign="not_negative")
    credit = Money(load_default=Decimal(0), sign="not_negative")
    description = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=500))


class NewEntry(Schema):
    """A manual entry; without a date it is dated today."""

    date = fields.Date(load_default=None, allow_none=True)
    memo = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=500))
    reference_type = fields.Str(
        load_default=None, allow_none=True, validate=validate.Length(max=50)
    )
    reference_id = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=100))
    lines = fields.List(
        fields.Nested(NewLine), required=True, validate=validate.Length(2, LINES_MAX)
    )


class Reversal(Schema):
    """When an entry is taken back, and why; without a date, today."""

    date = fields.Date(load_default=None, allow_none=True)
    memo = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=500))


class Line(Schema):
    """A line of an entry."""

    line_no = fields.Int(required=True)
    account_id = Id(required=True)
    account_code = fields.Str(required=True)
    account_name = fields.Str(required=True)
    currency = fields.Str(required=True)
    debit = Money(required=True)
    credit = Money(required=True)
    description = fields.Str(required=True, allow_none=True)


class PostedEntry(Schema):
    """An entry that has just been posted."""

    id = Id(required=True)
    period_id = Id(required=True)
    date = fields.Date(required=True, attribute="posted_on")
    kind = fields.Str(required=True)
    memo = fields.Str(required=True, allow_none=True)
    reference_type = fields.Str(required=True, allow_none=True)
    reference_id = fields.Str(required=True, allow_none=True)
    line_count = fields.Int(required=True)
    reverses_id = Id(required=True, allow_none=True)
    created_by = Id(required=True)
    created_at = Timestamp(required=True)


class Entry(PostedEntry):
    """An entry and the document that it is the entry of."""

    sale_id = Id(required=True, allow_none=True)
    payment_id = Id(required=True, allow_none=True)
    void_sale_id = Id(required=True, allow_none=True)
    goods_receipt_id = Id(required=True, allow_none=True)


class WholeEntry(Entry):
    """An entry with its lines."""

    lines = fields.List(fields.Nested(Line), required=True)


class EntryQuery(PageQuery):
    """Which entries, by date and by what posted them."""

    start_date = fields.Date(load_default=None)
    end_date = fields.Date(load_default=None)
    entry_type = fields.Str(load_default=None, validate=validate.OneOf(KINDS))


class TrialBalanceQuery(Schema):
    """At the end of which date; without one, today."""

    as_of_date = fields.Date(load_default=None)


class TrialBalanceLine(Schema):
    """An account and its balance, on the side that it is on."""

    account_id = Id(required=True)
    account_code = fields.Str(required=True)
    account_name = fields.Str(required=True)
    account_type = fields.Str(required=True)
    currency = fields.Str(required=True)
    debit_balance = Money(required=True)
    credit_balance = Money(required=True)


class CurrencyTotal(Schema):
    """What all accounts of one currency add up to."""

    currency = fields.Str(required=True)
    total_debits = Money(required=True)
    total_credits = Money(required=True)
    is_balanced = fields.Bool(required=True)


class TrialBalance(Schema):
    """Every account's balance; totals are in the organisation's currency, and in each."""

    as_of_date = fields.Date(required=True)
    currency = fields.Str(required=True)
    lines = fields.List(fields.Nested(TrialBalanceLine), required=True)
    totals = fields.List(fields.Nested(CurrencyTotal), required=True)
    total_debits = Money(required=True)
    total_credits = Money(required=True)
    is_balanced = fields.Bool(required=True)


async def today(call: Call) -> Any:
    """Return the business date where the organisation is."""
    return await q.branches.get_business_date(call.conn, org_id=call.org_id, branch_id=None)


@routes.endpoint(
    "POST", "/journal/entries", permission="journal:write", org_wide=True, body=NewEntry(),
    returns=PostedEntry(), status=201, location="/journal/entries/{id}",
)  # fmt: skip
async def post_entry(call: Call) -> Any:
    """Post a manual entry; the database refuses one that does not balance."""
    lines = call.body["lines"]
    return await q.journal.post_entry(
        call.conn,
        org_id=call.org_id,
        user_id=call.user_id,
        posted_on=call.body["date"] or await today(call),
        memo=call.body["memo"],
        reference_type=call.body["reference_type"],
        reference_id=call.body["reference_id"],
        account_ids=[line["account_id"] for line in lines],
        debits=[line["debit"] for line in lines],
        credits=[line["credit"] for line in lines],
        descriptions=[line["description"] for line in lines],
    )


@routes.endpoint(
    "GET", "/journal/entries", permission="journal:read", org_wide=True, query=EntryQuery(),
    returns=paged(Entry()), replica=True,
)  # fmt: skip
async def list_entries(call: Call) -> Any:
    """List entries, latest date first."""
    wanted = {
        "start_date": call.query["start_date"],
        "end_date": call.query["end_date"],
        "kind": call.query["entry_type"],
    }
    rows = await q.journal.list_entries(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset, **wanted
    )
    return rows, await q.journal.count_entries(call.conn, org_id=call.org_id, **wanted)


@routes.endpoint(
    "GET",
    "/journal/entries/{id}",
    permission="journal:read",
    org_wide=True,
    returns=WholeEntry(),
    report=True,
)
async def get_entry(call: Call) -> Any:
    """Get an entry with its lines."""
    entry = await q.journal.get_entry(call.conn, org_id=call.org_id, id=call.path["id"])
    lines = await q.journal.list_entry_lines(call.conn, org_id=call.org_id, entry_id=entry.id)
    return {**entry, "lines": lines}


@routes.endpoint(
    "POST", "/journal/entries/{id}/reverse", permission="journal:write", org_wide=True,
    body=Reversal(),
    returns=PostedEntry(), status=201, location="/journal/entries/{id}",
)  # fmt: skip
async def reverse_entry(call: Call) -> Any:
    """Take a manual entry back by posting it with debit and credit exchanged."""
    return await q.journal.reverse_entry(
        call.conn,
        org_id=call.org_id,
        user_id=call.user_id,
        id=call.path["id"],
        posted_on=call.body["date"] or await today(call),
        memo=call.body["memo"],
    )


@routes.endpoint(
    "PUT", "/journal/entries/{id}", permission="journal:write", org_wide=True, returns=Entry()
)
async def change_entry(call: Call) -> Any:
    """Refuse to change an entry: it is final, a correction is another entry."""
    await q.journal.get_entry(call.conn, org_id=call.org_id, id=call.path["id"])
    raise entry_is_final()


@routes.endpoint("DELETE", "/journal/entries/{id}", permission="journal:write", org_wide=True)
async def delete_entry(call: Call) -> Any:
    """Refuse to delete an entry: it is final, a correction is another entry."""
    await q.journal.get_entry(call.conn, org_id=call.org_id, id=call.path["id"])
    raise entry_is_final()


def entry_is_final() -> ApiError:
    """Say how an entry is corrected."""
    return ApiError(
        "journal_entry_is_final",
        "A journal entry is final: reverse a manual entry, void a document.",
        status=409,
    )


@routes.endpoint(
    "GET", "/journal/trial-balance", permission="journal:read", org_wide=True,
    query=TrialBalanceQuery(),
    returns=TrialBalance(), report=True, replica=True, limit="report",
)  # fmt: skip
async def get_trial_balance(call: Call) -> Any:
    """Get every account's balance at the end of a date."""
    org = await q.orgs.get_organisation(call.conn, org_id=call.org_id)
    as_of = call.query["as_of_date"] or await today(call)
    lines = await q.journal.trial_balance(call.conn, org_id=call.org_id, as_of=as_of)
    totals = {
        currency: total(currency, list(group))
        for currency, group in groupby(
            sorted(lines, key=lambda line: str(line.currency)), key=lambda line: str(line.currency)
        )
    }
    return {
        "as_of_date": as_of,
        "lines": lines,
        "totals": list(totals.values()),
        **totals[org.currency],
        "is_balanced": all(each["is_balanced"] for each in totals.values()),
    }


def total(currency: str, lines: list[Any]) -> dict[str, Any]:
    """Add up the balances of one currency's accounts."""
    debits = sum((line.debit_balance for line in lines), Decimal(0))
    credits_ = sum((line.credit_balance for line in lines), Decimal(0))
    return {
        "currency": currency,
        "total_debits": debits,
        "total_credits": credits_,
        "is_balanced": debits == credits_,
    }
