"""What happens around every request: its id, its log lines, its metrics, and all errors."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong

from sofinance.infra import errors, metrics, oauth, trace_context, tracing
from sofinance.infra.answer import JSON_HEADERS
from sofinance.infra.audit import user_agent
from sofinance.infra.cors import Cors
from sofinance.infra.envelope import Envelope
from sofinance.infra.errors import ApiError
from sofinance.infra.logs import JOURNAL, TRACE, Trace, safe_path
from sofinance.infra.masking import mask_text
from sofinance.infra.security import SECURITY_HEADERS, Hsts
from sofinance.infra.sockets import UPGRADED_AT_S
from sofinance.infra.trace_context import SPAN_HEADER, TRACE_HEADER

if TYPE_CHECKING:
    from sofinance.infra.machine import Machine

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
UNMATCHED = "unmatched"
UNAUTHORIZED = 401
# What aiohttp refuses by itself, before or around our handlers.
AIOHTTP_CODES = {
    404: ("not_found", "There is no such thing here."),
    405: ("method_not_allowed", "This path knows other methods; see the Allow header."),
    413: ("payload_too_large", "The body is larger than this service takes."),
}

PLAIN_ENVELOPE = Envelope(version=None)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def surround(machine: Machine) -> Any:
    """Return the application's one middleware."""
    cors, hsts = Cors(machine.settings.cors_origins.split(",")), Hsts(machine.settings)

    @web.middleware
    async def surrounded(request: web.Request, handler: Answer) -> web.StreamResponse:
        started_s = time.perf_counter()
        given = request.headers.get("X-Request-ID")
        context = trace_context.read(request.headers)
        is_good = given and REQUEST_ID.fullmatch(given) and mask_text(given) == given
        request_id = given if given and is_good else context.trace_id
        ip = machine.proxies.address(request)
        trace = Trace(request_id, context, ip=ip, user_agent=user_agent(request))
        TRACE.set(trace)
        tracing.begin(trace)
        method, path = request.method, safe_path(request.rel_url.raw_path)
        JOURNAL.write(logging.INFO, "request started", {"method": method, "path": path})
        machine.under_way_count += 1
        try:
            response = cors.preflight(request) or await handler(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an envelope
            response = refuse(machine, request, trace, error)
        finally:
            machine.under_way_count -= 1
        if not response.prepared:
            response.headers["X-Request-ID"] = request_id
            for name, value in trace.quota.items():
                response.headers[name] = value
            response.headers["traceparent"] = context.traceparent
            response.headers[TRACE_HEADER] = context.trace_id
            response.headers[SPAN_HEADER] = context.span_id
            dress(response, trace)
            cors.dress(request, response)
            hsts.dress(request, response)
            if machine.leaving:
                response.force_close()
        # A WebSocket is answered when it is open; how long it stays so is no duration of a request.
        duration_s = request.get(UPGRADED_AT_S, time.perf_counter()) - started_s
        resource = request.match_info.route.resource
        route = UNMATCHED if resource is None else resource.canonical
        is_kept = end_trace(trace, method, route, response.status, duration_s)
        trace_id = context.trace_id if is_kept else None
        metrics.observe(method, route, response.status, duration_s, trace_id)
        line = {
            "method": method,
            "path": path,
            "route": route,
            "status": response.status,
            "duration_ms": round(duration_s * 1000, 3),
            "org_id": trace.org_id,
        }
        if trace.error_code is not None:
            line["error_code"] = trace.error_code
        if response.status == UNAUTHORIZED:
            told = {"error_code": trace.error_code, "route": route}
            metrics.AUTHENTICATION_FAILURES.labels(trace.error_code or "").inc()
            JOURNAL.write(logging.WARNING, "authentication failed", told)
        level = logging.ERROR if response.status >= 500 else logging.INFO
        JOURNAL.write(level, "request completed", line)
        return response

    return surrounded


def end_trace(trace: Trace, method: str, route: str, status: int, duration_s: float) -> bool:
    """End the trace of a request; say whether it can be looked at later."""
    told: dict[str, str | int | bool] = {}
    if trace.spans is not None:
        told = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "user_agent.original": trace.origin["user_agent"] or "",
            "sofinance.request_id": trace.request_id,
        }
        if trace.error_code is not None:
            told["error.type"] = trace.error_code
        if trace.org_id is not None:
            told["sofinance.org_id"] = trace.org_id
    return tracing.finish(
        trace, f"{method} {route}", duration_s, kind=tracing.SERVER, has_failed=status >= 500,
        attributes=told,
    )  # fmt: skip


