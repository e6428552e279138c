"""The API described to programs, from the same declarations that serve it.

OpenAPI 3.1 at /openapi.json, through apispec; Swagger 2.0 at /swagger.json, through
aiohttp-apispec, which knows no newer one, and its Swagger UI at /docs, which reads that. This is
the only module that touches aiohttp-apispec.
"""

from __future__ import annotations

import functools
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp_apispec
import orjson
from aiohttp import web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import make_schema_key
from marshmallow import Schema, fields

from sofinance import __version__
from sofinance.infra import errors
from sofinance.infra.db import Mode
from sofinance.infra.fields import Pagination, Timestamp
from sofinance.infra.http import Endpoint, Paged
from sofinance.infra.parse import BRANCH_HEADER
from sofinance.infra.security import SECURITY_HEADERS, page_policy

if TYPE_CHECKING:
    from collections.abc import Callable

TITLE = "SOFinance"
DESCRIPTION = (
    "The back office of a retailer: selling, stock and the double-entry books, in one service. "
    "Every answer is one envelope; with `Accept: application/problem+json` an error is RFC 9457. "
    "The `code` of an error is the name of the rule that was broken; docs/errors.md lists all. "
    "Money is a string with exactly its currency's decimals."
)
OPENAPI_VERSION = "3.1.0"
SWAGGER_PATH, OPENAPI_PATH, UI_PATH = "/swagger.json", "/openapi.json", "/docs"
UI_FILES = Path(aiohttp_apispec.__file__).parent / "static"
ID = {"type": "integer", "format": "int64", "minimum": 1}
REFUSALS = {
    400: "The request is malformed, or lacks its Idempotency-Key.",
    401: "No access token, or none that is good.",
    403: "The caller may not do this.",
    404: "There is no such thing.",
    409: "It collides with what is there: taken, in use, or somebody was faster.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A field is not valid, or a rule of the books would be broken.",
    500: "It is our fault.",
    503: "The database is busy or away; try again after Retry-After.",
}
HEADERS = {
    "Idempotency-Key": "Do this once, however often it is sent: 1 to 255 characters.",
    BRANCH_HEADER: "The branch to act in; the caller's own when it is left out.",
    "X-Request-ID": "Your name for this request; it comes back, and is in our logs.",
}


class Refusal(Schema):
    """What was refused, and why."""

    code = fields.String(required=True, metadata={"example": "sale_total_matches_lines"})
    message = fields.String(required=True)
    details = fields.Dict(keys=fields.String(), required=True)


class Envelope(Schema):
    """What every answer has."""

    success = fields.Boolean(required=True)
    message = fields.String(required=True)
    meta = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    timestamp = Timestamp(required=True)


class Failure(Envelope):
    """The envelope of an error."""

    data = fields.Raw(required=True, allow_none=True)
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


def add_documents(app: web.Application, endpoints: list[Endpoint]) -> None:
    """Serve the documents of these endpoints; each is written when it is first asked for."""
    app.router.add_get(OPENAPI_PATH, document(functools.cache(lambda: openapi(endpoints))))
    app.router.add_get(SWAGGER_PATH, document(functools.cache(lambda: swagger(endpoints))))
    app.router.add_get(UI_PATH, show_ui)
    app.router.add_get(f"{UI_PATH}/static/{{name}}", show_ui_file)


def document(write: Callable[[], dict[str, Any]]) -> Callable[[web.Request], Any]:
    """Return the handler that serves a document."""

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(write()), content_type="application/json")

    return serve


async def show_ui(_request: web.Request) -> web.Response:
    """Show Swagger UI."""
    page = (UI_FILES / "index.html").read_text("utf-8")
    for name, path in (("path", SWAGGER_PATH), ("static", f"{UI_PATH}/static")):
        page = page.replace(f"{{{{ {name} }}}}", path)
    headers = {**SECURITY_HEADERS, "Content-Security-Policy": page_policy(page)}
    return web.Response(text=page, content_type="text/html", headers=headers)


async def show_ui_file(request: web.Request) -> web.FileResponse:
    """Return a file of Swagger UI; add_static would answer its own 404, without the envelope."""
    path = UI_FILES / request.match_info["name"]
    if path not in UI_FILES.iterdir():
        raise errors.not_found()
    return web.FileResponse(path)


# --- OpenAPI 3.1 ----------------------------------------------------------------------------------


def openapi(endpoints: list[Endpoint]) -> dict[str, Any]:
    """Describe the endpoints as OpenAPI 3.1."""
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
        "bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    )
    for name, why in HEADERS.items():
        schema: dict[str, Any] = ID if name == BRANCH_HEADER else {"type": "string"}
        spec.components.parameter(name, "header", {"description": why, "schema": schema})
    for status, why in REFUSALS.items():
        content = {
            "application/json": {"schema": Failure},
            "application/problem+json": {"schema": Problem},
        }
        spec.components.response(str(status), {"description": why, "content": content})
    for endpoint, operation_id in zip(endpoints, operation_ids(endpoints), strict=True):
        spec.path(
            endpoint.path, operations={endpoint.method.lower(): operation(endpoint, operation_id)}
        )
    return spec.to_dict()


def operation(endpoint: Endpoint, operation_id: str) -> dict[str, Any]:
    """Describe one endpoint as OpenAPI 3.1."""
    parameters: list[Any] = path_parameters(endpoint, lambda schema: {"schema": schema})
    if endpoint.query is not None:
        parameters.append({"in": "query", "schema": endpoint.query})
    parameters += header_names(endpoint)
    described = {
        **texts(endpoint, operation_id),
        "parameters": parameters,
        "responses": {
            str(endpoint.status): success(endpoint),
            **{str(status): str(status) for status in refusals(endpoint)},
        },
    }
    if endpoint.body is not None:
        content = {"application/json": {"schema": endpoint.body}}
        described["requestBody"] = {"required": True, "content": content}
    if endpoint.permission is not None:
        described["security"] = [{"bearer": []}]
    return described


