"""Settings from files: which layer is stronger, what a file may not say, and where each is from."""

from __future__ import annotations

import itertools
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sofinance.config import FIELDS, SettingsError, layers, load, read
from sofinance.infra.settings_layers import FILE_BYTES_MAX, likely_meant

if TYPE_CHECKING:
    from tests.setup.conftest import Sofinance

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"DATABASE_URL": "postgresql://app:pw@db/books", "JWT_SECRET": "s" * 32}
SECRETS = [name for name, declared in FIELDS.items() if declared.metadata["secret"]]


class Place:
    """A directory of YAML files and an environment file, to write into."""

    def __init__(self, path: Path) -> None:
        self.config, self.env_file = path / "config", path / "env"
        self.config.mkdir()
        self.environ = {**GOOD, "SOFINANCE_CONFIG_DIR": str(self.config)}

    def yaml(self, name: str, text: str) -> None:
        """Write one of the YAML files."""
        (self.config / f"{name}.yaml").write_text(text)

    def env(self, text: str) -> None:
        """Write the environment file, and name it."""
        self.env_file.write_text(text)
        self.environ["SOFINANCE_ENV_FILE"] = str(self.env_file)

    def problems(self) -> list[str]:
        """Return what is wrong, with files named as they are here."""
        with pytest.raises(SettingsError) as caught:
            load(self.environ)
        return [
            text.replace(f"{self.config}/", "").replace(str(self.env_file), "ENV")
            for text in caught.value.problems
        ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_each_layer_is_stronger_than_the_next(place: Place):
    """Every subset of the layers: the strongest of those that say it decides."""
    strengths = ("variable", "env file", "staging.yaml", "default.yaml")
    for given in itertools.product((True, False), repeat=4):
        says = dict(zip(strengths, given, strict=True))
        place.yaml("default", "log_level: error\nport: 1\n" if says["default.yaml"] else "port: 1")
        place.yaml("staging", "log_level: warning\n" if says["staging.yaml"] else "")
        place.env("LOG_LEVEL=critical\n" if says["env file"] else "# nothing\n")
        environ = {**place.environ, "ENVIRONMENT": "staging"}
        settings = load({**environ, "LOG_LEVEL": "debug"} if says["variable"] else environ)
        strongest = next((name for name in strengths if says[name]), None)
        assert settings.log_level == {
            "variable": "debug", "env file": "critical", "staging.yaml": "warning",
            "default.yaml": "error", None: "info",
        }[strongest]  # fmt: skip
        assert settings.port == 1


@pytest.mark.parametrize("where", ["variable", "env file", "default.yaml"])
def test_which_environment_it_is_may_be_said_where_no_environment_chooses(place: Place, where: str):
    place.yaml("staging", "port: 2")
    place.yaml("production", "port: 3")
    match where:
        case "variable":
            place.environ["ENVIRONMENT"] = "Staging"
        case "env file":
            place.env("ENVIRONMENT=staging")
        case "default.yaml":
            place.yaml("default", "environment: staging")
    settings = load(place.environ)
    assert (settings.environment, settings.port) == ("staging", 2)


def test_an_environments_own_file_does_not_choose_another(place: Place):
    place.yaml("development", "environment: production")
    assert place.problems()[0] == (
        "development.yaml: ENVIRONMENT is what chose this file; drop it here."
    )


def test_an_environment_that_is_not_known_reads_no_file_of_that_name(place: Place):
    (place.config.parent / "elsewhere.yaml").write_text("port: 4")
    place.environ["ENVIRONMENT"] = "../elsewhere"
    (problem,) = place.problems()
    assert problem.startswith("ENVIRONMENT must be one of")


def test_yaml_is_read_as_text_by_the_same_rules(place: Place):
    place.yaml(
        "default",
        "# a comment\nmetrics_enabled: no\nport: '9000'\nlog_level: ERROR\nsmtp_host: null\n"
        "cors_origins:\n  - https://a.example\n  - https://b.example\nCAPTCHA_MODE: off\n",
    )
    settings = load(place.environ)
    assert (settings.metrics_enabled, settings.port, settings.log_level) == (False, 9000, "error")
    assert settings.cors_origins == "https://a.example,https://b.example"
    assert (settings.smtp_host, settings.captcha_mode) == ("", "off")
    place.yaml("default", "port: 0x50")
    assert place.problems() == [
        "default.yaml: PORT must be a whole number from 0 to 65535, not '0x50'."
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prot: 1", "default.yaml: prot is no setting; is PORT meant?"),
        ("qqqq: 1", "default.yaml: qqqq is no setting."),
        ("port: 1\nport: 2", "default.yaml: port is given twice."),
        ("port: 1\nPORT: 2", "default.yaml: PORT is given twice."),
        ("- port", "default.yaml: it must be a map of settings: `log_level: info`."),
        ("port: [", "default.yaml, line 1: this is not YAML."),
        ("a: &a 1\nport: *b", "default.yaml, line 2: this is not YAML."),
        (
            "port: {low: 1}",
            "default.yaml, line 1: a setting's value is a text, a number, yes or no, or a list.",
        ),
        ("port: !!python/object/apply:os.getpid []", None),
        ("# " + "x" * FILE_BYTES_MAX, "Cannot read default.yaml: it has more than 262144 bytes."),
    ],
)
def test_a_file_that_says_more_or_other_than_settings_is_refused(
    place: Place, text: str, problem: str | None
):
    place.yaml("default", text)
    if problem is None:  # a tag makes nothing of a value: here an empty list is an empty text
        assert load(place.environ).port == 8000
    else:
        assert place.problems() == [problem]


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_stands_in_yaml_but_the_path_of_its_file_may(place: Place, name: str):
    place.yaml("default", f"{name}: hunter2-hunter2-hunter2-hunter2-hunter2")
    (problem,) = place.problems()
    assert problem.startswith(f"default.yaml: {name.upper()} is a secret: give it as a variable")
    assert "hunter2" not in problem
    place.yaml("default", f"{name}_file: /nowhere/{name}")
    place.environ.pop(name.upper(), None)
    told = place.problems()
    assert told[0] == (
        f"default.yaml: {name.upper()}_FILE: cannot read /nowhere/{name}: No such file or "
        "directory."
    )


