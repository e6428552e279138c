"""Shapes that more than one slice speaks: slices do not import each other, they import these."""

from __future__ import annotations

import zoneinfo

from marshmallow import Schema, ValidationError, fields, validate

from sofinance.infra.fields import Id, Money, Timestamp

METHODS = ["CASH", "CARD", "BANK_TRANSFER", "MOBILE_MONEY", "CHEQUE", "OTHER"]


def known_time_zone(name: str) -> None:
    """Refuse what is not a name of the IANA time zone database."""
    if name not in zoneinfo.available_timezones():
        raise ValidationError("Not an IANA time zone, such as Africa/Nairobi.")


class NewPayment(Schema):
    """Money received; without an account, into the usual one of its method."""

    amount = Money(required=True, sign="positive")
    method = fields.Str(load_default="CASH", validate=validate.OneOf(METHODS))
    account_id = Id(load_default=None, allow_none=True)
    currency = fields.Str(
        load_default=None, allow_none=True, validate=validate.Regexp(r"\A[A-Z]{3}\Z")
    )
    reference = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=100))


class Payment(Schema):
    """A payment of a sale."""

    id = Id(required=True)
    payment_no = fields.Int(required=True)
    method = fields.Str(required=True)
    account_id = Id(required=True)
    currency = fields.Str(required=True)
    amount = Money(required=True)
    paid_after = Money(required=True)
    reference = fields.Str(required=True, allow_none=True)
    received_on = fields.Date(required=True)
    received_at = Timestamp(required=True)
    received_by = Id(required=True)