def success(endpoint: Endpoint) -> dict[str, Any]:
    """Describe the answer of an endpoint when all is well."""
    described: dict[str, Any] = {"description": endpoint.message}
    schema = answer_schema(endpoint)
    if schema is not None:
        described["content"] = {"application/json": {"schema": schema}}
    elif endpoint.status != 204:
        described["content"] = {"text/plain": {"schema": {"type": "string"}}}
    if endpoint.location is not None:
        described["headers"] = {
            "Location": {"description": "Where it is.", "schema": {"type": "string"}}
        }
    return described


# --- Swagger 2.0 ----------------------------------------------------------------------------------


def swagger(endpoints: list[Endpoint]) -> dict[str, Any]:
    """Describe the endpoints as Swagger 2.0."""
    spec = aiohttp_apispec.AiohttpApiSpec(
        url=None,
        title=TITLE,
        version=__version__,
        schema_name_resolver=component_name,
        info={"description": DESCRIPTION},
        tags=tags(endpoints),
        securityDefinitions={"bearer": {"type": "apiKey", "in": "header", "name": "Authorization"}},
    )
    # It reads the routes of an application and keeps its own notes there: not in ours.
    described = web.Application()
    for endpoint, operation_id in zip(endpoints, operation_ids(endpoints), strict=True):
        described.router.add_route(endpoint.method, endpoint.path, view(endpoint, operation_id))
    with warnings.catch_warnings():
        # Its notes are under strings, which aiohttp advises against.
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        spec.register(described, in_place=True)
    written: dict[str, Any] = without_null_defaults(spec.swagger_dict())
    return written


def without_null_defaults(value: Any) -> Any:
    """Leave out defaults of null, which this version has no way to say."""
    if isinstance(value, dict):
        return {
            key: without_null_defaults(inner)
            for key, inner in value.items()
            if not (key == "default" and inner is None)
        }
    if isinstance(value, list):
        return [without_null_defaults(inner) for inner in value]
    return value


def view(endpoint: Endpoint, operation_id: str) -> Any:
    """Return a view that answers nothing and carries aiohttp-apispec's marks."""

    async def marked(_request: web.Request) -> web.Response:
        raise web.HTTPNotFound

    headers = [
        {"in": "header", "name": name, "description": HEADERS[name], "required": False}
        | ({"type": "integer"} if name == BRANCH_HEADER else {"type": "string"})
        for name in header_names(endpoint)
    ]
    security: dict[str, Any] = {} if endpoint.permission is None else {"security": [{"bearer": []}]}
    marks = [
        aiohttp_apispec.docs(
            **texts(endpoint, operation_id),
            **security,
            parameters=[*path_parameters(endpoint, dict), *headers],
            responses={str(endpoint.status): {"description": endpoint.message}},
        )
    ]
    if endpoint.body is not None:
        marks.append(aiohttp_apispec.json_schema(endpoint.body, required=True))
    if endpoint.query is not None:
        marks.append(aiohttp_apispec.querystring_schema(endpoint.query))
    answers = [(endpoint.status, answer_schema(endpoint), endpoint.message)]
    answers += [(status, Failure, REFUSALS[status]) for status in refusals(endpoint)]
    marks += [
        aiohttp_apispec.response_schema(schema, status, description=why)
        for status, schema, why in answers
        if schema is not None
    ]
    for mark in marks:
        mark(marked)
    return marked


# --- what both say --------------------------------------------------------------------------------


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
        data = fields.List(data)
        name += ".List"
    data.required = True
    members = {"data": data, "error": fields.Raw(required=True, allow_none=True)}
    made = type(f"{name}.Answer", (Envelope,), members)
    made.__module__ = __name__
    return made


def answer_schema(endpoint: Endpoint) -> type[Schema] | None:
    """Return the schema of an endpoint's whole answer; None when it has no JSON."""
    match endpoint.returns:
        case None:
            return None
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
    """Return what people read about an endpoint: the docstring of its handler."""
    summary, _, rest = (endpoint.handler.__doc__ or "").strip().partition("\n")
    described: dict[str, Any] = {
        "operationId": operation_id,
        "tags": [endpoint.tag],
        "summary": summary,
        "description": re.sub(r"\n[ \t]+", "\n", rest).strip(),
    }
    if endpoint.permission is not None:
        described["x-permission"] = endpoint.permission
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


def header_names(endpoint: Endpoint) -> list[str]:
    """Return the headers that an endpoint reads."""
    names = ["X-Request-ID"]
    if endpoint.permission is not None:
        names.append(BRANCH_HEADER)
        if endpoint.mode is Mode.WRITE and endpoint.idempotent:
            names.append("Idempotency-Key")
    return names


def refusals(endpoint: Endpoint) -> list[int]:
    """Return the statuses with which an endpoint can refuse."""
    signed_in = endpoint.permission is not None
    reads_body, writes = endpoint.body is not None, endpoint.mode is Mode.WRITE
    possible = {
        400: reads_body or writes,
        401: signed_in or writes,
        403: signed_in,
        404: "{" in endpoint.path or writes,
        409: writes,
        413: reads_body,
        415: reads_body,
        422: signed_in or reads_body or endpoint.query is not None,
        500: True,
        503: True,
    }
    return [status for status, is_possible in possible.items() if is_possible]
