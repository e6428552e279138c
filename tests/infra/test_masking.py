"""Masking: what a compiled mask does is what the plain one does, and nothing personal is left."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from marshmallow import Schema, fields

from sofinance.app import find_endpoints
from sofinance.infra.http import Paged
from sofinance.infra.masking import MISSING, SECRET_KEYS, compile_mask, mask, mask_url

if TYPE_CHECKING:
    from collections.abc import Iterator

# How a field is called that lets somebody in.
SECRET = re.compile(r"(token|secret|ticket|password|pin|codes)\Z")


class Person(Schema):
    """Somebody."""

    name = fields.Str()
    city = fields.Str()


class Line(Schema):
    """A line of nobody's."""

    sku = fields.Str()
    price = fields.Str()


class Thing(Schema):
    """One of everything."""

    id = fields.Int()
    name = fields.Str()
    email = fields.Str()
    token = fields.Str(data_key="access_token")
    customer = fields.Nested(Person)
    customers = fields.List(fields.Nested(Person))
    users = fields.Nested(Person, many=True)
    lines = fields.List(fields.Nested(Line))
    extra = fields.Dict()
    tags = fields.List(fields.Str())


class Plain(Schema):
    """Nothing to mask."""

    id = fields.Int()
    lines = fields.List(fields.Nested(Line))


def thing(**changes: Any) -> dict[str, Any]:
    return {
        "id": 1, "name": "Thing", "email": "a@b.example", "access_token": "x",
        "customer": {"name": "Carla", "city": "Kisumu"},
        "customers": [{"name": "Carla", "city": "Kisumu"}, {"name": "Bo", "city": "Ulm"}],
        "users": [{"name": "Ada", "city": "Ulm"}],
        "lines": [{"sku": "A", "price": "1.00"}],
        "extra": {"phone": "1", "deep": [{"password": "x", "n": 1}]},
        "tags": ["new"],
        **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    "before",
    [
        MISSING, None, thing(), thing(email="other@b.example"), thing(customer=None),
        thing(customers=[{"name": "Xu", "city": "Ulm"}]), {"id": 1}, {},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["things", "users"])
def test_the_compiled_mask_does_what_the_plain_one_does(before: Any, kind: str) -> None:
    compiled = compile_mask(Thing(), kind)
    assert compiled is not None
    for data in (thing(), thing(customer=None, users=[], email=None)):
        assert compiled(data, before) == mask(data, before, kind=kind)


def test_what_is_masked_and_what_is_left() -> None:
    assert mask(thing(), thing(email="old@b.example"), kind="things") == {
        "id": 1, "name": "Thing", "email": "[personal, changed]", "access_token": "[secret]",
        "customer": {"name": "[personal]", "city": "Kisumu"},
        "customers": [
            {"name": "[personal]", "city": "Kisumu"}, {"name": "[personal]", "city": "Ulm"},
        ],
        "users": [{"name": "[personal]", "city": "Ulm"}],
        "lines": [{"sku": "A", "price": "1.00"}],
        "extra": {"phone": "[personal]", "deep": [{"password": "[secret]", "n": 1}]},
        "tags": ["new"],
    }  # fmt: skip
    assert mask(thing(), kind="users")["name"] == "[personal]"


def test_masking_twice_is_masking_once() -> None:
    before, after = thing(email="old@b.example"), thing()
    once = mask(after, before, kind="users")
    assert mask(once, mask(before, kind="users"), kind="users") == once


def test_where_nothing_is_masked_nothing_is_done() -> None:
    assert compile_mask(Plain(), "things") is None


def test_a_code_is_a_secret_but_for_accounts_and_taxes() -> None:
    assert mask({"code": "1000"}, kind="accounts") == {"code": "1000"}
    assert mask({"code": "1000"}, kind="tills") == {"code": "[secret]"}


def test_free_text_keeps_all_but_addresses_and_numbers() -> None:
    said = {"notes": "ring ada@shop.example", "memo": "till 7", "reason": "call +49 89 1234567"}
    left = {"notes": "ring [personal]", "memo": "till 7", "reason": "call [personal]"}
    assert mask(said, kind="sales") == left
    assert mask(said, kind="customers") == {**left, "notes": "[personal]"}


def names_of(schema: Schema) -> Iterator[str]:
    """Return the names of an answer's fields, those within included."""
    for name, field in schema.fields.items():
        yield name
        inner = field.inner if isinstance(field, fields.List) else field
        if isinstance(inner, fields.Nested):
            yield from names_of(inner.schema)


def test_whatever_an_answer_lets_somebody_in_with_is_masked() -> None:
    answers = [endpoint.returns for endpoint in find_endpoints()]
    told = {
        name
        for answer in answers
        if answer is not None
        for name in names_of(answer.schema if isinstance(answer, Paged) else answer)
        if SECRET.search(name)
    }
    assert {"confirm_token", "ticket", "access_token"} <= told
    # The last one says yes or no.
    assert told - SECRET_KEYS == {"must_change_password"}


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://hooks.example.com/x", "https://hooks.example.com/x"),
        ("https://a.example/x?key=1&b=&c", "https://a.example/x?key=[secret]&b=[secret]&[secret]"),
        ("https://ada:pass@a.example:1/x?y=@/", "https://[secret]@a.example:1/x?y=[secret]"),
        ("https://a.example/@ada", "https://a.example/@ada"),
        ("https://a.example/x?", "https://a.example/x?[secret]"),
    ],
)
def test_a_url_is_kept_without_what_is_secret_in_it(url: str, kept: str) -> None:
    assert mask({"url": url}, kind="webhooks") == {"url": kept}
    assert mask_url(kept) == kept
