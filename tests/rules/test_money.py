"""Money is never lost, never made, and never anything but exact, whatever the figures are."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sofinance.rules import money

if TYPE_CHECKING:
    from tests.support import Psql

CURRENCIES = st.sampled_from(["JPY", "USD", "EUR", "KWD", "XAF", "TND"])
# As wide as the columns, numeric(20, 4), and wider than the 28 digits of Python's own context.
FIGURES = st.decimals(
    min_value=-(10**40), max_value=10**40, places=7, allow_nan=False, allow_infinity=False
)
WEIGHTS = st.lists(
    st.one_of(
        st.integers(0, 10**30),
        st.decimals(min_value=0, max_value=10**9, places=3),
        st.sampled_from([Decimal(0), Decimal("0.001"), Decimal(1)]),
    ),
    min_size=1,
    max_size=40,
).filter(lambda weights: any(weight > 0 for weight in weights))


@st.composite
def amounts(draw: st.DrawFn, currency: str) -> Decimal:
    """An amount on the smallest unit of a currency, of either sign."""
    count = draw(st.integers(-(10**19), 10**19))
    return Decimal(f"{count}E-{money.minor_units(currency)}")


@given(FIGURES, CURRENCIES)
def test_rounding_is_half_up_and_final(figure: Decimal, currency: str) -> None:
    unit = Fraction(1, 10 ** money.minor_units(currency))
    rounded = money.quantize(figure, currency)
    assert (Fraction(rounded) / unit).denominator == 1
    off = Fraction(rounded) - Fraction(figure)
    assert abs(off) <= unit / 2
    if abs(off) == unit / 2:
        assert abs(rounded) > abs(figure)  # a half goes away from zero
    assert money.quantize(rounded, currency) == rounded
    assert -money.quantize(figure, currency) == money.quantize(-figure, currency)


@given(st.data(), FIGURES, CURRENCIES, WEIGHTS)
def test_nobody_elses_context_changes_a_figure(
    data: st.DataObject, figure: Decimal, currency: str, weights: list[Decimal | int]
) -> None:
    total = data.draw(amounts(currency))

    def results() -> tuple[Decimal, str, list[Decimal]]:
        parts = money.allocate(total, weights, currency)
        return money.quantize(figure, currency), money.text(figure, currency), parts

    with localcontext(Context(prec=3, rounding="ROUND_DOWN")):
        elsewhere = results()
    assert elsewhere == results()


@given(st.data(), CURRENCIES)
def test_an_amount_is_written_with_its_decimals_and_read_back_the_same(
    data: st.DataObject, currency: str
) -> None:
    amount = data.draw(amounts(currency))
    written = money.text(amount, currency)
    assert Decimal(written) == amount
    assert len(written.partition(".")[2]) == money.minor_units(currency)
    assert set(written) <= set("-0123456789.")
    assert written == money.text(Decimal(f"{amount:f}000"), currency) if "." in written else True


@given(FIGURES, CURRENCIES)
def test_a_finer_figure_is_written_in_full(figure: Decimal, currency: str) -> None:
    assert Decimal(money.text(figure, currency)) == figure
    assert Decimal(money.text(figure, None)) == figure


@given(st.data(), CURRENCIES, WEIGHTS)
def test_splitting_neither_loses_nor_makes_a_unit(
    data: st.DataObject, currency: str, weights: list[Decimal | int]
) -> None:
    total = data.draw(amounts(currency))
    unit = Fraction(1, 10 ** money.minor_units(currency))
    parts = money.allocate(total, weights, currency)
    assert sum(map(Fraction, parts)) == Fraction(total)
    scale = sum(map(Fraction, weights))
    for part, weight in zip(parts, weights, strict=True):
        assert (Fraction(part) / unit).denominator == 1
        fair = Fraction(total) * Fraction(weight) / scale
        assert abs(Fraction(part) - fair) < unit  # never a whole unit off what is fair
        assert part * total >= 0
        if weight == 0:
            assert part == 0
    # Whoever weighs more never gets less.
    by_weight = sorted(zip(weights, map(abs, parts), strict=True))
    for (light, less), (heavy, more) in pairwise(by_weight):
        assert light == heavy or less <= more
    assert parts == money.allocate(total, weights, currency)
    assert [-part for part in parts] == money.allocate(-total, weights, currency)


@given(st.data(), CURRENCIES, WEIGHTS)
def test_only_the_proportion_of_the_weights_counts(
    data: st.DataObject, currency: str, weights: list[Decimal | int]
) -> None:
    total = data.draw(amounts(currency))
    thousandfold = [Decimal(weight).scaleb(3) for weight in weights]
    assert money.allocate(total, thousandfold, currency) == money.allocate(total, weights, currency)


def test_what_is_left_goes_to_the_largest_remainders_the_earlier_first() -> None:
    def split(total: str, weights: list[int], currency: str = "USD") -> list[str]:
        return [str(part) for part in money.allocate(Decimal(total), weights, currency)]

    assert split("100.00", [1, 1, 1]) == ["33.34", "33.33", "33.33"]
    assert split("-0.05", [1, 1, 1]) == ["-0.02", "-0.02", "-0.01"]
    assert split("0.01", [1, 2, 3]) == ["0.00", "0.00", "0.01"]
    assert split("100", [1, 1, 1], "JPY") == ["34", "33", "33"]
    assert split("0.100", [1, 1, 1], "KWD") == ["0.034", "0.033", "0.033"]
    assert split("5.00", [0, 5, 0]) == ["0.00", "5.00", "0.00"]


@pytest.mark.parametrize(
    ("total", "weights"),
    [("1.005", [1, 2]), ("1.00", []), ("1.00", [0, 0]), ("1.00", [3, -1]), ("1.00", [-1, -1])],
)
def test_what_cannot_be_split_is_refused(total: str, weights: list[int]) -> None:
    with pytest.raises(ValueError, match=r"whole number|weights"):
        money.allocate(Decimal(total), weights, "USD")


def test_halves_are_rounded_as_the_database_does(psql: Psql) -> None:
    figures = [Decimal(count).scaleb(-4) for count in range(-250, 251)]
    for currency in ("JPY", "USD", "KWD"):
        rows = psql(
            "select figure, round(figure, minor_units(%s)) from unnest(%s::numeric[]) as figure",
            [currency, figures],
        )
        assert len(rows) == len(figures)
        for figure, rounded in rows:
            assert money.quantize(figure, currency) == rounded
            assert rounded == figure.quantize(
                money.UNITS[money.minor_units(currency)], ROUND_HALF_UP
            )


def test_python_and_the_database_know_the_same_decimals(psql: Psql) -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    codes = [a + b + c for a in letters for b in letters for c in letters]
    rows = psql("select code, minor_units(code::char(3)) from unnest(%s::text[]) as code", [codes])
    assert {code: money.minor_units(code) for code in codes} == dict(rows)
