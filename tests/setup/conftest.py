"""What tests of the command need: a directory for data, and the command in a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sofinance.infra import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Sofinance = Callable[..., subprocess.CompletedProcess[str]]
    Service = Callable[..., subprocess.Popen[str]]

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 180


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """Yield a directory that PostgreSQL's own account can pass through, whoever we are."""
    directory = Path(tempfile.mkdtemp(prefix="sofinance-data-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def data() -> Iterator[Path]:
    """A path for a data directory that is not there yet."""
    with _directory() as directory:
        yield directory / "data"
        # A test that failed half-way may have left PostgreSQL running.
        for pidfile in directory.glob("*/pgdata/postmaster.pid"):
            server = embedded.Server(pidfile.parents[1])
            if server.running():
                os.kill(int(pidfile.read_text().split()[0]), signal.SIGQUIT)
                until = time.monotonic() + TIMEOUT_S
                while server.running() and time.monotonic() < until:
                    time.sleep(0.01)


@pytest.fixture(scope="session")
def _made() -> Iterator[Path]:
    with _directory() as directory:
        server = embedded.Server(directory / "data")
        server.start()
        server.stop()
        with (server.pgdata / "postgresql.conf").open("a") as conf:
            conf.write("fsync = off\n")  # of its copies, none of which anybody keeps
        yield server.data


@pytest.fixture
def made(_made: Path, data: Path) -> Path:
    """A data directory that has been started once; copied, which is quicker than making one."""
    subprocess.run(["cp", "-a", _made, data], check=True)  # keeps the owner
    return data


def environment(**variables: str) -> dict[str, str]:
    """Return an environment with nothing of ours in it but these variables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}


@pytest.fixture
def sofinance() -> Sofinance:
    """Run the command to its end: ``sofinance("serve", DATABASE_URL=...)``."""

    def run(*args: Any, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sofinance", *map(str, args)],
            env=environment(**variables), cwd="/", stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def service(data: Path) -> Iterator[Service]:
    """Start a command and leave it running: ``service("sofinance", "dev")``; it is ended here."""
    started: list[subprocess.Popen[str]] = []

    def start(module: str, *args: Any, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, args)],
            env=environment(**variables), cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT_S)
        assert process.stdout is not None
        process.stdout.close()