def dress(response: web.StreamResponse, trace: Trace) -> None:
    """Add what every answer has, wherever it came from."""
    if "Content-Security-Policy" not in response.headers:
        response.headers.update(SECURITY_HEADERS)
    response.headers["Server"] = JSON_HEADERS["Server"]
    for name, value in (trace.announced or {}).items():
        # Beside what is there: an answer may have links of its own.
        response.headers.add(name, value)


def refuse(
    machine: Machine, request: web.Request, trace: Trace, error: Exception
) -> web.StreamResponse:
    """Render whatever went wrong, in a handler, at COMMIT or in aiohttp itself."""
    known: ApiError | None
    if isinstance(error, web.RequestPayloadError):
        known = ApiError("malformed_request", "The body did not arrive whole.", status=400)
    elif isinstance(error, web.HTTPException):
        if error.status < 400:  # a redirect is not a refusal
            return error
        known = from_aiohttp(error)
    else:
        known = errors.translate(error, machine.vocabulary)
    if known is None:
        log.error("unhandled error", exc_info=error)
        known = errors.internal()
    trace.error_code = known.code
    status, accept = known.status, request.headers.get("Accept", "")
    if trace.is_oauth:
        status, body = oauth.status_of(known), oauth.refusal(known)
        headers = {**JSON_HEADERS, **oauth.HEADERS, **known.headers}
    elif errors.wants_problem(accept):
        body = errors.problem(known, trace=trace, path=request.rel_url.raw_path)
        headers = {**JSON_HEADERS, "Content-Type": "application/problem+json", **known.headers}
    else:
        body = machine.envelope.failure(known, trace.request_id)
        headers = {**JSON_HEADERS, **known.headers}
    response = web.Response(body=body, status=status, headers=headers)
    if known.status == 408:
        response.force_close()  # what still comes of the body is nobody's
    return response


async def meet_expectation(request: web.Request) -> web.StreamResponse | None:
    """Tell a client that waits for it to go on; refuse (417) to do what we do not know.

    This is before routes and middlewares, so the answer is made here.
    """
    if request.headers.get("Expect", "").strip().lower() == "100-continue":
        if request.version >= HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # else it would count as a part of the answer
        return None
    return plain_refusal(
        request,
        ApiError("expectation_failed", "We know no Expect but 100-continue.", status=417),
    )


def answer_unreadable(
    _protocol: object,
    request: web.BaseRequest,
    status: int = 500,
    exc: BaseException | None = None,
    _message: str | None = None,
) -> web.StreamResponse:
    """Answer what never became a request, or escaped from the middleware, in the envelope too."""
    if request.writer.output_size > 0:
        raise ConnectionError("half of an answer is sent; the rest would be taken for its end")
    if status >= 500:
        log.error("unhandled error", exc_info=exc)
        error = errors.internal()
    elif isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
        error = ApiError(
            "head_too_large", "The request line or the headers are more than we take.", status=431
        )
    else:
        error = ApiError("malformed_request", "This is not HTTP as we know it.", status=status)
    return plain_refusal(request, error)


def plain_refusal(request: web.BaseRequest, error: ApiError) -> web.Response:
    """Refuse what no middleware sees, and hear no more of the connection."""
    metrics.observe(request.method, UNMATCHED, error.status, 0.0)
    body = PLAIN_ENVELOPE.failure(error, "")
    response = web.Response(body=body, status=error.status, headers=JSON_HEADERS)
    response.force_close()
    return response


def from_aiohttp(error: web.HTTPException) -> ApiError:
    """Give aiohttp's own refusals the names of ours."""
    code, message = AIOHTTP_CODES.get(
        error.status, (error.reason.lower().replace(" ", "_"), f"{error.reason}.")
    )
    allow = error.headers.get("Allow")
    headers = None if allow is None else {"Allow": allow}
    return ApiError(code, message, status=error.status, headers=headers)
