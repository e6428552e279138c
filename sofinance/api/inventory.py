"""Stock, its movements, and goods receipts."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.fields import (
    CursorQuery,
    Exact,
    Id,
    Money,
    PageQuery,
    Quantity,
    Timestamp,
    cursor_page,
)
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

RECEIPT_LINES_MAX = 500
RECEIPT_KINDS = ("PURCHASE", "OPENING")


class NewReceiptLine(Schema):
    """Goods of one product; unit_cost may have up to four decimals."""

    product_id = Id(required=True)
    quantity = Quantity(required=True, sign="positive")
    unit_cost = Exact(required=True, sign="not_negative")


class NewGoodsReceipt(Schema):
    """Goods that came in: PURCHASE credits payables, OPENING credits opening balance equity."""

    branch_id = Id(required=True)
    kind = fields.Str(load_default="PURCHASE", validate=validate.OneOf(RECEIPT_KINDS))
    reference = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=100))
    supplier_name = fields.Str(
        load_default=None, allow_none=True, validate=validate.Length(max=200)
    )
    received_on = fields.Date(load_default=None, allow_none=True)
    lines = fields.List(
        fields.Nested(NewReceiptLine),
        required=True,
        validate=validate.Length(1, RECEIPT_LINES_MAX),
    )


class GoodsReceipt(Schema):
    """A goods receipt that is posted."""

    id = Id(required=True)
    branch_id = Id(required=True)
    kind = fields.Str(required=True)
    reference = fields.Str(required=True, allow_none=True)
    supplier_name = fields.Str(required=True, allow_none=True)
    currency = fields.Str(required=True)
    total = Money(required=True)
    line_count = fields.Int(required=True)
    received_on = fields.Date(required=True)
    entry_id = Id(required=True, allow_none=True)


class ReceiptLine(Schema):
    """A line of a goods receipt."""

    line_no = fields.Int(required=True)
    product_id = Id(required=True)
    quantity = Quantity(required=True)
    unit_cost = Exact(required=True)
    value = Money(required=True)


class WholeGoodsReceipt(GoodsReceipt):
    """A goods receipt with its lines."""

    lines = fields.List(fields.Nested(ReceiptLine), required=True)


class StockQuery(PageQuery):
    """Which stock."""

    branch_id = Id(load_default=None)
    product_id = Id(load_default=None)
    category_id = Id(load_default=None)
    low_stock_only = fields.Bool(load_default=False)


class StockLevel(Schema):
    """What a branch has of a product; value is what it cost."""

    branch_id = Id(required=True)
    product_id = Id(required=True)
    product_sku = fields.Str(required=True)
    product_name = fields.Str(required=True)
    currency = fields.Str(required=True)
    quantity = Quantity(required=True)
    value = Money(required=True)
    unit_price = Money(required=True)
    reorder_level = Quantity(required=True)
    stock_status = fields.Str(required=True)
    updated_at = Timestamp(required=True)


class ReceiptQuery(CursorQuery):
    """The goods receipts of which branch and kind."""

    branch_id = Id(load_default=None)
    kind = fields.Str(load_default=None, validate=validate.OneOf(RECEIPT_KINDS))


class GoodsReceipts(Schema):
    """A page of goods receipts, latest first."""

    items = fields.List(fields.Nested(GoodsReceipt), required=True)
    next_cursor = Id(required=True, allow_none=True)


class MovementQuery(CursorQuery):
    """The movements of which product in which branch."""

    branch_id = Id(required=True)
    product_id = Id(required=True)


class Movement(Schema):
    """One document's effect on the stock of a product."""

    id = Id(required=True)
    branch_id = Id(required=True)
    product_id = Id(required=True)
    currency = fields.Str(required=True)
    quantity = Quantity(required=True)
    value = Money(required=True)
    goods_receipt_id = Id(required=True, allow_none=True)
    sale_id = Id(required=True, allow_none=True)
    void_sale_id = Id(required=True, allow_none=True)
    created_at = Timestamp(required=True)


class Movements(Schema):
    """A page of movements, latest first."""

    items = fields.List(fields.Nested(Movement), required=True)
    next_cursor = Id(required=True, allow_none=True)


@routes.endpoint(
    "POST", "/inventory/receipts", permission="inventory:write", body=NewGoodsReceipt(),
    returns=GoodsReceipt(), status=201, location="/inventory/receipts/{id}",
    entity="goods_receipts",
)  # fmt: skip
async def receive_goods(call: Call) -> Any:
    """Post a goods receipt: stock at cost, and its journal entry."""
    lines = call.body["lines"]
    return await q.inventory.receive_goods(
        call.conn,
        org_id=call.org_id,
        user_id=call.user_id,
        branch_id=call.body["branch_id"],
        kind=call.body["kind"],
        reference=call.body["reference"],
        supplier_name=call.body["supplier_name"],
        received_on=call.body["received_on"],
        product_ids=[line["product_id"] for line in lines],
        quantities=[line["quantity"] for line in lines],
        unit_costs=[line["unit_cost"] for line in lines],
    )


@routes.endpoint(
    "GET", "/inventory/receipts", permission="inventory:read", query=ReceiptQuery(),
    returns=GoodsReceipts(), replica=True,
)  # fmt: skip
async def list_goods_receipts(call: Call) -> Any:
    """List goods receipts, latest first."""
    limit = call.query["limit"]
    rows = await q.inventory.list_goods_receipts(
        call.conn,
        org_id=call.org_id,
        branch_id=call.query["branch_id"],
        kind=call.query["kind"],
        before_id=call.query["cursor"],
        limit=limit + 1,
    )
    return cursor_page(rows, limit, "id")


@routes.endpoint(
    "GET", "/inventory/receipts/{id}", permission="inventory:read", returns=WholeGoodsReceipt(),
    report=True,
)  # fmt: skip
async def get_goods_receipt(call: Call) -> Any:
    """Get a goods receipt with its lines."""
    receipt = await q.inventory.get_goods_receipt(call.conn, org_id=call.org_id, id=call.path["id"])
    lines = await q.inventory.list_goods_receipt_lines(
        call.conn, org_id=call.org_id, receipt_id=receipt.id
    )
    return {**receipt, "lines": lines}


@routes.endpoint(
    "GET", "/inventory/stock-levels", permission="inventory:read", query=StockQuery(),
    returns=paged(StockLevel()), replica=True,
)  # fmt: skip
async def list_stock_levels(call: Call) -> Any:
    """List what each branch has of each product."""
    names = ("branch_id", "product_id", "category_id", "low_stock_only")
    wanted = {name: call.query[name] for name in names}
    rows = await q.inventory.list_stock_levels(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset, **wanted
    )
    return rows, await q.inventory.count_stock_levels(call.conn, org_id=call.org_id, **wanted)


@routes.endpoint(
    "GET", "/inventory/movements", permission="inventory:read", query=MovementQuery(),
    returns=Movements(), replica=True,
)  # fmt: skip
async def list_movements(call: Call) -> Any:
    """List the movements of a product in a branch, latest first."""
    limit = call.query["limit"]
    rows = await q.inventory.list_movements(
        call.conn,
        org_id=call.org_id,
        branch_id=call.query["branch_id"],
        product_id=call.query["product_id"],
        before_id=call.query["cursor"],
        limit=limit + 1,
    )
    return cursor_page(rows, limit, "id")
