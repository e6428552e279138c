"""Money: the minor unit of each currency, rounding, and splitting without losing a cent.

Source of the exponents: ISO 4217, list one. A currency that is not named here has two decimals.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MINOR_UNITS: dict[str, int] = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI",
         "VND", "VUV", "XAF", "XOF", "XPF"),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}  # fmt: skip
MINOR_UNITS_DEFAULT = 2
# One smallest amount per number of decimals.
UNITS = (Decimal(1), Decimal("0.1"), Decimal("0.01"), Decimal("0.001"))
# Wider than any column, so that no amount is rounded by the context on its way.
CONTEXT = Context(prec=60, rounding=ROUND_HALF_UP)


def minor_units(currency: str) -> int:
    """Return how many decimals an amount of this currency has."""
    return MINOR_UNITS.get(currency, MINOR_UNITS_DEFAULT)


def quantize(amount: Decimal, currency: str) -> Decimal:
    """Round half up to the smallest unit of the currency."""
    return amount.quantize(UNITS[minor_units(currency)], context=CONTEXT)


def text(amount: Decimal, currency: str | None) -> str:
    """Write an amount with exactly its currency's decimals: "25.98", "1500" in JPY.

    A figure that has more of them (a unit cost) is written in full rather than rounded. Without
    a currency the amount keeps the decimals that it came with.
    """
    if currency is not None:
        exact = quantize(amount, currency)
        amount = exact if exact == amount else amount.normalize(CONTEXT)
    return format(amount, "f")


def allocate(total: Decimal, weights: Sequence[Decimal | int], currency: str) -> list[Decimal]:
    """Split an amount by weights into parts that add up to exactly the amount.

    Each part is rounded down and the units that are left go one each to the largest remainders,
    the earlier part first (Hamilton's method). Raises ValueError for a total that is not on the
    currency's smallest unit, a negative weight, or weights that are all zero.
    """
    unit = UNITS[minor_units(currency)]
    if quantize(total, currency) != total:
        raise ValueError(f"{total} is not a whole number of the smallest unit of {currency}")
    with localcontext(CONTEXT):  # the caller's context could round on the way
        scale = sum(weights, Decimal(0))
        if scale <= 0 or any(weight < 0 for weight in weights):
            raise ValueError("weights are not negative, and at least one is above zero")
        units = abs(total) / unit
        # Whole units by integer division: the remainder is exact, whatever the weights are.
        shares = [divmod(units * weight, scale) for weight in weights]
        parts = [whole for whole, _ in shares]
        left = int(units - sum(parts, Decimal(0)))
        for index in sorted(range(len(parts)), key=lambda i: -shares[i][1])[:left]:
            parts[index] += 1
        signed_unit = -unit if total < 0 else unit
        return [(part * signed_unit).quantize(unit) for part in parts]
