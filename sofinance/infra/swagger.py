"""The API as Swagger 2.0, which aiohttp-apispec writes, and its Swagger UI, which reads that.

This is the only module that touches aiohttp-apispec.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp_apispec
from aiohttp import web

from sofinance import __version__
from sofinance.infra import errors
from sofinance.infra.described import (
    DESCRIPTION,
    HEADERS,
    REFUSALS,
    TITLE,
    USER,
    Failure,
    answer_schema,
    component_name,
    header_names,
    operation_ids,
    path_parameters,
    refusals,
    security_of,
    tags,
    texts,
)
from sofinance.infra.oauth import OAuthRefusal
from sofinance.infra.security import SECURITY_HEADERS, page_policy
from sofinance.infra.upload import FIELD
from sofinance.infra.visitors import VISITOR

if TYPE_CHECKING:
    from sofinance.infra.http import Endpoint

SWAGGER_PATH, UI_PATH = "/swagger.json", "/docs"
UI_FILES = Path(aiohttp_apispec.__file__).parent / "static"


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


def swagger(endpoints: list[Endpoint]) -> dict[str, Any]:
    """Describe the endpoints as Swagger 2.0."""
    spec = aiohttp_apispec.AiohttpApiSpec(
        url=None,
        title=TITLE,
        version=__version__,
        schema_name_resolver=component_name,
        info={"description": DESCRIPTION},
        tags=tags(endpoints),
        securityDefinitions={
            scheme: {"type": "apiKey", "in": "header", "name": "Authorization"}
            for scheme in (USER, VISITOR)
        },
    )
    # It reads the routes of an application and keeps its own notes there: not in ours.
    described = web.Application()
    for endpoint, operation_id in zip(endpoints, operation_ids(endpoints), strict=True):
        described.router.add_route(endpoint.method, endpoint.path, view(endpoint, operation_id))
    with warnings.catch_warnings():
        # Its notes are under strings, which aiohttp advises against.
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        spec.register(described, in_place=True)
    written: dict[str, Any] = sayable(spec.swagger_dict())
    return written


def sayable(value: Any) -> Any:
    """Leave out defaults and types of null, which this version has no way to say."""
    if isinstance(value, dict):
        return {
            key: sayable(inner)
            for key, inner in value.items()
            if not (key == "default" and inner is None) and not (key == "type" and inner == "null")
        }
    if isinstance(value, list):
        return [sayable(inner) for inner in value]
    return value


def view(endpoint: Endpoint, operation_id: str) -> Any:
    """Return a view that answers nothing and carries aiohttp-apispec's marks."""

    async def marked(_request: web.Request) -> web.Response:
        raise web.HTTPNotFound

    headers = [
        {"in": "header", "name": name, "description": why, "required": False, **schema}
        for name, (why, schema) in HEADERS.items()
        if name in header_names(endpoint)
    ]
    files = [{"in": "formData", "name": FIELD, "type": "file", "required": True}]
    if not endpoint.upload:
        files = []
    scheme = security_of(endpoint)
    security: dict[str, Any] = {} if scheme is None else {"security": [{scheme: []}]}
    marks = [
        aiohttp_apispec.docs(
            **texts(endpoint, operation_id),
            **security,
            parameters=[*path_parameters(endpoint, dict), *headers, *files],
            responses={str(endpoint.status): {"description": endpoint.message}},
        )
    ]
    if endpoint.body is not None:
        place = aiohttp_apispec.form_schema if endpoint.oauth else aiohttp_apispec.json_schema
        marks.append(place(endpoint.body, required=True))
    if endpoint.query is not None:
        marks.append(aiohttp_apispec.querystring_schema(endpoint.query))
    answers = [(endpoint.status, answer_schema(endpoint), endpoint.message)]
    failure = OAuthRefusal if endpoint.oauth else Failure
    answers += [(status, failure, REFUSALS[status]) for status in refusals(endpoint)]
    marks += [
        aiohttp_apispec.response_schema(schema, status, description=why)
        for status, schema, why in answers
        if schema is not None
    ]
    for mark in marks:
        mark(marked)
    return marked
