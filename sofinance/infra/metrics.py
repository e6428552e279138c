"""Prometheus metrics of this process, or of all workers when PROMETHEUS_MULTIPROC_DIR is set."""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from sofinance.infra.exemplars import MULTIPROCESS_DIR, Exemplars

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Around the promises: p95 under 200 ms, p99 under 500 ms.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0)
QUERY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0)

REQUESTS = Counter(
    "http_requests_total", "Requests answered.", ["method", "route", "status"]
)  # fmt: skip
DURATIONS = Histogram(
    "http_request_duration_seconds", "How long answers took.", ["method", "route"],
    buckets=BUCKETS_S,
)  # fmt: skip
POOL_IN_USE = Gauge("db_pool_in_use", "Database connections at work.", multiprocess_mode="livesum")
POOL_OPEN = Gauge("db_pool_open", "Database connections open.", multiprocess_mode="livesum")
POOL_SIZE = Gauge("db_pool_size", "Database connections allowed.", multiprocess_mode="livesum")
POOL_WAITING = Gauge(
    "db_pool_waiting", "Requests that wait for a connection.", multiprocess_mode="livesum"
)
POOL_WAITS = Histogram(
    "db_pool_wait_seconds", "How long requests waited that found no connection free.",
    buckets=BUCKETS_S,
)  # fmt: skip
POOL_TIMEOUTS = Counter("db_pool_timeout_total", "Requests that waited for one in vain.")
POOL_REFUSALS = Counter(
    "db_pool_refused_total", "Requests that were sent away because too many waited already."
)
REPLICA_REPORTS = Counter("db_replica_reports_total", "Reports that the replica answered.")
REPLICA_FALLBACKS = Counter(
    "db_replica_fallbacks_total", "Reports that the primary read for the replica, by the reason.",
    ["reason"],
)  # fmt: skip
REPLICA_WAITS = Counter(
    "db_replica_wait_seconds_total", "What reports waited for the replica to catch up."
)
REPLICA_UP = Gauge(
    "db_replica_up", "1 while the replica answers as one, else 0.", ["server"],
    multiprocess_mode="livemin",
)  # fmt: skip
REPLICA_LAG = Gauge(
    "db_replica_lag_seconds", "How long the replica has lacked what the primary has.", ["server"],
    multiprocess_mode="livemax",
)  # fmt: skip
QUERY_DURATIONS = Histogram(
    "db_query_duration_seconds", "How long named queries took, the way there and back included.",
    ["query"], buckets=QUERY_BUCKETS_S,
)  # fmt: skip
QUERY_ROWS = Counter(
    "db_query_rows_total", "Rows that named queries returned or changed.", ["query"]
)
QUERY_ERRORS = Counter(
    "db_query_errors_total", "Named queries that were refused or broke off.", ["query"]
)
LOOP_LAG = Gauge(
    "event_loop_lag_seconds", "How late the loop of the busiest worker ran what was due.",
    multiprocess_mode="livemax",
)  # fmt: skip
DATABASE_UP = Gauge(
    "database_up", "1 when the database answered the last ping, else 0.",
    multiprocess_mode="livemin",
)  # fmt: skip

RATE_LIMIT_DECISIONS = Counter(
    "rate_limit_decisions_total",
    "Requests that were judged, by the policy that let them pass last or refused them.",
    ["policy", "backend", "outcome"],
)
RATE_LIMIT_FALLBACKS = Counter(
    "rate_limit_fallbacks_total", "Judgements that a worker made by itself, for want of Redis."
)
RATE_LIMIT_CIRCUIT_OPEN = Gauge(
    "rate_limit_circuit_open", "Workers that count by themselves, for want of Redis.",
    multiprocess_mode="livesum",
)  # fmt: skip

AUTHENTICATION_FAILURES = Counter(
    "authentication_failures_total", "Requests whose credentials let nobody in.", ["error_code"]
)
SIGN_UPS = Counter("sign_ups_total", "Organisations that signed up by themselves.")
SIGN_INS = Counter("sign_ins_total", "Sign-ins that were tried.", ["outcome"])
SECRET_AGES = Gauge(
    "secret_age_seconds", "How old a secret is, where that is known.", ["secret"],
    multiprocess_mode="livemax",
)  # fmt: skip
SECRET_AGE_LIMITS = Gauge(
    "secret_age_limit_seconds", "How old a secret may grow.", ["secret"],
    multiprocess_mode="livemax",
)  # fmt: skip

