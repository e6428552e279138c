"""A PgBouncer of a run's own, in transaction mode, in front of the run's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.ports import free_port
from tests.support import ROLE_PASSWORD

START_TIMEOUT_S = 120
ACCOUNT = "nobody"  # PgBouncer refuses to run as root
# More clients than connections, so that clients do share.
POOL_SIZE = 12
CONFIG = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 5000
application_name_add_host = 1
server_lifetime = 60
server_idle_timeout = 5
ignore_startup_parameters = extra_float_digits, jit
logfile = {folder}/log
pidfile =
"""


class PgBouncer:
    """The program, on a port of its own."""

    def __init__(
        self, server_url: str, *, pool_size: int = POOL_SIZE, password: str = ROLE_PASSWORD
    ) -> None:
        server = urlsplit(server_url)
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="sofinance-pgbouncer-"))
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        (self._folder / "users.txt").write_text(f'"sofinance_app" "{password}"\n')
        config = self._folder / "pgbouncer.ini"
        config.write_text(
            CONFIG.format(
                host=server.hostname,
                port=server.port,
                own_port=self.port,
                folder=self._folder,
                pool_size=pool_size,
            )
        )
        user = []
        if os.getuid() == 0:
            shutil.chown(self._folder, ACCOUNT)
            user = ["--user", ACCOUNT]
        self._command = [program, "--quiet", *user, str(config)]
        self.start()

    def start(self) -> None:
        """Start it, the first time or after it was killed."""
        self._process = subprocess.Popen(self._command)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            assert self._process.poll() is None, "PgBouncer did not start"
            assert time.monotonic() < deadline_s, "PgBouncer does not listen"
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def through(self, url: str) -> str:
        """Return the URL of the same database by way of this."""
        parts = urlsplit(url)
        who = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{who}@127.0.0.1:{self.port}").geturl()

    def kill(self) -> None:
        """End it without a word, as kill -9 does."""
        self._process.kill()
        self._process.wait(START_TIMEOUT_S)

    def close(self) -> None:
        """End it and clean up."""
        self._process.terminate()
        self._process.wait(START_TIMEOUT_S)
        shutil.rmtree(self._folder)
