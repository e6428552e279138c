"""`make chaos`: break everything, one thing after the other, while tills sell.

    python -m chaos [--seed N] [--only NAME ...] [--json] [--write] [--keep]

--only takes names of faults or their numbers; --write updates the table in docs/faults.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from chaos.catalogue import FAULTS, Fault
from chaos.checker import check, check_open
from chaos.database import Postgres
from chaos.processes import isolate
from chaos.report import Outcome, as_json, cells, machine, table, write
from chaos.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

FAULT_TIMEOUT_S = 240
SEED_MAX = 10**6
EXIT_STOPPED = 130
ORDER = [f"{fault.number} {fault.name}" for fault in FAULTS]


async def run_fault(fault: Fault, seed: int, postgres: Postgres, folder: Path) -> Outcome:
    """Let one fault happen, and check."""
    outcome = Outcome(fault.number, fault.name, "")
    began_s = time.monotonic()
    mine = contextlib.nullcontext(postgres) if fault.server is None else fault.server(folder)
    with mine as server:
        await _happen(fault, Stage(fault.name, seed, folder / "stage", server), outcome)
    outcome.took_s = time.monotonic() - began_s
    return outcome


async def _happen(fault: Fault, stage: Stage, outcome: Outcome) -> None:
    random.seed(stage.seed)  # also what is drawn in passing: which service is asked, and when
    try:
        async with asyncio.timeout(FAULT_TIMEOUT_S):
            await stage.open(**fault.shop)
            outcome.done = await fault.run(stage)
            doubled = await check_open(stage)
            await stage.settle()
            verdict = await check(stage)
            outcome.acknowledged, outcome.retried = verdict.acknowledged, verdict.retried
            outcome.replayed, outcome.lost = verdict.replayed, len(verdict.lost)
            outcome.doubled = len({*doubled, *verdict.doubled})
            outcome.problems += verdict.problems
    except Exception:  # noqa: BLE001 - whatever it is, it is told, and the next fault has its turn
        outcome.problems.append(traceback.format_exc())
    finally:
        await stage.close()
    told = stage.crowd.problems if hasattr(stage, "crowd") else []
    outcome.problems = tally([*stage.problems, *told, *outcome.problems])
    outcome.heal_s, outcome.figures = stage.heal_s, stage.figures


def tally(problems: list[str]) -> list[str]:
    """Return each problem once, with how often it was met."""
    return [
        problem if (count := problems.count(problem)) == 1 else f"{count} x {problem}"
        for problem in dict.fromkeys(problems)
    ]


def run(
    faults: list[Fault], seed: int, told: Callable[[Outcome], None], *, keep: bool = False
) -> list[Outcome]:
    """Run faults on one server; everything is ended, and removed unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="sofinance-chaos-"))
    folder.chmod(0o711)
    postgres = Postgres(folder / "server")
    outcomes: list[Outcome] = []
    try:
        postgres.make()
        for fault in faults:
            say(f"{fault.number:>2} {fault.name}: {fault.what} ...")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outcome = runner.run(
                    run_fault(fault, seed, postgres, folder / "faults" / fault.name)
                )
            outcomes.append(outcome)
            told(outcome)
            say(progress(outcome))
    finally:
        postgres.stop()
        if keep:
            say(f"kept in {folder}")
        else:
            shutil.rmtree(folder)
    return outcomes


def progress(outcome: Outcome) -> str:
    """Say in a line how a fault went; and why not, if it did not go well."""
    heal = "" if outcome.heal_s is None else f", healed in {outcome.heal_s:.2f} s"
    line = (
        f"   {'ok' if outcome.ok else 'BROKEN'}: {outcome.acknowledged} acknowledged, "
        f"{outcome.retried} retried, {outcome.replayed} replayed, {outcome.lost} lost, "
        f"{outcome.doubled} doubled{heal}; {outcome.took_s:.1f} s"
    )
    return "\n".join([line, *(f"   - {problem}" for problem in outcome.problems)])


def say(text: str) -> None:
    """Tell how it goes, beside the result."""
    print(text, file=sys.stderr, flush=True)


def keep_row(outcome: Outcome) -> None:
    """Update its row in the page's table at once: a run that is ended has been of use."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    write([outcome], ORDER, f"In several runs, the last on {today}, on {machine()} at its end.")


def forget(_outcome: Outcome) -> None:
    """Leave the page as it is."""


def stop(number: int, _frame: object) -> None:
    """End the run, once: what cleans up is not to be ended, too."""
    del number
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run what is asked for; the exit code is 1 if anything broke that must not."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat a run (any)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=[],
        help=f"only these, by name or number: {', '.join(fault.name for fault in FAULTS)}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--write", action="store_true", help="update the table in docs/faults.md")
    parser.add_argument("--keep", action="store_true", help="keep logs and data, to look at")
    args = parser.parse_args()
    known = {name for fault in FAULTS for name in (fault.name, str(fault.number))}
    if unknown := set(args.only) - known:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    chosen = [
        fault
        for fault in FAULTS
        if not args.only or {fault.name, str(fault.number)} & set(args.only)
    ]
    # Told to end, by a person or a time limit, it cleans up; what runs in the background of a
    # shell would not hear of Ctrl-C otherwise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    seed = random.randrange(SEED_MAX) if args.seed is None else args.seed
    say(f"seed {seed}")
    isolate()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # thousands of clients
    began_s = time.monotonic()
    began_on, where = datetime.now(UTC), machine()
    try:
        outcomes = run(chosen, seed, keep_row if args.write else forget, keep=args.keep)
    except KeyboardInterrupt:
        say("stopped; what was started is ended")
        return EXIT_STOPPED
    took_s = time.monotonic() - began_s
    if args.write and chosen == FAULTS:
        write(
            outcomes,
            ORDER,
            f"In one run on {began_on:%Y-%m-%d}, seed {seed}, in {took_s / 60:.0f} minutes, on "
            f"{where} at its beginning.",
        )
    if args.json:
        document = {"seed": seed, "outcomes": [as_json(one) for one in outcomes]}
        print(json.dumps(document, indent=2, default=str))
    else:
        print(table([cells(one) for one in outcomes]))
    say(f"{took_s:.0f} s, seed {seed}")
    return 0 if all(one.ok for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
