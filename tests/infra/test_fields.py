"""What comes in as money, a quantity, an id or a moment, and what does not."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from marshmallow import Schema, ValidationError, fields

from sofinance.infra.fields import (
    Exact,
    Flag,
    Id,
    LowerEmail,
    Money,
    Quantity,
    Timestamp,
    pagination,
)


def load(field: fields.Field[Any], value: Any) -> Any:
    return Schema.from_dict({"x": field})().load({"x": value})["x"]


def complaint(field: fields.Field[Any], value: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        load(field, value)
    messages = caught.value.normalized_messages()["x"]
    assert isinstance(messages, list)
    return str(messages[0])


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        ("25.98", "25.98"),
        ("0", "0"),
        ("-0", "0"),
        ("-0.00", "0.00"),
        ("-3.5", "-3.5"),
        ("007.10", "7.10"),
        ("1234567890123456.789", "1234567890123456.789"),
        (5, "5"),
        (-5, "-5"),
    ],
)
def test_money_comes_as_a_string_or_a_whole_number(value: Any, amount: str) -> None:
    loaded = load(Money(), value)
    assert str(loaded) == amount
    assert isinstance(loaded, Decimal)


@pytest.mark.parametrize("value", [25.98, 1.0, True, [], {}, ["1"]])
def test_money_is_no_float_nor_anything_else(value: Any) -> None:
    assert complaint(Money(), value) == 'Send it as a string, for example "25.98".'


@pytest.mark.parametrize(
    "value",
    ["", " 1", "1 ", "+1", "1.", ".5", "1e3", "NaN", "Infinity", "1,000", "1_000", "0x10", "--1",
     "12345678901234567", "1.2345", "٣", "1\n"],
)  # fmt: skip
def test_money_is_a_plain_decimal_of_bounded_length(value: str) -> None:
    assert complaint(Money(), value).startswith("Not a plain decimal number")


def test_signs_are_as_asked() -> None:
    assert load(Quantity(sign="positive"), "0.001") == Decimal("0.001")
    assert complaint(Quantity(sign="positive"), "0.000") == "Must be above zero."
    assert complaint(Quantity(sign="positive"), "-1") == "Must not be negative."
    assert load(Money(sign="not_negative"), "0") == 0
    assert complaint(Money(sign="not_negative"), "-0.01") == "Must not be negative."
    assert load(Exact(), "-0.000001") == Decimal("-0.000001")


def test_an_id_is_a_whole_number_that_a_row_can_have() -> None:
    assert load(Id(), 2**63 - 1) == 2**63 - 1
    for value in (0, -1, 2**63, 1.0, 1.5, "1", True, None):
        assert complaint(Id(), value)


def test_a_moment_has_an_offset() -> None:
    expected = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
    for text in ("2026-01-15T10:30:00Z", "2026-01-15T12:30:00+02:00", "2026-01-15 10:30Z"):
        assert load(Timestamp(), text) == expected
    assert complaint(Timestamp(), "2026-01-15T10:30:00") == "Say the offset from UTC, or Z."
    assert complaint(Timestamp(), "0001-01-01T00:00:00+02:00") == "Out of range."
    for value in ("yesterday", "", 1_700_000_000, True):
        assert complaint(Timestamp(), value) == "Not an ISO 8601 date and time."


def test_an_address_is_in_lower_case() -> None:
    assert load(LowerEmail(), "Ada@Example.COM") == "ada@example.com"
    assert complaint(LowerEmail(), "ada")


@pytest.mark.parametrize(
    ("total", "page", "size", "pages", "has_next", "has_prev"),
    [
        (0, 1, 20, 0, False, False),
        (20, 1, 20, 1, False, False),
        (21, 1, 20, 2, True, False),
        (21, 2, 20, 2, False, True),
        (21, 9, 20, 2, False, True),
    ],
)
def test_pages_are_counted(
    total: int, page: int, size: int, pages: int, *, has_next: bool, has_prev: bool
) -> None:
    assert pagination(total, {"page": page, "size": size}) == {
        "total": total,
        "page": page,
        "limit": size,
        "total_pages": pages,
        "has_next": has_next,
        "has_prev": has_prev,
    }


def test_a_flag_is_true_or_false_and_nothing_like_it() -> None:
    flag = Flag()
    assert [flag.deserialize(value) for value in (True, False)] == [True, False]
    for value in (1, 0, "true", "no", [], None):
        with pytest.raises(ValidationError):
            flag.deserialize(value)
