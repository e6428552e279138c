"""What a killed restore leaves is taken away, and nothing that is anybody's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sofinance.backups import scratch
from tests.conftest import programs
from tests.support import role_url

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 120  # ends as soon as it is so
HOLDER = """
import sys
from sofinance.backups.scratch import scratch
with scratch() as path:
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def top(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of temporary files, of the test's own."""
    made = Path(tempfile.mkdtemp(prefix="sofinance-tests-"))
    made.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    yield made
    for note in made.glob("*/data/pgdata/postmaster.pid"):  # of a test that failed
        with contextlib.suppress(ProcessLookupError):
            os.kill(postmaster(note), signal.SIGQUIT)
    shutil.rmtree(made)


def process(top: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(top), **variables}
    return subprocess.Popen(
        [sys.executable, *words], env=environ, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def postmaster(note: Path) -> int:
    return int(note.read_text().split("\n", 1)[0])


def runs(pid: int) -> bool:
    """Say whether a process runs; one that has ended and that nobody buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_held_or_not_ours_stays_and_what_was_left_goes(top: Path) -> None:
    elsewhere, plain = top / "elsewhere", top / f"{scratch.PREFIX}plain"
    elsewhere.mkdir()
    (elsewhere / "books").touch()
    (top / f"{scratch.PREFIX}link").symlink_to(elsewhere)
    plain.touch()
    other = top / "of-another-name"
    other.mkdir()
    with process(top, "-c", HOLDER) as holder:
        assert holder.stdout is not None
        held = Path(holder.stdout.readline().strip())
        left = top / f"{scratch.PREFIX}left"
        (left / "files").mkdir(parents=True)
        with scratch.scratch() as own:  # sweeps, as every drill does
            assert not left.exists()
            assert own.stat().st_mode & 0o777 == 0o711
            assert scratch.sweep() == []
            assert held.is_dir()
        assert not own.exists()
        holder.kill()
    assert scratch.sweep() == [held]
    assert {path.name for path in top.iterdir()} == {
        "elsewhere", "of-another-name", plain.name, f"{scratch.PREFIX}link"
    }  # fmt: skip
    assert (elsewhere / "books").exists()


@pytest.mark.empty_database
@pytest.mark.parametrize(
    "next_one", [["drill", "--backup", "latest"], ["worker", "--once", "--job", "forget-job-runs"]]
)
def test_the_server_of_a_killed_drill_ends_with_the_next_drill_or_worker(
    top: Path, tmp_path: Path, superuser_dsn: str, dsn: str, next_one: list[str]
) -> None:
    given = {
        "BACKUP_URL": role_url(superuser_dsn, "sofinance_backup"), "DATABASE_URL": dsn,
        "BACKUP_DIR": str(tmp_path / "backups"), "PG_BIN": str(programs() or ""),
    }  # fmt: skip

    def run(*words: str) -> str:
        with process(top, "-m", "sofinance", *words, **given) as one:
            said, complaint = one.communicate()
        assert one.returncode == 0, complaint
        return said

    run("backup")
    with process(top, "-m", "sofinance", "drill", "--backup", "latest", **given) as killed:
        until = time.monotonic() + TIMEOUT_S
        while not (ready := [note for note in notes(top) if "ready" in note.read_text()]):
            assert (time.monotonic() < until, killed.poll()) == (True, None)
            time.sleep(0.005)
        killed.kill()
    (note,) = ready
    pid = postmaster(note)
    assert runs(pid), "nobody has told it"
    said = run(*next_one, *(["--json"] if next_one[0] == "drill" else []))
    assert not runs(pid)
    assert list(top.iterdir()) == []
    if next_one[0] == "drill":
        assert json.loads(said)["ok"]


def notes(top: Path) -> list[Path]:
    return list(top.glob(f"{scratch.PREFIX}*/data/pgdata/postmaster.pid"))
