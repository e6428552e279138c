"""Every setting once: name, type, unit, default and why; all problems are told at once.

A setting is read from the environment variable of its name in capitals. A secret may also be
read from a file, whose path is in the variable with ``_FILE`` behind its name (as Docker and
Kubernetes mount them), so that it stands in no process list and no ``docker inspect``.
"""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import Field, dataclass, field, fields
from datetime import date
from email.utils import parseaddr
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from sofinance.config_rules import unsafe
from sofinance.infra.command import EXIT_USAGE, SetupError
from sofinance.infra.proxies import UNIX, network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SECRET_LENGTH_MIN = 32
# What .env.example carries: good enough to try the service, refused where it matters.
PLACEHOLDER_SECRET = "change-me-before-anyone-else-can-reach-this"  # noqa: S105 - no secret
# Source: RFC 7518, 3.2: a key as long as the hash, or longer.
HMAC_LENGTHS = {"HS256": 32, "HS384": 48, "HS512": 64}
KEY_BYTES = 32
PORT_MAX = 65_535
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?")
TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


class SettingsError(SetupError):
    """One or more settings are missing or wrong; the message has a line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        count = len(self.problems)
        what = "1 setting is" if count == 1 else f"{count} settings are"
        super().__init__(f"{what} wrong:{lines}", exit_code=EXIT_USAGE)


def setting(  # noqa: PLR0913 - the one place where all that can be said of a setting is said
    default: str | int | bool,
    why: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    low: int | None = None,
    high: int | None = None,
    secret: bool = False,
    required: bool = False,
    unless: str = "",
    also: tuple[str, ...] = (),
    example: str = "",
    max_age_days: int = 180,
) -> Any:
    """Declare a setting: its default, what it is for, its bounds and its other names.

    A required one may be left out where the setting `unless` is given. A secret older than
    `max_age_days` is reported.
    """
    return field(
        default=default,
        repr=not secret,
        metadata={
            "why": why, "unit": unit, "choices": choices, "low": low, "high": high,
            "secret": secret, "required": required, "unless": unless, "also": also,
            "example": example, "max_age_days": max_age_days,
        },
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The whole configuration, checked; a secret never shows in its repr."""

    environment: str = setting(
        "development", "Where this runs; production and staging refuse example secrets.",
        choices=("development", "staging", "production"),
    )  # fmt: skip
    host: str = setting("127.0.0.1", "The address to listen on; 0.0.0.0 inside a container.")
    port: int = setting(8000, "The TCP port to listen on.", low=0, high=PORT_MAX)
    log_level: str = setting(
        "info", "The least important level that is logged.",
        choices=("debug", "info", "warning", "error", "critical"),
    )  # fmt: skip

    database_url: str = setting(
        "", "The database, as the role sofinance_app: postgresql://user:password@host:port/name.",
        secret=True, required=True, max_age_days=90,
        example="postgresql://sofinance_app:...@127.0.0.1:5432/sofinance",
    )  # fmt: skip
    owner_url: str = setting(
        "", "The same database as a role that may migrate it, for `migrate` and `user create`.",
        secret=True, max_age_days=90, example="postgresql://postgres:...@127.0.0.1:5432/sofinance",
    )  # fmt: skip
    database_pool_size: int = setting(
        10, "Connections per worker process; all workers' together stay below max_connections.",
        unit="connections", low=1, high=200,
    )  # fmt: skip
    database_prepared_statements: bool = setting(
        True, "Keep statements prepared; false behind a PgBouncer before 1.21 in transaction mode."
    )
    database_acquire_timeout_s: int = setting(
        5, "How long a request waits for a free connection before it answers 503.",
        unit="s", low=1, high=60,
    )  # fmt: skip
    database_statement_timeout_ms: int = setting(
        5_000, "The longest a statement may run before PostgreSQL cancels it and we answer 503.",
        unit="ms", low=100, high=600_000,
    )  # fmt: skip

    jwt_secret: str = setting(
        "", "The key that signs access tokens: 32 characters or more, from a random source.",
        secret=True, required=True, unless="jwt_keys_dir", also=("SECRET_KEY",),
        example=PLACEHOLDER_SECRET, max_age_days=365,
    )  # fmt: skip
    jwt_secret_previous: str = setting(
        "", "While JWT_SECRET changes, the other one: it verifies tokens and signs none.",
        secret=True, max_age_days=365,
    )  # fmt: skip
    jwt_algorithm: str = setting(
        "HS256", "How JWT_SECRET signs; a key from JWT_KEYS_DIR has its own algorithm.",
        choices=("HS256", "HS384", "HS512"),
    )  # fmt: skip
    jwt_keys_dir: str = setting(
        "", "A directory with a file per key, made by `sofinance keys rotate`; the newest signs.",
    )  # fmt: skip
    jwt_key_overlap_minutes: int = setting(
        60, "How long a key verifies after the next one began; no less than ACCESS_TOKEN_MINUTES.",
        unit="minutes", low=1, high=43_200,
    )  # fmt: skip
    jwt_key_activation_s: int = setting(
        120, "How long after it appeared a key begins to sign: till every worker knows it.",
        unit="s", low=0, high=86_400,
    )  # fmt: skip
    jwt_issuer: str = setting("sofinance", "The `iss` claim that is given and demanded.")
    jwt_audience: str = setting("sofinance", "The `aud` claim that is given and demanded.")
    access_token_minutes: int = setting(
        15, "How long an access token is good; until then it is renewed with a refresh token.",
        unit="minutes", low=1, high=1_440, also=("JWT_EXPIRATION_MINUTES",),
    )  # fmt: skip
    session_idle_minutes: int = setting(
        480, "How long a session lasts while nobody renews its tokens.",
        unit="minutes", low=5, high=43_200,
    )  # fmt: skip
    session_life_minutes: int = setting(
        20_160, "How long a session lasts in any case; 20,160 minutes are 14 days.",
        unit="minutes", low=5, high=129_600,
    )  # fmt: skip
    session_count_max: int = setting(
        5, "Sessions that a user may have at a time; another one ends the oldest.",
        unit="sessions", low=1, high=100,
    )  # fmt: skip
    password_reset_minutes: int = setting(
        30, "How long a link for a new password is good.", unit="minutes", low=5, high=1_440
    )
    password_reset_url: str = setting(
        "", "Your page on which a new password is chosen; the link in the mail is this and "
        "`#token=...`. Without it the mail has the token alone.",
        example="https://office.example.com/new-password",
    )  # fmt: skip
    operator_org_id: int = setting(
        0, "The organisation whose administrators see the server's own state (/debug, jobs); with "
        "0 those of any do, unless anybody can sign up: then nobody.", low=0, high=2**63 - 1,
    )  # fmt: skip
    sign_up_enabled: bool = setting(
        False, "Let anybody found an organisation by POST /sign-up; needs DATA_ENCRYPTION_KEY."
    )
    sign_up_minutes: int = setting(
        60, "How long a link to sign up is good.", unit="minutes", low=5, high=1_440
    )
    sign_up_url: str = setting(
        "", "Your page on which one signs up; the link in the mail is this and `#token=...`. "
        "Without it the mail has the token alone.", example="https://office.example.com/welcome",
    )  # fmt: skip
    mfa_required_roles: str = setting(
        "", "Roles that must use a second factor, with commas between; until they have enrolled "
        "one they may do nothing else.", example="ADMIN,MANAGER",
    )  # fmt: skip

    data_encryption_key: str = setting(
        "", "Encrypts secrets in the database: 32 bytes from `openssl rand -hex 32`; keep it apart "
        "from the database's backups. Without it nobody can enrol a second factor.",
        secret=True, max_age_days=365,
    )  # fmt: skip
    data_encryption_key_previous: str = setting(
        "", "The key before DATA_ENCRYPTION_KEY; it still decrypts.", secret=True,
        max_age_days=365,
    )  # fmt: skip

    backup_url: str = setting(
        "", "The database for `sofinance backup`, as sofinance_backup, which sees all rows.",
        secret=True, max_age_days=90,
        example="postgresql://sofinance_backup:...@127.0.0.1:5432/sofinance",
    )  # fmt: skip
    restore_url: str = setting(
        "", "The database that `sofinance restore` restores into, as a superuser; --to instead.",
        secret=True, max_age_days=90, example="postgresql://postgres:...@127.0.0.1:5432/books",
    )  # fmt: skip
    backup_dir: str = setting("./backups", "Where backups are written to and found.")
    backup_wal_dir: str = setting(
        "", "Where archive_command keeps PostgreSQL's log; empty: `wal` in BACKUP_DIR.",
        example="/srv/wal",
    )  # fmt: skip
    backup_keep_days: int = setting(
        30, "How long a backup is kept; the newest good one stays in any case.",
        unit="days", low=1, high=3_650,
    )  # fmt: skip
    backup_encryption_key: str = setting(
        "", "Encrypts backups: 32 bytes from `openssl rand -hex 32`. Keep it apart from them: "
        "without it they cannot be restored.", secret=True, max_age_days=365,
    )  # fmt: skip
    backup_encryption_key_previous: str = setting(
        "", "The key before BACKUP_ENCRYPTION_KEY; it still decrypts.", secret=True,
        max_age_days=365,
    )  # fmt: skip
    pg_bin: str = setting(
        "", "The directory of pg_dump and pg_restore; empty: those that fit the server's version, "
        "of PATH, Debian's directories and the embedded database.",
        example="/usr/lib/postgresql/18/bin",
    )  # fmt: skip

    secrets_rotated_on: str = setting(
        "", "When secrets were last changed, where it is not the time of their file; tells which "
        "are too old.", example="JWT_SECRET=2026-01-15, DATABASE_URL=2026-03-01",
    )  # fmt: skip

    idempotency_required: bool = setting(
        False,
        "Refuse a POST without an Idempotency-Key, where answers are kept for keys.",
    )
    idempotency_ttl_hours: int = setting(
        24, "How long an answer is kept for replay under its Idempotency-Key.",
        unit="hours", low=1, high=720,
    )  # fmt: skip
    max_body_bytes: int = setting(
        1_048_576, "The largest request body; a larger one is answered 413 unread.",
        unit="bytes", low=1_024, high=104_857_600,
    )  # fmt: skip
    max_json_depth: int = setting(
        32, "How deep a body may nest objects and arrays; ours need five.",
        unit="levels", low=8, high=512,
    )  # fmt: skip
    request_body_timeout_s: int = setting(
        30, "How long a body may take to arrive before it is answered 408.",
        unit="s", low=1, high=600,
    )  # fmt: skip
    cors_origins: str = setting(
        "", "Origins whose pages may call this, exactly, comma-separated; there is no wildcard.",
        example="https://office.example.com,https://shop.example.com",
    )  # fmt: skip
    hsts_max_age_s: int = setting(
        0, "How long browsers shall use only https here (Strict-Transport-Security); 0: not said.",
        unit="s", low=0, high=63_072_000,
    )  # fmt: skip

    rate_limit_enabled: bool = setting(
        True, "Limit requests; without, one caller can take all there is. Imports may need it off."
    )
    rate_limit_per_minute: int = setting(
        600, "What each user, API key, till or unknown address may ask in the long run.",
        unit="requests a minute", low=1, high=10_000_000,
    )  # fmt: skip
    rate_limit_burst: int = setting(
        1_200, "What each of them may ask at once: a till that was offline sends its day.",
        unit="requests", low=1, high=1_000_000,
    )  # fmt: skip
    rate_limit_org_per_minute: int = setting(
        12_000, "What all callers of one organisation together may ask in the long run.",
        unit="requests a minute", low=1, high=10_000_000,
    )  # fmt: skip
    rate_limit_org_burst: int = setting(
        24_000, "What they may ask at once: many tills, back online in the same second.",
        unit="requests", low=1, high=1_000_000,
    )  # fmt: skip
    rate_limit_sign_in_per_minute: int = setting(
        60, "Sign-ins and other costly guesses from one address in the long run, right or wrong.",
        unit="requests a minute", low=1, high=100_000,
    )  # fmt: skip
    rate_limit_sign_in_burst: int = setting(
        120, "The same at once: a shop's staff behind one address, at opening time.",
        unit="requests", low=1, high=100_000,
    )  # fmt: skip
    rate_limit_report_per_minute: int = setting(
        60, "Costly reports that one caller may ask for in the long run.",
        unit="requests a minute", low=1, high=100_000,
    )  # fmt: skip
    rate_limit_report_burst: int = setting(
        60, "The same at once: a dashboard asks for a dozen when it opens.",
        unit="requests", low=1, high=100_000,
    )  # fmt: skip
    redis_timeout_ms: int = setting(
        40, "The longest a request waits for Redis before its worker counts by itself.",
        unit="ms", low=1, high=1_000,
    )  # fmt: skip
    trust_proxy_headers: bool = setting(
        False, "Take the client's address from what trusted proxies write into headers."
    )
    trusted_proxy_ips: str = setting(
        "", "The addresses of the proxies before us, with commas; `unix` for a Unix socket's peer.",
        example="10.0.0.5, 10.0.0.6",
    )  # fmt: skip
    trusted_proxy_cidrs: str = setting(
        "", "Networks in which every address is such a proxy.", example="10.1.0.0/16, fd00::/8"
    )

    admin_ip_allowlist_cidrs: str = setting(
        "", "Networks from which administration is open; empty: from everywhere.",
        example="10.8.0.0/16, 192.0.2.7",
    )  # fmt: skip
    admin_read_only: bool = setting(
        False, "Refuse changes by administrative endpoints, but for whoever breaks the glass."
    )

    smtp_host: str = setting("", "The server that takes our mail; without it, see MAIL_FOLDER.")
    smtp_port: int = setting(587, "The port of SMTP_HOST.", low=1, high=PORT_MAX)
    smtp_user: str = setting("", "The name to sign in to SMTP_HOST with; empty for none.")
    smtp_password: str = setting("", "The password that goes with SMTP_USER.", secret=True)
    smtp_tls: str = setting(
        "starttls", "How mail is encrypted on its way to SMTP_HOST; without it nothing is sent.",
        choices=("starttls", "tls", "off"),
    )  # fmt: skip
    smtp_timeout_s: int = setting(
        20, "How long SMTP_HOST may take over one message.", unit="s", low=1, high=300
    )
    mail_from: str = setting(
        "", "The address that our mail comes from.", example="books@shop.example"
    )
    mail_folder: str = setting(
        "", "Without SMTP_HOST, mail is written here as .eml files; in development under /tmp.",
    )  # fmt: skip

    captcha_mode: str = setting(
        "off", "Who is asked to prove to be a person where strangers may write.",
        choices=("off", "turnstile"),
    )  # fmt: skip
    turnstile_secret_key: str = setting(
        "", "Turnstile's secret; needed with CAPTCHA_MODE=turnstile.", secret=True
    )
    turnstile_verify_url: str = setting(
        "https://challenges.cloudflare.com/turnstile/v0/siteverify",
        "Where a captcha's token is checked; https, or http on this machine.",
    )  # fmt: skip
    turnstile_hostname: str = setting(
        "", "The host that captchas are solved on; one solved elsewhere is refused.",
        example="shop.example",
    )  # fmt: skip

    enable_audit_logging: bool = setting(
        True, "Write an audit row for every change, in the change's own transaction."
    )
    enable_response_enrichment: bool = setting(
        False, "Add the version and the request id to each answer's `meta`."
    )
    include_app_version_meta: bool = setting(
        True, "With ENABLE_RESPONSE_ENRICHMENT: `app_version`."
    )
    include_correlation_id: bool = setting(
        True, "With ENABLE_RESPONSE_ENRICHMENT: `correlation_id`, the X-Request-ID."
    )
    response_enrichment_add_to_meta: bool = setting(
        False, "With ENABLE_RESPONSE_ENRICHMENT: both under `_ctx` in `meta`, not beside its keys."
    )
    enable_key_mirroring: bool = setting(
        False, "Repeat the data's keys beside the envelope, for clients from before it."
    )
    mirror_pagination_keys: bool = setting(
        False, "With ENABLE_KEY_MIRRORING: `items`, `page`, `size` and `total` of a page, too."
    )

    job_heartbeat_required: bool = setting(
        False, "Be ready (/readyz) only while a worker shows signs of life."
    )
    job_heartbeat_ttl_seconds: int = setting(
        300, "How old a worker's last sign of life may be.", unit="s", low=10, high=86_400
    )
    git_commit: str = setting(
        "", "The commit that was built, for /debug/version; the image sets it.",
        example="4cd499a",
    )  # fmt: skip
    metrics_enabled: bool = setting(True, "Serve Prometheus metrics at /metrics.")
    metrics_token: str = setting(
        "", "When set, /metrics answers only to this bearer token.", secret=True
    )
    redis_url: str = setting(
        "", "Redis, for what workers share; without it each worker keeps its own.",
        secret=True, example="redis://127.0.0.1:6379/0",
    )  # fmt: skip

    @property
    def second_factor_roles(self) -> frozenset[str]:
        """Return the roles that must use a second factor."""
        return frozenset(
            name.strip().upper() for name in self.mfa_required_roles.split(",") if name.strip()
        )

    @classmethod
    def for_tests(cls, *, database_url: str, **changes: Any) -> Settings:
        """Return settings for a test: complete, quick to refuse, with a key of its own."""
        return cls(**{
            "database_url": database_url,
            "jwt_secret": "only-for-tests-" * 3,
            "data_encryption_key": "5a" * KEY_BYTES,
            "database_pool_size": 5,
            "log_level": "warning",
            # All tests come from one address; those of the limits turn them on.
            "rate_limit_enabled": False,
            **changes,
        })  # fmt: skip


