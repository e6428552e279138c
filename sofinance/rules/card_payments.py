"""What Stripe says and is told: amounts in its smallest units, and what an event is about.

Source of the units: https://docs.stripe.com/currencies, "Zero-decimal currencies", "Three-decimal
currencies" and "Special cases". They are ISO 4217's but for these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sofinance.rules.money import CONTEXT, minor_units

# Without decimals at Stripe, whatever ISO 4217 says.
ZERO_DECIMAL = frozenset({"MGA"})
# Written with two decimals that are always zero, for the sake of older programs.
TWO_DECIMAL = frozenset({"ISK", "UGX"})
THREE = 3

PAID = {"checkout.session.completed", "checkout.session.async_payment_succeeded"}
EXPIRED = "checkout.session.expired"
NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
TOKEN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CURRENCY = re.compile(r"[a-z]{3}")


@dataclass(frozen=True, slots=True)
class Told:
    """What an event says of one checkout; its payment is there only where one was made."""

    org_id: int
    token: UUID
    outcome: str  # paid, expired or ignored
    payment_ref: str | None = None
    currency: str | None = None
    amount: Decimal | None = None


def stripe_decimals(currency: str) -> int:
    """Return how many decimals Stripe's smallest unit of a currency has."""
    if currency in ZERO_DECIMAL:
        return 0
    return 2 if currency in TWO_DECIMAL else minor_units(currency)


def to_stripe(amount: Decimal, currency: str) -> int | None:
    """Return an amount in Stripe's smallest units; None where Stripe cannot take it."""
    scaled = amount.scaleb(stripe_decimals(currency), CONTEXT)
    whole = int(scaled)
    if whole != scaled or (minor_units(currency) == THREE and whole % 10):
        return None
    return whole


def from_stripe(units: int, currency: str) -> Decimal:
    """Return the amount of so many of Stripe's smallest units."""
    return Decimal(units).scaleb(-stripe_decimals(currency), CONTEXT)


def told(kind: str, thing: Any) -> Told | None:
    """Read the object of an event; None where it is about no checkout of ours."""
    if not isinstance(thing, dict) or thing.get("object") != "checkout.session":
        return None
    metadata = thing.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    org_id, token = (str(named.get(name)) for name in ("org_id", "checkout"))
    if not NUMBER.fullmatch(org_id) or not TOKEN.fullmatch(token):
        return None
    if kind == EXPIRED:
        return Told(int(org_id), UUID(token), "expired")
    ref, currency, units = (thing.get(k) for k in ("payment_intent", "currency", "amount_total"))
    is_paid = kind in PAID and thing.get("payment_status") == "paid"
    if not is_paid or not isinstance(ref, str) or not isinstance(currency, str):
        return Told(int(org_id), UUID(token), "ignored")
    if type(units) is not int or not CURRENCY.fullmatch(currency):
        return Told(int(org_id), UUID(token), "ignored")
    currency = currency.upper()
    return Told(int(org_id), UUID(token), "paid", ref, currency, from_stripe(units, currency))
