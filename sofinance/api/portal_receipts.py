"""What customers see in their portal: who they are there, their statement, their receipts.

Every answer is selected by the customer whom the database says the session is of.
"""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.errors import not_found
from sofinance.infra.fields import Exact, Id, Money, Quantity, Timestamp
from sofinance.infra.http import Call, Routes, paged
from sofinance.infra.visitors import VISITOR, visiting

routes = Routes()
# Rows of each kind in a statement; `is_complete` says whether that was all.
STATEMENT_COUNT_MAX = 200
LINES_MAX = 500


class Visitor(Schema):
    """The customer whose session it is, and the shop."""

    customer_id = Id(required=True)
    name = fields.Str(required=True)
    email = fields.Str(required=True)
    currency = fields.Str(required=True)
    organisation = fields.Str(required=True)
    session_expires_at = Timestamp(required=True, attribute="expires_at")


class OpenSale(Schema):
    """A sale for which something is owed."""

    id = Id(required=True)
    receipt_number = fields.Str(required=True)
    branch_name = fields.Str(required=True)
    sold_on = fields.Date(required=True)
    currency = fields.Str(required=True)
    total = Money(required=True)
    paid = Money(required=True)
    outstanding = Money(required=True)


class StatementPayment(Schema):
    """A payment; `is_voided` if its sale was taken back, and the money with it."""

    id = Id(required=True)
    sale_id = Id(required=True)
    receipt_number = fields.Str(required=True)
    method = fields.Str(required=True)
    currency = fields.Str(required=True)
    amount = Money(required=True)
    received_on = fields.Date(required=True)
    is_voided = fields.Bool(required=True)


class Statement(Schema):
    """What a customer owes, for what, and what was paid."""

    currency = fields.Str(required=True)
    balance = Money(required=True)
    credit_limit = Money(required=True)
    available_credit = Money(required=True)
    open_sales = fields.List(fields.Nested(OpenSale), required=True)
    payments = fields.List(fields.Nested(StatementPayment), required=True)
    is_complete = fields.Bool(
        required=True,
        metadata={"description": f"False: only {STATEMENT_COUNT_MAX} of each are listed."},
    )


class ListedReceipt(Schema):
    """A purchase in the list."""

    id = Id(required=True)
    receipt_number = fields.Str(required=True)
    branch_name = fields.Str(required=True)
    sold_on = fields.Date(required=True)
    currency = fields.Str(required=True)
    items_count = fields.Int(required=True)
    total = Money(required=True)
    paid_amount = Money(required=True)
    outstanding_amount = Money(required=True)
    status = fields.Str(required=True, validate=validate.OneOf(["COMPLETED", "VOIDED"]))


class ReceiptLine(Schema):
    """A line of a receipt."""

    line_no = fields.Int(required=True)
    product_name = fields.Str(required=True)
    quantity = Quantity(required=True)
    unit_price = Money(required=True)
    discount = Money(required=True)
    sale_discount = Money(required=True)
    tax_rate_percent = Exact(required=True)
    tax = Money(required=True)
    total = Money(required=True)


class ReceiptPayment(Schema):
    """A payment on a receipt."""

    payment_no = fields.Int(required=True)
    method = fields.Str(required=True)
    currency = fields.Str(required=True)
    amount = Money(required=True)
    received_on = fields.Date(required=True)


class CustomerReceipt(ListedReceipt):
    """A purchase as it is on the receipt; nothing of how the shop works."""

    organisation = fields.Str(required=True)
    prices_include_tax = fields.Bool(required=True)
    subtotal = Money(required=True)
    discount = Money(required=True)
    tax = Money(required=True)
    sold_at = Timestamp(required=True)
    items = fields.List(fields.Nested(ReceiptLine), required=True)
    payments = fields.List(fields.Nested(ReceiptPayment), required=True)


@routes.endpoint(
    "GET", "/portal/me", public=True, returns=Visitor(), refuses=(401, 404), credential=VISITOR
)
async def get_visitor(call: Call) -> Any:
    """Get who one is in the portal, and until when."""
    async with visiting(call) as (conn, org_id, visitor):
        org = await q.orgs.get_organisation(conn, org_id=org_id)
        return {**dict(visitor.items()), "organisation": org.name}


@routes.endpoint(
    "GET", "/portal/statement", public=True, returns=Statement(), refuses=(401, 404),
    credential=VISITOR,
)  # fmt: skip
async def get_statement(call: Call) -> Any:
    """Get what one owes, for which purchases, and one's latest payments."""
    async with visiting(call) as (conn, org_id, visitor):
        key = {"org_id": org_id, "customer_id": visitor.customer_id}
        balance = await q.customers.get_balance(conn, org_id=org_id, id=visitor.customer_id)
        sales = await q.portal_receipts.list_open_sales(conn, **key, limit=STATEMENT_COUNT_MAX)
        payments = await q.portal_receipts.list_payments(conn, **key, limit=STATEMENT_COUNT_MAX)
        return {
            **dict(balance.items()),
            "open_sales": [numbered(sale) for sale in sales],
            "payments": [numbered(payment) for payment in payments],
            "is_complete": max(len(sales), len(payments)) < STATEMENT_COUNT_MAX,
        }


@routes.endpoint(
    "GET", "/portal/receipts", public=True, returns=paged(ListedReceipt()), refuses=(401, 404),
    credential=VISITOR,
)  # fmt: skip
async def list_receipts(call: Call) -> Any:
    """List one's own purchases, latest first; voided ones, too."""
    async with visiting(call) as (conn, org_id, visitor):
        which: dict[str, Any] = {
            "org_id": org_id, "customer_id": visitor.customer_id, "branch_id": None,
            "start_date": None, "end_date": None, "payment_type": None, "include_voided": True,
        }  # fmt: skip
        rows = await q.sales.list_sales(conn, limit=call.limit, offset=call.offset, **which)
        return [numbered(row) for row in rows], await q.sales.count_sales(conn, **which)


@routes.endpoint(
    "GET", "/portal/receipts/{id}", public=True, returns=CustomerReceipt(), refuses=(401, 404),
    credential=VISITOR,
)  # fmt: skip
async def get_receipt(call: Call) -> Any:
    """Get a purchase of one's own as it is on its receipt; 404 for anybody else's."""
    async with visiting(call) as (conn, org_id, visitor):
        sale = await q.sales.get_sale(conn, org_id=org_id, id=call.path["id"])
        if sale.customer_id != visitor.customer_id:
            raise not_found()
        of_sale = {"org_id": org_id, "sale_id": sale.id}
        org = await q.orgs.get_organisation(conn, org_id=org_id)
        return {
            **numbered(sale),
            "organisation": org.name,
            "items": await q.sales.list_sale_lines(conn, **of_sale),
            "payments": await q.payments.list_payments(
                conn, **of_sale, after_no=0, limit=LINES_MAX
            ),
        }


def numbered(row: Any) -> dict[str, Any]:
    """Add the receipt number as it is printed."""
    return {**row, "receipt_number": f"{row.till_name}-{row.receipt_no:06}"}