FIELDS: dict[str, Field[Any]] = {f.name: f for f in fields(Settings)}
REQUIRED = tuple(name for name, f in FIELDS.items() if f.metadata["required"])


def load(environ: Mapping[str, str], *, required: Iterable[str] = REQUIRED) -> Settings:
    """Read all settings; raises SettingsError with every problem, not only the first."""
    values, problems = read(environ, required=required)
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def read(
    environ: Mapping[str, str], *, required: Iterable[str] = REQUIRED
) -> tuple[dict[str, Any], list[str]]:
    """Return the values that are given and good, and every problem."""
    problems: list[str] = []
    wrong: set[str] = set()
    values: dict[str, Any] = {}
    for name, declared in FIELDS.items():
        try:
            text = _read(declared, environ)
            if text is not None:
                values[name] = _parse(declared, text)
        except ValueError as problem:
            problems.append(str(problem))
            wrong.add(name)
    problems += _at_odds(values)
    problems += [_missing(n) for n in required if _lacks(values.get, n) and n not in wrong]
    return values, problems


def require(settings: Settings, names: Iterable[str]) -> None:
    """Refuse settings that lack one of these; for commands that need only some."""
    problems = [_missing(n) for n in names if _lacks(vars(settings).get, n)]
    if problems:
        raise SettingsError(problems)


