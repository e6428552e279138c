"""The command: what it starts, what it stops, and that every refusal is a sentence and a code."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from sofinance.cli import TOOLS, main, parser
from tests.ports import free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

SECRET = "only-for-tests-" * 3
START_TIMEOUT_S = 180


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def get(url: str, token: str = "", body: Any = None) -> Any:
    """Return the JSON, or the text, of an answer; waits till somebody answers."""
    request = urllib.request.Request(url)  # noqa: S310 - our own service's
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as answer:  # noqa: S310
                text = answer.read().decode()
                return json.loads(text) if "json" in answer.headers["Content-Type"] else text
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{url}: {error.status} {error.read()!r}") from None
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def sign_in(ready: dict[str, Any]) -> str:
    """Return an access token of the demo's administrator."""
    answer = get(f"{ready['url']}/api/v1/auth/login", body=ready["admin"])
    token: str = answer["data"]["access_token"]
    return token


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the sentence of a refusal; a traceback or another code fails the test."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("sofinance: ")
    assert done.stderr.rstrip().endswith(".")
    return done.stderr.removeprefix("sofinance: ").strip()


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    for command in TOOLS:
        assert f"    {command} " in listed or f"    {command}\n" in listed  # its help below it
        with pytest.raises(SystemExit) as left:
            main([command, "--help"])
        assert left.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: sofinance {command} ")


def test_version(sofinance):
    assert sofinance("--version").stdout == "sofinance 0.1.0\n"


def test_an_unknown_command_is_a_usage_error(sofinance):
    done = sofinance("sing")
    assert done.returncode == 2
    assert "invalid choice: 'sing'" in done.stderr
    assert "Traceback" not in done.stderr


PRODUCTION = {
    "ENVIRONMENT": "production", "STORAGE_BACKEND": "s3", "S3_ACCESS_KEY_ID": "sofinance",
    "MFA_REQUIRED_ROLES": "ADMIN", "EXPORT_MODE": "webhook", "SMTP_HOST": "mail.example",
    "SMTP_USER": "books", "CAPTCHA_MODE": "turnstile", "SIGN_UP_ENABLED": "true",
}  # fmt: skip
URL = "postgresql://sofinance_owner:Zq8vKpb3@127.0.0.1:1/books"


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["migrate"], {"OWNER_URL": URL}),
        (["migrate", "check"], {"OWNER_URL": URL}),
        (["maintenance"], {"OWNER_URL": URL}),
        (["backup"], {"BACKUP_URL": URL, "BACKUP_FILES": "list"}),
        (["backup", "base"], {"BACKUP_URL": URL}),
        (["drill"], {"BACKUP_URL": URL, "BACKUP_FILES": "list"}),
        (["verify"], {"DATABASE_URL": URL}),
        (["cleanup"], {"DATABASE_URL": URL}),
        (["jobs"], {"DATABASE_URL": URL}),
        (["org", "list"], {"DATABASE_URL": URL}),
        (["balances", "check"], {"DATABASE_URL": URL}),
    ],
    ids=" ".join,
)
def test_a_command_in_production_demands_only_what_it_uses(sofinance, tmp_path, words, given):
    """Not what the service would need, whatever the files of settings turn on."""
    done = sofinance(*words, **PRODUCTION, **given, BACKUP_DIR=str(tmp_path))
    assert "sofinance: The database " in done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)


@pytest.mark.parametrize("words", [["serve"], ["worker"]], ids=" ".join)
def test_what_serves_in_production_demands_all_that_serving_needs(sofinance, words):
    told = refused(sofinance(*words, **PRODUCTION, DATABASE_URL=URL), 2)
    for variable in ("METRICS_TOKEN", "DATA_ENCRYPTION_KEY", "S3_BUCKET", "TURNSTILE_SECRET_KEY"):
        assert f"- {variable} is missing" in told


def test_a_command_that_opens_the_store_demands_what_that_needs(sofinance, tmp_path):
    given = {"BACKUP_URL": URL, "BACKUP_DIR": str(tmp_path)}
    told = refused(sofinance("backup", **PRODUCTION, **given), 2)
    assert "- S3_BUCKET is missing" in told
    assert "METRICS_TOKEN" not in told


@pytest.mark.parametrize(
    "action", [["list"], ["verify"], ["base"], ["archive-wal", "x"], ["restore-wal", "x", "y"]]
)
def test_options_of_a_command_stand_before_its_action_or_behind(action):
    options = ["--data", "d", "--backup-url", URL, "--dir", "b", "--keep-days", "3", "--json"]
    before = parser(["backup"]).parse_args(["backup", *options, *action])
    behind = parser(["backup"]).parse_args(["backup", *action, *options])
    assert before == behind
    assert (before.data, before.keep_days, before.json) == (Path("d"), 3, True)


