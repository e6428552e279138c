"""All faults, in the order of the list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.faults import (
    books,
    cache,
    clock,
    conflicts,
    crashes,
    disk,
    failover,
    kills,
    lost_answers,
    moments,
    objects,
    rush,
    storm,
    tampering,
    tenants,
    upkeep,
    webhooks,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from chaos.database import Postgres
    from chaos.stage import Stage


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: its number in the list, its name, what breaks, and the shop that it happens in."""

    number: int
    name: str
    what: str
    run: Callable[[Stage], Awaitable[str]]
    shop: dict[str, int] = field(default_factory=dict)
    server: Callable[[Path], AbstractContextManager[Postgres]] | None = None  # one of its own


FAULTS = [
    Fault(1, "postgres", "PostgreSQL is killed", crashes.kill_postgres),
    Fault(1, "backend", "a backend is killed", crashes.kill_backends),
    Fault(2, "answers", "answers are lost", lost_answers.lose_answers),
    Fault(3, "steps", "the service is killed at each step", kills.kill_at_each_step),
    Fault(3, "services", "services are killed", kills.kill_services),
    Fault(3, "couriers", "job workers are killed", webhooks.kill_couriers),
    Fault(
        4,
        "failover",
        "the standby is promoted",
        failover.promote,
        server=failover.primary,
    ),
    Fault(
        4,
        "standby",
        "the synchronous standby freezes",
        failover.freeze_standby,
        server=failover.primary,
    ),
    Fault(5, "disk", "the disk is full", disk.fill, server=disk.small),
    Fault(5, "flushes", "the disk is slow to confirm", disk.slow_down),
    Fault(6, "redis", "Redis fails in every way", cache.break_redis),
    Fault(7, "objects", "the object store fails", objects.break_store),
    Fault(8, "clocks", "clocks differ", clock.skew_clocks),
    Fault(9, "storm", "all come at once", storm.connection_storm),
    Fault(9, "pooler", "PgBouncer is killed", storm.kill_pooler),
    Fault(10, "hot", "a hot branch", rush.hot_branch, {"branches": 1, "tills": rush.TILLS}),
    Fault(11, "deadlock", "deadlocks", conflicts.deadlock),
    Fault(11, "serialize", "commits fail to serialize", conflicts.serialize),
    Fault(12, "runaway", "another tenant searches without end", conflicts.runaway),
    Fault(13, "offline", "a till sends its batch again", books.offline_batch),
    Fault(14, "period", "a period is closed under postings", books.close_period),
    Fault(15, "drill", "it is backed up and restored meanwhile", upkeep.drill),
    Fault(
        15,
        "moment",
        "the files are copied, the log archived, and a moment restored meanwhile",
        moments.go_back,
        server=moments.archiving,
    ),
    Fault(16, "migration", "the schema changes under load", upkeep.migrate),
    Fault(17, "tenants", "two tenants share connections that failed", tenants.share),
    Fault(
        18,
        "tampering",
        "the owner rewrites history",
        tampering.rewrite,
        server=tampering.own_server,
    ),
    Fault(19, "receivers", "receivers of webhooks are hostile", webhooks.hostile),
]
