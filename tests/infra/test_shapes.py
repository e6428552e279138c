"""Compiled schemas load and dump what the schemas themselves do, and complain no less."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import (
    EXCLUDE,
    Schema,
    ValidationError,
    fields,
    post_load,
    pre_load,
    validate,
    validates_schema,
)

from sofinance.infra.fields import Exact, Id, LowerEmail, Money, Quantity, RawJson, Timestamp
from sofinance.infra.shapes import Walker, compile_dump, compile_load

LINE_COUNT_MAX = 2


class Line(Schema):
    """A line, as bodies have them."""

    product_id = Id(required=True)
    quantity = Quantity(required=True, sign="positive")
    discount = Money(load_default=Decimal(0), sign="not_negative")
    tags = fields.List(fields.String(validate=validate.Length(1, 5)), load_default=list)


class Body(Schema):
    """Every kind of field that bodies have."""

    name = fields.String(required=True, validate=validate.Length(1, 10))
    number = fields.Integer(load_default=3, validate=validate.Range(1, 9))
    flag = fields.Boolean(load_default=False)
    email = LowerEmail(load_default=None, allow_none=True)
    plain_email = fields.Email()
    uuid = fields.UUID(allow_none=True)
    on = fields.Date(data_key="date")
    at = Timestamp(attribute="moment")
    rate = Exact(load_default=None, allow_none=True)
    line = fields.Nested(Line)
    lines = fields.List(fields.Nested(Line), validate=validate.Length(max=LINE_COUNT_MAX))
    more = fields.Nested(Line, many=True, allow_none=True)

    @validates_schema
    def one_of_two(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse an odd name with a flag."""
        if data.get("name") == "odd" and data.get("flag"):
            raise ValidationError("Not both.", "flag")


WORDS = st.sampled_from(["a", "odd", "", "x" * 11, "12:30", "a@b.ch", "A@B.ch", "Zoë"])
NUMBERS = st.sampled_from([0, 1, 5, 10, -1, 2**63, 1.0, 1.5, "1", "1.50", "-0", "1e3", "0.0001"])
ODD = st.sampled_from([None, True, False, [], {}, "2026-01-15", "2026-01-15T10:30:00+02:00", "x"])
ANY = WORDS | NUMBERS | ODD
LINES = st.dictionaries(st.sampled_from(["product_id", "quantity", "discount", "tags", "x"]), ANY)
GOOD_LINES = st.fixed_dictionaries(
    {"product_id": st.integers(1, 9), "quantity": st.sampled_from(["1", "2.5", 3])},
    optional={"discount": st.just("0.50"), "tags": st.lists(st.just("new"), max_size=2)},
)
SOME_LINES = GOOD_LINES | LINES | ANY
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "name": WORDS | ANY,
        "number": NUMBERS | ANY,
        "flag": ANY,
        "email": ANY,
        "plain_email": ANY,
        "uuid": ANY | st.just("0d9a3a4e-8a3c-4a39-9a53-7f2a3d4b5c6d"),
        "date": ANY,
        "at": ANY,
        "rate": NUMBERS,
        "line": SOME_LINES,
        "lines": st.lists(SOME_LINES, max_size=3) | ANY,
        "more": st.lists(SOME_LINES, max_size=3) | ANY,
        "colour": ANY,
    },
)
GOOD_BODIES = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "odd"])},
    optional={
        "number": st.integers(1, 9),
        "flag": st.booleans(),
        "email": st.sampled_from([None, "A@B.ch"]),
        "date": st.just("2026-01-15"),
        "at": st.just("2026-01-15T10:30:00+02:00"),
        "rate": st.sampled_from([None, "1.50", 2]),
        "line": GOOD_LINES,
        "lines": st.lists(GOOD_LINES, max_size=2),
        "more": st.lists(GOOD_LINES, max_size=3) | st.none(),
    },
)
LOAD = compile_load(Body())


