"""For whom a flag is on."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sofinance.rules.rollout import LEVELS, Decision, decide, share, subject_of, variant_of

USERS = [subject_of(7, None, user_id) for user_id in range(1, 1001)]


def among(percent: int, flag: str = "new_receipts") -> set[str]:
    return {
        user for user in USERS if decide(flag, {"organisation": percent}, user, default=False).is_on
    }


def test_a_quarter_of_a_thousand_users_is_about_a_quarter_and_always_the_same():
    assert 200 <= len(among(25)) <= 300
    assert among(25) == among(25)
    # Pinned: another hash would switch off half of those for whom a flag is on.
    assert [share("new_receipts", user) for user in USERS[:4]] == PINNED


PINNED = [8519, 4485, 8385, 7718]


def test_who_is_in_stays_in_when_there_are_more():
    shares = [among(percent) for percent in (0, 1, 10, 25, 50, 99, 100)]
    assert shares[0] == set()
    assert shares[-1] == set(USERS)
    assert all(fewer <= more for fewer, more in pairwise(shares))


def test_two_flags_do_not_favour_the_same_users():
    both = among(25, "one") & among(25, "two")
    assert 30 <= len(both) <= 100


@given(
    settings=st.dictionaries(st.sampled_from(LEVELS), st.sampled_from([0, 100])),
    default=st.booleans(),
)
def test_the_nearest_level_decides(settings: dict[str, int], *, default: bool):
    decided = decide("flag", settings, "7", default=default)
    nearest = next((level for level in LEVELS if level in settings), None)
    expected = default if nearest is None else settings[nearest] == 100
    assert (decided.is_on, decided.reason) == (expected, nearest or "default")


@given(settings=st.dictionaries(st.sampled_from(LEVELS), st.just(100)))
def test_a_killed_flag_is_off_whatever_is_set(settings: dict[str, int]):
    assert decide("flag", {**settings, "killed": 0}, "7", default=True) == Decision(
        is_on=False, reason="killed", variant=None
    )


def test_variants_are_even_and_stable_and_only_where_it_is_on():
    seen = [variant_of("flag", user, ("a", "b")) for user in USERS]
    assert 450 <= seen.count("a") <= 550
    assert seen == [variant_of("flag", user, ("a", "b")) for user in USERS]
    on = decide("flag", {"global": 100}, "7", default=False, variants=("a", "b"))
    assert on.variant in {"a", "b"}
    assert decide("flag", {}, "7", default=False, variants=("a", "b")).variant is None


@pytest.mark.parametrize(
    ("who", "subject"),
    [((7, 3, 5), "7/user/5"), ((7, 3, None), "7/branch/3"), ((7, None, None), "7")],
)
def test_a_share_counts_users_else_branches_else_organisations(
    who: tuple[int, int | None, int | None], subject: str
):
    assert subject_of(*who) == subject
