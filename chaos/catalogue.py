"""All faults, in the order of the list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.faults import crashes, kills, lost_answers, rush

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chaos.stage import Stage


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: its number in the list, its name, what breaks, and the shop that it happens in."""

    number: int
    name: str
    what: str
    run: Callable[[Stage], Awaitable[str]]
    shop: dict[str, int] = field(default_factory=dict)


FAULTS = [
    Fault(1, "postgres", "PostgreSQL is killed", crashes.kill_postgres),
    Fault(1, "backend", "a backend is killed", crashes.kill_backends),
    Fault(2, "answers", "answers are lost", lost_answers.lose_answers),
    Fault(3, "steps", "the service is killed at each step", kills.kill_at_each_step),
    Fault(3, "services", "services are killed", kills.kill_services),
    Fault(10, "hot", "a hot branch", rush.hot_branch, {"branches": 1, "tills": rush.TILLS}),
]