CACHE_HITS = Counter("cache_hits_total", "Questions that a cache answered.", ["cache"])
CACHE_MISSES = Counter("cache_misses_total", "Questions that a cache did not answer.", ["cache"])
CIRCUIT_STATE = Gauge(
    "circuit_state",
    "0 while another server is asked, 0.5 while it is tried again, 1 while it is not asked.",
    ["circuit"], multiprocess_mode="livemax",
)  # fmt: skip
BUILD = Gauge(
    "build_info", "1, with what exactly runs here.", ["version", "commit", "migration"],
    multiprocess_mode="livemax",
)  # fmt: skip
STRIPE_EVENTS = Counter(
    "stripe_webhook_events_total", "Webhooks of Stripe's, by what came of them.", ["outcome"]
)
STRIPE_CIRCUIT_OPEN = Counter(
    "stripe_webhook_circuit_open_total",
    "Webhooks of Stripe's that were not taken, since too many had failed here.",
)
CAPTCHAS = Counter("captchas_total", "Captchas that were asked for.", ["outcome"])
MAILS = Counter("mails_total", "Messages handed over, or not.", ["outcome"])
MAILS_WAITING = Gauge("mails_waiting", "Messages to be sent.", multiprocess_mode="livesum")
FLAG_EVALUATIONS = Counter(
    "flag_evaluations_total", "Times that a flag was asked for.", ["flag", "outcome"]
)
SOCKETS = Gauge("websocket_connections", "WebSockets that are open.", multiprocess_mode="livesum")
SOCKETS_UNADMITTED = Gauge(
    "websocket_unadmitted", "WebSockets that have not been let in yet.", multiprocess_mode="livesum"
)
SOCKETS_OPENED = Counter(
    "websocket_opened_total", "WebSockets that were opened, by what came of it.", ["outcome"]
)
SOCKETS_CLOSED = Counter("websocket_closed_total", "WebSockets that ended.", ["code"])
SOCKET_NOTIFICATIONS = Counter(
    "websocket_notifications_total", "Notifications that were put on the way to a WebSocket."
)
SOCKET_POLLS = Histogram(
    "websocket_poll_seconds", "How long it took to look for news for all WebSockets.",
    buckets=QUERY_BUCKETS_S,
)  # fmt: skip
DEPRECATED_CALLS = Counter(
    "deprecated_requests_total", "Requests to what is deprecated.", ["method", "route"]
)  # fmt: skip
LOG_LINES_LOST = Counter("log_lines_lost_total", "Log lines that could not be written.")

TRACES = Counter("traces_total", "Traces that ended, by why they are kept.", ["decision"])
SPANS_SENT = Counter("trace_spans_sent_total", "Spans that a collector took.")
SPANS_DROPPED = Counter("trace_spans_dropped_total", "Spans that nobody will see.", ["reason"])
ERRORS_REPORTED = Counter("errors_reported_total", "Errors handed over to be reported.")

# Alerts wake somebody at the first of these: a series must be 0 before it is 1, or Prometheus sees
# no increase.
SIGN_INS.labels("refresh_token_reused")
for _outcome in (
    "succeeded", "duplicate", "ignored", "error", "failed", "bad_signature", "malformed",
    "payload_differs", "not_set_up", "circuit_open",
):  # fmt: skip
    STRIPE_EVENTS.labels(_outcome)
for _outcome in ("failed", "dropped"):
    MAILS.labels(_outcome)

EXEMPLARS = Exemplars(BUCKETS_S)

# labels() costs more than counting: the children are looked up once per route.
_children: dict[tuple[str, str, int], tuple[Any, Any]] = {}
_queries: dict[str, tuple[Any, Any]] = {}
_decisions: dict[tuple[str, str, str], Any] = {}


def observe(
    method: str, route: str, status: int, duration_s: float, trace_id: str | None = None
) -> None:
    """Count an answer; `route` is a template, never a path. The trace stands as an example."""
    found = _children.get((method, route, status))
    if found is None:
        label = method if method in METHODS else "OTHER"
        found = REQUESTS.labels(label, route, status), DURATIONS.labels(label, route)
        if label == method:
            _children[method, route, status] = found
    found[0].inc()
    found[1].observe(duration_s)
    if trace_id is not None and method in METHODS:
        EXEMPLARS.note(method, route, duration_s, trace_id)


def observe_query(query: str, duration_s: float, row_count: int | None) -> None:
    """Count a named query; no row count says that it failed."""
    found = _queries.get(query)
    if found is None:
        found = _queries[query] = QUERY_DURATIONS.labels(query), QUERY_ROWS.labels(query)
    found[0].observe(duration_s)
    if row_count is None:
        QUERY_ERRORS.labels(query).inc()
    else:
        found[1].inc(row_count)


def count_admission(policy: str, backend: str, outcome: str) -> None:
    """Count a judgement of the rate limiter."""
    found = _decisions.get((policy, backend, outcome))
    if found is None:
        found = RATE_LIMIT_DECISIONS.labels(policy, backend, outcome)
        _decisions[policy, backend, outcome] = found
    found.inc()


def may_read(token: str, authorization: str | None) -> bool:
    """Say whether somebody who sent this may read the metrics; everybody, without a token."""
    # Bytes that are no UTF-8 came in as surrogates.
    given = (authorization or "").encode("utf-8", "replace")
    return not token or hmac.compare_digest(given, f"Bearer {token}".encode())


def render(told: Iterable[Metric] = (), *, is_open: bool = False) -> tuple[bytes, str]:
    """Write all metrics, and what others told, as Prometheus reads them; returns their type, too.

    OpenMetrics has the exemplars besides.
    """
    registry = CollectorRegistry()
    own = EXEMPLARS.added(_own()) if is_open else _own()
    registry.register(_Told([*own, *told]))
    if is_open:
        return generate_openmetrics(registry), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Told(Collector):
    """Figures that are somebody else's, told once.

    A Gauge or a Counter would write them into this worker's file, for all workers to tell again.
    """

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """Return them."""
        return self._families


def _own() -> Iterable[Metric]:
    if MULTIPROCESS_DIR not in os.environ:
        return REGISTRY.collect()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry.collect()