def load_as_schema(data: Any) -> Any:
    """Load as the schema does; a list that is too long is told of alone, unread."""
    lines = data.get("lines") if isinstance(data, dict) else None
    if isinstance(lines, list) and len(lines) > LINE_COUNT_MAX:
        raise ValidationError({"lines": [f"Longer than maximum length {LINE_COUNT_MAX}."]})
    return Body().load(data)


def outcome(load: Any, data: Any) -> Any:
    """Return what was loaded, or what was complained of."""
    try:
        return "loaded", load(data)
    except ValidationError as error:
        return "refused", error.messages


@given(GOOD_BODIES | BODIES | ANY)
def test_a_compiled_schema_loads_what_the_schema_loads(data: Any) -> None:
    assert outcome(LOAD, data) == outcome(load_as_schema, data)


def test_a_list_that_is_too_long_is_told_of_before_what_is_in_it() -> None:
    assert outcome(LOAD, {"lines": [{}, {}, {}]}) == (
        "refused",
        {"lines": ["Longer than maximum length 2."]},
    )


@given(GOOD_BODIES)
def test_a_faultless_body_is_loaded_without_the_schema(data: Any) -> None:
    if not (data["name"] == "odd" and data.get("flag")):
        assert Walker(Body()).walk(data) == Body().load(data)


def test_defaults_are_made_anew() -> None:
    load = compile_load(Line())
    first = load({"product_id": 1, "quantity": "1"})
    first["tags"].append("mine")
    assert load({"product_id": 1, "quantity": "1"})["tags"] == []


