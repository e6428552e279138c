"""django-hordak, Django's double-entry ledger, beside ours: same server, run and entries.

It is the real package with its own migrations and its own API call, in a virtual environment that
the first run makes under .cache, so that Django is not among what we need.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.measure import Effort, Result, median, ratio, take_turns
from bench.world import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from bench.world import World

PACKAGES = ("django-hordak==2.0.0", "django>=5.2", "psycopg[binary]>=3.2")
DATABASE = "hordak"
CLIENT_COUNTS = (1, 8)


def environment() -> Path:
    """Return the Python of the rival's environment, made on first use."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    directory = ROOT / ".cache" / f"hordak-{version}"
    python = directory / "bin" / "python"
    stamp = directory / "installed"
    if not stamp.exists():
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
            check=True,
        )
        stamp.touch()
    return python


def versions(python: Path) -> str:
    """Return which versions were compared with."""
    code = (
        "from importlib.metadata import version as v;"
        "print('django-hordak', v('django-hordak'), 'on Django', v('django'))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def beside(world: World, effort: Effort) -> list[Result]:
    """Compare entries a second at one and at eight clients."""
    python = environment()
    with world.superuser("postgres") as conn:
        conn.execute(f"create database {DATABASE} owner sofinance_owner")
    # As the owner of its tables: hordak knows no other role.
    theirs = world.server.url("sofinance_owner", DATABASE)
    rival = [str(python), "-P", str(ROOT / "bench" / "hordak_client.py")]
    subprocess.run([*rival, "migrate", theirs], check=True)
    posting = [*rival, "post", theirs, str(effort.seconds)]
    ours = [sys.executable, "-m", "bench.entries"]
    shop = world.shop
    job = json.dumps({
        "url": world.server.url("sofinance_app"), "org_id": shop.org_id, "user_id": shop.user_id,
        "account_ids": [shop.account_ids["cash"], shop.account_ids["bank"]],
        "seconds": effort.seconds,
    })  # fmt: skip
    results = []
    for clients in CLIENT_COUNTS:
        rates = take_turns(
            {
                "ours": partial(_rate, ours, job, clients, effort.seconds),
                "theirs": partial(_rate, posting, "", clients, effort.seconds),
            },
            effort.rounds,
        )
        results.append(
            Result(
                f"two-line entries against django-hordak, clients: {clients}",
                ratio(rates["ours"], rates["theirs"]), goal=5,
                figures={
                    "ours/s": median(rates["ours"]), "hordak/s": median(rates["theirs"]),
                    "with": versions(python),
                },
            )
        )  # fmt: skip
    return results


def _rate(command: list[str], job: str, clients: int, seconds: float) -> float:
    """Run so many processes at once; return how many entries a second they posted together."""
    running: list[subprocess.Popen[Any]] = []
    for _ in range(clients):
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        if process.stdin is not None:
            process.stdin.write(job)
            process.stdin.close()
    count = 0
    for process in running:
        said = process.stdout.read() if process.stdout is not None else ""
        if process.wait() != 0:
            raise RuntimeError(f"{command} failed")
        count += json.loads(said)["count"]
    return count / seconds
