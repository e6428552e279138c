"""From what a handler returned to an answer: data, envelope, headers, and 304 for what is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from sofinance.infra import etag, links, oauth
from sofinance.infra.fields import pagination
from sofinance.infra.http import Paged
from sofinance.infra.security import SECURITY_HEADERS
from sofinance.infra.shapes import compile_dump

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from marshmallow import Schema

    from sofinance.infra.envelope import Envelope
    from sofinance.infra.http import Call, Endpoint

    Dump = Callable[[Any, Mapping[str, Any]], dict[str, Any] | list[Any]]

JSON_HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "Cache-Control": "no-store",
    "Server": "SOFinance",
    **SECURITY_HEADERS,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler's result became."""

    data: Any
    json: bytes
    body: bytes
    headers: dict[str, str]

    @property
    def etag(self) -> str | None:
        """The tag of what is answered, if it has one."""
        return self.headers.get("ETag")


class Writer:
    """Writes the answers of one endpoint."""

    def __init__(self, endpoint: Endpoint, envelope: Envelope) -> None:
        self._envelope = None if endpoint.oauth else envelope
        self._status = endpoint.status
        self._message = orjson.dumps(endpoint.message)
        self._location = endpoint.location
        self._reads = endpoint.method == "GET" and not endpoint.public
        self.dump = dumper(endpoint.returns)

    def write(self, request: web.Request, call: Call, result: Any) -> Answer:
        """Turn what a handler returned into an answer."""
        if self.dump is None:
            return Answer(None, b"null", b"", {})
        data = self.dump(result, call.query)
        json = orjson.dumps(data)
        envelope = self._envelope
        if envelope is None:
            return Answer(data, json, json, {**JSON_HEADERS, **oauth.HEADERS})
        body = envelope.success(self._message, json, call.request_id, envelope.mirrored(data))
        headers = self.headers(data, call.path)
        if self._reads or etag.version_of(result) is not None:
            headers["ETag"] = etag.tag_of(result, json)
        if self._reads and isinstance(data, dict):
            link = links.paging(request, data)
            if link is not None:
                headers["Link"] = link
        return Answer(data, json, body, headers)

    def headers(self, data: Any, path: Mapping[str, Any]) -> dict[str, str]:
        """Return the headers that an answer with this data has, whenever it is given."""
        if self._location is None or not isinstance(data, dict):
            return {**JSON_HEADERS}
        return {**JSON_HEADERS, "Location": self._location.format_map({**path, **data})}

    def respond(self, request: web.Request, answer: Answer) -> web.Response:
        """Make the response; 304 without a body when the client has it already."""
        if self._reads and etag.is_known(request, answer.headers["ETag"]):
            headers = {name: value for name, value in answer.headers.items() if name in KEPT_IN_304}
            return respond(304, b"", headers)
        return respond(self._status, answer.body, answer.headers)


# A 304 says what is true of what the client has; of its body it says nothing.
KEPT_IN_304 = frozenset(JSON_HEADERS.keys() - {"Content-Type"} | {"ETag", "Link"})


def dumper(returns: Schema | Paged | None) -> Dump | None:
    """Return the function that turns a handler's result into data; None when there is none."""
    match returns:
        case None:
            return None
        case Paged():
            dump_item = compile_dump(returns.schema)

            def dump_page(result: Any, query: Mapping[str, Any]) -> dict[str, Any]:
                rows, total = result
                items = [dump_item(row, None) for row in rows]
                return {"items": items, "pagination": pagination(total, query)}

            return dump_page
    dump_one = compile_dump(returns)
    if returns.many:
        return lambda result, _: [dump_one(row, None) for row in result]
    return lambda result, _: dump_one(result, None)


def respond(status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
    """Make a response."""
    return web.Response(body=body or None, status=status, headers=headers)
