"""The worst faults, in short: `make chaos` has all of them, for longer.

Each is on real processes, with writers that keep a journal, and ends in the one checker.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chaos.__main__ import run_fault
from chaos.catalogue import FAULTS
from chaos.checker import Verdict, compare
from chaos.database import Postgres
from chaos.journal import DONE, REFUSED, UNSURE, Attempt, Journal, Order
from chaos.report import BEGIN, END, HEAD, Outcome, cells, measured, table

if TYPE_CHECKING:
    from collections.abc import Iterator

# The embedded PostgreSQL is what is killed, whatever the others run on.
pytestmark = pytest.mark.once

SEED = 7
# Name of the fault, and how much of it.
SHORT: dict[str, dict[str, Any]] = {
    "postgres": {"kills": 2},
    "answers": {"seconds": 4.0},
    "steps": {"kinds": ("sale",)},
    "hot": {"tills": 60},
    "moment": {"pause_s": (0.3, 0.6)},
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own account may pass through."""
    made = Path(tempfile.mkdtemp(prefix="sofinance-chaos-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def postgres(folder: Path) -> Iterator[Postgres]:
    """A server that may be killed."""
    server = Postgres(folder / "server")
    server.make()
    yield server
    server.stop()


@pytest.mark.parametrize("name", SHORT)
async def test_nothing_acknowledged_is_lost_and_nothing_is_done_twice(
    name: str, postgres: Postgres, folder: Path
) -> None:
    (fault,) = (one for one in FAULTS if one.name == name)
    fault = replace(fault, run=functools.partial(fault.run, **SHORT[name]))
    outcome = await run_fault(fault, SEED, postgres, folder / name)
    assert outcome.problems == []
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.acknowledged > 0
    assert outcome.heal_s is not None


# -- the checker itself ----------------------------------------------------------------------------


def attempt(outcome: str, **data: Any) -> Attempt:
    return Attempt(outcome, 201, "", replayed=False, data=data)


def journal_of(path: Path, *attempts: Attempt) -> Journal:
    journal = Journal(path)
    order = Order("k1", "sale", "/sales", {})
    journal.begin(order)
    for one in attempts:
        journal.end(order, one)
    return journal


SALE = ("sale", 5, 10)
SAID = attempt(DONE, id=5, total="10.00")


@pytest.mark.parametrize(
    ("attempts", "there", "lost", "doubled", "problems"),
    [
        ([SAID], [SALE], 0, 0, 0),
        ([attempt(UNSURE), SAID], [SALE], 0, 0, 0),
        ([SAID], [], 1, 0, 0),
        ([SAID], [SALE, ("sale", 6, 10)], 0, 1, 0),
        ([attempt(UNSURE)], [SALE], 0, 0, 1),
        ([attempt(REFUSED)], [SALE], 0, 0, 1),
        ([attempt(REFUSED)], [], 0, 0, 0),
        ([attempt(DONE, id=4, total="10.00")], [SALE], 0, 0, 1),
        ([attempt(DONE, id=5, total="9.99")], [SALE], 0, 0, 1),
    ],
)
def test_the_journal_is_held_against_the_database(
    tmp_path: Path, attempts: list[Attempt], there: list[Any], lost: int, doubled: int,
    problems: int,
) -> None:  # fmt: skip
    journal = journal_of(tmp_path / "journal", *attempts)
    verdict = Verdict()
    compare(verdict, journal.read(), {"k1": there} if there else {})
    journal.close()
    assert (len(verdict.lost), len(verdict.doubled), len(verdict.problems)) == (
        lost, doubled, problems,
    )  # fmt: skip


def test_what_nobody_asked_for_is_found(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "journal", SAID)
    verdict = Verdict()
    compare(verdict, journal.read(), {"k1": [SALE], "unmarked sale 9": [SALE]})
    journal.close()
    assert verdict.problems == ["unmarked sale 9: there, and nobody asked for it"]


@pytest.mark.parametrize(
    ("there", "doubled", "problems"),
    [
        ({}, 0, 0),
        ({"k1": [SALE]}, 0, 0),
        ({"k1": [SALE, ("sale", 6, 10)]}, 1, 0),
        ({"k2": [SALE]}, 0, 1),  # begun since
    ],
)
def test_what_was_on_its_way_at_a_moment_may_be_there_once(
    tmp_path: Path, there: dict[str, Any], doubled: int, problems: int
) -> None:
    journal = journal_of(tmp_path / "journal", attempt(UNSURE))
    verdict = Verdict()
    compare(verdict, journal.read(), there, is_over=False)
    journal.close()
    assert (len(verdict.lost), len(verdict.doubled), len(verdict.problems)) == (
        0, doubled, problems,
    )  # fmt: skip


def test_a_table_is_aligned_and_says_what_broke() -> None:
    outcomes = [
        Outcome(1, "postgres", "kill -9", acknowledged=12, heal_s=0.5),
        Outcome(2, "answers", "cut", lost=1, heal_s=None),
    ]
    lines = table([cells(one) for one in outcomes]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(HEAD)
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["ok", "BROKEN"]


def test_the_page_is_read_as_it_is_written() -> None:
    rows = [cells(Outcome(1, "postgres", "kill -9", heal_s=0.5)), cells(Outcome(2, "answers", ""))]
    assert measured(f"Text\n{BEGIN}\n{table(rows)}\n{END}\nmore | text") == rows
