"""Later payments of a sale, and how far it is paid."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from sofinance import queries as q
from sofinance.infra.fields import CursorQuery, Id, Money, cursor_page
from sofinance.infra.http import Call, Routes
from sofinance.schemas import NewPayment, Payment

routes = Routes()

PAYMENT_NO_MAX = 32_767  # a smallint: nobody pays a sale in more parts


class PaymentQuery(CursorQuery):
    """Which payments of a sale: they are numbered, and few."""

    cursor = Id(load_default=None, high=PAYMENT_NO_MAX)


class PostedPayment(Schema):
    """A payment that has just been posted, and how far the sale is now paid."""

    payment_id = Id(required=True)
    sale_id = Id(required=True)
    payment_no = fields.Int(required=True)
    method = fields.Str(required=True)
    account_id = Id(required=True)
    currency = fields.Str(required=True)
    amount = Money(required=True)
    reference = fields.Str(required=True, allow_none=True)
    received_on = fields.Date(required=True)
    paid_amount = Money(required=True)
    outstanding_amount = Money(required=True)
    payment_type = fields.Str(required=True)
    entry_id = Id(required=True)


class SaleTotals(Schema):
    """What a sale costs, and how far it is paid."""

    sale_total = Money(required=True)
    paid_total = Money(required=True)
    outstanding_total = Money(required=True)


class Payments(Schema):
    """A page of a sale's payments."""

    items = fields.List(fields.Nested(Payment), required=True)
    next_cursor = Id(required=True, allow_none=True)
    currency = fields.Str(required=True)
    sale_totals = fields.Nested(SaleTotals, required=True)


@routes.endpoint(
    "POST", "/sales/{id}/payments", permission="payments:write", body=NewPayment(),
    returns=PostedPayment(), status=201,
)  # fmt: skip
async def post_payment(call: Call) -> Any:
    """Post a later payment: Dr its account, Cr receivable.

    Refused by code: payment_within_total (with what is outstanding), payment_sale_not_void,
    payment_account_known (409).
    """
    payment = await q.payments.post_payment(
        call.conn, org_id=call.org_id, user_id=call.user_id, sale_id=call.path["id"], **call.body
    )
    call.audit(entity_id=payment.payment_id)
    return payment


@routes.endpoint(
    "GET", "/sales/{id}/payments", permission="payments:read", query=PaymentQuery(),
    returns=Payments(), report=True,
)  # fmt: skip
async def list_payments(call: Call) -> Any:
    """List the payments of a sale in their order."""
    sale = await q.sales.get_sale(call.conn, org_id=call.org_id, id=call.path["id"])
    limit = call.query["limit"]
    rows = await q.payments.list_payments(
        call.conn,
        org_id=call.org_id,
        sale_id=sale.id,
        after_no=call.query["cursor"] or 0,
        limit=limit + 1,
    )
    return {
        **cursor_page(rows, limit, "payment_no"),
        "currency": sale.currency,
        "sale_totals": {
            "sale_total": sale.total,
            "paid_total": sale.paid_amount,
            "outstanding_total": sale.outstanding_amount,
        },
    }
