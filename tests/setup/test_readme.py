"""The README's session, run as it is printed, against what `make run` starts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

import pytest

# It starts the embedded PostgreSQL, whatever the others run on.
pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dev(data: Path) -> Iterator[dict[str, object]]:
    """Yield what `sofinance dev --json` says when it is ready; it stops at the end."""
    command = [sys.executable, "-m", "sofinance", "dev", "--json", "--port", "0"]
    with subprocess.Popen(
        [*command, "--data", str(data)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "sofinance dev ended before it was ready"
        yield json.loads(line)
        process.terminate()
        process.wait(timeout=30)


def session(dev: dict[str, object]) -> str:
    """Return the README's shell session with this server's address and sign-in."""
    (block,) = re.findall(r"<!-- session.*?-->\n```sh\n(.*?)```", README, re.DOTALL)
    admin = dev["admin"]
    assert isinstance(admin, dict)
    for name, value in {
        "URL": f"{dev['url']}/api/v1",
        "EMAIL": admin["email"],
        "PASSWORD": f"'{admin['password']}'",
    }.items():
        block, count = re.subn(rf"^{name}=.*$", f"{name}={value}", block, flags=re.MULTILINE)
        assert count == 1
    return str(block)


README = (ROOT / "README.md").read_text("utf-8")


def test_the_readmes_session_works_as_printed(dev: dict[str, object]) -> None:
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", session(dev)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert '"receipt_number"' in said
    assert '"code": "payment_within_total"' in said
    assert '"kind": "SALE"' in said
    assert said.rstrip().endswith("True")
    assert "\nFULL\n" in said


def test_the_readmes_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
