"""How long logs are kept: what is shipped for logrotate and journald, carried out."""

from __future__ import annotations

import configparser
import gzip
import os
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.ops import promql

if TYPE_CHECKING:
    from pathlib import Path

# Of files that are shipped, and of no Python and no PostgreSQL.
pytestmark = pytest.mark.once

LOGS = promql.ROOT / "ops" / "logs"
DAY_S = 86_400
KEPT_DAYS = 90


def logrotate() -> str:
    """Return the program; without it nobody tries the configuration, so the test fails."""
    found = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin")
    assert found, "logrotate is not installed; on Debian and Ubuntu: apt-get install logrotate"
    return found


def test_logrotate_keeps_ninety_days_and_loses_no_line(tmp_path: Path) -> None:
    folder = tmp_path / "sofinance"
    folder.mkdir(mode=0o750)
    text = (LOGS / "logrotate.conf").read_text("utf-8")
    config = tmp_path / "logrotate.conf"
    config.write_text(text.replace("/var/log/sofinance", str(folder)))
    config.chmod(0o600)
    now_s = time.time()

    def aged(days: int) -> Path:
        day = time.strftime("%Y%m%d", time.localtime(now_s - days * DAY_S))
        path = folder / f"api.log-{day}.gz"
        path.write_bytes(gzip.compress(b"{}\n"))
        os.utime(path, (now_s - days * DAY_S,) * 2)
        return path

    yesterday, last_kept, too_old = aged(2), aged(KEPT_DAYS - 1), aged(KEPT_DAYS + 2)
    state = tmp_path / "state"
    day = time.localtime(now_s - DAY_S)
    state.write_text(
        f'logrotate state -- version 2\n"{folder}/api.log"'
        f" {day.tm_year}-{day.tm_mon}-{day.tm_mday}-0:0:0\n"
    )
    state.chmod(0o600)
    log = folder / "api.log"
    with log.open("ab", buffering=0) as service:  # as the service's stdout is
        service.write(b'{"message": "before"}\n')
        ran = subprocess.run(
            [logrotate(), "--state", str(state), str(config)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (0, "")
        service.write(b'{"message": "after"}\n')
    assert log.read_bytes() == b'{"message": "after"}\n'
    rotated = folder / f"api.log-{time.strftime('%Y%m%d')}"
    assert rotated.read_bytes() == b'{"message": "before"}\n'
    assert yesterday.exists()
    assert last_kept.exists()
    assert not too_old.exists()


def test_journald_keeps_as_long() -> None:
    journald = configparser.ConfigParser()
    journald.read(LOGS / "journald@sofinance.conf", "utf-8")
    assert journald["Journal"]["MaxRetentionSec"] == f"{KEPT_DAYS}d"
    assert journald["Journal"]["Storage"] == "persistent"
    text = (LOGS / "logrotate.conf").read_text("utf-8")
    assert re.findall(r"^\s+(?:rotate|maxage) (\d+)$", text, re.MULTILINE) == [str(KEPT_DAYS)] * 2


def test_the_manual_says_how_long() -> None:
    manual = (promql.ROOT / "docs" / "operations.md").read_text("utf-8")
    assert "7 days in development, 30 in staging and 90 in production" in manual
