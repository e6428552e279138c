"""Every flag of this release: what it switches, who answers for it, and when it has to be gone.

A flag is asked for by its name, ``await call.flag("low_stock_notices")`` in a handler. New ones are
off. What is set for whom is in the database (docs/flags.md). A flag that is past its `sunset` fails
the tests: take it out with what it switches, or say why it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A switch: its name, what is on when it is on, and who answers for it.

    `variants` are told apart where it is on, evenly, by a stable hash. One that `is_operators` can
    be set by whoever runs the service only, for an organisation too.
    """

    name: str
    description: str
    owner: str
    sunset: date
    default: bool = False
    is_operators: bool = False
    variants: tuple[str, ...] = ()


FLAGS = (
    Flag(
        name="low_stock_notices",
        description="Whoever may receive goods in a branch is told what has become low in it.",
        owner="inventory",
        sunset=date(2027, 6, 30),
    ),
    Flag(
        name="pause_jobs",
        description="Workers leave an organisation out of their jobs; set globally, they run none.",
        owner="operations",
        sunset=date(2027, 11, 30),
        is_operators=True,
    ),
)
