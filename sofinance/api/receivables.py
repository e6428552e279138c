"""What customers owe for sales: the sum of it, and its age."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Money
from sofinance.infra.http import Call, Routes

routes = Routes()

BUCKETS_MAX = 10


class Receivables(Schema):
    """What all customers owe."""

    currency = fields.Str(required=True)
    receivables_count = fields.Int(required=True)
    outstanding_total = Money(required=True)
    paid_total = Money(required=True)


class AgeingQuery(Schema):
    """Upper bounds of the buckets, in days, ascending."""

    bucket_days = fields.Str(
        load_default="30,60,90", validate=validate.Regexp(r"\A[0-9]{1,4}(,[0-9]{1,4})*\Z")
    )


class Bucket(Schema):
    """What is owed for sales of an age, in days, both ends included."""

    from_days = fields.Int(required=True)
    to_days = fields.Int(required=True, allow_none=True)
    currency = fields.Str(required=True)
    outstanding = Money(required=True)
    receivables_count = fields.Int(required=True)


class Ageing(Schema):
    """What is owed, by age."""

    as_of_date = fields.Date(required=True)
    currency = fields.Str(required=True)
    buckets = fields.List(fields.Nested(Bucket), required=True)


@routes.endpoint(
    "GET",
    "/sales/ar/summary",
    permission="sales:read",
    org_wide=True,
    returns=Receivables(),
    report=True,
    replica=True,
)
async def summarise_receivables(call: Call) -> Any:
    """Sum up what all customers owe; equals the balance of accounts receivable."""
    sums = await q.receivables.summarise_receivables(call.conn, org_id=call.org_id)
    org = await q.orgs.get_organisation(call.conn, org_id=call.org_id)
    return {**sums, "currency": org.base_currency}


@routes.endpoint(
    "GET", "/sales/ar/aging", permission="sales:read", org_wide=True,
    query=AgeingQuery(), returns=Ageing(),
    report=True, replica=True,
)  # fmt: skip
async def age_receivables(call: Call) -> Any:
    """Sum up what is owed by the age of the sale in days."""
    bounds = [int(days) for days in call.query["bucket_days"].split(",")]
    if len(bounds) > BUCKETS_MAX or sorted(set(bounds)) != bounds:
        raise ApiError(
            "invalid_request", "Some fields are not valid.", status=422,
            fields={"bucket_days": [f"At most {BUCKETS_MAX} ascending numbers."]},
        )  # fmt: skip
    as_of = await q.branches.get_business_date(call.conn, org_id=call.org_id, branch_id=None)
    org = await q.orgs.get_organisation(call.conn, org_id=call.org_id)
    rows = await q.receivables.age_receivables(
        call.conn, org_id=call.org_id, as_of=as_of, bucket_days=bounds
    )
    starts = [0, *(bound + 1 for bound in bounds)]
    return {
        "as_of_date": as_of,
        "currency": org.base_currency,
        "buckets": [
            {**row, "from_days": start, "to_days": end, "currency": org.base_currency}
            for row, start, end in zip(rows, starts, [*bounds, None], strict=True)
        ],
    }
