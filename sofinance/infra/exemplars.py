"""Exemplars: the latest trace in each bucket of the durations, so that a slow one can be looked at.

prometheus_client forgets exemplars where several workers add up their files, so they are kept here:
one per method, route and bucket, in memory, and every few seconds in a file of the worker's beside
those of its metrics. OpenMetrics alone can tell them.
"""

from __future__ import annotations

import contextlib
import os
import time
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson
from prometheus_client.samples import Exemplar, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

METRIC = "http_request_duration_seconds"
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
# What is older is nobody's any more: traces are not kept for ever, nor are workers.
AGE_MAX_S = 900.0

Place = tuple[str, str, int]  # method, route, bucket


class Seen(NamedTuple):
    """A trace, how long it took, and when it ended."""

    trace_id: str
    duration_s: float
    at_s: float


class Exemplars:
    """Those of one process."""

    def __init__(self, buckets_s: Iterable[float]) -> None:
        self._buckets_s = (*buckets_s, float("inf"))
        self._latest: dict[Place, Seen] = {}
        self._is_written = True

    def note(self, method: str, route: str, duration_s: float, trace_id: str) -> None:
        """Let a trace stand for all of its bucket."""
        place = method, route, bisect_left(self._buckets_s, duration_s)
        self._latest[place] = Seen(trace_id, duration_s, time.time())
        self._is_written = False

    def write(self) -> None:
        """Let the other workers tell ours; nothing to do in a process of its own."""
        folder = os.environ.get(MULTIPROCESS_DIR)
        if folder is None or self._is_written:
            return
        self._is_written = True
        path = Path(folder) / f"exemplars_{os.getpid()}.json"
        half = path.with_suffix(".half")
        half.write_bytes(orjson.dumps([(*place, *seen) for place, seen in self._latest.items()]))
        half.replace(path)

    def added(self, families: Iterable[Metric]) -> Iterator[Metric]:
        """Yield metrics, those of durations with their exemplars."""
        for family in families:
            if family.name == METRIC:
                found = self._of_all()
                family.samples = [self._with(sample, found) for sample in family.samples]
            yield family

    def _with(self, sample: Sample, found: dict[Place, Seen]) -> Sample:
        bound = sample.labels.get("le")
        if bound is None:
            return sample
        place = (
            sample.labels["method"], sample.labels["route"], self._buckets_s.index(float(bound)),
        )  # fmt: skip
        seen = found.get(place)
        if seen is None:
            return sample
        exemplar = Exemplar({"trace_id": seen.trace_id}, seen.duration_s, round(seen.at_s, 3))
        return sample._replace(exemplar=exemplar)

    def _of_all(self) -> dict[Place, Seen]:
        """Return the latest of every worker, this one's without its file."""
        oldest_s = time.time() - AGE_MAX_S
        folder = os.environ.get(MULTIPROCESS_DIR)
        found: dict[Place, Seen] = {}
        told: list[Iterable[tuple[Place, Seen]]] = [self._latest.items()]
        if folder is not None:
            told += [of_file(path) for path in Path(folder).glob("exemplars_*.json")]
        for of_one in told:
            for place, seen in of_one:
                known = found.get(place)
                if seen.at_s > (oldest_s if known is None else known.at_s):
                    found[place] = seen
        return found


def forget_old(folder: Path) -> None:
    """Remove the files of workers that have written nothing for so long that nobody tells it."""
    oldest_s = time.time() - AGE_MAX_S
    for path in folder.glob("exemplars_*.json"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest_s:
                path.unlink()


def of_file(path: Path) -> list[tuple[Place, Seen]]:
    """Read a worker's; one that is just being taken away has none."""
    try:
        rows = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    return [((method, route, bucket), Seen(*seen)) for method, route, bucket, *seen in rows]
