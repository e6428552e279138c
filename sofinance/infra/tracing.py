"""Spans: what a request or a job spent its time on, kept if it went wrong, was slow, or by lot.

While a trace is under way its spans are tuples in a list of the request's own (`note`); at its end
it is decided whether anybody will want to see them (`finish`), and only then are they put where
trace_export.py takes them from. The lot is drawn by the trace's id, so that all services that
a trace passes draw the same. Nothing here waits, and every buffer has a bound.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sofinance.infra import metrics
from sofinance.infra.logs import TRACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sofinance.infra.logs import Trace
    from sofinance.infra.trace_context import TraceContext

    Attributes = Mapping[str, str | int | bool]

# Source: opentelemetry-proto, Span.SpanKind.
INTERNAL, SERVER, CLIENT = 1, 2, 3
# A trace that took longer is kept.
SLOW_S = 1.0
# Spans of one trace, and of all traces that wait to be sent from this process.
SPAN_COUNT_MAX = 256
WAITING_COUNT_MAX = 8_192
# Source: W3C Trace Context level 2: the last 56 bits of an id are random.
RANDOM_DIGITS, RANDOM_SPACE = 14, 1 << 56
NO_ATTRIBUTES: Attributes = {}


class Span(NamedTuple):
    """A part of a trace that has ended."""

    name: str
    kind: int
    started_s: float  # by time.perf_counter(), which nobody sets
    duration_s: float
    has_failed: bool
    attributes: Attributes
    span_id: str | None = None  # given when it was told to somebody before it ended


@dataclass(frozen=True, slots=True)
class Kept:
    """A trace that is to be sent: its root and what happened under it."""

    context: TraceContext
    root: Span
    spans: list[Span]


@dataclass(slots=True)
class Recorder:
    """What this process records, and what of it waits to be sent."""

    is_on: bool = False
    sample_percent: int = 0
    waiting: deque[Kept] = field(default_factory=deque)
    waiting_count: int = 0

    def put(self, kept: Kept) -> None:
        """Have a trace sent; where too much waits already it is dropped, and counted."""
        count = 1 + len(kept.spans)
        if self.waiting_count + count > WAITING_COUNT_MAX:
            metrics.SPANS_DROPPED.labels("too_many").inc(count)
            return
        self.waiting.append(kept)
        self.waiting_count += count

    def take(self, count_max: int) -> list[Kept]:
        """Return what waits longest, about so many spans."""
        taken, count = [], 0
        while self.waiting and count < count_max:
            kept = self.waiting.popleft()
            count += 1 + len(kept.spans)
            taken.append(kept)
        self.waiting_count -= count
        return taken


RECORDER = Recorder()


def begin(trace: Trace) -> None:
    """Record what happens under a trace, if anything is recorded at all."""
    if RECORDER.is_on:
        trace.spans, trace.began_s = [], time.perf_counter()


def note(
    name: str,
    duration_s: float,
    *,
    kind: int = CLIENT,
    has_failed: bool = False,
    attributes: Attributes = NO_ATTRIBUTES,
    span_id: str | None = None,
) -> None:
    """Add what has just ended to the trace that is under way; ask `RECORDER.is_on` before."""
    trace = TRACE.get()
    if trace is None or trace.spans is None:
        return
    if len(trace.spans) >= SPAN_COUNT_MAX:
        metrics.SPANS_DROPPED.labels("long_trace").inc()
        return
    started_s = time.perf_counter() - duration_s
    trace.spans.append(Span(name, kind, started_s, duration_s, has_failed, attributes, span_id))


@contextlib.contextmanager
def timed(name: str) -> Iterator[None]:
    """Add what a block asks of somebody else; it failed if it raises."""
    if not RECORDER.is_on:
        yield
        return
    started_s, has_failed = time.perf_counter(), True
    try:
        yield
        has_failed = False
    finally:
        note(name, time.perf_counter() - started_s, has_failed=has_failed)


def note_query(query: str, duration_s: float, row_count: int | None) -> None:
    """Add a named query; no row count says that it failed."""
    told: dict[str, str | int | bool] = {
        "db.system.name": "postgresql",
        "db.query.summary": query,
    }
    if row_count is not None:
        told["db.response.returned_rows"] = row_count
    note(query, duration_s, has_failed=row_count is None, attributes=told)


def finish(
    trace: Trace,
    name: str,
    duration_s: float,
    *,
    kind: int,
    has_failed: bool,
    attributes: Attributes,
) -> bool:
    """End a trace; say whether somebody who looks for its id will find it."""
    spans, context = trace.spans, trace.context
    if spans is None or context is None:
        return not RECORDER.is_on  # in the log, where nothing is recorded
    trace.spans = None  # whatever still runs under it comes too late
    decision = decide(context.trace_id, duration_s, has_failed=has_failed)
    metrics.TRACES.labels(decision).inc()
    if decision == "left_out":
        return False
    root = Span(name, kind, trace.began_s, duration_s, has_failed, attributes, context.span_id)
    RECORDER.put(Kept(context, root, spans))
    return True


def decide(trace_id: str, duration_s: float, *, has_failed: bool) -> str:
    """Say why a trace is kept: error, slow or sampled; or that it is left_out."""
    if has_failed:
        return "error"
    if duration_s > SLOW_S:
        return "slow"
    return "sampled" if is_drawn(trace_id, RECORDER.sample_percent) else "left_out"


def is_drawn(trace_id: str, percent: int) -> bool:
    """Say whether a trace is among so many of a hundred; of one id everybody says the same."""
    drawn = int(trace_id[-RANDOM_DIGITS:], 16)
    return drawn * 100 >= (100 - percent) * RANDOM_SPACE
