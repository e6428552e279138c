"""For whom a flag is on: the nearest level at which it is set, and a stable share of a percentage.

Source: a share by hash, so that who is in at 10 % is still in at 25 %, on every server, for ever.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# From the nearest to the farthest; a killed flag is off before any of them is asked.
LEVELS = ("user", "branch", "organisation", "global")
KILLED, DEFAULT = "killed", "default"
SHARES = 10_000  # hundredths of a percent


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a flag is on, at which level that was decided, and which variant it is."""

    is_on: bool
    reason: str
    variant: str | None


def decide(
    flag: str,
    settings: Mapping[str, int],
    subject: str,
    *,
    default: bool,
    variants: Sequence[str] = (),
) -> Decision:
    """Decide for a subject; `settings` are the percentages by level, as far as there are any."""
    if KILLED in settings:
        return Decision(False, KILLED, None)  # noqa: FBT003 - is_on
    for level in LEVELS:
        if level in settings:
            is_on = share(flag, subject) < settings[level] * (SHARES // 100)
            return Decision(is_on, level, variant_of(flag, subject, variants) if is_on else None)
    return Decision(default, DEFAULT, variant_of(flag, subject, variants) if default else None)


def share(flag: str, subject: str) -> int:
    """Return where a subject stands between 0 and 9,999, for this flag alone."""
    digest = hashlib.sha256(f"{flag}/{subject}".encode()).digest()
    return int.from_bytes(digest[:8]) % SHARES


def variant_of(flag: str, subject: str, variants: Sequence[str]) -> str | None:
    """Return the variant that a subject sees; None where a flag has none."""
    return variants[share(f"{flag}/variant", subject) % len(variants)] if variants else None


def subject_of(org_id: int, branch_id: int | None, user_id: int | None) -> str:
    """Return who a percentage counts: the user, else the branch, else the organisation."""
    if user_id is not None:
        return f"{org_id}/user/{user_id}"
    return f"{org_id}" if branch_id is None else f"{org_id}/branch/{branch_id}"
