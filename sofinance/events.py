"""Every type of event that other systems are told of, and the shape of what they are told.

A new one is a trigger in a migration (it writes the thin row), a query in sql/queries/outbox.sql
that describes it, and an entry here: from it come the documents, the checks and the bodies.
"""

from __future__ import annotations

from dataclasses import dataclass

from marshmallow import Schema, fields

from sofinance.infra.fields import Exact, Id, Money, Quantity, Timestamp


class SaleLine(Schema):
    """A line of a sale; amounts in the sale's currency."""

    line_no = fields.Int(required=True)
    product_id = Id(required=True)
    quantity = Quantity(required=True)
    unit_price = Exact(required=True)
    subtotal = Money(required=True)
    discount = Money(required=True)
    sale_discount = Money(required=True)
    tax_code = fields.Str(required=True)
    tax = Money(required=True)
    total = Money(required=True)


class SalePosted(Schema):
    """A sale as it was posted; its lines are null where they would make it too long: get it."""

    id = Id(required=True)
    branch_id = Id(required=True)
    till_id = Id(required=True)
    receipt_no = fields.Int(required=True)
    client_sale_id = fields.UUID(required=True, allow_none=True)
    customer_id = Id(required=True, allow_none=True)
    cashier_id = Id(required=True)
    currency = fields.Str(required=True)
    prices_include_tax = fields.Bool(required=True)
    line_count = fields.Int(required=True)
    subtotal = Money(required=True)
    discount = Money(required=True)
    tax = Money(required=True)
    total = Money(required=True)
    paid_amount = Money(required=True)
    sold_on = fields.Date(required=True)
    sold_at = Timestamp(required=True)
    entry_id = Id(required=True, allow_none=True)
    lines = fields.List(fields.Nested(SaleLine), required=True, allow_none=True)


class SaleVoided(Schema):
    """A sale that was taken back whole."""

    id = Id(required=True, metadata={"description": "The sale."})
    branch_id = Id(required=True)
    currency = fields.Str(required=True)
    total = Money(required=True)
    reason = fields.Str(required=True)
    voided_on = fields.Date(required=True)
    voided_at = Timestamp(required=True)
    voided_by = Id(required=True)
    entry_id = Id(required=True, allow_none=True)


class PaymentPosted(Schema):
    """A later payment of a sale; what is paid at the till is in the sale."""

    id = Id(required=True)
    sale_id = Id(required=True)
    payment_no = fields.Int(required=True)
    method = fields.Str(required=True)
    account_id = Id(required=True)
    currency = fields.Str(required=True)
    amount = Money(required=True)
    paid_amount = Money(required=True, metadata={"description": "Of the sale, with this one."})
    outstanding_amount = Money(required=True)
    received_on = fields.Date(required=True)
    received_at = Timestamp(required=True)
    received_by = Id(required=True)
    entry_id = Id(required=True, allow_none=True)


class GoodsReceiptPosted(Schema):
    """Goods that came in."""

    id = Id(required=True)
    branch_id = Id(required=True)
    kind = fields.Str(required=True)
    reference = fields.Str(required=True, allow_none=True)
    supplier_name = fields.Str(required=True, allow_none=True)
    currency = fields.Str(required=True)
    line_count = fields.Int(required=True)
    total = Money(required=True)
    received_on = fields.Date(required=True)
    created_at = Timestamp(required=True)
    received_by = Id(required=True)
    entry_id = Id(required=True, allow_none=True)


class JournalEntryPosted(Schema):
    """An entry that no document has: a manual one, or what takes one back."""

    id = Id(required=True)
    kind = fields.Str(required=True, metadata={"enum": ["MANUAL", "REVERSAL"]})
    posted_on = fields.Date(required=True)
    memo = fields.Str(required=True, allow_none=True)
    line_count = fields.Int(required=True)
    reverses_id = Id(required=True, allow_none=True)
    created_at = Timestamp(required=True)
    created_by = Id(required=True)


class Customer(Schema):
    """A customer as it was when the message was written; nothing personal: get it."""

    id = Id(required=True)
    customer_type = fields.Str(required=True)
    status = fields.Str(required=True)
    currency = fields.Str(required=True)
    credit_limit = Money(required=True)
    version = fields.Int(required=True)


class Product(Schema):
    """A product as it was when the message was written."""

    id = Id(required=True)
    sku = fields.Str(required=True)
    barcode = fields.Str(required=True, allow_none=True)
    name = fields.Str(required=True)
    category_id = Id(required=True, allow_none=True)
    tax_code_id = Id(required=True)
    currency = fields.Str(required=True)
    price = Money(required=True)
    is_active = fields.Bool(required=True)
    version = fields.Int(required=True)


class Period(Schema):
    """An accounting period as it was when the message was written."""

    id = Id(required=True)
    starts_on = fields.Date(required=True)
    ends_on = fields.Date(required=True)
    is_closed = fields.Bool(required=True)
    version = fields.Int(required=True)


class Test(Schema):
    """Nothing happened: the endpoint is tried."""

    endpoint_id = Id(required=True)


@dataclass(frozen=True, slots=True)
class EventType:
    """A type of event: what happened, to what kind of thing, and what is told of it."""

    name: str
    aggregate: str
    description: str
    data: Schema


EVENT_TYPES: dict[str, EventType] = {
    kind.name: kind
    for kind in (
        EventType("sale.posted", "sale", "A sale was posted.", SalePosted()),
        EventType("sale.voided", "sale", "A sale was taken back whole.", SaleVoided()),
        EventType("payment.posted", "sale", "A sale was paid later.", PaymentPosted()),
        EventType(
            "goods_receipt.posted", "goods_receipt", "Goods came in.", GoodsReceiptPosted()
        ),
        EventType(
            "journal_entry.posted", "journal_entry", "An entry was posted that no document has.",
            JournalEntryPosted(),
        ),
        EventType("customer.created", "customer", "A customer was created.", Customer()),
        EventType("customer.changed", "customer", "A customer was changed.", Customer()),
        EventType("product.created", "product", "A product was created.", Product()),
        EventType("product.changed", "product", "A product was changed.", Product()),
        EventType("period.closed", "period", "An accounting period was closed.", Period()),
        EventType("period.reopened", "period", "An accounting period was opened again.", Period()),
        EventType("webhook.test", "webhook_endpoint", "An endpoint is tried.", Test()),
    )
}  # fmt: skip
EVENT_NAMES = tuple(EVENT_TYPES)
