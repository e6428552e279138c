"""Tax codes."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.fields import Exact, Flag, Id, Timestamp
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

UP_TO_100 = r"^(100(\.0{1,6})?|[0-9]{1,2}(\.[0-9]{1,6})?)$"


class NewTaxCode(Schema):
    """How products are taxed; the rate is in percent."""

    code = fields.Str(required=True, validate=validate.Length(1, 20))
    name = fields.Str(required=True, validate=validate.Length(1, 100))
    rate_percent = Exact(
        required=True, sign="not_negative", validate=validate.Range(max=100),
        metadata={"pattern": UP_TO_100, "minimum": 0, "maximum": 100},
    )  # fmt: skip
    is_active = Flag(load_default=True)


class TaxCode(Schema):
    """A tax code."""

    id = Id(required=True)
    code = fields.Str(required=True)
    name = fields.Str(required=True)
    rate_percent = Exact(required=True)
    is_active = fields.Bool(required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


@routes.endpoint(
    "POST", "/tax-codes", permission="tax:write", body=NewTaxCode(), returns=TaxCode(), status=201,
    location="/tax-codes/{id}",
)  # fmt: skip
async def create_tax_code(call: Call) -> Any:
    """Create a tax code."""
    return await q.tax.create_tax_code(call.conn, org_id=call.org_id, **call.body)


@routes.endpoint("GET", "/tax-codes", permission="tax:read", returns=paged(TaxCode()))
async def list_tax_codes(call: Call) -> Any:
    """List tax codes by code."""
    rows = await q.tax.list_tax_codes(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset
    )
    return rows, await q.tax.count_tax_codes(call.conn, org_id=call.org_id)


@routes.endpoint("GET", "/tax-codes/{id}", permission="tax:read", returns=TaxCode())
async def get_tax_code(call: Call) -> Any:
    """Get a tax code."""
    return await q.tax.get_tax_code(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "PUT", "/tax-codes/{id}", permission="tax:write", body=NewTaxCode(), returns=TaxCode(),
    if_match="optional",
)  # fmt: skip
async def change_tax_code(call: Call) -> Any:
    """Replace a tax code; sales that are posted keep the rate of their day."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.tax.get_tax_code(call.conn, **key))
    return await q.tax.change_tax_code(call.conn, **key, **call.body)
