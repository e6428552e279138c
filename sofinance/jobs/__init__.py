"""What happens later: a job is declared here, and a worker runs it when it is due."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sofinance.infra.db import Database

DAY_S = 86_400
HOUR_S = 3_600
TOLD_LENGTH_MAX = 500

Work = Callable[["Database"], Awaitable[str]]


class JobFailedError(Exception):
    """A job that ran to its end and found something wrong; its text is told."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is done, and how often: every so many seconds, so many after the multiple (UTC).

    `work` returns what it did, in a sentence. It may be broken off and run again at any point, by
    any worker, so it does nothing twice: whatever it changes says that it is done.
    """

    name: str
    description: str
    work: Work
    every_s: int
    offset_s: int = 0
    lease_s: int = 60
