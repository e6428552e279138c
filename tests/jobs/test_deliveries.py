"""Three workers, one of them killed, and a receiver that refuses one message in three."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port
from tools.deliveries import prove

if TYPE_CHECKING:
    from sofinance.config import Settings

# What its queries do on each PostgreSQL, test_courier.py shows; this is about kills.
pytestmark = pytest.mark.once


@pytest.mark.empty_database
async def test_every_event_arrives_in_order_whoever_is_killed(settings: Settings) -> None:
    """`python -m tools.deliveries` does the same with 10,000 events."""
    outcome = await prove(
        settings, events=300, workers=3, kills=1, seed=20_261_121, port=free_port()
    )
    assert outcome.faults == []
    assert (outcome.events, outcome.killed) == (300, 1)
    assert outcome.refused > 0
    assert outcome.requests == outcome.events + outcome.refused + outcome.repeated
