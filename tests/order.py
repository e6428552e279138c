"""The order of tests on several workers: what takes longest is not left to the end."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# What takes longest, as measured, longest first; by the beginnings of the names of tests.
SLOW_FIRST = (
    "tests/contract/",
    "tests/ops/test_rolling.py",
    "tests/ops/test_prometheus.py",
    "tests/chaos/",
    "tests/tools/test_point_in_time.py",
    "tests/jobs/test_backups.py",
    "tests/tools/test_backup.py",
    "tests/jobs/test_deliveries.py",
    "tests/matrix/test_mutations.py",
    "tests/ops/test_image.py",
    "tests/bench/test_measures.py",
    "tests/infra/test_socket_workers.py",
    "tests/tools/test_demo.py",
    "tests/ops/test_migration_under_load.py",
)


def dealt(items: list[pytest.Item], worker_count: int) -> list[pytest.Item]:
    """Return the tests in an order in which each worker's part begins with some of the longest.

    `--dist worksteal` cuts the list into as many parts as there are workers, and whoever has done
    his takes from the end of another's.
    """
    if worker_count == 1:
        return items
    groups: list[list[pytest.Item]] = [[] for _ in SLOW_FIRST]
    quick: list[pytest.Item] = []
    for item in items:
        places = (n for n, begin in enumerate(SLOW_FIRST) if item.nodeid.startswith(begin))
        place = next(places, None)
        (quick if place is None else groups[place]).append(item)
    hands: list[list[pytest.Item]] = [[] for _ in range(worker_count)]
    for hand, group in zip(itertools.cycle(hands), filter(None, groups), strict=False):
        hand.extend(group)
    result: list[pytest.Item] = []
    for left_count, hand in zip(range(worker_count, 0, -1), hands, strict=True):
        part = (len(items) - len(result)) // left_count
        count = max(0, part - len(hand))
        result += hand + quick[:count]
        quick = quick[count:]
    return result + quick
