"""What both documents of the API say.

The shapes around every answer, and what follows from how an endpoint is declared: its texts, its
headers, the statuses with which it can answer.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from apispec.ext.marshmallow.common import make_schema_key
from marshmallow import Schema, fields, validate

from sofinance.infra.db import Mode
from sofinance.infra.fields import ID_MAX, Pagination, Timestamp
from sofinance.infra.http import Endpoint, Paged
from sofinance.infra.parse import BRANCH_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

TITLE = "SOFinance"
DESCRIPTION = (
    "The back office of a retailer: selling, stock and the double-entry books, in one service. "
    "Every answer is one envelope; with `Accept: application/problem+json` an error is RFC 9457. "
    "The `code` of an error is the name of the rule that was broken; docs/errors.md lists all. "
    "Money is a string with exactly its currency's decimals. What is read with GET can be asked "
    "for with HEAD; another method than those listed is 405 with `Allow`. docs/api.md has examples."
)
# What the documents call a token of a user, or an API key.
USER = "bearer"
ID = {"type": "integer", "format": "int64", "minimum": 1, "maximum": ID_MAX}
REFUSALS = {
    400: "The request is malformed: no HTTP, no JSON, no Idempotency-Key where one is needed.",
    401: "No access token or API key, or none that is good.",
    403: "The caller may not do this.",
    404: "There is no such thing, or none that the caller may know of.",
    408: "The body took too long to arrive.",
    409: "It collides with what is there: taken, in use, unknown, or somebody was faster.",
    410: "It was good for one time.",
    412: "It was changed since the state that If-Match names.",
    413: "The body is too large.",
    415: "The body is not JSON in UTF-8 (a file: of no kind that is taken), or is compressed.",
    417: "Nothing is known of what Expect asks for, but for 100-continue.",
    422: "A field is not valid, or a rule of the books would be broken.",
    426: "This is a WebSocket; connect with a WebSocket client.",
    428: "If-Match is needed: say which state you have seen.",
    429: "Too many requests; send it again after Retry-After.",
    431: "The request line or the headers are too large.",
    500: "It is our fault.",
    503: "The database, or the file store, is busy or away; try again after Retry-After.",
}
KEY_HEADER = "Idempotency-Key"
HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    KEY_HEADER: (
        "Do this once, however often it is sent.",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~]([ -~]*[!#-~])?$"},
    ),
    BRANCH_HEADER: (
        "The id of the branch to act in; the caller's only one when it is left out.",
        {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
    ),
    "X-Request-ID": (
        (
            "Your name for this request; it comes back, and is in our logs. One with other"
            " characters than letters, digits and ._:/+=@- is replaced."
        ),
        {"type": "string"},
    ),
    "traceparent": (
        "The trace that this request belongs to (W3C Trace Context); a malformed one begins anew.",
        {"type": "string"},
    ),
    "X-Trace-ID": (
        "The same without traceparent: 32 hexadecimal digits, or a UUID.",
        {"type": "string"},
    ),
    "X-Span-ID": (
        "With X-Trace-ID: your part of the trace, 16 hexadecimal digits.",
        {"type": "string"},
    ),
    "If-Match": (
        "The ETag of the state that you have seen: what was changed since is 412.",
        {"type": "string"},
    ),
    "If-None-Match": (
        "The ETag of what you have: if it is still so, the answer is 304 without a body.",
        {"type": "string"},
    ),
}


class Nothing(fields.Field[None]):
    """A null."""

    def __init__(self, **options: Any) -> None:
        super().__init__(metadata={"type": "null"}, **options)


class Refusal(Schema):
    """What was refused, and why."""

    code = fields.String(required=True, metadata={"example": "sale_total_matches_lines"})
    message = fields.String(required=True)
    details = fields.Dict(keys=fields.String(), required=True)


class Context(Schema):
    """What answered, and under which name; settings say whether this is told, and where."""

    app_version = fields.String()
    correlation_id = fields.String()


class Meta(Context):
    """What is known beside the data; inside `_ctx` where the settings ask for that."""

    enriched = fields.Nested(Context, data_key="_ctx")


class Envelope(Schema):
    """What every answer has."""

    message = fields.String(required=True)
    meta = fields.Nested(Meta, required=True)
    timestamp = Timestamp(required=True)


class Failure(Envelope):
    """The envelope of an error."""

    success = fields.Boolean(required=True, validate=validate.OneOf([False]))
    data = Nothing(required=True)
    error = fields.Nested(Refusal, required=True)


class Problem(Schema):
    """The same error as RFC 9457 problem details."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    instance = fields.String(required=True)
    code = fields.String(required=True)
    details = fields.Dict(keys=fields.String(), required=True)
    request_id = fields.String(required=True)
    trace_id = fields.String(required=True, allow_none=True)
    violated = fields.List(fields.String(), data_key="violated-policies")


_envelopes: dict[Any, type[Schema]] = {}


def envelope_of(schema: Schema, *, many: bool, is_page: bool) -> type[Schema]:
    """Return the schema of a whole answer whose data this is; the same one for the same data."""
    key = make_schema_key(schema), many, is_page
    if key not in _envelopes:
        _envelopes[key] = make_envelope(schema, many=many, is_page=is_page)
    return _envelopes[key]


