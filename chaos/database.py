"""PostgreSQL, which can be killed: the embedded one with durability on, and its processes."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import psycopg

from chaos.processes import children
from sofinance.infra import embedded, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Durable as PostgreSQL is by default; only slow statements of other work are not worth a line.
OPTIONS = {"log_min_duration_statement": "-1", "log_checkpoints": "off"}


class Postgres:
    """A server of the run's own, migrated."""

    def __init__(self, folder: Path, options: Mapping[str, str] = {}) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
        self.server = embedded.Server(folder / "data", options={**OPTIONS, **options})

    @classmethod
    def of(cls, server: embedded.Server) -> Postgres:
        """Take a server that runs already."""
        found = cls.__new__(cls)
        found.server = server
        return found

    def make(self) -> None:
        """Make it, start it and migrate it."""
        self.server.start()
        migrate.apply(self.server.url(embedded.SUPERUSER))

    @property
    def port(self) -> int:
        """The TCP port, which stays after a restart."""
        return self.server.port

    def url(self, role: str = "sofinance_app", *, port: int = 0) -> str:
        """Return the URL over TCP; through a proxy, if it is given another port."""
        url = f"{self.server.url(role)}?sslmode=disable"
        return url.replace(f":{self.server.port}/", f":{port}/") if port else url

    @contextlib.contextmanager
    def superuser(self, database: str = embedded.DATABASE) -> Iterator[psycopg.Connection[Any]]:
        """Open a session as superuser; every statement commits."""
        url = self.server.url(embedded.SUPERUSER, database)
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as conn:
            yield conn

    def postmaster(self) -> int:
        """Return the number of the server's first process."""
        return int((self.server.pgdata / "postmaster.pid").read_text("utf-8").split("\n")[0])

    def kill(self, *, whole: bool) -> None:
        """End the first process without a word; with `whole` all of its children with it."""
        first = self.postmaster()
        doomed = [*children(first), first] if whole else [first]
        os.kill(first, signal.SIGSTOP)  # else it would see its children die and clean up
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start(self) -> None:
        """Start it again after it was killed or stopped; it recovers by itself."""
        self.server.stop()
        self.server.start()

    @property
    def runs(self) -> bool:
        """Say whether it takes connections."""
        return self.server.running()

    def stop(self) -> None:
        """Stop it in order."""
        self.server.stop()

    def backends(self) -> list[int]:
        """Return the processes that serve the application."""
        with self.superuser() as conn:
            rows = conn.execute(
                "select pid from pg_stat_activity where usename = 'sofinance_app'"
            ).fetchall()
        return [row[0] for row in rows]


@contextlib.contextmanager
def dedicated(folder: Path, options: Mapping[str, str] = {}) -> Iterator[Postgres]:
    """Make a server for one fault, and stop it."""
    postgres = Postgres(folder, options)
    try:
        postgres.make()
        yield postgres
    finally:
        postgres.stop()
