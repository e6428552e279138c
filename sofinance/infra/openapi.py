"""The API described to programs, from the same declarations that serve it.

OpenAPI 3.1 at /openapi.json, through apispec; swagger.py has the older version and the page that
people read. Every status that an endpoint can answer is there with its headers, so that a client
may be generated, and a tester may hold the service to it.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import fields

from sofinance import __version__
from sofinance.infra.described import (
    DESCRIPTION,
    HEADERS,
    REFUSALS,
    TITLE,
    USER,
    Failure,
    Problem,
    answer_schema,
    component_name,
    has_tag,
    header_names,
    keeps_answers,
    operation_ids,
    path_parameters,
    refusals,
    security_of,
    tags,
    texts,
)
from sofinance.infra.http import JSON, Paged
from sofinance.infra.oauth import OAuthRefusal
from sofinance.infra.openapi_webhooks import webhooks
from sofinance.infra.swagger import SWAGGER_PATH, UI_PATH, show_ui, show_ui_file, swagger
from sofinance.infra.upload import FIELD, FORM_DATA
from sofinance.infra.visitors import VISITOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sofinance.infra.http import Endpoint

OPENAPI_VERSION = "3.1.0"
OPENAPI_PATH = "/openapi.json"
TEXT: dict[str, Any] = {"type": "string"}
SECONDS = {"type": "integer", "minimum": 1}
# What an answer may say beside its body: why, in what form, and whether it always does.
ANSWER_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Request-ID": ("The name of this request: yours, else its trace id.", TEXT),
    "traceparent": ("Our part of the trace (W3C Trace Context).", TEXT),
    "X-Trace-ID": ("The trace, as in traceparent.", TEXT),
    "X-Span-ID": ("Our part of it, as in traceparent.", TEXT),
    "ETag": ('The state of this: `"<version>-<digest>"`, for If-Match and If-None-Match.', TEXT),
    "Link": ("The pages around this one (RFC 8288), and where a retirement is explained.", TEXT),
    "Location": ("Where it is.", {"type": "string", "format": "uri-reference"}),
    "Idempotency-Key-Expires": ("Until when the answer under your key is kept.", TEXT),
    "Idempotent-Replayed": ("This is the answer to an earlier request.", {"const": "true"}),
    "RateLimit-Policy": ("The limits that apply (draft-ietf-httpapi-ratelimit-headers).", TEXT),
    "RateLimit": ("What is left under the tightest of them.", TEXT),
    "Retry-After": ("Seconds after which it may be sent again.", SECONDS),
    "WWW-Authenticate": ("How to prove who you are.", TEXT),
    "Accept": ("What is taken instead.", TEXT),
    "Accept-Encoding": ("What is taken instead.", TEXT),
    "Deprecation": ("Since when this is deprecated (RFC 9745).", TEXT),
    "Sunset": ("When this will be gone (RFC 8594).", TEXT),
}
EVERYWHERE = ("X-Request-ID", "traceparent", "X-Trace-ID", "X-Span-ID")
QUOTA = ("RateLimit-Policy", "RateLimit")
# What is refused before a request is one has no name and no trace.
UNREADABLE = frozenset({400, 417, 431})
# What is refused before it is known which endpoint is asked.
UNROUTED = frozenset({417, 431})
REFUSAL_HEADERS = {
    401: ("WWW-Authenticate",),
    409: ("Retry-After",),
    415: ("Accept", "Accept-Encoding"),
    429: ("Retry-After", *QUOTA),
    503: ("Retry-After",),
}
ALWAYS_SAID = frozenset({"Location", "ETag", "Deprecation"})
ALWAYS_SAID_WITH = {429: "Retry-After", 503: "Retry-After"}


def add_documents(
    app: web.Application, endpoints: list[Endpoint], *, mirrors: bool = False
) -> None:
    """Serve the documents of these endpoints; each is written when it is first asked for."""
    written = functools.cache(lambda: openapi(endpoints, mirrors=mirrors))
    app.router.add_get(OPENAPI_PATH, document(written))
    app.router.add_get(SWAGGER_PATH, document(functools.cache(lambda: swagger(endpoints))))
    app.router.add_get(UI_PATH, show_ui)
    app.router.add_get(f"{UI_PATH}/static/{{name}}", show_ui_file)


def document(write: Callable[[], dict[str, Any]]) -> Callable[[web.Request], Any]:
    """Return the handler that serves a document."""

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(write()), content_type="application/json")

    return serve


def openapi(endpoints: list[Endpoint], *, mirrors: bool = False) -> dict[str, Any]:
    """Describe the endpoints as OpenAPI 3.1; `mirrors` says that answers repeat their data."""
    spec = APISpec(
        TITLE,
        __version__,
        OPENAPI_VERSION,
        plugins=[MarshmallowPlugin(schema_name_resolver=component_name)],
        info={
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        servers=[{"url": "/"}],
        tags=tags(endpoints),
    )
    spec.components.security_scheme(
        USER,
        {
            "type": "http",
            "scheme": "bearer",
            "description": "An access token (JWT) or an API key (`sfk_...`).",
        },
    )
    spec.components.security_scheme(
        VISITOR,
        {
            "type": "http",
            "scheme": "bearer",
            "description": "A customer's session in the portal (`sfc_...`).",
        },
    )
    for name, (why, schema) in HEADERS.items():
        spec.components.parameter(name, "header", {"description": why, "schema": schema})
    for name, (why, schema) in ANSWER_HEADERS.items():
        spec.components.header(name, {"description": why, "schema": schema})
        spec.components.header(
            f"{name}.always", {"description": why, "schema": schema, "required": True}
        )
    for status, why in REFUSALS.items():
        content = {
            "application/json": {"schema": Failure},
            "application/problem+json": {"schema": Problem},
        }
        described = {"description": why, "content": content, "headers": refusal_headers(status)}
        spec.components.response(str(status), described)
    for endpoint, operation_id in zip(endpoints, operation_ids(endpoints), strict=True):
        spec.path(
            endpoint.path, operations={endpoint.method.lower(): operation(endpoint, operation_id)}
        )
    sent = webhooks(spec)
    written = spec.to_dict() | {"webhooks": sent}
    schemas = written["components"]["schemas"]
    if mirrors:
        for name in schemas:
            if name.endswith(".Answer"):
                del schemas[name]["additionalProperties"]
    return polished(written)


def polished(document: dict[str, Any]) -> dict[str, Any]:
    """Say what apispec cannot: what holds only on the way in, and patterns as ECMA writes them."""
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for described in operations.values():
            if "requestBody" in described:
                admit_numbers(described["requestBody"], schemas, set())
            for parameter in described["parameters"]:
                if parameter.get("in") == "query":
                    no_null(parameter["schema"])
    rewrite_patterns(document)
    return document


def admit_numbers(value: Any, schemas: dict[str, Any], seen: set[str]) -> None:
    """Say of the exact numbers in a body that whole ones may come as JSON numbers, too."""
    if isinstance(value, list):
        for inner in value:
            admit_numbers(inner, schemas, seen)
    if not isinstance(value, dict):
        return
    reference = value.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        if name not in seen:
            seen.add(name)
            admit_numbers(schemas[name], schemas, seen)
        return
    if value.get("format") == "decimal":
        kinds = value["type"] if isinstance(value["type"], list) else [value["type"]]
        value["type"] = list(dict.fromkeys([*kinds, "integer"]))
        digits = re.search(r"\{1,(\d+)\}", value["pattern"])
        largest = 10 ** int(digits[1]) - 1 if digits else 0
        is_positive = value["pattern"].startswith("^(?")
        is_signed = value["pattern"].startswith("^-")
        value.setdefault("minimum", -largest if is_signed else int(is_positive))
        value.setdefault("maximum", largest)
        return
    for inner in value.values():
        admit_numbers(inner, schemas, seen)


def no_null(schema: dict[str, Any]) -> None:
    """Take null out: a query has no way to say it, and leaves the name out."""
    if isinstance(schema.get("type"), list):
        kinds = [kind for kind in schema["type"] if kind != "null"]
        schema["type"] = kinds[0] if len(kinds) == 1 else kinds
    if "enum" in schema:
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    if schema.get("default", 0) is None:
        del schema["default"]


def rewrite_patterns(value: Any) -> None:
    r"""Write Python's \\A and \\Z as ^ and $."""
    if isinstance(value, dict):
        if isinstance(value.get("pattern"), str):
            value["pattern"] = re.sub(r"^\\A", "^", re.sub(r"\\Z$", "$", value["pattern"]))
        for inner in value.values():
            rewrite_patterns(inner)
    elif isinstance(value, list):
        for inner in value:
            rewrite_patterns(inner)


