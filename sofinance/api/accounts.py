"""The chart of accounts."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.fields import CursorQuery, Flag, Id, Money, PageQuery, Timestamp
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

TYPES = ["ASSET", "LIABILITY", "EQUITY", "REVENUE", "EXPENSE"]


class AccountChange(Schema):
    """What of an account may change."""

    code = fields.Str(required=True, validate=validate.Regexp(r"\A[0-9A-Za-z.-]{1,20}\Z"))
    name = fields.Str(required=True, validate=validate.Length(2, 120))


class NewAccount(AccountChange):
    """An account; without a currency it has the organisation's own."""

    type = fields.Str(required=True, validate=validate.OneOf(TYPES))
    currency = fields.Str(
        load_default=None, allow_none=True, validate=validate.Regexp(r"\A[A-Z]{3}\Z")
    )
    branch_id = Id(load_default=None, allow_none=True)
    takes_payments = Flag(load_default=False)


class Account(Schema):
    """An account."""

    id = Id(required=True)
    code = fields.Str(required=True)
    name = fields.Str(required=True)
    type = fields.Str(required=True)
    role = fields.Str(required=True, allow_none=True)
    currency = fields.Str(required=True)
    branch_id = Id(required=True, allow_none=True)
    takes_payments = fields.Bool(required=True)
    active = fields.Bool(required=True, attribute="is_active")
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class BalancedAccount(Account):
    """An account and its balance, debits less credits."""

    balance = Money(required=True)


class AccountQuery(PageQuery):
    """Which accounts; search looks in name and code."""

    search = fields.Str(load_default=None, validate=validate.Length(max=120))
    type = fields.Str(load_default=None, validate=validate.OneOf(TYPES))
    active = fields.Bool(load_default=None)


class AccountLine(Schema):
    """A journal line of the account."""

    entry_id = Id(required=True)
    line_no = fields.Int(required=True)
    posted_on = fields.Date(required=True)
    kind = fields.Str(required=True)
    currency = fields.Str(required=True)
    debit = Money(required=True)
    credit = Money(required=True)
    description = fields.Str(required=True, allow_none=True)
    memo = fields.Str(required=True, allow_none=True)


class AccountLines(Schema):
    """A page of journal lines, latest entry first."""

    items = fields.List(fields.Nested(AccountLine), required=True)
    next_cursor = Id(required=True, allow_none=True)


@routes.endpoint(
    "POST", "/accounts", permission="accounts:write", org_wide=True,
    body=NewAccount(), returns=Account(),
    status=201, location="/accounts/{id}",
)  # fmt: skip
async def create_account(call: Call) -> Any:
    """Create an account."""
    return await q.accounts.create_account(call.conn, org_id=call.org_id, **call.body)


@routes.endpoint(
    "GET",
    "/accounts",
    permission="accounts:read",
    org_wide=True,
    query=AccountQuery(),
    returns=paged(Account()),
)
async def list_accounts(call: Call) -> Any:
    """List the chart of accounts by code."""
    wanted = {
        "search": call.query["search"],
        "type": call.query["type"],
        "is_active": call.query["active"],
    }
    rows = await q.accounts.list_accounts(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset, **wanted
    )
    return rows, await q.accounts.count_accounts(call.conn, org_id=call.org_id, **wanted)


@routes.endpoint(
    "GET", "/accounts/{id}", permission="accounts:read", org_wide=True, returns=BalancedAccount()
)
async def get_account(call: Call) -> Any:
    """Get an account with its balance: debits less credits, of all entries up to now."""
    return await q.accounts.get_account(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "PATCH", "/accounts/{id}", permission="accounts:write", org_wide=True, body=AccountChange(),
    returns=Account(), if_match="optional",
)  # fmt: skip
async def change_account(call: Call) -> Any:
    """Rename or renumber an account."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.accounts.get_account(call.conn, **key))
    return await q.accounts.change_account(call.conn, **key, **call.body)


@routes.endpoint(
    "POST", "/accounts/{id}/close", permission="accounts:write", org_wide=True, returns=Account(),
    if_match="optional",
)  # fmt: skip
async def close_account(call: Call) -> Any:
    """Close an account whose balance is zero; closing a closed one changes nothing."""
    return await q.accounts.close_account(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "GET", "/accounts/{id}/entries", permission="accounts:read", org_wide=True, query=CursorQuery(),
    returns=AccountLines(), report=True, replica=True,
)  # fmt: skip
async def list_account_entries(call: Call) -> Any:
    """List the journal lines of an account, latest entry first."""
    await q.accounts.get_account(call.conn, org_id=call.org_id, id=call.path["id"])
    limit = call.query["limit"]
    rows = await q.accounts.list_account_entries(
        call.conn,
        org_id=call.org_id,
        account_id=call.path["id"],
        before_entry_id=call.query["cursor"],
        limit=limit + 1,
    )
    # A page ends between entries: the lines of one entry never stand on two pages.
    more = len(rows) > limit
    kept = [row for row in rows if row.entry_id != rows[-1].entry_id] if more else rows
    kept = kept or rows[:limit]
    return {"items": kept, "next_cursor": kept[-1].entry_id if more else None}