def test_a_stronger_layer_wins_over_a_secret_file_of_a_weaker_one(place: Place):
    place.yaml("default", "jwt_secret_file: /nowhere/jwt")
    assert load(place.environ).jwt_secret == GOOD["JWT_SECRET"]


def test_the_environment_file_has_secrets_quotes_and_comments(place: Place):
    place.env(
        "# ours\n\nexport PORT=9001\nJWT_SECRET='" + "q" * 40 + "'\n"
        'MAIL_FROM="Books <books@shop.example>"\nSECRETS_ROTATED_ON=JWT_SECRET=2026-01-15\n'
    )
    del place.environ["JWT_SECRET"]
    settings = load(place.environ)
    assert (settings.port, settings.jwt_secret) == (9001, "q" * 40)
    assert settings.mail_from == "Books <books@shop.example>"


def test_the_environment_file_is_held_to_the_same_names(place: Place):
    place.env("DATABSE_URL=postgresql://x:hunter2@y/z\nno assignment\nPORT=1\nPORT=2\n")
    assert place.problems() == [
        "ENV: DATABSE_URL is no setting; is DATABASE_URL meant?",
        "ENV, line 2: this is not NAME=value.",
        "ENV: PORT is given twice.",
    ]


def test_files_that_are_named_must_be_there_and_readable(place: Place, tmp_path: Path):
    gone = str(tmp_path / "gone")
    place.environ |= {"SOFINANCE_CONFIG_DIR": gone, "SOFINANCE_ENV_FILE": gone}
    assert place.problems() == [
        f"Cannot read {gone}: No such file or directory.",
        f"SOFINANCE_CONFIG_DIR: there is no directory {gone}.",
    ]
    Path(gone).write_bytes(b"\xff\xfe")
    place.environ["SOFINANCE_CONFIG_DIR"] = str(place.config)
    assert place.problems() == [f"Cannot read {gone}: it is not UTF-8 text."]


