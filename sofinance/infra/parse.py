"""Reading what a client sends: body, query, path, branch; anything odd is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from marshmallow import Schema, ValidationError, fields

from sofinance.infra import errors
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import ID_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

ID_DIGITS_MAX = 19
BRANCH_HEADER = "X-Branch-Id"


async def read_json(request: web.Request) -> Any:
    """Read a JSON body; an empty one is an object without fields, which the schema judges.

    Raises unsupported_media_type (415) and malformed_json (400).
    """
    raw = await request.read()
    if not raw:
        return {}
    content_type = request.headers.get("Content-Type", "")
    if content_type != "application/json":
        kind = content_type.partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise ApiError(
                "unsupported_media_type", "Send JSON: Content-Type: application/json.", status=415
            )
    return loads(raw)


def loads(raw: bytes) -> Any:
    """Parse JSON strictly: NaN, broken UTF-8 and a key given twice are malformed_json (400)."""
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _malformed(str(error)) from None
    # Every key has one colon outside of strings. So when the text has as many colons as the
    # result has keys, no key was lost to a second one of its name. Only otherwise (a colon in
    # some string, mostly a time of day) does the slow parser have a look: 5 times the cost.
    if raw.count(b":") != _count_keys(parsed):
        try:
            json.loads(raw, object_pairs_hook=_unique)
        except RecursionError:
            raise _malformed("nested too deeply") from None
    return parsed


def _count_keys(parsed: Any) -> int:
    count = 0
    stack = [parsed]
    while stack:
        value = stack.pop()
        if type(value) is dict:
            count += len(value)
            stack += value.values()
        elif type(value) is list:
            stack += value
    return count


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _malformed(f"the key {twice!r} is given twice")
    return result


def _malformed(why: str) -> ApiError:
    return ApiError("malformed_json", "The body is not JSON.", status=400, why=why)


def load(fit: Callable[[Any], Any], data: Any) -> dict[str, Any]:
    """Fit data into a schema by its load function.

    Raises invalid_request (422), which names every field that does not fit.
    """
    try:
        loaded: dict[str, Any] = fit(data)
    except ValidationError as error:
        raise errors.invalid_request(flatten(error.messages)) from None
    return loaded


def flatten(messages: Any, prefix: str = "") -> dict[str, list[str]]:
    """Turn nested messages into one level: {"lines.0.quantity": ["Must be above zero."]}."""
    if isinstance(messages, Mapping):
        flat: dict[str, list[str]] = {}
        for name, inner in messages.items():
            if name == "_schema":
                flat |= flatten(inner, prefix or "_schema")
            else:
                flat |= flatten(inner, f"{prefix}.{name}" if prefix else str(name))
        return flat
    return {
        prefix: [str(one) for one in messages] if isinstance(messages, list) else [str(messages)]
    }


class QueryReader:
    """Reads the query string of one endpoint."""

    def __init__(self, schema: Schema | None) -> None:
        self._schema = schema
        declared = {} if schema is None else schema.load_fields
        named = {field.data_key or name: field for name, field in declared.items()}
        self._lists = {name for name, field in named.items() if isinstance(field, fields.List)}
        # Fields that take a number and no digits in a body: here there is nothing but digits.
        self._numbers = {
            name
            for name, field in named.items()
            if isinstance(inner := getattr(field, "inner", field), fields.Integer) and inner.strict
        }

    def read(self, request: web.Request) -> dict[str, Any]:
        """Return the query's values; unknown names and names given twice are invalid_request."""
        if self._schema is None and not request.query_string:
            return {}
        given: dict[str, Any] = {}
        wrong: dict[str, list[str]] = {}
        for name in request.query:
            values: list[Any] = request.query.getall(name)
            if name in self._numbers:
                values = [_number(value) for value in values]
            if self._schema is None:
                wrong[name] = ["Unknown field."]
            elif name in self._lists:
                given[name] = values
            elif len(values) > 1:
                wrong[name] = ["Given more than once."]
            else:
                given[name] = values[0]
        if wrong:
            raise errors.invalid_request(wrong)
        return {} if self._schema is None else load(self._schema.load, given)


def _number(text: str) -> int | str:
    is_number = len(text) <= ID_DIGITS_MAX and text.isascii() and text.isdecimal()
    return int(text) if is_number else text


def read_path(request: web.Request) -> dict[str, Any]:
    """Return the path's values: ids as numbers; what cannot be an id is not_found (404)."""
    values: dict[str, Any] = {}
    for name, value in request.match_info.items():
        values[name] = _id(value) if name == "id" or name.endswith("_id") else value
    return values


def _id(text: str) -> int:
    number = _number(text)
    if type(number) is int and 0 < number <= ID_MAX:
        return number
    raise errors.not_found()


def read_branch(request: web.Request) -> int | None:
    """Return the branch that the header names; one that cannot be an id is invalid_request."""
    text = request.headers.get(BRANCH_HEADER)
    if text is None:
        return None
    try:
        return _id(text)
    except ApiError:
        raise errors.invalid_request({BRANCH_HEADER: ["Not the id of a branch."]}) from None
