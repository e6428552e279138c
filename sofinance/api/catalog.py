"""Categories and products."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.fields import Exact, Flag, Id, Money, PageQuery, Quantity, Timestamp
from sofinance.infra.http import Call, Routes, paged

routes = Routes()


class NewCategory(Schema):
    """What a category says of itself."""

    name = fields.Str(required=True, validate=validate.Length(1, 100))
    description = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=1000))
    is_active = Flag(load_default=True)


class Category(Schema):
    """A category."""

    id = Id(required=True)
    name = fields.Str(required=True)
    description = fields.Str(required=True, allow_none=True)
    is_active = fields.Bool(required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class CountedCategory(Category):
    """A category and the number of its products."""

    product_count = fields.Int(required=True)


class Search(PageQuery):
    """Which rows, by a part of their name."""

    search = fields.Str(load_default=None, validate=validate.Length(max=200))


class NewProduct(Schema):
    """A product; cost and price are of one unit, in the organisation's currency."""

    sku = fields.Str(required=True, validate=validate.Length(1, 50))
    barcode = fields.Str(load_default=None, allow_none=True, validate=validate.Length(1, 50))
    name = fields.Str(required=True, validate=validate.Length(1, 200))
    description = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=2000))
    category_id = Id(load_default=None, allow_none=True)
    tax_code_id = Id(load_default=None, allow_none=True)
    cost = Money(required=True, sign="not_negative")
    price = Money(required=True, sign="not_negative")
    is_active = Flag(load_default=True)


class Product(Schema):
    """A product."""

    id = Id(required=True)
    sku = fields.Str(required=True)
    barcode = fields.Str(required=True, allow_none=True)
    name = fields.Str(required=True)
    description = fields.Str(required=True, allow_none=True)
    category_id = Id(required=True, allow_none=True)
    tax_code_id = Id(required=True)
    currency = fields.Str(required=True)
    cost = Money(required=True)
    price = Money(required=True)
    is_active = fields.Bool(required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class StockedProduct(Product):
    """A product with its category, its tax and what all branches have of it."""

    category_name = fields.Str(required=True, allow_none=True)
    tax_code = fields.Str(required=True)
    tax_rate_percent = Exact(required=True)
    stock_quantity = Quantity(required=True)


class ProductQuery(Search):
    """Which products; search looks in name, SKU and barcode."""

    category_id = Id(load_default=None)
    is_active = fields.Bool(load_default=None)


@routes.endpoint(
    "POST", "/categories", permission="categories:write", body=NewCategory(), returns=Category(),
    status=201, location="/categories/{id}", entity="categories",
)  # fmt: skip
async def create_category(call: Call) -> Any:
    """Create a category."""
    return await q.catalog.create_category(call.conn, org_id=call.org_id, **call.body)


@routes.endpoint(
    "GET", "/categories", permission="categories:read", query=Search(),
    returns=paged(CountedCategory()),
)  # fmt: skip
async def list_categories(call: Call) -> Any:
    """List categories by name."""
    search = call.query["search"]
    rows = await q.catalog.list_categories(
        call.conn, org_id=call.org_id, search=search, limit=call.limit, offset=call.offset
    )
    return rows, await q.catalog.count_categories(call.conn, org_id=call.org_id, search=search)


@routes.endpoint("GET", "/categories/{id}", permission="categories:read", returns=CountedCategory())
async def get_category(call: Call) -> Any:
    """Get a category."""
    return await q.catalog.get_category(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "PUT", "/categories/{id}", permission="categories:write", body=NewCategory(),
    returns=Category(), entity="categories", if_match="optional",
)  # fmt: skip
async def change_category(call: Call) -> Any:
    """Replace a category."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.catalog.get_category(call.conn, **key))
    return await q.catalog.change_category(call.conn, **key, **call.body)


@routes.endpoint(
    "DELETE", "/categories/{id}", permission="categories:write", entity="categories",
    if_match="optional",
)  # fmt: skip
async def delete_category(call: Call) -> Any:
    """Delete a category; refused while products belong to it."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.catalog.get_category(call.conn, **key))
    return await q.catalog.delete_category(call.conn, **key)


@routes.endpoint(
    "POST", "/products", permission="products:write", body=NewProduct(), returns=Product(),
    status=201, location="/products/{id}", entity="products",
)  # fmt: skip
async def create_product(call: Call) -> Any:
    """Create a product; its stock comes with goods receipts."""
    return await q.catalog.create_product(call.conn, org_id=call.org_id, **call.body)


@routes.endpoint(
    "GET", "/products", permission="products:read", query=ProductQuery(), returns=paged(Product())
)
async def list_products(call: Call) -> Any:
    """List products by name."""
    wanted = {name: call.query[name] for name in ("search", "category_id", "is_active")}
    rows = await q.catalog.list_products(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset, **wanted
    )
    return rows, await q.catalog.count_products(call.conn, org_id=call.org_id, **wanted)


@routes.endpoint("GET", "/products/{id}", permission="products:read", returns=StockedProduct())
async def get_product(call: Call) -> Any:
    """Get a product with its stock in all branches."""
    return await q.catalog.get_product(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "PUT", "/products/{id}", permission="products:write", body=NewProduct(), returns=Product(),
    entity="products", if_match="optional",
)  # fmt: skip
async def change_product(call: Call) -> Any:
    """Replace a product; sales that are posted keep the price of their day."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.catalog.get_product(call.conn, **key))
    return await q.catalog.change_product(call.conn, **key, **call.body)
