"""Streaming standbys of a test's PostgreSQL: made, paused, promoted; and primaries that die.

A failover is `kill` of the primary (a frozen one, too: that fences it), ``standby.promote()``, and
clients that find the new one: by a `Relay` that is pointed at it, which stands for a name or a
virtual address, or by a URL that names both (`both`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg

from sofinance.infra import embedded
from tests import ports
from tests.support import ROLE_PASSWORD, role_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CATCH_UP_S = 120
POLL_S = 0.02
CHUNK_BYTES = 65_536
# What a run's own standby needs beside what it inherits: queries win over replay for a while.
OPTIONS = {"hot_standby_feedback": "on", "wal_receiver_status_interval": "1s"}


class Standby(embedded.Server):
    """A streaming copy of a server, which answers queries and can take its place."""

    def __init__(
        self,
        primary_url: str,
        data: Path,
        *,
        name: str = "standby",
        programs: Path | None = None,
        options: Mapping[str, str] = OPTIONS,
    ) -> None:
        """Take the superuser's URL of the primary, and a directory of the standby's own."""
        super().__init__(data, programs=programs, options=options)
        self.name, self.primary_url = name, primary_url

    def start(self) -> None:
        """Copy the primary, the first time, and follow it."""
        if not self.pgdata.exists():
            ports.settle(self.data)
            self.data.chmod(0o711)
            password = urlsplit(self.primary_url).password or ""
            self._write_secrets(
                {embedded.SUPERUSER: password, **dict.fromkeys(embedded.ROLES, ROLE_PASSWORD)}
            )
            self._copy()
        super().start()

    def _copy(self) -> None:
        self.pgdata.mkdir(0o700)
        if self.account.run_as():
            os.chown(self.pgdata, self.account.uid, self.account.gid)
        source = urlsplit(self.primary_url)._replace(
            path="/postgres", query=f"application_name={self.name}"
        )
        made = self._call(
            self.programs / "pg_basebackup", "--dbname", source.geturl(), "--pgdata",
            str(self.pgdata), "--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf",
            "--create-slot", "--slot", self.name, "--no-sync",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with (self.pgdata / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(f"{option} = '{value}'\n" for option, value in self.options.items())

    # -- what it is asked -----------------------------------------------------------------

    def ask(self, statement: str) -> Any:
        """Return the first column of the first row, as the standby's superuser."""
        return ask(self.url(embedded.SUPERUSER, "postgres"), statement)

    def pause(self) -> None:
        """Stop replaying; it lags from here on."""
        self.ask("select pg_wal_replay_pause()")
        until("paused", lambda: self.ask("select pg_get_wal_replay_pause_state()") == "paused")

    def resume(self) -> None:
        """Replay again."""
        self.ask("select pg_wal_replay_resume()")

    def catch_up(self) -> None:
        """Wait until it has replayed what the primary has written by now."""
        catch_up(self.primary_url, self.url(embedded.SUPERUSER, "postgres"))

    def promote(self) -> None:
        """Make it the primary; it takes writes when this returns."""
        assert self.ask(f"select pg_promote(true, {CATCH_UP_S})")
        until("writable", lambda: not self.ask("select pg_is_in_recovery()"))

    def make_synchronous(self) -> None:
        """Let the primary acknowledge a commit only when this has it on disk."""
        with connected(self.primary_url) as conn:
            conn.execute(f"alter system set synchronous_standby_names = '\"{self.name}\"'")
            conn.execute("select pg_reload_conf()")
        state = f"select sync_state from pg_stat_replication where application_name = '{self.name}'"
        until("synchronous", lambda: ask(self.primary_url, state) == "sync")

    def forget(self) -> None:
        """Let the primary keep no log for it any more; after it was stopped for good."""
        with connected(self.primary_url) as conn:
            conn.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                " where slot_name = %s",
                [self.name],
            )


# -- a primary that dies -----------------------------------------------------------------------


def kill(server: embedded.Server) -> None:
    """Kill a server's every process at once, as a power cut does; ``start()`` recovers it."""
    for pid in family(server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.stop()  # buries it and lets go of the directory


def freeze(server: embedded.Server) -> None:
    """Stop a server's every process, as a machine that hangs: connections stay, nobody answers."""
    for pid in family(server):
        os.kill(pid, signal.SIGSTOP)


def thaw(server: embedded.Server) -> None:
    """Let a frozen server go on, as if nothing had been."""
    for pid in reversed(family(server)):
        os.kill(pid, signal.SIGCONT)


def family(server: embedded.Server) -> list[int]:
    """Return the postmaster's process id and those of its children."""
    pid = int((server.pgdata / "postmaster.pid").read_text("utf-8").split("\n", 1)[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8")
    return [pid, *map(int, children.split())]


# -- the way there -----------------------------------------------------------------------------


class Relay:
    """A port that passes on to another, which can be changed: a name, or a virtual address.

    ``point_at(None)`` refuses; `cut` breaks what is open.
    """

    def __init__(self, port: int | None) -> None:
        self._target = port
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def through(self, url: str) -> str:
        """Return the URL of the same database by way of this."""
        parts = urlsplit(url)
        who = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{who}@127.0.0.1:{self.port}").geturl()

    def point_at(self, port: int | None) -> None:
        """Lead new connections there; those that are open stay where they are."""
        self._target = port

    def cut(self) -> None:
        """Break every connection that is open."""
        with self._lock:
            for pair in self._pairs:
                for end in pair:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Listen no more, and break what is open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=[client], daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(client)
            if self._target is None:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                return
            server.settimeout(None)
            pair = (client, stack.enter_context(server))
            with self._lock:
                self._pairs.add(pair)
            try:
                carry(*pair)
            finally:
                with self._lock:
                    self._pairs.discard(pair)


def carry(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until either end has no more."""
    with selectors.DefaultSelector() as either, contextlib.suppress(OSError):
        either.register(one, selectors.EVENT_READ, other)
        either.register(other, selectors.EVENT_READ, one)
        while True:
            for ready, _ in either.select():
                chunk = ready.fileobj.recv(CHUNK_BYTES)  # type: ignore[union-attr]
                if not chunk:
                    return
                ready.data.sendall(chunk)


def both(url: str, other_port: int) -> str:
    """Return a URL that names two servers, of which the one that takes writes is meant."""
    parts = urlsplit(url)
    more = "&" if parts.query else ""
    return parts._replace(
        netloc=f"{parts.netloc},127.0.0.1:{other_port}",
        query=f"{parts.query}{more}target_session_attrs=read-write",
    ).geturl()


def catch_up(primary_url: str, standby_url: str) -> None:
    """Wait until a standby has replayed what the primary has written by now; as superusers."""
    primary, standby = (
        role_url(url, "superuser", "postgres") for url in (primary_url, standby_url)
    )
    # Not the insert position: that one may be past a page's header, where nothing is written yet.
    target = ask(primary, "select pg_current_wal_flush_lsn()")
    until(target, lambda: ask(standby, f"select pg_last_wal_replay_lsn() >= '{target}'"))


def connected(url: str) -> psycopg.Connection[Any]:
    """Return a connection whose every statement commits."""
    return psycopg.connect(url, autocommit=True, connect_timeout=10)


def ask(url: str, statement: str) -> Any:
    """Return the first column of the first row."""
    with connected(url) as conn:
        row = conn.execute(statement).fetchone()
        return row and row[0]


def until(what: str, holds: Callable[[], object]) -> None:
    """Wait for something; fail after a while."""
    deadline_s = time.monotonic() + CATCH_UP_S
    while not holds():
        assert time.monotonic() < deadline_s, what
        time.sleep(POLL_S)
