"""The kinds of field that JSON lacks: exact amounts, quantities, moments.

On the way in they check shape; on the way out they write exactly what is stored. An amount is
written in the currency of the object that it is in, or of the object around that.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import orjson
from marshmallow import Schema, ValidationError, fields, validate

from sofinance.infra.times import iso
from sofinance.rules import money

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ID_MAX = 2**63 - 1
ID_DIGITS_MAX = len(str(ID_MAX))
Sign = Literal["any", "not_negative", "positive"]
# What stands before the digits, in the documented pattern: nothing but zeros is not above zero.
SIGNS: dict[Sign, str] = {"any": "", "not_negative": "", "positive": "(?=.*[1-9])"}


class Exact(fields.Field[Decimal]):
    """A decimal number, a string in JSON; never a float.

    ``sign`` is "any", "not_negative" or "positive". A whole number may come as a JSON number.
    """

    whole_digits = 14
    decimals = 6
    example = "0.175"

    def __init__(self, *, sign: Sign = "any", **options: Any) -> None:
        shape = rf"-?[0-9]{{1,{self.whole_digits}}}(\.[0-9]{{1,{self.decimals}}})?"
        documented = {
            "type": "string",
            "format": "decimal",
            "pattern": f"^{SIGNS[sign]}{shape if sign == 'any' else shape[2:]}$",
            "example": self.example,
        }
        metadata = documented | dict(options.pop("metadata", None) or {})
        super().__init__(metadata=metadata, **options)
        self.sign = sign
        self._shape = re.compile(shape)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Decimal:
        if type(value) is int:
            value = str(value)
        elif not isinstance(value, str):
            raise ValidationError(f'Send it as a string, for example "{self.example}".')
        if not self._shape.fullmatch(value):
            raise ValidationError(
                f"Not a plain decimal number of at most {self.whole_digits} digits"
                f" and {self.decimals} decimals."
            )
        # Adding zero makes -0 a 0.
        number = Decimal(value) + 0
        if self.sign != "any" and str(value).startswith("-"):
            raise ValidationError("Must not be negative.")
        if number == 0 and self.sign == "positive":
            raise ValidationError("Must be above zero.")
        return number

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        return None if value is None else plain(value)


class Money(Exact):
    """An amount of money: "25.98".

    It is written with its currency's decimals: that of the attribute ``currency`` of its own
    object, else of the object around it. The database checks that an amount is on the currency's
    smallest unit.
    """

    whole_digits = 16
    decimals = 3
    example = "25.98"

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> str | None:  # noqa: ARG002
        return None if value is None else money.text(value, currency_of(obj))


class Quantity(Exact):
    """How many, of a thing that may be divisible: "1.5"."""

    whole_digits = 11
    decimals = 3
    example = "1.5"


class Id(fields.Integer):
    """The id of a row: a JSON number."""

    def __init__(self, *, high: int = ID_MAX, **options: Any) -> None:
        options["validate"] = validate.Range(1, high)
        super().__init__(strict=True, **options)


class Flag(fields.Boolean):
    """True or false in a body: no 1, no "yes"; a query has `fields.Bool`, which reads text."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if value is True or value is False:
            return bool(value)
        raise ValidationError("Not a valid boolean.")


class Timestamp(fields.Field[datetime]):
    """A moment: ISO 8601 with an offset in, UTC with milliseconds and Z out."""

    def __init__(self, **options: Any) -> None:
        documented = {"type": "string", "format": "date-time"}
        metadata = documented | dict(options.pop("metadata", None) or {})
        super().__init__(metadata=metadata, **options)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise ValidationError("Not an ISO 8601 date and time.") from None
        if moment.tzinfo is None:
            raise ValidationError("Say the offset from UTC, or Z.")
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise ValidationError("Out of range.") from None

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        return None if value is None else iso(value)


class LowerEmail(fields.Email):
    """An e-mail address, in lower case whatever comes in."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> str:
        return str(super()._deserialize(value, attr, data, **options)).lower()


class RawJson(fields.Field[Any]):
    """JSON that PostgreSQL wrote, passed on as it is; for answers only."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return None if value is None else orjson.Fragment(value)


def plain(number: Decimal) -> str:
    """Write a number without trailing zeros and without an exponent: 1.500 is "1.5"."""
    written = format(number, "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


def currency_of(obj: Any) -> str | None:
    """Return the currency that an object names for its amounts, if it names one."""
    try:
        found = obj["currency"] if hasattr(obj, "__getitem__") else obj.currency
    except (KeyError, AttributeError):
        return None
    return None if found is None else str(found)


PAGE_MAX = 100_000
SIZE_MAX = 100
SIZE_DEFAULT = 20


class PageQuery(Schema):
    """Which page of a list; the queries of paged endpoints derive from it."""

    page = fields.Integer(load_default=1, validate=validate.Range(1, PAGE_MAX))
    size = fields.Integer(load_default=SIZE_DEFAULT, validate=validate.Range(1, SIZE_MAX))


def pagination(total: int, query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that a person pages by."""
    page, size = query["page"], query["size"]
    pages = -(-total // size)
    return {
        "total": total,
        "page": page,
        "limit": size,
        "total_pages": pages,
        "has_next": page < pages,
        "has_prev": page > 1,
    }


class CursorQuery(Schema):
    """Which page of a list that programs read through; its lists have no totals."""

    cursor = Id(load_default=None, metadata={"description": "next_cursor of the page before."})
    limit = fields.Integer(load_default=50, validate=validate.Range(1, SIZE_MAX))


def cursor_page(rows: Sequence[Any], limit: int, key: str) -> dict[str, Any]:
    """Return one page of rows that were read with one row more than `limit`."""
    next_cursor = rows[limit - 1][key] if len(rows) > limit else None
    return {"items": rows[:limit], "next_cursor": next_cursor}


class Pagination(Schema):
    """Where in the list a page is."""

    total = fields.Integer(required=True)
    page = fields.Integer(required=True)
    limit = fields.Integer(required=True)
    total_pages = fields.Integer(required=True)
    has_next = fields.Boolean(required=True)
    has_prev = fields.Boolean(required=True)