class Trimmed(Schema):
    """A schema that prepares what it loads."""

    name = fields.String()

    @pre_load
    def trim(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Trim the name."""
        return {**data, "name": data["name"].strip()}


class Made(Schema):
    """A schema that makes an object."""

    name = fields.String()

    @post_load
    def make(self, data: dict[str, Any], **_: Any) -> SimpleNamespace:
        """Make it."""
        return SimpleNamespace(**data)


class Tolerant(Schema):
    """A schema that passes over what it does not know."""

    class Meta:
        """Its options."""

        unknown = EXCLUDE

    name = fields.String()


def test_special_schemas_load_by_themselves() -> None:
    assert compile_load(Trimmed())({"name": " x "}) == {"name": "x"}
    assert compile_load(Made())({"name": "x"}) == SimpleNamespace(name="x")
    assert compile_load(Tolerant())({"name": "x", "y": 1}) == {"name": "x"}
    assert compile_load(Line(many=True, partial=True))([{}]) == Line(many=True).load(
        [{}], partial=True
    )

    class Outer(Schema):
        made = fields.Nested(Made)
        trimmed = fields.List(fields.Nested(Trimmed))
        only_id = fields.Nested(Line(only=["product_id"]))

    data = {"made": {"name": "x"}, "trimmed": [{"name": " x "}], "only_id": {"product_id": 1}}
    assert compile_load(Outer())(data) == Outer().load(data)
    data["only_id"] = {"product_id": 1, "quantity": "1"}
    assert outcome(compile_load(Outer()), data) == outcome(Outer().load, data)


class PaymentOut(Schema):
    """An object without a currency of its own."""

    amount = Money()


class SaleOut(Schema):
    """Every kind of field that answers have."""

    id = fields.Integer()
    total = Money()
    quantity = Quantity(data_key="count")
    rate = Exact()
    at = Timestamp()
    on = fields.Date()
    note = fields.String(allow_none=True)
    kept = RawJson()
    payment = fields.Nested(PaymentOut)
    payments = fields.List(fields.Nested(PaymentOut))
    more = fields.Nested(PaymentOut, many=True)
    amounts = fields.List(Money())
    checks = fields.Dict(keys=fields.String(), values=fields.String())


def sale(currency: str | None, amount: str) -> dict[str, Any]:
    paid = {"amount": Decimal(amount)}
    row = {
        "id": 1,
        "total": Decimal(amount),
        "quantity": Decimal("1.500"),
        "rate": Decimal("10.0000"),
        "at": datetime(2026, 1, 15, 10, 30, 0, 123_999, tzinfo=UTC),
        "on": date(2026, 1, 15),
        "note": None,
        "kept": '{"a":[1]}',
        "payment": paid,
        "payments": [paid],
        "more": [paid],
        "amounts": [Decimal(amount)],
        "checks": {"database": "healthy"},
    }
    return row if currency is None else {**row, "currency": currency}


@pytest.mark.parametrize(
    ("currency", "amount", "written"),
    [
        ("USD", "25.9800", "25.98"),
        ("USD", "0.0000", "0.00"),
        ("USD", "-3.5000", "-3.50"),
        ("JPY", "1500.0000", "1500"),
        ("JPY", "0.0000", "0"),
        ("KWD", "1.2500", "1.250"),
        ("USD", "0.3333", "0.3333"),
        ("JPY", "1500.5000", "1500.5"),
        ("USD", "1234567890123456.78", "1234567890123456.78"),
        (None, "25.9800", "25.9800"),
    ],
)
def test_money_is_written_in_its_currency(currency: str | None, amount: str, written: str) -> None:
    dump = compile_dump(SaleOut())
    dumped = dump(sale(currency, amount), None)
    assert dumped["total"] == written
    assert dumped["payment"] == {"amount": written}
    assert dumped["payments"] == dumped["more"] == [{"amount": written}]
    assert dumped["amounts"] == [written]
    # An object without a currency takes the one around it.
    assert dump(sale(None, amount), currency)["total"] == written


def test_an_object_is_dumped_whole_and_in_order() -> None:
    dumped = compile_dump(SaleOut())(sale("USD", "1"), None)
    assert orjson.loads(orjson.dumps(dumped)) == {
        "id": 1,
        "total": "1.00",
        "count": "1.5",
        "rate": "10",
        "at": "2026-01-15T10:30:00.123Z",
        "on": "2026-01-15",
        "note": None,
        "kept": {"a": [1]},
        "payment": {"amount": "1.00"},
        "payments": [{"amount": "1.00"}],
        "more": [{"amount": "1.00"}],
        "amounts": ["1.00"],
        "checks": {"database": "healthy"},
    }
    as_object = SimpleNamespace(**sale("USD", "1"))
    assert compile_dump(SaleOut())(as_object, None).keys() == dumped.keys()


def test_what_an_object_lacks_is_no_hole_in_the_answer() -> None:
    with pytest.raises(KeyError):
        compile_dump(PaymentOut())({}, None)
    with pytest.raises(AttributeError):
        compile_dump(PaymentOut())(SimpleNamespace(), None)


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(2026, 1, 15, 10, 30, tzinfo=UTC), "2026-01-15T10:30:00.000Z"),
        (datetime(2026, 1, 15, 10, 30, 0, 5, tzinfo=UTC), "2026-01-15T10:30:00.000Z"),
        (datetime(2026, 1, 15, 10, 30, 0, 999_999, tzinfo=UTC), "2026-01-15T10:30:00.999Z"),
        (
            datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))),
            "2025-12-31T23:00:00.000Z",
        ),
    ],
)
def test_a_moment_is_written_in_utc(moment: datetime, written: str) -> None:
    class Event(Schema):
        at = Timestamp()

    assert compile_dump(Event())({"at": moment}, None) == {"at": written}
    assert Event().dump({"at": moment}) == {"at": written}


def test_a_list_that_is_too_long_is_told_once():
    class Item(Schema):
        name = fields.Str(required=True)

    class Basket(Schema):
        items = fields.List(fields.Nested(Item), validate=validate.Length(1, 500))
        more = fields.Nested(Item, many=True, validate=validate.Length(max=3))

    load = compile_load(Basket())
    for name, count in (("items", 501), ("more", 4)):
        with pytest.raises(ValidationError) as caught:
            load({name: [{}] * count})
        (told,) = caught.value.messages[name]
        assert told.startswith(("Length must be between 1 and 500", "Longer than maximum length 3"))
    assert load({"items": [{"name": "a"}]}) == {"items": [{"name": "a"}]}
