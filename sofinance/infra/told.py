"""Figures that the database tells at each scrape: any worker tells the same, whoever wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sofinance import queries as q
from sofinance.infra import outbox_metrics
from sofinance.infra.db import NO_DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from sofinance.infra.http import Call

# Endpoints whose state is told, those that are down first.
CIRCUIT_COUNT_MAX = 200

JOB_GAUGES = {
    "job_last_heartbeat_timestamp": "When a run of the job last showed a sign of life.",
    "job_last_success_timestamp": "When a run of the job last ended well.",
    "job_next_run_timestamp": "When the job is due.",
    "job_interval_seconds": "How often the job is due.",
    "job_consecutive_failures": "Runs that failed since the last that did not.",
    "job_paused": "1 while nobody runs the job.",
}


# Of all organisations together: by currency a handful of series, however many there are.
BUSINESS_GAUGES = {
    "sales": "Sales posted in the period.",
    "sales_amount": "What they came to, in their currency.",
    "voids": "Sales of the last 24 hours that were taken back in the period.",
    "voids_amount": "What those had come to, in their currency.",
    "stock_outs": "Products that a branch sold in the last 24 hours and has none left of.",
    "active_users": "Users who signed in or renewed their session in the period.",
    "active_sessions": "Sessions that could be renewed.",
    "sign_ups": "Organisations that were founded in the period.",
    "organisations": "Organisations.",
    "card_payments_unposted": "Payments at Stripe that are not in the books.",
    "mails_dead": "Reminders and digests that were given up.",
    "mails_pending": "Reminders and digests that wait to be sent.",
    "mails_sent": "Reminders and digests that a mail server took in the period.",
    "secrets_stale": "Secrets that another key than DATA_ENCRYPTION_KEY sealed.",
    "objects_given_up": "Files that the store would not remove.",
}


async def read(call: Call) -> list[Metric]:
    """Return all of it, by queries of a handful of rows each; nothing without the database.

    Over a connection that no request can have: a crowd is when they are looked at. Each query is a
    glance of its own, so that whoever asks whether we are ready waits for one of them at most.
    """
    ttl_s = call.settings.job_heartbeat_ttl_seconds

    async def ask(query: Any, **values: int) -> Any:
        return await call.db.glance(query.key, lambda conn: query(conn, **values))

    try:
        heartbeat = await ask(q.jobs.get_heartbeat, ttl_s=ttl_s)
        return [
            *of_jobs(await ask(q.jobs.list_jobs), heartbeat.runner_count),
            *outbox_metrics.families(
                await ask(q.outbox.read_outbox),
                await ask(q.outbox.list_circuits, limit=CIRCUIT_COUNT_MAX),
                now=call.now,
            ),
            *of_backups(
                await ask(q.system.list_latest_backups), await ask(q.system.list_latest_drills)
            ),
            *of_archiver(await ask(q.system.get_archiver)),
            *of_business(await ask(q.business.list_figures)),
            *of_integrity(await ask(q.integrity_events.count_integrity_events)),
        ]
    except NO_DATABASE:
        return []


def of_jobs(jobs: Iterable[Any], runner_count: int) -> Iterator[Metric]:
    """Yield how the jobs are."""
    yield GaugeMetricFamily("job_runner_up", "Workers that live.", runner_count)
    told = {
        name: GaugeMetricFamily(name, help_text, labels=["job"])
        for name, help_text in JOB_GAUGES.items()
    }
    errors = CounterMetricFamily(
        "job_errors", "Runs of a job that did not end well.", labels=["job", "reason"]
    )
    for job in jobs:
        for name, at in (
            ("job_last_heartbeat_timestamp", job.last_heartbeat_at),
            ("job_last_success_timestamp", job.last_success_at),
            ("job_next_run_timestamp", job.next_run_at),
        ):
            if at is not None:
                told[name].add_metric([job.name], at.timestamp())
        told["job_interval_seconds"].add_metric([job.name], job.every_s)
        told["job_consecutive_failures"].add_metric([job.name], job.consecutive_failures)
        told["job_paused"].add_metric([job.name], job.is_paused)
        errors.add_metric([job.name, "failed"], job.failed_count)
        errors.add_metric([job.name, "lost"], job.lost_count)
        errors.add_metric([job.name, "stopped"], job.stopped_count)
    yield from told.values()
    yield errors


def of_backups(backups: Iterable[Any], drills: Iterable[Any]) -> Iterator[Metric]:
    """Yield how old and how large the latest backups are, and when one last came back."""
    taken_at = GaugeMetricFamily(
        "backup_last_success_timestamp", "When the latest good backup was taken.", labels=["kind"]
    )
    size_bytes = GaugeMetricFamily(
        "backup_size_bytes", "How large the latest good backup is.", labels=["kind"]
    )
    times = {"FULL": 0.0} | {backup.kind: backup.taken_at.timestamp() for backup in backups}
    for kind, at_s in times.items():
        taken_at.add_metric([kind], at_s)
    for backup in backups:
        size_bytes.add_metric([backup.kind], backup.size_bytes)
    verified_at = GaugeMetricFamily(
        "backup_last_verified_timestamp", "When a backup last came back whole.", labels=["kind"]
    )
    has_failed = GaugeMetricFamily(
        "backup_verification_failed", "1 when the latest try did not.", labels=["kind"]
    )
    ends = {"DUMP": (0.0, False)} | {
        drill.kind: (
            0.0 if drill.last_good_at is None else drill.last_good_at.timestamp(),
            drill.has_failed,
        )
        for drill in drills
    }
    for kind, (at_s, failed) in ends.items():
        verified_at.add_metric([kind], at_s)
        has_failed.add_metric([kind], failed)
    yield from (taken_at, size_bytes, verified_at, has_failed)


def of_archiver(archiver: Any) -> Iterator[Metric]:
    """Yield how the server's log is archived; nothing where it is not."""
    if not archiver.is_archiving:
        return
    at = archiver.last_archived_at
    yield GaugeMetricFamily(
        "wal_archive_last_success_timestamp", "When a segment of the log was last archived.",
        0.0 if at is None else at.timestamp(),
    )  # fmt: skip
    yield CounterMetricFamily(
        "wal_archive_failures", "Tries to archive a segment that failed.", archiver.failed_count
    )


def of_business(figures: Iterable[Any]) -> Iterator[Metric]:
    """Yield the figures of the business."""
    told = {
        name: GaugeMetricFamily(f"business_{name}", help_text, labels=["period", "currency"])
        for name, help_text in BUSINESS_GAUGES.items()
    }
    for figure in figures:
        if figure.name in told:  # a later release may count more
            told[figure.name].add_metric([figure.period, figure.currency], figure.value)
    yield from told.values()


def of_integrity(counts: Iterable[Any]) -> Iterator[Metric]:
    """Yield how many integrity events are open, by check."""
    told = GaugeMetricFamily(
        "integrity_events_open", "What the nightly verification found wrong, and finds still.",
        labels=["check", "severity"],
    )  # fmt: skip
    for count in counts:
        told.add_metric([count.check_name, count.severity], count.event_count)
    yield told
