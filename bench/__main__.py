"""`make bench`: measure everything, print the table, keep it as JSON.

    python -m bench [--quick] [--large] [--only NAME ...]

--quick takes a fifth of the time and three rounds; --large adds 5 and 10 million lines.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bench import balances, day, journal, layers, posting, rival, sale, start
from bench.measure import FULL, QUICK, Effort, Result, as_json, machine, table
from bench.world import ROOT, Service, World, new_world

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = ROOT / "bench" / "results"
LOAD_MAX = 0.5

# Name -> what it measures. Those under SERVED need a service; each list is in the order of running.
SERVED: dict[str, Callable[[World, Service, Effort], list[Result]]] = {
    "sale": sale.against_pgbench,
    "even": sale.evenness,
    "day": day.against_targets,
    "layers": layers.each,
    "identity": layers.identity,
}
OTHERS: dict[str, Callable[[World, Effort], list[Result]]] = {
    "posting": posting.against_rows,
    "guards": journal.guards,
    "hot": journal.hot,
    "hordak": rival.beside,
    "bulk": journal.bulk,
    "balances": balances.trial_balance,
    "start": start.dev,
}


def measure(effort: Effort, names: list[str]) -> list[Result]:
    """Run the named measures in one world."""
    results: list[Result] = []
    with new_world() as world:
        served = [name for name in SERVED if name in names]
        if served:
            with world.service() as service:
                for name in served:
                    say(name)
                    results += SERVED[name](world, service, effort)
        for name, run in OTHERS.items():
            if name in names:
                say(name)
                results += run(world, effort)
    return results


def say(name: str) -> None:
    """Tell what is being measured."""
    print(f"measuring {name} ...", file=sys.stderr, flush=True)


def main() -> int:
    """Run what is asked for; the exit code says whether it ran, not whether goals were met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the time, three rounds")
    parser.add_argument("--large", action="store_true", help="5 and 10 million lines, too")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[*SERVED, *OTHERS],
        help=f"only these of {', '.join([*SERVED, *OTHERS])}",
    )  # fmt: skip
    args = parser.parse_args()
    effort = replace(QUICK if args.quick else FULL, large=args.large)
    before = machine()
    if before["load"][0] > LOAD_MAX:
        print(f"Others are at work here (load {before['load'][0]}): expect worse.", file=sys.stderr)
    began = datetime.now(UTC)
    results = measure(effort, args.only or [*SERVED, *OTHERS])
    print(table(results))
    print(
        f"{before['processor']}, {before['cores']} cores, {before['system']}, Python "
        f"{before['python']}; load before {before['load'][0]}, after {os.getloadavg()[0]:.2f}"
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{began:%Y-%m-%dT%H%M%SZ}.json"
    kept = {
        "began_at": began.isoformat(),
        "effort": "quick" if args.quick else "full",
        "machine": before,
        "results": [as_json(result) for result in results],
    }
    path.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")
    print(f"kept in {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
