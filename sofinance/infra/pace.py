"""Answers on a beat: what depends on a secret takes as long whatever the secret is.

Whether an address is known decides how many queries a request makes. Nobody can be made to wait
for queries that are not needed, but everybody can be answered at the next whole beat.
"""

from __future__ import annotations

import asyncio
import math
import time

BEAT_S = 0.25


class Beat:
    """The time since a request began to look at something secret."""

    def __init__(self, beat_s: float = BEAT_S) -> None:
        self._began_s, self._beat_s = time.monotonic(), beat_s

    async def wait(self) -> None:
        """Wait for the next beat."""
        passed_s = time.monotonic() - self._began_s
        await asyncio.sleep(math.ceil(passed_s / self._beat_s) * self._beat_s - passed_s)
