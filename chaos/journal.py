"""What clients wrote down: each key before it is sent, each answer when it came.

A file of JSON lines. The checker reads it back and believes nothing else: it is what a till would
still have after its own power cut.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# What an attempt came to.
DONE, REFUSED, UNSURE = "done", "refused", "unsure"


@dataclass(slots=True)
class Order:
    """Something to be done once: what is sent under a key."""

    key: str
    kind: str
    path: str
    body: dict[str, Any]


@dataclass(slots=True)
class Attempt:
    """One sending of an order and what came of it; status 0 is no answer at all."""

    outcome: str
    status: int
    code: str
    replayed: bool
    data: dict[str, Any]
    retry_after_s: float = 0.0


@dataclass(slots=True)
class Line:
    """An order and all its attempts."""

    order: Order
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def done(self) -> Attempt | None:
        """The answer that said it is done."""
        return next((one for one in self.attempts if one.outcome == DONE), None)

    @property
    def refused(self) -> Attempt | None:
        """The answer that said it will not be done."""
        return next((one for one in self.attempts if one.outcome == REFUSED), None)

    @property
    def is_open(self) -> bool:
        """Say whether nobody knows yet."""
        return self.done is None and self.refused is None


class Journal:
    """The clients' file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)

    def begin(self, order: Order) -> None:
        """Write down what will be sent, before it is."""
        self._write({
            "key": order.key, "kind": order.kind, "path": order.path, "body": order.body,
        })  # fmt: skip

    def end(self, order: Order, attempt: Attempt) -> None:
        """Write down what came of an attempt."""
        self._write({
            "key": order.key, "at_s": time.time(), "outcome": attempt.outcome,
            "status": attempt.status, "code": attempt.code, "replayed": attempt.replayed,
            "data": attempt.data,
        })  # fmt: skip

    def read(self) -> dict[str, Line]:
        """Return every order with its attempts, by key."""
        lines: dict[str, Line] = {}
        for text in self.path.read_text("utf-8").splitlines():
            said = json.loads(text)
            if "kind" in said:
                lines[said["key"]] = Line(Order(**said))
            else:
                attempts = lines[said.pop("key")].attempts
                del said["at_s"]
                attempts.append(Attempt(**said))
        return lines

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, said: dict[str, Any]) -> None:
        self._file.write(json.dumps(said).encode() + b"\n")
