"""What is remembered instead of asked again, and how often that helped: for the metrics.

A cache counts by itself, which costs a request next to nothing; `publish` adds what came since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sofinance.infra import metrics

if TYPE_CHECKING:
    from collections.abc import Callable


class Counts(Protocol):
    """How often a cache was asked, as functools.lru_cache tells it."""

    @property
    def hits(self) -> int:
        """Questions that it answered."""

    @property
    def misses(self) -> int:
        """Questions that it did not."""


class Caches:
    """The caches of one application."""

    def __init__(self) -> None:
        self._caches: dict[str, Callable[[], Counts]] = {}
        self._told: dict[str, tuple[int, int]] = {}

    def add(self, name: str, counts: Callable[[], Counts]) -> None:
        """Name a cache, and what tells its counts; they start from here."""
        found = counts()
        self._caches[name], self._told[name] = counts, (found.hits, found.misses)

    def publish(self) -> None:
        """Add what every cache has answered since the last time to the metrics."""
        for name, counts in self._caches.items():
            found = counts()
            hits, misses = self._told[name]
            metrics.CACHE_HITS.labels(name).inc(max(0, found.hits - hits))
            metrics.CACHE_MISSES.labels(name).inc(max(0, found.misses - misses))
            self._told[name] = found.hits, found.misses
