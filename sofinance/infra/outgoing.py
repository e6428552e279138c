"""Requests of ours to others: they carry the trace on, and are a span of it.

Every aiohttp.ClientSession of the service is made with ``trace_configs=[outgoing.traced()]``.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING

import aiohttp

from sofinance.infra import tracing
from sofinance.infra.logs import TRACE
from sofinance.infra.trace_context import SPAN_HEADER, TRACE_HEADER

if TYPE_CHECKING:
    from types import SimpleNamespace


def traced() -> aiohttp.TraceConfig:
    """Return what a session needs to carry traces on."""
    config = aiohttp.TraceConfig()
    config.on_request_start.append(_start)
    config.on_request_end.append(_end)
    config.on_request_exception.append(_fail)
    return config


async def _start(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    params: aiohttp.TraceRequestStartParams,
) -> None:
    context.started_s = perf_counter()
    context.span_id = os.urandom(8).hex()
    trace = TRACE.get()
    if trace is None or trace.context is None:
        return
    ours = trace.context._replace(span_id=context.span_id)
    params.headers["traceparent"] = ours.traceparent
    params.headers[TRACE_HEADER], params.headers[SPAN_HEADER] = ours.trace_id, ours.span_id
    params.headers["X-Request-ID"] = trace.request_id
    if ours.state is not None:
        params.headers["tracestate"] = ours.state


async def _end(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    params: aiohttp.TraceRequestEndParams,
) -> None:
    status = params.response.status
    _note(context, params, has_failed=status >= 400, told={"http.response.status_code": status})


async def _fail(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    params: aiohttp.TraceRequestExceptionParams,
) -> None:
    _note(context, params, has_failed=True, told={"error.type": type(params.exception).__name__})


def _note(
    context: SimpleNamespace,
    params: aiohttp.TraceRequestEndParams | aiohttp.TraceRequestExceptionParams,
    *,
    has_failed: bool,
    told: tracing.Attributes,
) -> None:
    if not tracing.RECORDER.is_on:
        return
    tracing.note(
        f"{params.method} {params.url.host}",
        perf_counter() - context.started_s,
        has_failed=has_failed,
        # The host alone: a path or a query may carry a secret.
        attributes={
            "http.request.method": params.method,
            "server.address": params.url.host or "",
            **told,
        },
        span_id=context.span_id,
    )