def make_envelope(schema: Schema, *, many: bool, is_page: bool) -> type[Schema]:
    """Make the schema of a whole answer."""
    name = component_name(schema)
    data: Any = fields.Nested(schema)
    if is_page:
        page = Schema.from_dict(
            {
                "items": fields.List(data, required=True),
                "pagination": fields.Nested(Pagination, required=True),
            },
            name=f"{name}.Page",
        )
        data = fields.Nested(page)
        name += ".Page"
    elif many:
        data = fields.List(fields.Nested(type(schema)))
        name += ".List"
    data.required = True
    members = {
        "success": fields.Boolean(required=True, validate=validate.OneOf([True])),
        "data": data,
        "error": Nothing(required=True),
    }
    made = type(f"{name}.Answer", (Envelope,), members)
    made.__module__ = __name__
    return made


def answer_schema(endpoint: Endpoint) -> type[Schema] | None:
    """Return the schema of an endpoint's whole answer; None when it has no JSON."""
    match endpoint.returns:
        case None:
            return None
        case Schema() as schema if endpoint.oauth:
            return type(schema)
        case Paged(schema):
            return envelope_of(schema, many=False, is_page=True)
        case schema:
            return envelope_of(schema, many=bool(schema.many), is_page=False)


def component_name(schema: Any) -> str:
    """Name a schema by its slice and its class: sales.NewSale."""
    kind = schema if isinstance(schema, type) else type(schema)
    module = kind.__module__.rpartition(".")[2]
    ours = kind.__module__.startswith("sofinance.api.") and "." not in kind.__name__
    return f"{module}.{kind.__name__}" if ours else kind.__name__


def tags(endpoints: list[Endpoint]) -> list[dict[str, str]]:
    """Describe the slices by the first line of their modules."""
    found: dict[str, str] = {}
    for endpoint in endpoints:
        module = sys.modules.get(endpoint.handler.__module__)
        text = (module.__doc__ or "") if module is not None else ""
        found.setdefault(endpoint.tag, text.strip().partition("\n")[0])
    return [{"name": name, "description": text} for name, text in sorted(found.items())]


def texts(endpoint: Endpoint, operation_id: str) -> dict[str, Any]:
    """Return what people read about an endpoint: the docstring of its handler, and who may."""
    summary, _, rest = (endpoint.handler.__doc__ or "").strip().partition("\n")
    described: dict[str, Any] = {
        "operationId": operation_id,
        "tags": [endpoint.tag],
        "summary": summary,
        "description": re.sub(r"\n[ \t]+", "\n", rest).strip(),
    }
    if endpoint.permission is not None:
        described["x-permission"] = endpoint.permission
    for name, is_said in (("org-wide", endpoint.org_wide), ("administration", endpoint.admin)):
        if is_said:
            described[f"x-{name}"] = True
    if endpoint.deprecated is not None:
        described["deprecated"] = True
    return described


def operation_ids(endpoints: list[Endpoint]) -> list[str]:
    """Name each operation by slice and handler, and number a handler's further paths."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for endpoint in endpoints:
        seen[endpoint.name] = seen.get(endpoint.name, 0) + 1
        count = seen[endpoint.name]
        names.append(endpoint.name if count == 1 else f"{endpoint.name}_{count}")
    return names


def path_parameters(
    endpoint: Endpoint, place: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Describe the names in the path; the two versions place the type differently."""
    return [
        {
            "in": "path",
            "name": name,
            "required": True,
            **place(ID if name == "id" or name.endswith("_id") else {"type": "string"}),
        }
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]


def keeps_answers(endpoint: Endpoint) -> bool:
    """Say whether an endpoint takes an Idempotency-Key."""
    return not endpoint.public and endpoint.mode is Mode.WRITE and bool(endpoint.idempotent)


def has_tag(endpoint: Endpoint) -> bool:
    """Say whether an endpoint's answers have an ETag whenever they have data."""
    return endpoint.method == "GET" and not endpoint.public and endpoint.returns is not None


def header_names(endpoint: Endpoint) -> list[str]:
    """Return the headers that an endpoint reads."""
    possible = {
        "X-Request-ID": True,
        "traceparent": True,
        "X-Trace-ID": True,
        "X-Span-ID": True,
        BRANCH_HEADER: not endpoint.public,
        KEY_HEADER: keeps_answers(endpoint),
        "If-Match": endpoint.if_match is not None,
        "If-None-Match": has_tag(endpoint),
    }
    return [name for name, is_possible in possible.items() if is_possible]


def security_of(endpoint: Endpoint) -> str | None:
    """Return the name of the credential that an endpoint takes; None if it takes none."""
    return endpoint.credential if endpoint.public else USER


def refusals(endpoint: Endpoint) -> list[int]:
    """Return the statuses with which an endpoint can refuse."""
    known = not endpoint.public
    reads_body = endpoint.body is not None or endpoint.upload or endpoint.receives
    writes = endpoint.mode is Mode.WRITE
    possible = {
        400: True,
        401: known,
        403: known,
        404: "{" in endpoint.path or (known and writes),
        408: reads_body,
        409: known and writes,
        412: endpoint.if_match is not None,
        413: reads_body,
        415: reads_body,
        417: True,
        422: True,
        428: endpoint.if_match == "required",
        429: endpoint.is_limited,
        431: True,
        500: True,
        503: True,
    }
    found = {status for status, is_possible in possible.items() if is_possible}
    if endpoint.oauth:
        found -= {401, 422}  # RFC 6749 says 400
    return sorted(found.union(endpoint.refuses))
