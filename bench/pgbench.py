"""pgbench, PostgreSQL's own load generator, on scripts of ours."""

from __future__ import annotations

import re
import subprocess
import tempfile
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from bench.world import World

RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
FAILED = re.compile(r"^number of failed transactions: ([0-9]+)", re.MULTILINE)


def run(
    world: World, script: str, *, clients: int, seconds: float, mode: str = "prepared"
) -> float:
    """Run a script as sofinance_app over the service's own kind of socket; return its rate."""
    parts = urlsplit(world.url("sofinance_app"))
    where = parse_qs(parts.query)
    environment = {
        "PGPASSWORD": unquote(parts.password or ""),
        "PGHOST": where["host"][0] if "host" in where else (parts.hostname or ""),
        "PGPORT": where["port"][0] if "port" in where else str(parts.port),
        "PGUSER": parts.username or "",
        "PGDATABASE": parts.path.strip("/"),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".pgbench") as file:
        file.write(script)
        file.flush()
        said = subprocess.run(
            [
                world.programs / "pgbench", "--no-vacuum", "--protocol", mode,
                "--client", str(clients), "--time", str(max(1, round(seconds))),
                "--file", file.name,
            ],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    rate, failed = RATE.search(said.stdout), FAILED.search(said.stdout)
    if said.returncode != 0 or rate is None or (failed is not None and failed[1] != "0"):
        raise RuntimeError(f"pgbench failed:\n{said.stdout}\n{said.stderr}")
    return float(rate[1])


def pipelined(*statements: str) -> str:
    """Return statements that travel in one message, one round trip."""
    return "\n".join(["\\startpipeline", *(f"{one};" for one in statements), "\\endpipeline"])
