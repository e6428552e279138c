"""A circuit breaker: whoever failed so often lately is left alone for a while, then tried by one.

Closed, everybody may call. After so many failures within a window it opens, and nobody waits for
what does not answer. After the recovery time it is half open: one call goes through and decides,
or so many, all of which must succeed.
Each process counts for itself, so that nothing else has to be there for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sofinance.infra import metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

log = logging.getLogger(__name__)

CLOSED, HALF_OPEN, OPEN = 0.0, 0.5, 1.0


class CircuitOpenError(ConnectionError):
    """Nothing was tried: what is called has failed too often lately."""


class Circuit:
    """Counts failures of what `counts` names and refuses to call while there are too many.

    `async with circuit:` around a call raises CircuitOpenError instead of calling.
    """

    def __init__(  # noqa: PLR0913 - all that a circuit is
        self,
        name: str,
        *,
        failure_count_max: int,
        window_s: float,
        recovery_s: float,
        counts: tuple[type[BaseException], ...],
        probe_count: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._failure_count_max, self._window_s = failure_count_max, window_s
        self._recovery_s, self._counts, self._clock = recovery_s, counts, clock
        self._failed_at_s: deque[float] = deque(maxlen=failure_count_max)
        self._open_until_s: float | None = None
        # Half open: how many calls may go through, whose are under way, how many succeeded.
        self._probe_count, self._passed_count = probe_count, 0
        self._probing: set[asyncio.Task[Any] | None] = set()
        CIRCUITS.add(self)
        self._show()

    @property
    def state(self) -> float:
        """Return 0 while it is closed, 0.5 half open, 1 open."""
        if self._open_until_s is None:
            return CLOSED
        return OPEN if self._clock() < self._open_until_s else HALF_OPEN

    @property
    def retry_after_s(self) -> int:
        """Return how long until somebody may try, in whole seconds, one at least."""
        if self._open_until_s is None:
            return 1
        return max(1, round(self._open_until_s - self._clock()))

    async def __aenter__(self) -> None:
        state = self.state
        is_taken = len(self._probing) + self._passed_count >= self._probe_count
        if state == OPEN or (state == HALF_OPEN and is_taken):
            raise CircuitOpenError(f"the circuit {self.name} is open")
        if state == HALF_OPEN:
            self._probing.add(asyncio.current_task())
        self._show()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task = asyncio.current_task()
        was_probing = task in self._probing
        self._probing.discard(task)
        if isinstance(error, self._counts):
            self._fail(error, was_probing=was_probing)
        elif error is None or isinstance(error, Exception):
            # An answer, if only a refusal: it is there. A cancelled call has told nothing.
            self._passed_count += was_probing
            if not was_probing or self._passed_count >= self._probe_count:
                self._failed_at_s.clear()
                if self._open_until_s is not None:
                    log.info("circuit closed", extra={"metadata": {"circuit": self.name}})
                self._open_until_s, self._passed_count = None, 0
        self._show()

    def _fail(self, error: BaseException, *, was_probing: bool) -> None:
        now_s = self._clock()
        self._failed_at_s.append(now_s)
        is_full = len(self._failed_at_s) == self._failure_count_max
        if was_probing or (is_full and now_s - self._failed_at_s[0] <= self._window_s):
            if self._open_until_s is None:  # once, till it closes again
                told = {"circuit": self.name, "why": type(error).__name__}
                log.warning("circuit opened", extra={"metadata": told})
            self._open_until_s, self._passed_count = now_s + self._recovery_s, 0

    def _show(self) -> None:
        metrics.CIRCUIT_STATE.labels(self.name).set(self.state)


CIRCUITS: WeakSet[Circuit] = WeakSet()


def publish() -> None:
    """Tell the state of all circuits, the worst of those of one name.

    One that nobody calls any more is half open by and by, and would be told as open for ever.
    """
    worst: dict[str, float] = {}
    for circuit in CIRCUITS:
        worst[circuit.name] = max(circuit.state, worst.get(circuit.name, CLOSED))
    for name, state in worst.items():
        metrics.CIRCUIT_STATE.labels(name).set(state)
