"""What a service needs, each to be slowed, stopped or lost by a test: servers, its log, its disk.

And those who ask it meanwhile: `repeatedly` and `crowd`.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socketserver
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from sofinance.infra import embedded, migrate
from tests import ports
from tests.ops import live
from tests.redis_server import RedisServer
from tests.standby import Standby

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
ARCHIVING_NOTHING = {"archive_mode": "on", "archive_command": "false", "archive_timeout": "60"}
PAUSE_S = 0.3
FREEZE_S = 0.8
READ_BYTES = 65_536
# A disk that takes a tenth of a second to write what is committed.
SLOW_DISK = ("fsync = on", "commit_siblings = 0", "commit_delay = 100000")


@contextlib.contextmanager
def database_server() -> Iterator[embedded.Server]:
    """Run a migrated database server of the test's own, which it may stop."""
    folder = Path(tempfile.mkdtemp(prefix="sofinance-alerts-"))
    folder.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
    ports.settle(folder / "data")
    server = embedded.Server(folder / "data", options=UNSAFE_BUT_FAST | ARCHIVING_NOTHING)
    try:
        server.start()
        migrate.apply(server.url("postgres"))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@contextlib.contextmanager
def standby_of(database: embedded.Server) -> Iterator[Standby]:
    """Run a standby of that server, which the test may pause and stop."""
    standby = Standby(database.url("postgres"), database.data.parent / "standby")
    try:
        standby.start()
        yield standby
    finally:
        standby.stop()


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Run a Redis of the test's own, which it may kill."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def repeatedly(ask: Callable[[], object]) -> Iterator[None]:
    """Ask a few times a second, for as long as a block runs."""
    with crowd(ask, 1):
        yield


@contextlib.contextmanager
def crowd(ask: Callable[[], object], count: int) -> Iterator[None]:
    """Have so many ask a few times a second each, for as long as a block runs."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(PAUSE_S):
            ask()

    asking = [threading.Thread(target=go_on) for _ in range(count)]
    for one in asking:
        one.start()
    try:
        yield
    finally:
        over.set()
        for one in asking:
            one.join()


class MailServer(socketserver.ThreadingTCPServer):
    """A mail server that takes what it is given, refuses it for good, or says nothing."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.mode = "take"
        self.taken_count = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.server_address[1]
        return port

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve for as long as a block runs."""
        serving = threading.Thread(target=self.serve_forever, args=(0.1,))
        serving.start()
        try:
            yield
        finally:
            self.mode = "refuse"
            self.shutdown()
            serving.join()
            self.server_close()


class Session(socketserver.StreamRequestHandler):
    """One client of the mail server."""

    server: MailServer

    def handle(self) -> None:
        """Talk to it, when the server talks."""
        while self.server.mode == "hang":
            time.sleep(0.05)
        with contextlib.suppress(OSError):
            if self.server.mode == "refuse":
                self.wfile.write(b"554 no mail is taken here\r\n")
            else:
                self._take()

    def _take(self) -> None:
        self.wfile.write(b"220 mail.example\r\n")
        for line in self.rfile:
            match line[:4].upper():
                case b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    while self.rfile.readline() not in (b".\r\n", b""):
                        pass
                    self.server.taken_count += 1
                    self.wfile.write(b"250 taken\r\n")
                case b"QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                case _:
                    self.wfile.write(b"250 mail.example\r\n")


class Listener:
    """What reads the log of a service, from a pipe with a name; it may hang up and come back."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self._over = threading.Event()
        self._reading: threading.Thread | None = None
        self.come_back()
        self.stdout = os.open(path, os.O_WRONLY)

    def come_back(self) -> None:
        """Read what is written from now on."""
        self._over.clear()
        pipe = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self._reading = threading.Thread(target=self._read, args=(pipe,))
        self._reading.start()

    def hang_up(self) -> None:
        """Read no more: whoever writes is told that nobody reads."""
        self._over.set()
        if self._reading is not None:
            self._reading.join()
            self._reading = None

    def close(self) -> None:
        """Go for good."""
        self.hang_up()
        os.close(self.stdout)

    def _read(self, pipe: int) -> None:
        while not self._over.is_set():
            if select.select([pipe], [], [], 0.1)[0]:
                os.read(pipe, READ_BYTES)
        os.close(pipe)


@contextlib.contextmanager
def slow_disk(url: str) -> Iterator[None]:
    """Have the server of a superuser's URL commit slowly, for as long as a block runs."""
    with psycopg.connect(url, autocommit=True) as conn:
        for option in SLOW_DISK:
            conn.execute(f"alter system set {option}")
        conn.execute("select pg_reload_conf()")
        try:
            yield
        finally:
            for option in SLOW_DISK:
                conn.execute(f"alter system reset {option.partition(' ')[0]}")
            conn.execute("select pg_reload_conf()")


def freeze(folder: Path) -> None:
    """Keep one worker of gunicorn from computing for a moment; `folder` has its metrics."""
    pid = int(min(live.pids(folder)))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(FREEZE_S)
    os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """Keep everybody from a table, as a migration that waits too long."""
    with psycopg.connect(url) as held:
        held.execute(f"lock table {table} in access exclusive mode")
        yield
