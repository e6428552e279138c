"""Every measure runs and yields a figure; none of them asserts a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from bench import __main__ as bench
from bench.measure import TINY, Result, as_json, ratio, table, take_turns
from bench.world import World, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator

# Measured on the embedded PostgreSQL, whatever the others run on.
pytestmark = pytest.mark.once

# The rival is a package of its own, installed when the benchmark first runs.
RUN_HERE = [name for name in bench.OTHERS if name != "hordak"]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world in which little is sold."""
    with new_world(products=30) as world:
        yield world


def check(results: list[Result]) -> None:
    assert results
    for result in results:
        assert math.isfinite(result.value)
        # A difference in per cent may be lost in the noise of so short a run.
        assert result.value > 0 or result.unit == "%"
        assert as_json(result)["verdict"] in {"met", "short", "shown"}
    assert len(table(results).splitlines()) == len(results) + 2


def test_measures_over_http_run(world: World) -> None:
    with world.service() as service:
        for name, measure in bench.SERVED.items():
            assert name
            check(measure(world, service, TINY))


@pytest.mark.parametrize("name", RUN_HERE)
def test_a_measure_runs(world: World, name: str) -> None:
    check(bench.OTHERS[name](world, TINY))


def test_durability_is_on(world: World) -> None:
    with world.superuser() as conn:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert conn.execute(f"show {name}").fetchone() == ("on",)


def test_contestants_take_turns_and_are_compared_round_by_round() -> None:
    ran: list[str] = []
    speed = {"ours": 30.0, "theirs": 10.0}

    def contestant(name: str) -> float:
        ran.append(name)
        return speed[name]

    seen = take_turns({name: lambda name=name: contestant(name) for name in speed}, 2)

    assert ran == ["ours", "theirs", "theirs", "ours"]
    assert ratio(seen["ours"], seen["theirs"]) == 3.0


def test_a_goal_is_met_from_its_own_side() -> None:
    assert Result("fast", 2.0, goal=2).verdict == "met"
    assert Result("fast", 1.9, goal=2).verdict == "short"
    assert Result("slow", 1.9, goal=2, at_most=True).verdict == "met"
    assert Result("shown", 1.0).verdict == "shown"