# -- serve -------------------------------------------------------------------------------------


def test_serve_tells_all_problems_of_its_settings(sofinance):
    told = refused(sofinance("serve", PORT="http", LOG_LEVEL="loud"), 2)
    assert told.startswith("4 settings are wrong:")
    for variable in ("PORT", "LOG_LEVEL", "DATABASE_URL", "JWT_SECRET"):
        assert f"- {variable} " in told


def test_serve_says_that_a_port_is_in_use(sofinance, dsn, taken_port):
    done = sofinance("serve", "--port", taken_port, DATABASE_URL=dsn, JWT_SECRET=SECRET)
    assert refused(done, 3) == (
        f"Cannot listen on 127.0.0.1:{taken_port}: another program uses it; "
        "stop that one or give another port."
    )


def test_serve_says_that_no_database_answers(sofinance):
    url = f"postgresql://sofinance_app:x@127.0.0.1:{free_port()}/sofinance"
    done = sofinance("serve", "--port", 0, DATABASE_URL=url, JWT_SECRET=SECRET)
    assert refused(done, 3).startswith("The database cannot be used: ")


def test_serve_says_that_a_password_is_wrong(sofinance, dsn):
    url = dsn.replace("only-for-tests", "wrong")
    done = sofinance("serve", "--port", 0, DATABASE_URL=url, JWT_SECRET=SECRET)
    assert "password authentication failed" in refused(done, 3)


def test_serve_refuses_a_superuser_whom_no_row_security_holds(sofinance, superuser_dsn):
    done = sofinance("serve", "--port", 0, DATABASE_URL=superuser_dsn, JWT_SECRET=SECRET)
    assert "is a superuser, for whom no row security holds" in refused(done, 3)


def test_serve_says_that_a_database_is_not_migrated(sofinance, dsn, superuser_dsn):
    with psycopg.connect(superuser_dsn, autocommit=True) as conn:
        conn.execute("create database sofinance_not_migrated")
        try:
            url = dsn.rpartition("/")[0] + "/sofinance_not_migrated"
            done = sofinance("serve", "--port", 0, DATABASE_URL=url, JWT_SECRET=SECRET)
        finally:
            conn.execute("drop database sofinance_not_migrated with (force)")
    assert refused(done, 3) == "The database is not migrated: run `sofinance migrate`."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_and_leaves_on_a_signal(service, dsn, number):
    port = free_port()
    process = service("sofinance", "serve", "--port", port, DATABASE_URL=dsn, JWT_SECRET=SECRET)
    assert get(f"http://127.0.0.1:{port}/health")["data"]["status"] == "healthy"
    process.send_signal(number)
    assert process.wait(START_TIMEOUT_S) == 0


