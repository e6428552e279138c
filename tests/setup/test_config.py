"""Settings: read from the environment, checked at start, all problems told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sofinance.config import FIELDS, PLACEHOLDER_SECRET, Settings, SettingsError, load
from sofinance.infra.command import EXIT_USAGE

GOOD = {"DATABASE_URL": "postgresql://app:pw@db/books", "JWT_SECRET": "s" * 32}


def problems(environ: dict[str, str]) -> list[str]:
    """Return what is wrong with an environment."""
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert caught.value.exit_code == EXIT_USAGE
    assert all(problem in caught.value.message for problem in caught.value.problems)
    return caught.value.problems


def test_defaults_are_complete_and_safe():
    settings = load(GOOD)
    assert settings.environment == "development"
    assert settings.port == 8000
    assert settings.log_level == "info"
    assert settings.access_token_minutes == 15
    assert settings.enable_audit_logging is True
    assert settings.idempotency_required is False


def test_every_problem_is_told_at_once():
    told = problems({"PORT": "0x50", "ENVIRONMENT": "prod", "METRICS_ENABLED": "maybe"})
    assert told == [
        "ENVIRONMENT must be one of development, staging, production, not 'prod'.",
        "PORT must be a whole number from 0 to 65535, not '0x50'.",
        "METRICS_ENABLED must be true or false, not 'maybe'.",
        f"DATABASE_URL is missing. {FIELDS['database_url'].metadata['why']}",
        f"JWT_SECRET is missing. {FIELDS['jwt_secret'].metadata['why']}",
    ]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "1_000"),
        ("PORT", "٣"),
        ("PORT", "1" * 5_000),
        ("DATABASE_POOL_SIZE", "0"),
        ("MAX_BODY_BYTES", "1.5e6"),
        ("DATABASE_URL", "mysql://db/books"),
        ("DATABASE_URL", "postgresql://db:port/books"),
        ("DATABASE_URL", "postgresql://db"),
        ("REDIS_URL", "http://cache"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://cache:port"),
        ("REDIS_URL", "redis://cache/books"),
        ("REDIS_URL", "unix://"),
        ("SMTP_HOST", "smtp://mail.example"),
        ("SMTP_HOST", "mail.example:587"),
        ("SENDGRID_URL", "http://mail.example/send"),
        ("TURNSTILE_VERIFY_URL", "http://captcha.example/"),
        ("S3_ENDPOINT_URL", "minio:9000"),
        ("JWT_ALGORITHM", "none"),
        ("JWT_SECRET", "s" * 31),
        ("PASSWORD_RESET_URL", "office.example.com/new"),
        ("PASSWORD_RESET_URL", "http://office.example.com/new"),
        ("PASSWORD_RESET_URL", "https:///new"),
        ("PASSWORD_RESET_URL", "https://office.example.com/new#here"),
        ("PASSWORD_RESET_MINUTES", "4"),
        ("SIGN_UP_URL", "javascript:alert(1)"),
    ],
)
def test_a_bad_value_is_refused_with_its_name(variable: str, text: str):
    (problem,) = problems({**GOOD, variable: text})
    assert problem.startswith(variable)


def test_roles_that_need_a_second_factor_need_a_key_to_keep_it_with():
    asked = {**GOOD, "MFA_REQUIRED_ROLES": "ADMIN", "ENVIRONMENT": "staging"}
    (problem,) = problems(asked)
    assert problem.startswith("DATA_ENCRYPTION_KEY is missing")
    load({**asked, "DATA_ENCRYPTION_KEY": "5a" * 32})


def test_a_secret_never_shows_in_a_problem_or_in_the_repr():
    (problem,) = problems({**GOOD, "DATABASE_URL": "mysql://app:hunter2@db/books"})
    assert "hunter2" not in problem
    assert "pw" not in repr(load(GOOD))
    assert "ssss" not in repr(load(GOOD))


def test_an_empty_variable_counts_as_missing():
    assert load({**GOOD, "PORT": "", "LOG_LEVEL": " "}) == load(GOOD)


def test_choices_are_taken_in_any_case():
    environ = {**GOOD, "LOG_LEVEL": "WARNING", "JWT_ALGORITHM": "hs512", "JWT_SECRET": "s" * 64}
    settings = load(environ)
    assert (settings.log_level, settings.jwt_algorithm) == ("warning", "HS512")


def test_other_names_are_accepted():
    environ = {"DATABASE_URL": GOOD["DATABASE_URL"], "SECRET_KEY": "k" * 40}
    settings = load({**environ, "JWT_EXPIRATION_MINUTES": "30"})
    assert settings.jwt_secret == "k" * 40
    assert settings.access_token_minutes == 30


def test_a_secret_is_read_from_its_file(tmp_path: Path):
    (tmp_path / "secret").write_text("f" * 40 + "\n")
    environ = {"DATABASE_URL": GOOD["DATABASE_URL"], "JWT_SECRET_FILE": str(tmp_path / "secret")}
    assert load(environ).jwt_secret == "f" * 40


def test_a_secret_file_must_be_readable_and_the_only_source(tmp_path: Path):
    gone = str(tmp_path / "gone")
    (problem,) = problems({**GOOD, "JWT_SECRET": "", "JWT_SECRET_FILE": gone})
    assert problem == f"JWT_SECRET_FILE: cannot read {gone}: No such file or directory."
    (problem,) = problems({**GOOD, "JWT_SECRET_FILE": gone})
    assert problem == "JWT_SECRET and JWT_SECRET_FILE are both set; keep one of them."
    (tmp_path / "empty").touch()
    (problem,) = problems({**GOOD, "JWT_SECRET": "", "JWT_SECRET_FILE": str(tmp_path / "empty")})
    assert problem.endswith("empty is empty.")


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_example_secret_is_refused_where_it_matters(environment: str):
    environ = {**GOOD, "JWT_SECRET": PLACEHOLDER_SECRET}
    assert load(environ).jwt_secret == PLACEHOLDER_SECRET
    more = {"METRICS_TOKEN": "m" * 32, "REDIS_URL": "redis://cache"}
    (problem,) = problems({**environ, "ENVIRONMENT": environment, **more})
    assert problem.startswith("JWT_SECRET is the example's")


def test_spellings_of_a_database_url_become_one():
    url = "postgres://app:p%40ss@db:6543/books?schema=public&sslmode=require"
    settings = load({**GOOD, "DATABASE_URL": url})
    assert settings.database_url == "postgresql://app:p%40ss@db:6543/books?sslmode=require"


def test_a_database_url_may_name_several_hosts_if_it_says_which_is_meant():
    url = "postgresql://app:p@one:5432,two:5433/books"
    (problem,) = problems({**GOOD, "DATABASE_URL": url})
    assert "several hosts" in problem
    url += "?target_session_attrs=read-write"
    assert load({**GOOD, "DATABASE_URL": url}).database_url == url
    (problem,) = problems({**GOOD, "DATABASE_URL": url.replace("5433", "x")})
    assert problem.startswith("DATABASE_URL is not a URL")


def test_the_example_environment_is_a_good_one():
    text = (Path(__file__).parents[2] / ".env.example").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    settings = load(dict(line.split("=", 1) for line in lines))
    assert settings.database_url.startswith("postgresql://sofinance_app")
    commented = dict(
        line.removeprefix("# ").split("=", 1)
        for line in text.splitlines()
        if line.startswith("# ") and line[2:3].isupper() and "=" in line.split(" ")[1]
    )
    assert len(commented) + len(lines) == len(Settings.__dataclass_fields__)
    assert isinstance(load({**GOOD, **{k: v for k, v in commented.items() if v}}), Settings)


@pytest.mark.parametrize(
    ("variable", "good", "bad"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.example.com:4318/x", "otel:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318", "http://h/?x=1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer a, x-tenant=b", "authorization"),
        ("SENTRY_DSN", "https://k@sentry.example.com/sub/7", "https://sentry.example.com/7"),
    ],
)
def test_where_telemetry_goes_is_told_in_its_form(variable: str, good: str, bad: str):
    given = {"DATABASE_URL": "postgresql:///x", "JWT_SECRET": "x" * 40}
    assert getattr(load(given | {variable: good}), variable.lower()) == good
    with pytest.raises(SettingsError) as caught:
        load(given | {variable: bad})
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [variable]
