"""Amounts at Stripe, there and back."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sofinance.rules import card_payments as cards
from sofinance.rules.money import MINOR_UNITS, UNITS, minor_units


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        ("10.99", "USD", 1099),
        ("500", "JPY", 500),
        ("500", "UGX", 50_000),
        ("500", "ISK", 50_000),
        ("500.00", "MGA", 500),
        ("500.20", "MGA", None),
        ("5.120", "KWD", 5120),
        ("5.124", "KWD", None),
        ("0.001", "USD", None),
    ],
)
def test_amounts_are_written_in_stripe_s_smallest_units(amount, currency, units):
    assert cards.to_stripe(Decimal(amount), currency) == units


@given(currency=st.sampled_from(["USD", "EUR", *MINOR_UNITS, "MGA"]), count=st.integers(1, 10**15))
def test_what_stripe_takes_comes_back_the_same(currency, count):
    amount = count * UNITS[minor_units(currency)]
    units = cards.to_stripe(amount, currency)
    assert units is None or cards.from_stripe(units, currency) == amount


@given(thing=st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(
    st.sampled_from(["object", "metadata", "org_id", "checkout", "payment_intent", "currency"]),
    inner,
)), kind=st.sampled_from(["checkout.session.completed", "charge.refunded"]))  # fmt: skip
def test_nothing_that_is_told_breaks_the_reader(thing, kind):
    assert cards.told(kind, thing) is None or isinstance(thing, dict)
