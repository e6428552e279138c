"""PostgreSQL's own programs: which fit a server, and how they are run without a secret shown.

A server is dumped and restored by programs of its own major version where there are such, else by
the next newer ones: older ones refuse. They are looked for in PG_BIN alone, if it is set, else on
PATH, where Debian keeps them, and in the embedded wheel.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, urlsplit

from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from sofinance.infra import embedded
from sofinance.infra.command import EXIT_USAGE, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEBIAN = Path("/usr/lib/postgresql")
# From this version on pg_restore sends a setting that older servers do not know.
SETS_TRANSACTION_TIMEOUT = 17
PIPE, NOWHERE = subprocess.PIPE, subprocess.DEVNULL
PASSED_ON = ("PATH", "HOME", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Programs:
    """A directory with pg_dump, pg_restore and the rest, and their major version."""

    folder: Path
    major: int

    def __getitem__(self, name: str) -> str:
        """Return the path of a program; SetupError when it is not there."""
        path = self.folder / name
        if not path.exists():
            raise SetupError(f"There is no {name} in {self.folder}: install PostgreSQL's clients.")
        return str(path)


def fitting(server_major: int, pg_bin: str = "", *, restores: bool = False) -> Programs:
    """Return the programs for a server of this major version; SetupError when none fit."""
    found = sorted(_candidates(pg_bin), key=lambda programs: programs.major)
    if not found:
        where = f"in PG_BIN, {pg_bin}" if pg_bin else "on PATH"
        raise SetupError(
            f"There is no pg_dump {where}: install postgresql-client-{server_major}, or "
            "`pip install 'sofinance[embedded]'`."
        )
    for programs in found:
        if programs.major == server_major:
            return programs
        too_new = restores and server_major < SETS_TRANSACTION_TIMEOUT <= programs.major
        if programs.major > server_major and not too_new:
            return programs
    versions = ", ".join(str(programs.major) for programs in found)
    what = f"those of {server_major}" if restores else f"those of {server_major} or newer"
    raise SetupError(
        f"The server is PostgreSQL {server_major} and pg_dump here is of {versions}; {what} are "
        "needed: install them, or name their directory in PG_BIN."
    )


def _candidates(pg_bin: str) -> Iterator[Programs]:
    if pg_bin:
        folders = [Path(pg_bin)]
    else:
        on_path = shutil.which("pg_dump")
        folders = [Path(on_path).resolve().parent] if on_path else []
        folders += sorted(DEBIAN.glob("*/bin"))
        with contextlib.suppress(SetupError):
            folders.append(embedded.installed_programs())
    for folder in folders:
        if major := _major(folder / "pg_dump"):
            yield Programs(folder, major)


def _major(pg_dump: Path) -> int:
    """Return the major version of a pg_dump; 0 when there is none that runs."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        shown = subprocess.run([pg_dump, "--version"], capture_output=True, text=True, check=True)
        if version := re.search(r"\) (\d+)", shown.stdout):
            return int(version[1])
    return 0


def environment(url: str) -> dict[str, str]:
    """Return what a program of PostgreSQL needs to know of a URL, the password too.

    In the environment, since anybody may read the command line of a process.
    """
    kept = {name: text for name, text in os.environ.items() if name.startswith("PG")}
    kept |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    for option in pq.Conninfo.parse(url.encode()):
        if option.val is None:
            continue
        if option.envvar is None:
            name = option.keyword.decode()
            raise SetupError(
                f"The URL has {name}, which cannot be used here.", exit_code=EXIT_USAGE
            )
        kept[option.envvar.decode()] = option.val.decode()
    return kept | {"LC_ALL": "C"}


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"postgresql://{parts.netloc}/{quote(name, safe='')}{query}"


def database_of(url: str) -> str:
    """Return the name of a URL's database."""
    return str(conninfo_to_dict(url).get("dbname") or "")


@contextlib.contextmanager
def running(
    what: str,
    command: list[str],
    env: Mapping[str, str],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a program that runs; it is over when the block is, and SetupError when it failed."""
    with _spooled() as complaints:
        process = subprocess.Popen(
            command, env=dict(env), stdin=stdin, stdout=stdout, stderr=complaints, cwd="/"
        )
        try:
            yield process
            _close(process)
            failed = process.wait()
        except BaseException:
            process.kill()
            _close(process)
            process.wait()
            raise
        if failed:
            complaints.seek(0)
            raise SetupError(f"{what} failed: {_why(complaints.read())}")


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def _spooled() -> Iterator[IO[bytes]]:
    """Yield a file for complaints: a pipe that nobody reads would stop the program."""
    with tempfile.TemporaryFile() as file:
        yield file


def _why(complaints: bytes) -> str:
    """Return the first complaint in one line: what follows is mostly its consequence."""
    lines = [line.strip() for line in complaints.decode(errors="replace").splitlines()]
    errors = [line for line in lines if "error:" in line] or [line for line in lines if line]
    first = errors[0] if errors else "it does not say why"
    return first.partition("error:")[2].strip().rstrip(".") + "." if "error:" in first else first