def _at_odds(values: Mapping[str, Any]) -> Iterable[str]:
    """Yield what is wrong with settings together, or with one in this environment."""

    def value(name: str) -> Any:
        return values.get(name, FIELDS[name].default)

    environment, algorithm = value("environment"), value("jwt_algorithm")
    for name in ("jwt_secret", "jwt_secret_previous"):
        secret, length_min = value(name), HMAC_LENGTHS[algorithm]
        if secret == PLACEHOLDER_SECRET and environment != "development":
            yield (
                f"{name.upper()} is the example's: in {environment} it must be your own, "
                "for instance from `openssl rand -hex 32`."
            )
        elif secret and len(secret.encode()) < length_min:
            yield f"{name.upper()} is too short for {algorithm}, which needs {length_min} bytes."
    if value("jwt_secret") and value("jwt_secret") == value("jwt_secret_previous"):
        yield "JWT_SECRET_PREVIOUS is JWT_SECRET itself; it is for the other one, while it changes."
    overlap_minutes, token_minutes = value("jwt_key_overlap_minutes"), value("access_token_minutes")
    if value("jwt_keys_dir") and overlap_minutes < token_minutes:
        yield (
            "JWT_KEY_OVERLAP_MINUTES is shorter than ACCESS_TOKEN_MINUTES: a rotation would sign "
            "people out."
        )
    if value("captcha_mode") == "turnstile" and not value("turnstile_secret_key"):
        yield "TURNSTILE_SECRET_KEY is missing: with CAPTCHA_MODE=turnstile nobody could pass."
    yield from unsafe(value)
    if (
        environment != "development"
        and value("mfa_required_roles")
        and not value("data_encryption_key")
    ):
        yield (
            "DATA_ENCRYPTION_KEY is missing: MFA_REQUIRED_ROLES demands second factors, and "
            "without it nobody can enrol one."
        )
    yield from _mail_at_odds(value)


