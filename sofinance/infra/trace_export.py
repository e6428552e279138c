"""Sends kept traces to a collector, as OTLP over HTTP: in the background, in batches, bounded.

Only the messages are OpenTelemetry's own (the extra `telemetry`), which are imported when the first
trace is sent. A collector that is away costs nobody anything but the spans, which are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any

import aiohttp

from sofinance import __version__
from sofinance.infra import metrics
from sofinance.infra.settings_checks import read_pairs
from sofinance.infra.tracing import RECORDER

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from sofinance.config import Settings
    from sofinance.infra.trace_context import TraceContext
    from sofinance.infra.tracing import Attributes, Kept, Span

log = logging.getLogger(__name__)

SERVICE = "sofinance"
TRACES_PATH = "/v1/traces"
INTERVAL_S = 2.0
BATCH_SPAN_COUNT = 256
TIMEOUT_S = 10.0
ATTEMPT_COUNT_MAX = 3
BACKOFF_S = 1.0
# Source: OTLP specification, "Retryable response codes"; any other is for good.
RETRYABLE = frozenset({429, 502, 503, 504})
STATUS_ERROR = 2
NS = 1_000_000_000


class Exporter:
    """The sending of one process."""

    def __init__(self, endpoint: str, headers: dict[str, str], *, environment: str) -> None:
        self._url = endpoint.rstrip("/") + TRACES_PATH
        self._headers = {"Content-Type": "application/x-protobuf", **headers}
        self._resource = {
            "service.name": SERVICE,
            "service.version": __version__,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            "deployment.environment.name": environment,
        }
        self._is_told = False

    async def run(self) -> None:
        """Send what waits, every so often, for ever."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                while True:
                    await asyncio.sleep(INTERVAL_S)
                    await self.send_all(session)
            except asyncio.CancelledError:
                # The last spans of a process that stops, once.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL_S):
                        await self.send_all(session)
                raise

    async def send_all(self, session: aiohttp.ClientSession) -> None:
        """Send what waits now."""
        while kept := RECORDER.take(BATCH_SPAN_COUNT):
            count = sum(1 + len(one.spans) for one in kept)
            try:
                await self._send(session, kept, count)
            except Exception:
                # One that cannot be written is lost with its batch; those that come after are not.
                metrics.SPANS_DROPPED.labels("not_sent").inc(count)
                log.exception("traces were dropped")

    async def _send(self, session: aiohttp.ClientSession, kept: list[Kept], count: int) -> None:
        # In a thread: some milliseconds, in which the loop would answer nobody.
        body, why = await asyncio.to_thread(encode, kept, self._resource), ""
        for attempt in range(ATTEMPT_COUNT_MAX):
            if attempt:
                await asyncio.sleep(BACKOFF_S * 2**attempt)
            try:
                async with session.post(
                    self._url, data=body, headers=self._headers, allow_redirects=False
                ) as response:
                    if response.status == 200:
                        metrics.SPANS_SENT.inc(count)
                        self._is_told = False
                        return
                    why = f"it answered {response.status}"
                    if response.status not in RETRYABLE:
                        break
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = type(error).__name__
        metrics.SPANS_DROPPED.labels("not_sent").inc(count)
        if not self._is_told:  # once, till it works again
            self._is_told = True
            log.warning("traces cannot be sent", extra={"metadata": {"why": why}})


@contextlib.asynccontextmanager
async def exporting(settings: Settings) -> AsyncGenerator[None]:
    """Record traces and send them for as long as a block runs; nothing without a collector."""
    if not settings.otel_exporter_otlp_endpoint:
        yield
        return
    RECORDER.sample_percent, RECORDER.is_on = settings.trace_sample_percent, True
    exporter = Exporter(
        settings.otel_exporter_otlp_endpoint,
        read_pairs(settings.otel_exporter_otlp_headers),
        environment=settings.environment,
    )
    sending = asyncio.create_task(exporter.run())
    try:
        yield
    finally:
        RECORDER.is_on = False
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending


def encode(kept: Iterable[Kept], resource: Mapping[str, str]) -> bytes:
    """Write traces as an ExportTraceServiceRequest."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - optional
        ExportTraceServiceRequest,
    )

    message = ExportTraceServiceRequest()
    of_resource = message.resource_spans.add()
    _set(of_resource.resource.attributes, resource)
    scope = of_resource.scope_spans.add()
    scope.scope.name = SERVICE
    # Told from what the time is now, so that a clock which was set does not turn spans around.
    zero_ns = time.time_ns() - time.perf_counter_ns()
    for one in kept:
        context = one.context
        root_id = bytes.fromhex(context.span_id)
        parent_id = None if context.parent_id is None else bytes.fromhex(context.parent_id)
        _fill(scope.spans.add(), one.root, zero_ns, context, parent_id)
        for span in one.spans:
            _fill(scope.spans.add(), span, zero_ns, context, root_id)
    encoded: bytes = message.SerializeToString()
    return encoded


def _fill(
    message: Any, span: Span, zero_ns: int, context: TraceContext, parent_id: bytes | None
) -> None:
    message.trace_id = bytes.fromhex(context.trace_id)
    message.span_id = (
        secrets.token_bytes(8) if span.span_id is None else bytes.fromhex(span.span_id)
    )
    if parent_id is not None:
        message.parent_span_id = parent_id
    if context.state is not None:
        message.trace_state = context.state
    message.name, message.kind = span.name, span.kind
    message.start_time_unix_nano = zero_ns + int(span.started_s * NS)
    message.end_time_unix_nano = zero_ns + int((span.started_s + span.duration_s) * NS)
    if span.has_failed:
        message.status.code = STATUS_ERROR
    _set(message.attributes, span.attributes)


def _set(attributes: Any, values: Attributes) -> None:
    for name, value in values.items():
        attribute = attributes.add()
        attribute.key = name
        if isinstance(value, bool):
            attribute.value.bool_value = value
        elif isinstance(value, int):
            attribute.value.int_value = value
        else:
            attribute.value.string_value = value