def test_a_file_that_no_environment_reads_is_noticed(place: Place):
    place.yaml("prodution", "port: 1")
    (place.config / "default.yml").touch()
    (place.config / "notes.txt").touch()
    names = "default.yaml, development.yaml, production.yaml, staging.yaml"
    assert place.problems() == [
        f"{given} is read in no environment: there are {names}."
        for given in ("default.yml", "prodution.yaml")
    ]


def test_without_files_there_are_none(place: Place):
    assert [layer.name for layer in layers(place.environ).found] == [""]


def test_the_files_that_are_shipped_are_good():
    for environment in ("development", "staging", "production"):
        environ = {
            **GOOD, "ENVIRONMENT": environment, "SOFINANCE_CONFIG_DIR": str(ROOT / "config"),
            "DATABASE_URL": "postgresql://app:Zq8vKpb3@db/books", "METRICS_TOKEN": "m" * 32,
            "REDIS_URL": "redis://cache",
        }  # fmt: skip
        assert read(environ)[1] == []
        assert (load(environ).hsts_max_age_s > 0) is (environment != "development")


def test_a_variable_that_is_almost_a_setting_is_told():
    wrong = {"DATABSE_URL": "DATABASE_URL", "LOG_LEVLE": "LOG_LEVEL"}
    environ = dict.fromkeys(wrong, "x") | {"REDIS_URLS": "y", "PATH": "/bin", "REDIS_URL": "z"}
    assert likely_meant(FIELDS, environ) == wrong


# -- as an operator meets them -----------------------------------------------------------------


def test_every_problem_of_every_layer_is_told_at_once_before_the_port_is_taken(
    place: Place, sofinance: Sofinance
):
    place.yaml("default", "prot: 1\njwt_secret: hunter2")
    place.yaml("production", "log_level: loud")
    place.env("MAX_BODY_BYTES=many")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # if it were tried, the answer would be another
        port = str(taken.getsockname()[1])
        environ = {**place.environ, "ENVIRONMENT": "production", "PORT": port, "HOST": "127.0.0.1"}
        ran = sofinance("serve", **environ)
    assert ran.returncode == 2
    for part in (
        "default.yaml: prot is no setting; is PORT meant?",
        "default.yaml: JWT_SECRET is a secret",
        "production.yaml: LOG_LEVEL must be one of",
        f"{place.env_file}: MAX_BODY_BYTES must be a whole number",
        "METRICS_TOKEN is missing",
    ):
        assert part in ran.stderr
    assert "hunter2" not in ran.stderr
    assert "Cannot listen" not in ran.stderr


def test_show_tells_the_layer_of_each(place: Place, sofinance: Sofinance):
    place.yaml("default", "port: 1\nlog_level: error")
    place.yaml("development", "log_level: debug\nredis_url_file: /nowhere")
    place.env("MAX_JSON_DEPTH=9")
    environ = {**place.environ, "HOST": "0.0.0.0"}  # noqa: S104 - only shown
    ran = sofinance("config", "show", "--json", **environ)
    assert ran.returncode == 2  # the file of the secret is not there
    origins = {row["name"]: row["origin"] for row in json.loads(ran.stdout)["settings"]}
    assert {name: origin for name, origin in origins.items() if origin != "default"} == {
        "PORT": f"{place.config}/default.yaml: PORT",
        "LOG_LEVEL": f"{place.config}/development.yaml: LOG_LEVEL",
        "MAX_JSON_DEPTH": f"{place.env_file}: MAX_JSON_DEPTH",
        "REDIS_URL": f"{place.config}/development.yaml: REDIS_URL_FILE: /nowhere",
        "HOST": "HOST", "DATABASE_URL": "DATABASE_URL", "JWT_SECRET": "JWT_SECRET",
    }  # fmt: skip


def test_check_tells_what_may_be_meant(sofinance: Sofinance):
    ran = sofinance("config", "check", **GOOD, DATABSE_URL="x", ADMIN_READONLY="true")
    assert ran.returncode == 0
    assert "perhaps: ADMIN_READONLY sets nothing; is ADMIN_READ_ONLY meant?" in ran.stdout
    assert "DATABSE_URL" not in ran.stdout  # DATABASE_URL is there
