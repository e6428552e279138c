"""Reading what a client sends: body, query, path, branch; anything odd is refused by name."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from marshmallow import Schema, ValidationError, fields

from sofinance.infra import errors
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import ID_MAX
from sofinance.infra.http import FORM, JSON

if TYPE_CHECKING:
    from collections.abc import Callable

ID_DIGITS_MAX = 19
BRANCH_HEADER = "X-Branch-Id"
IDENTITY = "identity"
UTF_8 = frozenset({"utf-8", "utf8"})
# How deep JSON may be nested where nobody says otherwise: as deep as orjson goes.
DEPTH_MAX = 512
CONTENT_TYPE_COUNT_MAX = 256
FORM_FIELD_COUNT_MAX = 50
# Of these the first would count here, and perhaps the last in front of us; aiohttp itself refuses
# others, such as Content-Type.
ONCE = (
    "Authorization", "Content-Encoding", "Idempotency-Key", "X-Break-Glass-Token", BRANCH_HEADER,
)  # fmt: skip
# Brackets in strings are none: a string is passed over as a whole, to its end or the text's.
BRACKET_OR_STRING = re.compile(rb'[\[\]{}]|"(?:[^"\\]|\\.)*+"?', re.DOTALL)


async def read_json(request: web.Request, *, timeout_s: float, depth_max: int) -> Any:
    """Read a JSON body; an empty one is an object without fields, which the schema judges.

    Raises unsupported_media_type and unsupported_content_encoding (415), request_timeout (408) and
    malformed_json (400).
    """
    raw = await _read_whole(request, timeout_s)
    if not raw:
        return {}
    content_type = request.headers.get("Content-Type", "")
    if content_type != JSON and not _is_json(content_type):
        raise _unsupported("Send JSON in UTF-8: Content-Type: application/json.", JSON)
    return loads(raw, depth_max)


@dataclass(frozen=True, slots=True)
class Received:
    """A body as it came, for whoever verifies what it is signed with."""

    body: bytes
    headers: Mapping[str, str]


async def read_signed(request: web.Request, timeout_s: float) -> Received:
    """Read a body as it is, whatever it says that it is; raises what read_json raises of those."""
    return Received(await _read_whole(request, timeout_s), request.headers)


async def read_form(request: web.Request, *, timeout_s: float) -> dict[str, str]:
    """Read a form's fields; one without a value counts as left out (RFC 6749, 3.2).

    Raises what read_json raises, but for what is no form malformed_form (400), and
    invalid_request (422) for a field that is given twice.
    """
    raw = await _read_whole(request, timeout_s)
    content_type = request.headers.get("Content-Type", "")
    if raw and _kind_of(content_type) != FORM:
        raise _unsupported(f"Send a form: Content-Type: {FORM}.", FORM)
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict",
            max_num_fields=FORM_FIELD_COUNT_MAX,
        )  # fmt: skip
    except ValueError:
        raise ApiError("malformed_form", "The body is not a form.", status=400) from None
    names = [name for name, _ in pairs]
    twice = {name: ["Given more than once."] for name in names if names.count(name) > 1}
    if twice:
        raise errors.invalid_request(twice)
    return {name: value for name, value in pairs if value}


def _unsupported(message: str, accept: str) -> ApiError:
    return ApiError("unsupported_media_type", message, status=415, headers={"Accept": accept})


async def _read_whole(request: web.Request, timeout_s: float) -> bytes:
    """Read a body as it is, if it is not too large and not encoded."""
    encoding = request.headers.get("Content-Encoding", IDENTITY)
    if encoding.strip().lower() != IDENTITY:
        raise ApiError(
            "unsupported_content_encoding",
            "Send the body as it is, without a Content-Encoding.",
            status=415,
            headers={"Accept-Encoding": IDENTITY},
        )
    if (request.content_length or 0) > request.client_max_size:
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, request.content_length or 0)
    if request.content.is_eof():
        return await request.read()
    try:
        async with asyncio.timeout(timeout_s):
            return await request.read()
    except TimeoutError:
        raise ApiError("request_timeout", "The body took too long to arrive.", status=408) from None


def _kind_of(content_type: str) -> str:
    message = Message()
    message["Content-Type"] = content_type
    return message.get_content_type()


@functools.lru_cache(CONTENT_TYPE_COUNT_MAX)
def _is_json(content_type: str) -> bool:
    """Say whether a content type is JSON in UTF-8, the only encoding that JSON has (RFC 8259)."""
    message = Message()
    message["Content-Type"] = content_type
    kind = message.get_content_type()
    charset = message.get_param("charset", "utf-8")
    is_json = kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
    return is_json and isinstance(charset, str) and charset.lower() in UTF_8


def loads(raw: bytes, depth_max: int = DEPTH_MAX) -> Any:
    """Parse JSON strictly.

    NaN, Infinity, a number beyond a double's range, broken UTF-8, a key given twice and what is
    nested too deeply are malformed_json (400).
    """
    # Each level opens with one of these. Where there are fewer of them, strings and all, than
    # levels are allowed, nothing needs to be measured.
    if raw.count(b"[") + raw.count(b"{") > depth_max:
        _check_depth(raw, depth_max)
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


def _check_depth(raw: bytes, depth_max: int) -> None:
    depth = 0
    for part in BRACKET_OR_STRING.finditer(raw):
        match part[0]:
            case b"[" | b"{":
                depth += 1
                if depth > depth_max:
                    raise _malformed(f"nested deeper than {depth_max} levels")
            case b"]" | b"}":
                depth -= 1


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
        twice = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
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
        """Return the query's values; unknown names and names given twice are invalid_request.

        A branch that the query could name and does not is the one that X-Branch-Id names.
        """
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
        if self._schema is None:
            return {}
        query = load(self._schema.load, given)
        if query.get("branch_id", ...) is None:
            query["branch_id"] = read_branch(request)
        return query


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


def refuse_repeated(request: web.Request) -> None:
    """Refuse a header that says one thing and comes twice: nobody knows which counts.

    Raises repeated_header (400). A proxy and we could read different ones (RFC 9110, 5.3).
    """
    for name in ONCE:
        if len(request.headers.getall(name, ())) > 1:
            raise ApiError("repeated_header", f"Send {name} once.", status=400)


def read_branch(request: web.Request) -> int | None:
    """Return the branch that the header names; one that cannot be an id is invalid_request."""
    text = request.headers.get(BRANCH_HEADER)
    if text is None:
        return None
    try:
        return _id(text)
    except ApiError:
        raise errors.invalid_request({BRANCH_HEADER: ["Not the id of a branch."]}) from None
