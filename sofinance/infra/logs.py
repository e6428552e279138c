"""Structured logs: one JSON object a line on stdout, the fields of the operations manual.

``timestamp, level, service, environment, request_id, user_id, message, metadata{...}``, no other.
Metadata has ip_address, user_agent, trace_id and span_id, null outside a request, and error_code
where something was refused. A credential, an e-mail address or a phone number that strays into a
message, a path or the name of a program is blanked out; bodies and headers are never logged.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import unquote

import orjson

from sofinance.infra import metrics
from sofinance.infra.masking import mask, mask_text
from sofinance.infra.times import iso_now

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sofinance.infra.trace_context import TraceContext
    from sofinance.infra.tracing import Span

SERVICE = "sofinance"
LEVELS = {number: logging.getLevelName(number) for number in range(0, 51, 10)}
# A traceback is cut here, so that a line stays a line that log shippers accept.
METADATA_TEXT_LENGTH_MAX = 16_000
# Programs that are remembered with what is left of their names.
USER_AGENT_COUNT_MAX = 1_000
# What no path has in which there is nothing to blank out.
SUSPICIOUS = re.compile(r"[%@+:=]|eyJ|sf[a-z]_")
SECRETS = re.compile(
    r"""(?P<keep>://[^:/@\s]+:)[^@\s]+(?=@)            # the password in a URL
      | (?P<scheme>\b(?:Bearer|Basic)\s+)[\w.~+/=-]+   # an Authorization header
      | \beyJ[\w-]+\.[\w-]+\.[\w-]*                    # a JSON web token
      | \bsf[a-z]_\d+_\d+_[\w-]+                       # a key or a token of ours
      | (?P<row>Failing\ row\ contains\ |Key\ \([^)]*\)=)\(.*\)   # PostgreSQL on a refused row
      | (?P<name>(?:password|passwd|secret|token)["']?\s*[=:]\s*["']?)[^\s"',;&}]+
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Trace:
    """What is known about the request that is being answered; it fills up on the way."""

    __slots__ = (
        "announced", "began_s", "context", "error_code", "ip", "is_oauth", "org_id", "origin",
        "quota", "request_id", "spans", "user_id",
    )  # fmt: skip

    def __init__(
        self,
        request_id: str,
        context: TraceContext | None = None,
        *,
        ip: str | None = None,
        user_agent: str | None = None,
    ) -> None:
        self.request_id = request_id
        self.context = context
        self.ip = ip
        # What every line of the request says of where it came from.
        self.origin: Mapping[str, str | None] = {
            "ip_address": ip,
            "user_agent": user_agent,
            "trace_id": None if context is None else context.trace_id,
            "span_id": None if context is None else context.span_id,
        }
        # What has ended of it, while it is recorded (tracing.py).
        self.spans: list[Span] | None = None
        self.began_s = 0.0
        # Headers that every answer of the endpoint has, refusals too.
        self.announced: dict[str, str] | None = None
        self.user_id: int | None = None
        self.org_id: int | None = None
        self.error_code: str | None = None
        # Whether refusals are rendered as RFC 6749 wants them.
        self.is_oauth = False
        # What the answer's headers say of the limits that the request was charged to.
        self.quota: Mapping[str, str] = {}


TRACE: ContextVar[Trace | None] = ContextVar("trace", default=None)
NO_ORIGIN = Trace("").origin


class Journal:
    """Where lines are written: the stream, the least level, and what every line says."""

    def __init__(self) -> None:
        self.stream: TextIO | None = None
        self.level = logging.INFO
        self.environment = "development"

    def write(self, level: int, message: str, metadata: dict[str, Any]) -> None:
        """Write one line at once, without the logging module's detours."""
        if level < self.level:
            return
        trace = TRACE.get()
        origin = NO_ORIGIN if trace is None else trace.origin
        line = orjson.dumps(
            {
                "timestamp": iso_now(),
                "level": LEVELS.get(level) or logging.getLevelName(level),
                "service": SERVICE,
                "environment": self.environment,
                "request_id": None if trace is None else trace.request_id,
                "user_id": None if trace is None else trace.user_id,
                "message": message,
                "metadata": {**metadata, **origin},
            },
            default=str,
            option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS,
        )
        # Looked up late, so that a stream which was exchanged (by a test, say) is honoured.
        stream = self.stream or sys.stdout
        try:
            stream.write(line.decode())
            stream.flush()
        except (OSError, ValueError):
            # Nobody reads stdout any more; the sale goes on, and the loss is counted.
            metrics.LOG_LINES_LOST.inc()


JOURNAL = Journal()


class JsonHandler(logging.Handler):
    """Hand what libraries and our own modules log to the journal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; a record that cannot be written is reported on stderr, not raised."""
        try:
            given = getattr(record, "metadata", {})
            metadata: dict[str, Any] = {"logger": record.name, **redact_all(given)}
            if record.exc_info and record.exc_info[0] is not None:
                text = "".join(traceback.format_exception(*record.exc_info))
                metadata["exception"] = redact(text)[-METADATA_TEXT_LENGTH_MAX:]
            JOURNAL.write(record.levelno, redact(record.getMessage()), metadata)
        except Exception:  # noqa: BLE001 - logging's own contract: handleError, never raise
            self.handleError(record)


def redact(text: str) -> str:
    """Blank out what looks like a credential, an e-mail address or a phone number."""
    safe = SECRETS.sub(
        lambda found: (
            (found["keep"] or found["scheme"] or found["row"] or found["name"] or "") + "[redacted]"
        ),
        text,
    )
    return mask_text(safe)


def safe_path(raw_path: str) -> str:
    """Return a request's path without credentials and personal data."""
    if not SUSPICIOUS.search(raw_path):
        return raw_path
    return "/".join(_safe_part(part) for part in raw_path.split("/"))


def _safe_part(raw: str) -> str:
    plain = unquote(raw)
    safe = redact(plain)
    return raw if safe == plain else safe


@lru_cache(USER_AGENT_COUNT_MAX)
def safe_agent(user_agent: str) -> str:
    """Return the name of a client's program, without the same.

    Bytes that are no UTF-8 came in as surrogates; they become question marks.
    """
    return redact(user_agent).encode("utf-8", "replace").decode()


def redact_all(value: Any) -> Any:
    """Blank out the same in every text of a structure, and what its names say is masked."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: redact_all(inner) for name, inner in mask(value).items()}
    if isinstance(value, list | tuple):
        return [redact_all(inner) for inner in value]
    return value


def configure(*, level: str, environment: str, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process to stdout as JSON lines."""
    JOURNAL.level = logging.getLevelNamesMapping()[level.upper()]
    JOURNAL.environment = environment
    JOURNAL.stream = stream
    root = logging.getLogger()
    root.handlers = [h for h in root.handlers if not isinstance(h, JsonHandler)]
    root.addHandler(JsonHandler())
    root.setLevel(JOURNAL.level)
    # The middleware writes the access lines; aiohttp's own would say it all again.
    logging.getLogger("aiohttp.access").disabled = True


@contextlib.contextmanager
def on_stderr() -> Iterator[None]:
    """Send what a command logs to stderr: its stdout is for what was asked for."""
    level, stream = logging.getLevelName(JOURNAL.level), JOURNAL.stream
    configure(level="warning", environment=JOURNAL.environment, stream=sys.stderr)
    try:
        yield
    finally:
        configure(level=level, environment=JOURNAL.environment, stream=stream)
