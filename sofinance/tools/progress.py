"""How far something is, on one line of a terminal; in a file, a line every few seconds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from types import TracebackType

BAR_WIDTH = 30
TERMINAL_INTERVAL_S = 0.1
FILE_INTERVAL_S = 2.0


class Progress:
    """Counts steps of one phase and shows them on stderr; used by `with`."""

    def __init__(
        self, label: str, total: int, *, quiet: bool = False, stream: TextIO | None = None
    ) -> None:
        self.label, self.total, self.done = label, total, 0
        self._quiet = quiet or total == 0
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._interval_s = TERMINAL_INTERVAL_S if self._terminal else FILE_INTERVAL_S
        self._began_s = self._shown_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._show(end="\n")

    @property
    def elapsed_s(self) -> float:
        """Seconds since the phase began."""
        return time.monotonic() - self._began_s

    def step(self, count: int = 1) -> None:
        """Count what has been done; shown from time to time."""
        self.done += count
        now_s = time.monotonic()
        if now_s - self._shown_s >= self._interval_s:
            self._shown_s = now_s
            self._show(end="" if self._terminal else "\n")

    def _show(self, *, end: str) -> None:
        if self._quiet:
            return
        rate = self.done / self.elapsed_s if self.elapsed_s > 0 else 0.0
        figures = f"{self.done:,} of {self.total:,}, {rate:,.0f}/s"
        line = f"{self.label}: {figures}"
        if self._terminal:
            filled = BAR_WIDTH * self.done // self.total if self.total else BAR_WIDTH
            bar = "#" * filled + "." * (BAR_WIDTH - filled)
            # Back to the start of the line, and clear what is left of the longer one before.
            line = f"\r{self.label:<12} [{bar}] {figures}\x1b[K"
        print(line, end=end, file=self._stream, flush=True)
