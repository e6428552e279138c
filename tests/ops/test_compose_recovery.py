"""What Compose brings for recovery, without Docker: done on a PostgreSQL of the test's own.

The server has the options that compose.yaml gives it, its archive_command and all, the roles that
ops/compose/roles.sh makes, and pg_hba.conf as the image writes it; the service's commands have the
variables and the secrets that they have there. Only paths and addresses are others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml

from sofinance.infra import embedded
from tests.conftest import UNSAFE_BUT_FAST, programs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[2]
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
OURS = "10001"
RPO_S = 900
TIMEOUT_S = 600
# As docker-entrypoint.sh of the image leaves it, for who comes from another container.
DOORS = "local all all trust\nhost all all all scram-sha-256\n"


@dataclass(frozen=True)
class Composed:
    """A server as Compose's, and where what is mounted is."""

    server: embedded.Server
    top: Path

    def here(self, text: str) -> str:
        """Return what the containers see by its paths of here."""
        for there in ("/run/secrets", "/backups", "/wal", "/scratch"):
            text = re.sub(rf"{there}\b", str(self.top / Path(there).name), text)
        return text

    def variables(self, service: str) -> dict[str, str]:
        """Return the environment of a service."""
        given = {
            name: self.here(re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text))
            for name, text in SERVICES[service]["environment"].items()
        }
        return given | {"SOFINANCE_CONFIG_DIR": str(ROOT / "config")}

    def run(self, service: str, *words: str, **more: str) -> str:
        """Run a command of ours as a service of Compose's has it; return what it says."""
        ran = subprocess.run(
            [sys.executable, "-m", "sofinance", *words], cwd=ROOT,
            env={
                "PATH": os.environ["PATH"], "TMPDIR": tempfile.gettempdir(),
                "PG_BIN": str(programs() or ""), **self.variables(service), **more,
            },
            capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr or ran.stdout
        return ran.stdout

    def asked(self, query: str) -> Any:
        """Return the only value that a query gives the superuser."""
        url = self.server.url(embedded.SUPERUSER)
        with psycopg.connect(url, autocommit=True) as conn:
            return conn.execute(query.encode()).fetchall()[0][0]

    def archive(self) -> datetime:
        """Commit something and have it archived, as archive_timeout does; return when it was."""
        written_at: datetime = self.asked(
            "select clock_timestamp() from pg_logical_emit_message(true, 'tests', 'something')"
        )
        segment = self.asked("select pg_walfile_name(pg_switch_wal())")
        until = time.monotonic() + TIMEOUT_S
        while not (self.top / "wal" / f"{segment}.gz").exists():
            assert time.monotonic() < until, self.server.log.read_text()[-2000:]
            time.sleep(0.05)
        return written_at


def options(top: Path) -> dict[str, str]:
    """Return the options that Compose starts PostgreSQL with."""
    program, *words = SERVICES["postgres"]["command"]
    assert (program, set(words[::2])) == ("postgres", {"-c"})
    given = dict(word.split("=", 1) for word in words[1::2])
    (script,) = [v for v in SERVICES["postgres"]["volumes"] if "archive_wal.sh" in v]
    source, target, _ = script.split(":")
    shutil.copy(ROOT / source, top / "archive_wal.sh")
    command = given["archive_command"].replace(target, str(top / "archive_wal.sh"))
    return {**given, "archive_command": re.sub(r"(?<= )/wal\b", str(top / "wal"), command)}


@pytest.fixture
def composed() -> Iterator[Composed]:
    """A server as `docker compose up` makes it the first time."""
    top = Path(tempfile.mkdtemp(prefix="sofinance-tests-"))
    top.chmod(0o711)
    small = {"max_connections": "40", "shared_buffers": "32MB"}
    server = embedded.Server(
        top / "data", programs=programs(),
        options={**UNSAFE_BUT_FAST, **small, **options(top)},
    )  # fmt: skip
    made = Composed(server, top)
    places = made.here(SERVICES["places"]["command"][0])
    places = places.replace("-o postgres", f"-o {server.account.name}")
    places = places.replace(f"-o {OURS}", f"-o {os.getuid()}").replace(OURS, str(os.getgid()))
    subprocess.run([*SERVICES["places"]["entrypoint"], places], check=True)
    shutil.copy(ROOT / "ops/compose/secrets.sh", top)
    subprocess.run(["sh", top / "secrets.sh"], check=True, stdout=subprocess.DEVNULL)
    server.start()
    try:
        address(made)
        yield made
    finally:
        server.stop()
        shutil.rmtree(top)


def address(made: Composed) -> None:
    """Let secrets name this server, and the server be as the image's when roles.sh runs."""
    secrets, server = made.top / "secrets", made.server
    for path in secrets.iterdir():
        text = re.sub(r"@\w+:\d+/", f"@{embedded.HOST}:{server.port}/", path.read_text())
        path.write_text(text)
    password = (secrets / "postgres_password").read_text().strip()
    with psycopg.connect(server.url(embedded.SUPERUSER, "postgres"), autocommit=True) as conn:
        conn.execute("drop database sofinance")
        for role in embedded.ROLES:
            conn.execute(f"drop role {role}")
        conn.execute("create database sofinance")
        conn.execute(f"alter role {embedded.SUPERUSER} password '{password}'")
    server.secrets[embedded.SUPERUSER] = password
    (server.pgdata / "pg_hba.conf").write_text(DOORS)
    script = made.here((ROOT / "ops/compose/roles.sh").read_text("utf-8"))
    environ = {
        "PATH": f"{server.programs}:{os.environ['PATH']}", "PGDATA": str(server.pgdata),
        "PGHOST": embedded.HOST, "PGPORT": str(server.port), "PGPASSWORD": password,
        "POSTGRES_USER": embedded.SUPERUSER, "POSTGRES_DB": "sofinance",
    }  # fmt: skip
    subprocess.run(["sh"], input=script, text=True, env=environ, check=True)
    made.asked("select pg_reload_conf()")


def test_a_point_in_time_comes_back_from_what_compose_archives(composed: Composed) -> None:
    """Migrate, copy the server's files, write, lose the machine: all as the containers would."""
    assert "applied" in composed.run("migrate", "migrate")
    assert composed.asked("select current_setting('archive_mode')") == "on"
    timeout = "select setting::int from pg_settings where name = 'archive_timeout'"
    assert 0 < composed.asked(timeout) < RPO_S
    base = json.loads(composed.run("worker", "backup", "base", "--json"))
    written_at = composed.archive()
    for path in (composed.top / "wal").glob("*.gz"):
        stat = path.stat()
        assert (stat.st_mode & 0o777, stat.st_gid) == (0o640, os.getgid()), "ours may read it"

    said = json.loads(composed.run("worker", "drill", "--point-in-time", "--json"))
    back = said["point_in_time"]
    assert (said["ok"], back["base"]) == (True, Path(base["file"]).name)
    assert datetime.fromisoformat(back["replayed_to"]) >= written_at.replace(microsecond=0)
    # What was written is known to the service: dumps, bases, drills.
    listed = json.loads(composed.run("backup", "backup", "list", "--json"))
    assert len(listed["backups"]) == 2
    # The newest could go in place of what is live, as docs/deploy.md says.
    url = (composed.top / "secrets" / "superuser_url").read_text().strip()
    said = json.loads(
        composed.run("backup", "restore", "latest", "--dry-run", "--json", RESTORE_URL=url)
    )
    assert (said["database"], said["is_empty"], bool(said["confirm"])) == ("sofinance", False, True)
    # And the worker may do what only the owner may.
    assert composed.run("worker", "maintenance").startswith("vacuumed ")
