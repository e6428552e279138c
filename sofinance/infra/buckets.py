"""Token buckets in this process's memory: what limits when there is no Redis to ask.

The same algorithm as rate_limit.lua, number for number, which a test holds: a bucket is stored as
the instant at which it will be full again; what is missing until then is its debt.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
# Buckets that are remembered, some 200 bytes each; the one used least recently goes first.
BUCKET_COUNT_MAX = 50_000


@dataclass(frozen=True, slots=True)
class Policy:
    """A limit: so many at once, and so many a minute in the long run."""

    name: str
    interval_us: int  # in which one token comes back
    size: int  # tokens in a full bucket
    is_strict: bool = False  # holds as well as it can when workers cannot share

    @classmethod
    def per_minute(
        cls, name: str, count_per_minute: int, size: int, *, is_strict: bool = False
    ) -> Policy:
        """Return the limit that gives back so many tokens a minute."""
        return cls(name, max(1, MINUTE_US // count_per_minute), size, is_strict)

    @classmethod
    def per_hour(
        cls, name: str, count_per_hour: int, size: int, *, is_strict: bool = False
    ) -> Policy:
        """Return the limit that gives back so many tokens an hour."""
        return cls(name, max(1, HOUR_US // count_per_hour), size, is_strict)

    @property
    def room_us(self) -> int:
        """The time in which an empty bucket fills: the most that it may ever owe."""
        return self.interval_us * self.size

    def left(self, debt_us: int) -> int:
        """Return the whole tokens in a bucket with this debt."""
        return (self.room_us - debt_us) // self.interval_us

    def wait_us(self, debt_us: int, cost: int = 1) -> int:
        """Return how long until a bucket with this debt has so many tokens; 0 if it has them."""
        return max(0, debt_us + cost * self.interval_us - self.room_us)


@dataclass(frozen=True, slots=True)
class Charge:
    """What is to be taken from one bucket; 0 only looks, a negative cost gives back."""

    key: str
    policy: Policy
    cost: int = 1


def now_us() -> int:
    """Return the time on a clock that never goes back."""
    return time.monotonic_ns() // 1_000


class Buckets:
    """At most so many buckets; a bucket that was pushed out is full when it is next seen."""

    def __init__(
        self, count_max: int = BUCKET_COUNT_MAX, *, clock: Callable[[], int] = now_us
    ) -> None:
        self._count_max, self._clock = count_max, clock
        self._full_at_us: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_us)

    def take(self, charges: Sequence[Charge]) -> tuple[bool, list[int]]:
        """Take from every bucket or from none; returns whether it did, and their debts after."""
        now, stored = self._clock(), self._full_at_us
        is_allowed, debts_us = True, []
        for charge in charges:
            policy = charge.policy
            debt_us = min(max(0, stored.get(charge.key, 0) - now), policy.room_us)
            debts_us.append(debt_us)
            if charge.cost > 0 and policy.wait_us(debt_us, charge.cost):
                is_allowed = False
        if not is_allowed:
            return False, debts_us
        for i, charge in enumerate(charges):
            if charge.cost:
                debt_us = max(0, debts_us[i] + charge.cost * charge.policy.interval_us)
                debts_us[i] = debt_us
                self._store(charge.key, now + debt_us if debt_us else None)
        return True, debts_us

    def _store(self, key: str, full_at_us: int | None) -> None:
        if full_at_us is None:
            self._full_at_us.pop(key, None)
            return
        self._full_at_us[key] = full_at_us
        self._full_at_us.move_to_end(key)
        if len(self._full_at_us) > self._count_max:
            self._full_at_us.popitem(last=False)
