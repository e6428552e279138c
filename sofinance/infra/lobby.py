"""WebSockets that have not been let in: so many and no more, as they cost us and pay nothing.

Who sent a token or a ticket along waits for the database only, a moment, and many come from one
address when a process goes that they were connected to. Who is yet to say who they are may take
seconds: of those an address has a few.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from sofinance.infra import metrics
from sofinance.infra.sockets import TOO_MANY, TRY_AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT_MAX = 1_000
SILENT_PER_ADDRESS_MAX = 50


class RefusedError(Exception):
    """A socket that is closed before it was one of ours."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Lobby:
    """Those of one process."""

    def __init__(self) -> None:
        self.count = 0
        self._silent: Counter[str] = Counter()

    @contextlib.contextmanager
    def place(self, address: str, *, is_silent: bool) -> Iterator[None]:
        """Hold a place for as long as a block runs; raises RefusedError (1013, 4429) for none."""
        if self.count >= COUNT_MAX:
            raise RefusedError(TRY_AGAIN, "too many wait to be let in: try again")
        if is_silent and self._silent[address] >= SILENT_PER_ADDRESS_MAX:
            raise RefusedError(TOO_MANY, "too many of your address have not said who they are")
        self._add(address, 1, is_silent=is_silent)
        try:
            yield
        finally:
            self._add(address, -1, is_silent=is_silent)

    def _add(self, address: str, count: int, *, is_silent: bool) -> None:
        self.count += count
        metrics.SOCKETS_UNADMITTED.set(self.count)
        if is_silent:
            self._silent[address] += count
            if not self._silent[address]:
                del self._silent[address]
