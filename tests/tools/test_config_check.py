"""`sofinance config`: everything that is wrong at once, where settings come from, old secrets."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sofinance import config
from sofinance.cli import main
from sofinance.infra import metrics, secret_ages
from sofinance.infra.key_files import make_key
from sofinance.infra.keys import KeyRing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Api

DAY_S = 86_400
SECRETS = [name for name, declared in config.FIELDS.items() if declared.metadata["secret"]]
GOOD = {
    "DATABASE_URL": "postgresql://sofinance_app:Zq8vKpb3@db/books", "JWT_SECRET": "s" * 40,
}  # fmt: skip
PRODUCTION = {
    **GOOD, "ENVIRONMENT": "production", "METRICS_TOKEN": "m" * 32,
    "REDIS_URL": "redis://cache:6379/0",
}  # fmt: skip
# A good value of each secret setting that has a form of its own.
FORMS = {
    "database_url": "postgresql://sofinance_app:Zq8vKpb3@db/books",
    "owner_url": "postgresql://postgres:Zq8vKpb3@db/books",
    "backup_url": "postgresql://sofinance_backup:Zq8vKpb3@db/books",
    "restore_url": "postgresql://postgres:Zq8vKpb3@db/books",
    "redis_url": "redis://:hunter22@cache:6379/0",
    "database_replica_url": "postgresql://sofinance_app:Zq8vKpb3@replica/books",
    "data_encryption_key": "5a" * 32,
    "data_encryption_key_previous": "6b" * 32,
    "otel_exporter_otlp_headers": "authorization=Bearer abc",
    "sentry_dsn": "https://abc@sentry.example.com/7",
    "stripe_secret_key": "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "stripe_webhook_secret": "whsec_4eC39HqLyjWDarjtT1zdp7dc",
    "stripe_webhook_secret_previous": "whsec_5fD40IrMzkXEbskuU2aeq8ed",
}


# What a secret cannot stand without.
BESIDE = {
    "s3_secret_access_key": {"S3_ACCESS_KEY_ID": "sofinance"},
    "stripe_secret_key": {"STRIPE_WEBHOOK_SECRET": FORMS["stripe_webhook_secret"]},
    "stripe_webhook_secret_previous": {"STRIPE_WEBHOOK_SECRET": FORMS["stripe_webhook_secret"]},
}


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the environment of the process."""

    def put(given: dict[str, str]) -> None:
        files = ("sofinance_config_dir", "sofinance_env_file")
        for name in [*files, *config.FIELDS, *(f"{name}_file" for name in config.FIELDS)]:
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return put


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main(["config", "check", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


# -- check -------------------------------------------------------------------------------------


def test_good_settings_are_good(environ: Any, capsys: pytest.CaptureFixture[str]) -> None:
    environ(PRODUCTION | {"SECRETS_ROTATED_ON": f"JWT_SECRET={datetime.now(UTC).date()}"})
    code, told = check(capsys)
    assert (code, told["problems"], told["too_old"]) == (0, [], [])
    assert told["age_unknown"] == ["DATABASE_URL", "METRICS_TOKEN", "REDIS_URL"]
    assert main(["config", "check"]) == 0
    assert "The settings are good." in capsys.readouterr().out


def test_everything_wrong_is_told_at_once_by_name(
    environ: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    environ({
        "ENVIRONMENT": "production", "PORT": "x", "JWT_SECRET": config.PLACEHOLDER_SECRET,
        "DATABASE_URL": "postgresql://sofinance_app:postgres@db/books", "CORS_ORIGINS": "*",
        "ADMIN_IP_ALLOWLIST_CIDRS": "10.0.0.0/99", "TRUSTED_PROXY_CIDRS": "nonsense",
        "MFA_REQUIRED_ROLES": "ADMIN", "SECRETS_ROTATED_ON": "PORT=2026-01-01",
    })  # fmt: skip
    code, told = check(capsys)
    assert code == 2
    named = [problem.partition(" ")[0].rstrip(":") for problem in told["problems"]]
    assert named == [
        "PORT", "SECRETS_ROTATED_ON", "CORS_ORIGINS", "TRUSTED_PROXY_CIDRS",
        "ADMIN_IP_ALLOWLIST_CIDRS", "JWT_SECRET", "DATABASE_URL", "METRICS_TOKEN",
        "DATA_ENCRYPTION_KEY", "REDIS_URL",
    ]  # fmt: skip
    assert config.PLACEHOLDER_SECRET not in str(told)
    assert main(["config", "check"]) == 2
    assert capsys.readouterr().out.count("wrong: ") == 10


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"METRICS_TOKEN": ""}, "METRICS_TOKEN is missing"),
        ({"REDIS_URL": ""}, "REDIS_URL is missing"),
        ({"METRICS_TOKEN": "short"}, "METRICS_TOKEN is too short"),
        ({"JWT_SECRET": "s" * 31}, "JWT_SECRET has 31 characters"),
        ({"DATABASE_URL": "postgresql://app:@db/books"}, "DATABASE_URL has a password"),
        ({"DATABASE_URL": "postgresql://app:Postgres@db/books"}, "DATABASE_URL has a password"),
        ({"OWNER_URL": "postgresql://postgres:postgres@db/x"}, "OWNER_URL has a password"),
        ({"CORS_ORIGINS": "http://shop.example"}, "CORS_ORIGINS: http://shop.example"),
        ({"CORS_ORIGINS": "https://*.example"}, "CORS_ORIGINS: 'https://*.example'"),
        (
            {"SMTP_HOST": "mail.example", "SMTP_TLS": "off", "MAIL_FROM": "a@b.example"},
            "SMTP_TLS is off",
        ),
        ({"TRUST_PROXY_HEADERS": "true"}, "TRUST_PROXY_HEADERS is on and no proxy"),
        ({"TRUSTED_PROXY_CIDRS": "0.0.0.0/0"}, "TRUSTED_PROXY_CIDRS names every address"),
        ({"CAPTCHA_MODE": "turnstile"}, "TURNSTILE_SECRET_KEY is missing"),
    ],
)
def test_what_production_refuses(
    environ: Any, capsys: pytest.CaptureFixture[str], changed: dict[str, str], named: str
) -> None:
    environ(PRODUCTION | changed)
    code, told = check(capsys)
    assert code == 2
    assert any(problem.startswith(named) for problem in told["problems"]), told
    with pytest.raises(config.SettingsError):
        config.load(os.environ)  # the service does not start with them either