# What an endpoint with upload=True takes.
FILE = {
    "type": "object",
    "properties": {FIELD: {"type": "string", "contentMediaType": "application/octet-stream"}},
    "required": [FIELD],
    "additionalProperties": False,
}

# What one with receives=True takes: what its sender documents.
SIGNED = {"type": "object", "description": "As its sender documents it, signed in a header."}


def operation(endpoint: Endpoint, operation_id: str) -> dict[str, Any]:
    """Describe one endpoint as OpenAPI 3.1."""
    parameters: list[Any] = path_parameters(endpoint, lambda schema: {"schema": schema})
    if endpoint.query is not None:
        parameters.append({"in": "query", "schema": endpoint.query})
    parameters += [
        {
            "in": "header", "name": name, "required": True,
            "description": HEADERS[name][0], "schema": HEADERS[name][1],
        }
        if name == "If-Match" and endpoint.if_match == "required"
        else name
        for name in header_names(endpoint)
    ]  # fmt: skip
    described = {
        **texts(endpoint, operation_id),
        "parameters": parameters,
        "responses": {
            str(endpoint.status): success(endpoint),
            **{str(status): refusal(endpoint, status) for status in refusals(endpoint)},
        },
    }
    if has_tag(endpoint):
        described["responses"]["304"] = {
            "description": "You have it already.",
            "headers": headers({*EVERYWHERE, "ETag", "Link", *limits(endpoint)}, EVERYWHERE),
        }
    if endpoint.body is not None:
        content = {endpoint.body_type: {"schema": endpoint.body}}
        is_needed = any(field.required for field in endpoint.body.load_fields.values())
        described["requestBody"] = {"required": is_needed, "content": content}
    if endpoint.upload:
        described["requestBody"] = {"required": True, "content": {FORM_DATA: {"schema": FILE}}}
    if endpoint.receives:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": SIGNED}}}
    scheme = security_of(endpoint)
    if scheme is not None:
        described["security"] = [{scheme: []}]
    return described


