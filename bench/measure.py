"""What a measure is: contestants that take turns, a ratio, a goal, and the table of them."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import sysconfig
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ROUND_COUNT = 5


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how large to measure."""

    rounds: int = ROUND_COUNT
    seconds: float = 8.0
    scale: float = 1.0
    large: bool = False

    def sized(self, count: int, *, least: int = 1) -> int:
        """Return a size in proportion to the effort."""
        return max(least, int(count * self.scale))


FULL = Effort()
QUICK = Effort(rounds=3, seconds=8.0 / 5)
TINY = Effort(rounds=1, seconds=0.4, scale=1 / 100)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table: what was measured, what is wanted, and the figures behind it."""

    name: str
    value: float
    unit: str = "x"
    goal: float | None = None
    at_most: bool = False
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Say whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    @property
    def wanted(self) -> str:
        """The goal in words."""
        if self.goal is None:
            return ""
        return f"{'<=' if self.at_most else '>='} {_number(self.goal)} {self.unit}"

    @property
    def verdict(self) -> str:
        """The verdict in a word."""
        return {None: "shown", True: "met", False: "short"}[self.met]


def take_turns(
    contestants: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Run every contestant once a round, each round beginning with another one."""
    names = list(contestants)
    seen: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seen[name].append(contestants[name]())
    return seen


def ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def machine() -> dict[str, Any]:
    """Describe the machine and how busy it is."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": f"{platform.python_version()} ({_build()})",
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _build() -> str:
    """Say how Python was built: without its optimizations it is a quarter slower."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return "optimized" if "--enable-optimizations" in arguments else "not optimized"


def table(results: Iterable[Result]) -> str:
    """Write the table: measure, result, goal, verdict, and the absolute figures beside."""
    head = ("measure", "result", "goal", "verdict", "figures")
    rows = [
        (
            result.name,
            f"{_number(result.value)} {result.unit}".rstrip(),
            result.wanted,
            result.verdict,
            ", ".join(f"{name} {_figure(value)}" for name, value in result.figures.items()),
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def as_json(result: Result) -> dict[str, Any]:
    """Return a result as it is kept."""
    return {**asdict(result), "verdict": result.verdict}


def _number(value: float) -> str:
    if value >= 10_000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _figure(value: Any) -> str:
    return _number(float(value)) if isinstance(value, int | float) else str(value)