def _mail_at_odds(value: Callable[[str], Any]) -> Iterable[str]:
    if value("smtp_host") and not value("mail_from"):
        yield "MAIL_FROM is missing: SMTP_HOST will take no mail without a sender."
    if value("smtp_user") and not value("smtp_password"):
        yield "SMTP_USER is set and SMTP_PASSWORD is not."
    if value("smtp_password") and value("smtp_tls") == "off" and value("smtp_host") not in LOOPBACK:
        yield "SMTP_TLS is off: SMTP_PASSWORD would travel where anybody can read it."


def _lacks(get: Callable[[str], Any], name: str) -> bool:
    """Say whether a setting is not given, nor what makes up for it."""
    instead = FIELDS[name].metadata["unless"]
    return not get(name) and not (instead and get(instead))


def _missing(name: str) -> str:
    return f"{name.upper()} is missing. {FIELDS[name].metadata['why']}"


def _read(declared: Field[Any], environ: Mapping[str, str]) -> str | None:
    """Return the text of a setting from its variable, another name of it, or its file."""
    variables = (declared.name.upper(), *declared.metadata["also"])
    for variable in variables:
        text = environ.get(variable, "").strip()
        path = environ.get(f"{variable}_FILE", "").strip() if declared.metadata["secret"] else ""
        if text and path:
            raise ValueError(f"{variable} and {variable}_FILE are both set; keep one of them.")
        if path:
            try:
                text = Path(path).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is not UTF-8 text"
                raise ValueError(f"{variable}_FILE: cannot read {path}: {why}.") from None
            if not text:
                raise ValueError(f"{variable}_FILE: {path} is empty.")
        if text:
            return text
    return None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a setting was given: in a variable, or in the file that a variable names."""

    variable: str
    path: Path | None = None

    def changed_at_s(self) -> float | None:
        """Return when the file was last written; None for a variable, or if it is gone."""
        try:
            return None if self.path is None else self.path.stat().st_mtime
        except OSError:
            return None


def source_of(declared: Field[Any], environ: Mapping[str, str]) -> Source | None:
    """Return where a setting was given; None when its default holds."""
    for variable in (declared.name.upper(), *declared.metadata["also"]):
        path = environ.get(f"{variable}_FILE", "").strip() if declared.metadata["secret"] else ""
        if path:
            return Source(f"{variable}_FILE", Path(path))
        if environ.get(variable, "").strip():
            return Source(variable)
    return None


def rotation_dates(text: str) -> dict[str, date]:
    """Read when secrets were set, `JWT_SECRET=2026-01-15, ...`; a ValueError says what is wrong."""
    names = {
        variable: name
        for name, declared in FIELDS.items() if declared.metadata["secret"]
        for variable in (name.upper(), *declared.metadata["also"])
    }  # fmt: skip
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        variable, _, day = (word.strip() for word in part.partition("="))
        if variable not in names:
            raise ValueError(f"SECRETS_ROTATED_ON: {variable!r} is no setting that is a secret.")
        try:
            found[names[variable]] = date.fromisoformat(day)
        except ValueError:
            raise ValueError(
                f"SECRETS_ROTATED_ON: {variable} needs a date such as 2026-01-15."
            ) from None
    return found


def _parse(declared: Field[Any], text: str) -> str | int | bool:
    """Return the value of a setting; a ValueError says in a sentence what is wrong with it."""
    variable, rule = declared.name.upper(), declared.metadata
    shown = "the given value" if rule["secret"] else repr(text)
    if declared.type == "bool":
        if text.lower() not in TRUE | FALSE:
            raise ValueError(f"{variable} must be true or false, not {shown}.")
        return text.lower() in TRUE
    if declared.type == "int":
        unit = f" {rule['unit']}" if rule["unit"] else ""
        low, high = rule["low"], rule["high"]
        # isdecimal alone would let other scripts' digits pass; int() alone '1_000' and ' 5'.
        if not (text.isascii() and text.isdecimal() and low <= int(text[:20]) <= high):
            raise ValueError(
                f"{variable} must be a whole number from {low} to {high}{unit}, not {shown}."
            )
        return int(text)
    if rule["choices"]:
        by_fold: dict[str, str] = {choice.lower(): choice for choice in rule["choices"]}
        if text.lower() not in by_fold:
            choices = ", ".join(rule["choices"])
            raise ValueError(f"{variable} must be one of {choices}, not {shown}.")
        return by_fold[text.lower()]
    return _text(declared.name, text)


def _text(name: str, text: str) -> str:
    """Return the text of a setting that has a form of its own, or any other text as it is."""
    variable = name.upper()
    match name:
        case "database_url" | "owner_url" | "backup_url" | "restore_url":
            return database_url(variable, text)
        case "cors_origins":
            return _origins(variable, text)
        case "redis_url":
            _check_redis(variable, text)
        case "trusted_proxy_ips" | "trusted_proxy_cidrs":
            _check_networks(variable, text, also=(UNIX,))
        case "admin_ip_allowlist_cidrs":
            _check_networks(variable, text)
        case "secrets_rotated_on":
            rotation_dates(text)
        case "password_reset_url" | "sign_up_url":
            _check_page(variable, text)
        case "mail_from":
            if parseaddr(text)[1].count("@") != 1 or not text.isprintable():
                raise ValueError(f"{variable} must be an address, such as books@shop.example.")
        case _:
            _check_secret(name, text)
    return text


def _check_redis(variable: str, text: str) -> None:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(f"{variable} must begin with redis://, rediss:// or unix://.")


def _check_page(variable: str, text: str) -> None:
    """Refuse what is no page of ours: what is put behind it lets people in."""
    url = urlsplit(text)
    is_ours = url.scheme == "http" and url.hostname in LOOPBACK
    if not (url.scheme == "https" and url.hostname) and not is_ours:
        raise ValueError(f"{variable} must begin with https://, or http:// on this machine.")
    if url.fragment or not text.isprintable() or " " in text:
        raise ValueError(f"{variable} must be a URL without a #; the token stands there.")


def _check_secret(name: str, text: str) -> None:
    if name.startswith("jwt_secret") and len(text) < SECRET_LENGTH_MIN:
        raise ValueError(
            f"{name.upper()} has {len(text)} characters; it needs {SECRET_LENGTH_MIN} or more, "
            "for instance from `openssl rand -hex 32`."
        )
    if name.startswith(("data_encryption_key", "backup_encryption_key")):
        try:
            encryption_key(text)
        except ValueError as error:
            raise ValueError(f"{name.upper()} {error}: `openssl rand -hex 32`.") from None


def encryption_key(text: str) -> bytes:
    """Return the 32 bytes of a key in hex or base64; a ValueError says that it is none."""
    try:
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else b64decode(text, altchars=b"-_")
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or not any(key):
        raise ValueError(f"must be {KEY_BYTES} random bytes in hex or base64")
    return key


def _check_networks(variable: str, text: str, *, also: tuple[str, ...] = ()) -> None:
    for part in text.split(","):
        name = part.strip()
        try:
            if name and name not in also:
                network(name)
        except ValueError:
            raise ValueError(f"{variable}: {name!r} is no address and no network.") from None


def _origins(variable: str, text: str) -> str:
    """Return a list of origins, each as browsers write it."""
    origins = [origin.strip() for origin in text.split(",")]
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{variable}: {origin!r} is not an origin as browsers send it: scheme://host or "
                "scheme://host:port in lower case, without a path; there is no wildcard."
            )
    return ",".join(origins)


def database_url(variable: str, text: str) -> str:
    """Return a URL that both asyncpg and psycopg take, from the spellings people have."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - the attribute is what checks the port
    except ValueError as error:
        raise ValueError(f"{variable} is not a URL: {error}.") from None
    if parts.scheme not in {"postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"}:
        raise ValueError(f"{variable} must begin with postgresql://.")
    if not parts.path.strip("/"):
        raise ValueError(f"{variable} must name a database: postgresql://user@host:port/name.")
    # ?schema=public is what Prisma's URLs carry; PostgreSQL knows no such parameter.
    query = urlencode([pair for pair in parse_qsl(parts.query) if pair != ("schema", "public")])
    # Not urlunsplit: it takes the // from a URL without a host, as of a local socket.
    return f"postgresql://{parts.netloc}{parts.path}{f'?{query}' if query else ''}"
