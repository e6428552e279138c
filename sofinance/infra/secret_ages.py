"""How old secrets are, and how old they may grow.

A key from JWT_KEYS_DIR says itself when it was made. Of any other secret SECRETS_ROTATED_ON says
it (``JWT_SECRET=2026-01-15``), else the time of its file; of a secret in a plain variable nobody
knows, and that is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sofinance import config
from sofinance.infra import metrics

if TYPE_CHECKING:
    from sofinance.config import Layers
    from sofinance.infra.keys import KeyRing

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Age:
    """How old a secret is; None where nobody knows."""

    secret: str
    age_s: float | None
    limit_s: float

    @property
    def is_too_old(self) -> bool:
        """Say whether it ought to be another one by now."""
        return self.age_s is not None and self.age_s > self.limit_s


def ages(layers: Layers, ring: KeyRing | None, *, now: datetime) -> list[Age]:
    """Return the age of every secret that is set, and of the key that signs."""
    try:
        rotated_on = config.rotation_dates(
            config.text_of(config.FIELDS["secrets_rotated_on"], layers) or ""
        )
    except ValueError:
        rotated_on = {}  # wrong settings are told by who reads them; ages are not worth a failure
    found = []
    for name, declared in config.FIELDS.items():
        source = config.source_of(declared, layers) if declared.metadata["secret"] else None
        if source is None:
            continue
        since_s = None
        if name in rotated_on:
            since_s = datetime.combine(
                rotated_on[name], datetime.min.time(), tzinfo=UTC
            ).timestamp()
        elif source.path is not None:
            since_s = source.changed_at_s()
        limit_s = declared.metadata["max_age_days"] * DAY_S
        found.append(Age(name, _age_s(since_s, now), limit_s))
    if ring is not None and ring.signing.made_at_s is not None:
        limit_s = config.FIELDS["jwt_secret"].metadata["max_age_days"] * DAY_S
        found.append(Age("jwt_keys_dir", _age_s(ring.signing.made_at_s, now), limit_s))
    return found


def _age_s(since_s: float | None, now: datetime) -> float | None:
    return None if since_s is None else max(now.timestamp() - since_s, 0.0)


def publish(layers: Layers, ring: KeyRing, *, now: datetime) -> None:
    """Set the gauges of what is known."""
    for known in ages(layers, ring, now=now):
        metrics.SECRET_AGE_LIMITS.labels(known.secret).set(known.limit_s)
        if known.age_s is not None:
            metrics.SECRET_AGES.labels(known.secret).set(known.age_s)
