"""The caller's organisation: what it is called and where it keeps time."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from sofinance import queries as q
from sofinance.infra.fields import Id, Money, Timestamp
from sofinance.infra.http import Call, Routes
from sofinance.schemas import known_time_zone

routes = Routes()


class OrganisationChange(Schema):
    """What is to be changed; what is left out stays.

    The currency is not among it: amounts are in it. Nor is whether prices include tax: every price
    in the catalogue would mean something else.
    """

    name = fields.Str(validate=validate.Length(1, 200))
    time_zone = fields.Str(validate=known_time_zone)
    default_credit_limit = Money(sign="not_negative")

    @validates_schema
    def check_change(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse a change of nothing."""
        if not data:
            raise ValidationError("Say what is to be changed.")


class Organisation(Schema):
    """An organisation; its currency is the one that it keeps its books in."""

    id = Id(required=True, attribute="org_id")
    name = fields.Str(required=True)
    currency = fields.Str(required=True)
    time_zone = fields.Str(required=True)
    prices_include_tax = fields.Bool(required=True)
    default_credit_limit = Money(required=True)
    created_at = Timestamp(required=True)


@routes.endpoint("GET", "/organisation", any_user=True, returns=Organisation())
async def get_organisation(call: Call) -> Any:
    """Get the caller's organisation."""
    return await q.orgs.get_organisation(call.conn, org_id=call.org_id)


@routes.endpoint(
    "PATCH", "/organisation", permission="organisation:write", org_wide=True, admin=True,
    body=OrganisationChange(), returns=Organisation(), if_match="optional",
)  # fmt: skip
async def change_organisation(call: Call) -> Any:
    """Change the name, the time zone of new branches or the credit limit of new customers.

    The currency and whether prices include tax are fixed when an organisation is made.
    """
    call.before(await q.orgs.get_organisation(call.conn, org_id=call.org_id))
    wanted = {"name": None, "time_zone": None, "default_credit_limit": None, **call.body}
    return await q.organisation.change_organisation(call.conn, org_id=call.org_id, **wanted)
