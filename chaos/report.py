"""The table of a run, and where docs/faults.md keeps it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- measured: make chaos args=--write -->", "<!-- end of what was measured -->"
HEAD = (
    "fault", "what was done", "acknowledged", "retried", "lost", "doubled", "heals in", "checker",
)  # fmt: skip
RIGHT = range(2, 7)
Row = tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """What became of one fault."""

    number: int
    fault: str
    done: str
    acknowledged: int = 0
    retried: int = 0
    replayed: int = 0
    lost: int = 0
    doubled: int = 0
    heal_s: float | None = None
    took_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Say whether everything held."""
        return not (self.lost or self.doubled or self.problems)


def cells(one: Outcome) -> Row:
    """Return an outcome as a row of the table."""
    return (
        f"{one.number} {one.fault}",
        one.done,
        f"{one.acknowledged}",
        f"{one.retried}",
        f"{one.lost}",
        f"{one.doubled}",
        "-" if one.heal_s is None else f"{one.heal_s:.2f} s",
        "ok" if one.ok else "BROKEN",
    )


def table(rows: Sequence[Row]) -> str:
    """Write the table, aligned, in Markdown."""
    widths = [max(len(row[column]) for row in (HEAD, *rows)) for column in range(len(HEAD))]
    rule = tuple(
        "-" * (width - 1) + ":" if column in RIGHT else "-" * width
        for column, width in enumerate(widths)
    )
    return "\n".join(
        "| "
        + " | ".join(
            f"{cell:>{width}}" if column in RIGHT else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in (HEAD, rule, *rows)
    )


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as a program reads it."""
    return {**asdict(outcome), "ok": outcome.ok}


def write(outcomes: Iterable[Outcome], order: Sequence[str], note: str) -> None:
    """Put the rows into the table of the page; those of faults that were not run stay.

    Above the table stands in a line how it was measured.
    """
    page = PAGE.read_text("utf-8")
    rows = {row[0]: row for row in measured(page)} | {cells(one)[0]: cells(one) for one in outcomes}
    text = table([rows[name] for name in order if name in rows])
    marked = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    PAGE.write_text(marked.sub(lambda _: f"{BEGIN}\n{note}\n\n{text}\n{END}", page), "utf-8")


def machine() -> str:
    """Say what this runs on, and how busy that is."""
    cpu = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{len(os.sched_getaffinity(0))} cores of an {cpu}, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, load {os.getloadavg()[1]:.1f}"
    )


def measured(page: str) -> list[Row]:
    """Return the rows of the page's table."""
    text = page.partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]
