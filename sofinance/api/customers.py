"""Customers and what they owe."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.fields import Id, LowerEmail, Money, PageQuery, Timestamp
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

TYPES = ["INDIVIDUAL", "COMPANY"]
STATUSES = ["ACTIVE", "INACTIVE", "BLACKLISTED"]


class NewCustomer(Schema):
    """What is known of a customer; without a credit limit the organisation's default holds."""

    name = fields.Str(required=True, validate=validate.Length(1, 200))
    email = LowerEmail(load_default=None, allow_none=True, validate=validate.Length(max=254))
    phone = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=40))
    address = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=500))
    customer_type = fields.Str(load_default="INDIVIDUAL", validate=validate.OneOf(TYPES))
    credit_limit = Money(load_default=None, allow_none=True, sign="not_negative")
    status = fields.Str(load_default="ACTIVE", validate=validate.OneOf(STATUSES))
    notes = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=1000))


class Customer(Schema):
    """A customer."""

    id = Id(required=True)
    name = fields.Str(required=True)
    email = fields.Str(required=True, allow_none=True)
    phone = fields.Str(required=True, allow_none=True)
    address = fields.Str(required=True, allow_none=True)
    customer_type = fields.Str(required=True)
    currency = fields.Str(required=True)
    credit_limit = Money(required=True)
    status = fields.Str(required=True)
    notes = fields.Str(required=True, allow_none=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class CustomerQuery(PageQuery):
    """Which customers; search looks in name, e-mail address and phone number."""

    search = fields.Str(load_default=None, validate=validate.Length(max=200))
    customer_type = fields.Str(load_default=None, validate=validate.OneOf(TYPES))
    status = fields.Str(load_default=None, validate=validate.OneOf(STATUSES))


class Balance(Schema):
    """What a customer owes, and may still owe."""

    customer_id = Id(required=True)
    currency = fields.Str(required=True)
    balance = Money(required=True)
    credit_limit = Money(required=True)
    available_credit = Money(required=True)


class CustomerReceivables(Schema):
    """A customer's receivables, summed up."""

    customer_id = Id(required=True)
    currency = fields.Str(required=True)
    receivables_count = fields.Int(required=True)
    fully_paid_sales = fields.Int(required=True)
    outstanding_total = Money(required=True)
    paid_total = Money(required=True)


@routes.endpoint(
    "POST", "/customers", permission="customers:write", body=NewCustomer(), returns=Customer(),
    status=201, location="/customers/{id}",
)  # fmt: skip
async def create_customer(call: Call) -> Any:
    """Create a customer."""
    return await q.customers.create_customer(call.conn, org_id=call.org_id, **call.body)


@routes.endpoint(
    "GET", "/customers", permission="customers:read", query=CustomerQuery(),
    returns=paged(Customer()),
)  # fmt: skip
async def list_customers(call: Call) -> Any:
    """List customers by name."""
    wanted = {name: call.query[name] for name in ("search", "customer_type", "status")}
    rows = await q.customers.list_customers(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset, **wanted
    )
    return rows, await q.customers.count_customers(call.conn, org_id=call.org_id, **wanted)


@routes.endpoint("GET", "/customers/{id}", permission="customers:read", returns=Customer())
async def get_customer(call: Call) -> Any:
    """Get a customer."""
    return await q.customers.get_customer(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "PUT", "/customers/{id}", permission="customers:write", body=NewCustomer(),
    returns=Customer(), if_match="optional",
)  # fmt: skip
async def change_customer(call: Call) -> Any:
    """Replace what is known of a customer."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.customers.get_customer(call.conn, **key))
    return await q.customers.change_customer(call.conn, **key, **call.body)


@routes.endpoint("GET", "/customers/{id}/balance", permission="customers:read", returns=Balance())
async def get_balance(call: Call) -> Any:
    """Get what a customer owes: the sum of the open receivables."""
    return await q.customers.get_balance(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "GET", "/customers/{id}/ar/summary", permission="customers:read",
    returns=CustomerReceivables(), replica=True,
)  # fmt: skip
async def summarise_receivables(call: Call) -> Any:
    """Sum up a customer's receivables."""
    return await q.customers.summarise_receivables(
        call.conn, org_id=call.org_id, id=call.path["id"]
    )
