"""What mails say, in the room that they have."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from sofinance.rules import reminders

# What the rule mail_text_not_long allows.
BODY_LENGTH_MAX = 20_000


def low(place: int, **changes: Any) -> SimpleNamespace:
    """Return a product that is low."""
    said = {
        "branch_id": 1, "branch_name": "Main", "sku": f"S-{place}", "product_name": "Tea",
        "quantity": Decimal("1.00"), "reorder_level": Decimal(5), **changes,
    }  # fmt: skip
    return SimpleNamespace(**said)


def told(rows: list[SimpleNamespace]) -> list[str]:
    """Return the lines of a digest."""
    manager = SimpleNamespace(id=7, email="manager@shop.example")
    mail = reminders.low_stock(rows, manager, "Shop", date(2026, 11, 21))
    assert len(mail.body) <= BODY_LENGTH_MAX
    return mail.body.splitlines()


def test_a_digest_names_a_hundred_and_counts_the_rest() -> None:
    lines = told([low(place) for place in range(103)])
    assert lines[2] == "S-0  Tea: 1 (reorder at 5)"
    assert (len(lines), lines[-1]) == (103, "... and 3 more")
    assert told([low(0)])[-1] == "S-0  Tea: 1 (reorder at 5)"


def test_a_digest_of_the_longest_names_has_room() -> None:
    lines = told([low(place, sku="s" * 50, product_name="n" * 200) for place in range(100)])
    assert lines[-1] == f"... and {100 - (len(lines) - 3)} more"