def test_keys_that_cannot_be_read_are_told(
    environ: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    environ({**GOOD, "JWT_KEYS_DIR": str(tmp_path / "gone")})
    code, told = check(capsys)
    assert code == 2
    assert told["problems"][0].startswith("JWT_KEYS_DIR: cannot read")


# -- ages --------------------------------------------------------------------------------------


def test_a_secret_s_age_is_its_date_or_that_of_its_file(
    environ: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("m" * 32)
    old_s = time.time() - 200 * DAY_S
    os.utime(file, (old_s, old_s))
    given = {**GOOD, "METRICS_TOKEN_FILE": str(file)}
    environ({**given, "SECRETS_ROTATED_ON": "SECRET_KEY=2020-02-01"})
    code, told = check(capsys)
    assert code == 1
    jwt, other = told["too_old"]
    assert jwt.startswith("JWT_SECRET is ")
    assert other == "METRICS_TOKEN is 200 days old; after 180 it ought to be another."
    assert told["age_unknown"] == ["DATABASE_URL"]
    # A file that was mounted anew is not a new secret: the date counts.
    environ({**given, "SECRETS_ROTATED_ON": f"METRICS_TOKEN={datetime.now(UTC).date()}"})
    assert check(capsys)[0] == 0


def test_a_key_of_the_ring_knows_its_age(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    make_key(tmp_path, "eddsa", now=now - timedelta(days=400))
    settings = config.load({**GOOD, "JWT_KEYS_DIR": str(tmp_path)})
    found = secret_ages.ages(config.layers({}), KeyRing.configured(settings), now=now)
    (age,) = found
    assert (age.secret, age.is_too_old) == ("jwt_keys_dir", True)
    assert age.age_s == pytest.approx(400 * DAY_S, abs=2)


@pytest.mark.parametrize("text", ["PORT=2026-01-01", "JWT_SECRET", "JWT_SECRET=yesterday", "x"])
def test_a_date_must_be_one_and_of_a_secret(text: str) -> None:
    with pytest.raises(config.SettingsError, match="SECRETS_ROTATED_ON: "):
        config.load({**GOOD, "SECRETS_ROTATED_ON": text})


def test_ages_are_metrics(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("m" * 32)
    old_s = time.time() - 10 * DAY_S
    os.utime(file, (old_s, old_s))
    ring = KeyRing.configured(config.load(GOOD))
    environ = {"SMTP_PASSWORD_FILE": str(file), "OWNER_URL": "postgresql://a:b@c/d"}
    secret_ages.publish(config.layers(environ), ring, now=datetime.now(UTC))
    lines = dict(line.rsplit(" ", 1) for line in metrics.render()[0].decode().splitlines())
    age_s = float(lines['secret_age_seconds{secret="smtp_password"}'])
    assert age_s == pytest.approx(10 * DAY_S, abs=60)
    limits = 'secret_age_limit_seconds{secret="%s"}'
    assert float(lines[limits % "smtp_password"]) == 180 * DAY_S
    assert float(lines[limits % "owner_url"]) == 90 * DAY_S
    assert 'secret_age_seconds{secret="owner_url"}' not in lines


async def test_the_service_publishes_them(api_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNSTILE_SECRET_KEY", "x")
    monkeypatch.setenv("SECRETS_ROTATED_ON", "TURNSTILE_SECRET_KEY=2020-01-01")
    api: Api = await api_with()
    answer = await api.call("GET", "/metrics", prefix="")
    assert 'secret_age_seconds{secret="turnstile_secret_key"}' in answer.text


# -- show --------------------------------------------------------------------------------------


def test_show_says_where_each_comes_from_and_no_secret(
    environ: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "jwt"
    file.write_text("hunter2-" * 8)
    environ({
        "DATABASE_URL": GOOD["DATABASE_URL"], "JWT_SECRET_FILE": str(file), "PORT": "9000",
        "LOG_LEVEL": "loud",
    })  # fmt: skip
    assert main(["config", "show", "--origin"]) == 2
    told = capsys.readouterr().out
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in told.splitlines()}
    assert lines["PORT"] == "9000  (PORT)"
    assert lines["HOST"] == "127.0.0.1  (default)"
    assert lines["DATABASE_URL"] == "[secret]  (DATABASE_URL)"
    assert lines["JWT_SECRET"] == f"[secret]  (JWT_SECRET_FILE: {file})"
    assert lines["LOG_LEVEL"] == "[wrong]  (LOG_LEVEL)"
    assert lines["wrong:"].startswith("LOG_LEVEL must be one of")
    assert "hunter2" not in told
    assert "Zq8vKpb3" not in told


def test_show_without_origins_in_json(environ: Any, capsys: pytest.CaptureFixture[str]) -> None:
    environ(GOOD)
    assert main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["settings"]
    assert {row["name"].lower() for row in shown} == set(config.FIELDS)
    secrets = {row["name"]: row["value"] for row in shown if row["name"].lower() in SECRETS}
    assert set(secrets.values()) == {"[secret]", ""}


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_may_stand_in_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    value = FORMS.get(name, "f" * 64)
    file.write_text(f"{value}\n")
    environ = {key: text for key, text in GOOD.items() if key != name.upper()}
    environ |= BESIDE.get(name, {})
    variable = f"{name.upper()}_FILE"
    settings = config.load({**environ, variable: str(file)})
    assert getattr(settings, name) == value
    assert value not in repr(settings)
    with pytest.raises(config.SettingsError) as caught:
        config.load({**environ, variable: str(file), name.upper(): value})
    assert f"{variable} are both set" in caught.value.message
    with pytest.raises(config.SettingsError) as caught:
        config.load({**environ, variable: str(tmp_path / "gone")})
    assert f"{variable}: cannot read" in caught.value.message
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(config.SettingsError) as caught:
        config.load({**environ, variable: str(file)})
    assert f"{variable}: cannot read" in caught.value.message
