"""The running service held to its own document: every operation, every check, every phase."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sofinance.app import find_endpoints
from tests.contract.hooks import sign_in, whoami

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CASE_COUNT_MIN = 2_000
# Otherwise the service was only ever asked what it refuses.
SUCCESS_COUNT_MIN = 1_000
RUN_TIMEOUT_S = 600
PHASES = {"examples", "coverage", "fuzzing", "stateful"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The service as `sofinance dev` starts it: its own database, and a demo organisation."""
    command = [sys.executable, "-m", "sofinance", "dev", "--json", "--port", "0"]
    log = tmp_path / "service.log"
    data = Path(tempfile.mkdtemp(prefix="sofinance-contract-"))
    data.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*command, "--data", str(data / "data")],
            cwd=ROOT,
            # Without it webhooks of Stripe's are answered 503.
            env={**os.environ, "STRIPE_WEBHOOK_SECRET": "whsec_" + "c" * 32},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line, log.read_text()
            yield json.loads(line) | {"log": log}
        finally:
            process.terminate()
    shutil.rmtree(data)


def test_the_service_keeps_what_its_document_promises(
    service: dict[str, Any], tmp_path: Path
) -> None:
    url, token = service["url"], sign_in(service["url"], service["admin"])
    spare = sign_in(url, service["cashier"])
    kept = [whoami(url, token), whoami(url, spare)]
    report, answers = tmp_path / "report.json", tmp_path / "answers.json"
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("--config-file", HERE / "schemathesis.toml"),
            *("run", f"{url}/openapi.json", "--continue-on-failure", "--no-color"),
            *("--report", "json", "--report-json-path", report),
        ],
        cwd=tmp_path,  # it leaves a database of examples where it runs
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.contract.hooks",
            "SOFINANCE_TOKEN": token,
            "SOFINANCE_SPARE": json.dumps(service["cashier"] | {"url": url}),
            "SOFINANCE_KEPT": json.dumps(kept),
            "SOFINANCE_ANSWERS": str(answers),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told + service["log"].read_text()[-5_000:]
    found = json.loads(report.read_text("utf-8"))
    assert found["complete"], told
    assert found["failures"] == found["errors"] == [], told
    assert {name for name, phase in found["phases"].items() if phase["status"] == "success"} == (
        PHASES
    )
    assert found["operations"]["tested"] == len(find_endpoints())
    assert found["test_cases"]["generated"] >= CASE_COUNT_MIN
    assert found["test_cases"]["errored"] == 0
    statuses = {int(status): count for status, count in json.loads(answers.read_text()).items()}
    assert not [status for status in statuses if status >= 500], statuses
    good = sum(count for status, count in statuses.items() if status < 300)
    assert good >= SUCCESS_COUNT_MIN, statuses
    # Whoever asked was not signed out on the way.
    assert whoami(url, token) == kept[0]
