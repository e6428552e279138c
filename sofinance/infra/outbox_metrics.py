"""What the database says of events and webhooks: couriers run in other processes, on any host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from prometheus_client.metrics_core import Metric

STATUSES = ("new", "pending", "retry", "dead", "blocked", "paused")
OUTCOMES = ("delivered", "failed", "dead")
CLOSED, HALF_OPEN, OPEN = 0.0, 0.5, 1.0


def families(figures: Any, circuits: Iterable[Any], *, now: datetime) -> list[Metric]:
    """Return the metrics."""
    messages = GaugeMetricFamily(
        "outbox_queue_messages", "Events and deliveries that wait, by what for.", labels=["status"]
    )
    for status in STATUSES:
        messages.add_metric([status], figures[f"{status}_count"])
    attempts = CounterMetricFamily(
        "webhook_deliveries", "Attempts that arrived or failed, and deliveries that died.",
        labels=["outcome"],
    )  # fmt: skip
    for outcome in OUTCOMES:
        attempts.add_metric([outcome], figures[f"{outcome}_total"])
    states = GaugeMetricFamily(
        "webhook_circuit_state",
        "0 while an endpoint is sent to, 1 while it is left alone, 0.5 while one message tries it.",
        labels=["endpoint"],
    )
    for circuit in circuits:
        if circuit.is_active:
            states.add_metric([str(circuit.endpoint_id)], state_of(circuit, now))
    oldest = GaugeMetricFamily(
        "outbox_oldest_seconds",
        "How long the oldest event or delivery has waited for its first attempt.",
        figures["oldest_age_s"],
    )
    return [messages, oldest, attempts, states]


def state_of(circuit: Any, now: datetime) -> float:
    """Return a circuit's state as a number."""
    if circuit.open_until is None:
        return CLOSED
    return OPEN if circuit.open_until > now else HALF_OPEN