def test_gunicorn_answers_from_several_workers_and_adds_up_their_metrics(service, dsn, tmp_path):
    port = free_port()
    process = service(
        "gunicorn", "-c", "gunicorn.conf.py", DATABASE_URL=dsn, JWT_SECRET=SECRET,
        PORT=str(port), WEB_CONCURRENCY="2", PROMETHEUS_MULTIPROC_DIR=str(tmp_path),
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    # A worker that is told to leave while it still boots may miss it, and be waited for.
    until = time.monotonic() + START_TIMEOUT_S
    while len(list(tmp_path.glob("counter_*.db"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    for _ in range(20):
        assert get(f"{url}/health")["data"]["status"] == "healthy"
    counted = [
        float(line.rpartition(" ")[2])
        for line in get(f"{url}/metrics").splitlines()
        if line.startswith("http_requests_total{") and 'route="/health"' in line
    ]
    assert sum(counted) == 20
    process.send_signal(signal.SIGTERM)
    assert process.wait(START_TIMEOUT_S) == 0


def test_gunicorn_tells_all_problems_of_its_settings(service):
    process = service("gunicorn", "-c", "gunicorn.conf.py", LOG_LEVEL="loud")
    said, _ = process.communicate(timeout=START_TIMEOUT_S)
    assert process.returncode == 2
    assert said.startswith("sofinance: 3 settings are wrong:")
    assert "Traceback" not in said


# -- migrate -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["backup", "--keep-days", "-1"],
        ["backup", "--keep-days", "0"],
        ["backup", "--keep-days", "9" * 30],
        ["maintenance", "--minutes", "-5"],
        ["maintenance", "--minutes", "9" * 30],
        ["verify", "--org", "9" * 30],
        ["flags", "set", "pause_jobs", "on", "--org", "9" * 30],
        ["operator-actions", "--limit", "1001"],
    ],
)
def test_an_absurd_number_is_a_usage_error(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert "is no whole number from 1 to " in capsys.readouterr().err


@pytest.mark.empty_database
def test_migrate_says_what_it_did(sofinance, owner_dsn, dsn):
    done = sofinance("migrate", "--status", OWNER_URL=owner_dsn)
    assert done.returncode == 0
    assert done.stdout.endswith(" applied, 0 pending\n")
    assert sofinance("migrate", OWNER_URL=owner_dsn).stdout == "nothing to apply\n"
    # On an instance, which has no other.
    assert sofinance("migrate", "--status", DATABASE_URL=dsn).stdout == done.stdout


def test_migrate_wants_to_know_where(sofinance, dsn):
    told = refused(sofinance("migrate", DATABASE_URL=dsn), 2)
    assert "OWNER_URL is missing." in told
    told = refused(sofinance("migrate", "check", DATABASE_URL=dsn), 2)
    assert "OWNER_URL is missing." in told


def test_a_command_without_a_database_says_where_one_comes_from(sofinance, data):
    told = refused(sofinance("migrate", "--status", "--data", data), 3)
    assert told == (
        f"No database runs in {data}: start it with `sofinance dev`, or name one with DATABASE_URL."
    )


# -- dev ---------------------------------------------------------------------------------------


@pytest.fixture
def dev(service: Callable[..., subprocess.Popen[str]], data: Path):
    """Start ``sofinance dev --json --empty`` and return it with what it says when it is ready."""

    def start() -> tuple[subprocess.Popen[str], dict[str, Any]]:
        process = service("sofinance", "dev", "--json", "--empty", "--port", 0, "--data", data)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("{"), line + process.stdout.read()
        return process, json.loads(line)

    return start


def test_dev_serves_from_nothing_and_again_from_what_it_left(dev, data):
    process, ready = dev()
    assert ready.keys() == {
        "url", "docs_url", "database_url", "owner_url", "organisation", "admin", "cashier",
    }  # fmt: skip
    assert get(ready["docs_url"])
    assert get(f"{ready['url']}/api/v1/branches", sign_in(ready))["success"] is True
    with psycopg.connect(ready["database_url"]) as conn:
        assert conn.execute("select current_user").fetchone() == ("sofinance_app",)
    with psycopg.connect(ready["owner_url"]) as conn:
        assert conn.execute("select current_user").fetchone() == ("sofinance_owner",)
    assert "job_runner_up 1.0" in get(f"{ready['url']}/metrics").splitlines()
    token = sign_in(ready)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=START_TIMEOUT_S)[0] == ""
    assert process.returncode == 0
    assert not (data / "pgdata" / "postmaster.pid").exists()

    process, again = dev()
    assert {**again, "url": "", "docs_url": ""} == {**ready, "url": "", "docs_url": ""}
    # The key that signs tokens is kept too.
    assert get(f"{again['url']}/api/v1/branches", token)["success"] is True


def test_dev_killed_and_its_database_killed_comes_back(dev, data):
    process, ready = dev()
    process.kill()
    process.wait()
    pid = int((data / "pgdata" / "postmaster.pid").read_text().split()[0])

    process, again = dev()  # finds PostgreSQL running
    assert again["database_url"] == ready["database_url"]
    assert int((data / "pgdata" / "postmaster.pid").read_text().split()[0]) == pid
    os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()

    process, again = dev()  # finds it dead
    assert again["database_url"] == ready["database_url"]
    assert sign_in(again)


def test_dev_says_that_a_port_is_in_use_before_it_makes_anything(sofinance, data, taken_port):
    told = refused(sofinance("dev", "--json", "--data", data, "--port", taken_port), 3)
    assert told.startswith(f"Cannot listen on 127.0.0.1:{taken_port}: another program uses it")
    assert not data.exists()


def test_dev_says_that_its_data_is_in_use(dev, sofinance, data):
    _, ready = dev()
    done = sofinance("dev", "--json", "--data", data, "--port", 0)
    assert " is in use by process " in refused(done, 3)
    assert sign_in(ready)  # and the other goes on


def test_commands_find_the_database_that_dev_runs(dev, sofinance, data):
    dev()
    done = sofinance("migrate", "--status", "--data", data)
    assert (done.returncode, done.stderr) == (0, "")


def test_dev_refuses_a_broken_setting(sofinance, data):
    told = refused(sofinance("dev", "--json", "--data", data, LOG_LEVEL="loud"), 2)
    assert told.startswith("1 setting is wrong:")
    assert not data.exists()