def success(endpoint: Endpoint) -> dict[str, Any]:
    """Describe the answer of an endpoint when all is well."""
    described: dict[str, Any] = {"description": endpoint.message}
    schema = answer_schema(endpoint)
    if schema is not None:
        described["content"] = {"application/json": {"schema": schema}}
    elif endpoint.status not in {101, 204}:
        media_type = endpoint.media_type or "text/plain"
        schema_of = {"type": "object"} if media_type.endswith("json") else {"type": "string"}
        described["content"] = {media_type: {"schema": schema_of}}
    names = {*EVERYWHERE, *limits(endpoint), *notes(endpoint)}
    if endpoint.location is not None:
        names.add("Location")
    if keeps_answers(endpoint):
        names |= {"Idempotency-Key-Expires", "Idempotent-Replayed"}
    if (
        has_tag(endpoint)
        or (endpoint.if_match is not None and schema is not None)
        or is_versioned(endpoint)
    ):
        names.add("ETag")
    if isinstance(endpoint.returns, Paged) or is_cursored(endpoint):
        names.add("Link")
    described["headers"] = headers(names, {*EVERYWHERE, *ALWAYS_SAID})
    return described


def refusal(endpoint: Endpoint, status: int) -> str | dict[str, Any]:
    """Describe a refusal: the common one, unless this endpoint says more with it."""
    is_oauth = endpoint.oauth and status not in UNROUTED
    if endpoint.deprecated is None and not is_oauth:
        return str(status)
    content: dict[str, Any] = {
        "application/json": {"schema": Failure},
        "application/problem+json": {"schema": Problem},
    }
    if is_oauth:
        content = {"application/json": {"schema": OAuthRefusal}}
    said = {**refusal_headers(status), **headers(notes(endpoint), ())}
    return {"description": REFUSALS[status], "content": content, "headers": said}


def refusal_headers(status: int) -> dict[str, Any]:
    """Return the headers of a refusal."""
    always = {ALWAYS_SAID_WITH.get(status, "")}
    if status not in UNREADABLE:
        always |= {*EVERYWHERE}
    return headers({*EVERYWHERE, *QUOTA, *REFUSAL_HEADERS.get(status, ())}, always)


def headers(names: Iterable[str], always: Iterable[str]) -> dict[str, Any]:
    """Point at the headers that an answer has, and those that it always has."""
    said = frozenset(always)
    return {name: f"{name}.always" if name in said else name for name in sorted(names)}


def limits(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the headers of rate limits, where there are any."""
    return QUOTA if endpoint.is_limited else ()


def notes(endpoint: Endpoint) -> set[str]:
    """Return the headers that tell of an endpoint's retirement."""
    deprecated = endpoint.deprecated
    if deprecated is None:
        return set()
    said = {"Deprecation": True, "Sunset": deprecated.sunset, "Link": deprecated.link}
    return {name for name, is_said in said.items() if is_said}


def is_versioned(endpoint: Endpoint) -> bool:
    """Say whether what an endpoint returns has a version."""
    schema = endpoint.returns
    if schema is None or isinstance(schema, Paged) or endpoint.public:
        return False
    return endpoint.if_match is not None or isinstance(schema.fields.get("version"), fields.Integer)


def is_cursored(endpoint: Endpoint) -> bool:
    """Say whether an endpoint's list is read on from a cursor."""
    schema = endpoint.returns
    return schema is not None and not isinstance(schema, Paged) and "next_cursor" in schema.fields
