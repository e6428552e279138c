"""What clients send: JSON without tricks, queries without surprises."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, fields

from sofinance.infra import parse
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Id, PageQuery

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert parse.loads(orjson.dumps(value)) == value
    assert parse.loads(orjson.dumps(value, option=orjson.OPT_INDENT_2)) == value


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'[{"a": 1}, {"x": "12:30", "x": 2}]',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a":":", "b":1, "b":2}',
    ],
)
def test_a_key_given_twice_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse.loads(raw)
    assert (caught.value.status, caught.value.code) == (400, "malformed_json")
    assert "given twice" in caught.value.details["why"]


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"[" * 2_000 + b"]" * 2_000,
        b'{"a": 01}',
        b"{} {}",
    ],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse.loads(raw)
    assert (caught.value.status, caught.value.code) == (400, "malformed_json")


def test_colons_in_strings_do_no_harm() -> None:
    assert parse.loads(b'{"at": "12:30:00", "url": "x://y"}') == {"at": "12:30:00", "url": "x://y"}
    deep = b'{"a":' * 500 + b'"12:30"' + b"}" * 500
    assert parse.loads(deep) == orjson.loads(deep)


def test_messages_are_flat_and_name_the_field() -> None:
    nested = {"lines": {0: {"quantity": ["Too small."]}}, "_schema": ["Odd."], "memo": "Long."}
    assert parse.flatten(nested) == {
        "lines.0.quantity": ["Too small."],
        "_schema": ["Odd."],
        "memo": ["Long."],
    }
    assert parse.flatten({"line": {"_schema": ["Odd."]}}) == {"line": ["Odd."]}


class Search(PageQuery):
    """A query as slices have them."""

    branch_id = Id(load_default=None)
    ids = fields.List(Id())
    name = fields.String(data_key="called")


def read(query: str, schema: Schema | None = None) -> dict[str, Any]:
    request = make_mocked_request("GET", f"/toys{query}")
    return parse.QueryReader(schema).read(request)


def test_a_query_is_read_by_its_schema() -> None:
    assert read("", Search()) == {"page": 1, "size": 20, "branch_id": None}
    assert read("?page=2&size=100&branch_id=7&ids=1&ids=2&called=x", Search()) == {
        "page": 2,
        "size": 100,
        "branch_id": 7,
        "ids": [1, 2],
        "name": "x",
    }
    assert read("") == {}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?size=0", "size"),
        ("?size=101", "size"),
        ("?page=0", "page"),
        ("?page=x", "page"),
        ("?page=1&page=2", "page"),
        ("?branch_id=0", "branch_id"),
        ("?branch_id=1.0", "branch_id"),
        ("?branch_id=+1", "branch_id"),
        ("?branch_id=" + "9" * 19, "branch_id"),
        ("?branch_id=" + "9" * 40, "branch_id"),
        ("?ids=1&ids=x", "ids.1"),
        ("?colour=red", "colour"),
        ("?name=x", "name"),
    ],
)
def test_an_odd_query_is_refused_by_its_field(query: str, field: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(query, Search())
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
    assert list(caught.value.details["fields"]) == [field]


def test_an_endpoint_without_a_query_takes_none() -> None:
    with pytest.raises(ApiError) as caught:
        read("?colour=red")
    assert caught.value.details["fields"] == {"colour": ["Unknown field."]}


def path(**values: str) -> dict[str, Any]:
    return parse.read_path(make_mocked_request("GET", "/", match_info=values))


def test_ids_in_a_path_are_numbers() -> None:
    assert path(id="7", branch_id="9223372036854775807", code="007") == {
        "id": 7,
        "branch_id": 9223372036854775807,
        "code": "007",
    }


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.0", "1e3", "9223372036854775808", "٣", ""])
def test_what_cannot_be_an_id_is_not_found(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        path(id=text)
    assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_a_branch_is_named_by_its_id() -> None:
    def branch(**headers: str) -> int | None:
        return parse.read_branch(make_mocked_request("GET", "/", headers=headers))

    assert branch() is None
    assert branch(**{"X-Branch-Id": "12"}) == 12
    with pytest.raises(ApiError) as caught:
        branch(**{"X-Branch-Id": "main"})
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
