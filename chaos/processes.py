"""Processes of a run: started here, ended here, their output in files of the run's own folder."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT_S = 30
CLONE_NEWNS = 0x00020000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Running:
    """A process of ours: a service, a worker, a server."""

    def __init__(self, command: list[str], log: Path, settings: Mapping[str, str]) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.command, self.log, self.settings = command, log, {**kept, **settings}
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as said:
            return subprocess.Popen(
                self.command, cwd=ROOT, env=self.settings, stdin=subprocess.DEVNULL,
                stdout=said, stderr=said,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Say whether it has not ended."""
        return self._process.poll() is None

    def children(self) -> list[int]:
        """Return the processes that it started, such as gunicorn's workers."""
        return children(self.pid)

    def kill(self) -> None:
        """End it without a word, as kill -9 does."""
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)

    def again(self) -> None:
        """Start it once more, as a supervisor does."""
        self.end()
        self._process = self._start()

    def end(self) -> None:
        """Ask it to end; insist, if it does not."""
        if not self.runs:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()


def python(*words: str) -> list[str]:
    """Return the command line of a module."""
    return [sys.executable, "-m", *words]


def children(pid: int) -> list[int]:
    """Return the children of a process, oldest first."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8")
        return sorted(int(number) for number in listed.split())
    return []


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has of its own right now; 0 when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * PAGE_BYTES
    return 0


def owner_of_port(port: int, pids: list[int]) -> int | None:
    """Return which of the processes has the local end of a TCP connection; None if none does."""
    inode = ""
    for line in Path("/proc/net/tcp").read_text("utf-8").splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{port:04X}") and words[3] == "01":
            inode = words[9]
            break
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if inode and str(entry.readlink()) == f"socket:[{inode}]":
                        return pid
    return None


def isolate() -> None:
    """Give this process mounts of its own, which end with it; before any thread is started.

    Only root can; without, what has to mount fails and says so.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mounts of our own")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
