"""Sends what is logged as an error to Sentry (or what speaks its protocol), without anybody's data.

sentry_sdk only queues what it is given; a thread of its own sends it, so no handler ever waits.
None of its integrations is on: they would take headers, bodies, addresses and local variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from sofinance import __version__
from sofinance.infra import metrics
from sofinance.infra.logs import TRACE, redact, redact_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sofinance.config import Settings

# What may wait to be sent; what comes then is dropped, and counted by Sentry's client.
QUEUE_COUNT_MAX = 100
FLUSH_TIMEOUT_S = 2.0
# Parts of an event that could only hold what is nobody's business.
PRIVATE_PARTS = ("request", "user", "breadcrumbs", "extra", "modules")


@contextlib.asynccontextmanager
async def reporting(settings: Settings) -> AsyncGenerator[None]:
    """Report errors for as long as a block runs; nothing without SENTRY_DSN."""
    if not settings.sentry_dsn:
        yield
        return
    import sentry_sdk  # noqa: PLC0415 - optional

    sentry_sdk.init(
        dsn=settings.sentry_dsn,
        environment=settings.environment,
        release=f"sofinance@{__version__}",
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        send_client_reports=False,
        transport_queue_size=QUEUE_COUNT_MAX,
        before_send=lambda event, _hint: scrub(event),
    )
    handler = ReportingHandler(sentry_sdk)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        await asyncio.to_thread(sentry_sdk.flush, FLUSH_TIMEOUT_S)
        sentry_sdk.get_client().close(timeout=0)


class ReportingHandler(logging.Handler):
    """Makes an event of every error that is logged."""

    def __init__(self, sdk: Any) -> None:
        super().__init__(logging.ERROR)
        self._sdk = sdk

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; one that cannot be is told on stderr, not raised."""
        try:
            event: dict[str, Any] = {}
            if record.exc_info and record.exc_info[0] is not None:
                event, _ = self._sdk.utils.event_from_exception(
                    record.exc_info, client_options=self._sdk.get_client().options
                )
            event["level"] = record.levelname.lower()
            event["logger"] = record.name
            event["logentry"] = {"formatted": redact(record.getMessage())}
            event |= of_request()
            self._sdk.capture_event(event)
            metrics.ERRORS_REPORTED.inc()
        except Exception:  # noqa: BLE001 - logging's own contract: handleError, never raise
            self.handleError(record)


def of_request() -> dict[str, Any]:
    """Return the names of the request that is under way, by which it is found in log and traces."""
    trace = TRACE.get()
    if trace is None or trace.context is None:
        return {}
    context = trace.context
    return {
        "tags": {"request_id": trace.request_id, "trace_id": context.trace_id},
        "contexts": {"trace": {"trace_id": context.trace_id, "span_id": context.span_id}},
    }


def scrub(event: Any) -> Any:
    """Take out of an event whatever a log line would not have."""
    for part in PRIVATE_PARTS:
        event.pop(part, None)
    for error in event.get("exception", {}).get("values", ()):
        for frame in error.get("stacktrace", {}).get("frames", ()):
            frame.pop("vars", None)
    return redact_all(event)
