"""How long `sofinance dev` takes until it answers, from nothing and with its data there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Effort, Result, median
from bench.world import ROOT, wait_for

if TYPE_CHECKING:
    from bench.world import World

FIRST_START_S, NEXT_START_S = 3.0, 1.5
ROUND_COUNT_MAX = 5


def dev(world: World, effort: Effort) -> list[Result]:
    """Time the first and the next start of an empty `sofinance dev`."""
    del world  # its own servers are what is measured
    first: list[float] = []
    again: list[float] = []
    for _ in range(min(effort.rounds, ROUND_COUNT_MAX)):
        directory = Path(tempfile.mkdtemp(prefix="sofinance-bench-"))
        directory.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
        try:
            first.append(_start_s(directory / "data"))
            again.append(_start_s(directory / "data"))
        finally:
            shutil.rmtree(directory)
    return [
        Result(
            "embedded database: first start until the service answers", median(first), "s",
            goal=FIRST_START_S, at_most=True,
        ),
        Result(
            "embedded database: next start until the service answers", median(again), "s",
            goal=NEXT_START_S, at_most=True,
        ),
    ]  # fmt: skip


def _start_s(data: Path) -> float:
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "sofinance", "dev", "--empty", "--json", "--port", "0",
            "--data", str(data),
        ],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        wait_for(f"{json.loads(line)['url']}/health", process)
        return time.perf_counter() - began_s
    finally:
        process.terminate()
        process.communicate()
