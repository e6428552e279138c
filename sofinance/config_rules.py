"""What settings must not be together, and what production refuses: told at start, all at once.

Whoever runs a command of their own, such as `migrate` with OWNER_URL alone, is told what is wrong
with what they gave, and asked for nothing that only the service and its workers use.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sofinance.infra.settings_checks import LOOPBACK
from sofinance.infra.telemetry_packages import lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What .env.example carries: good enough to try the service, refused where it matters.
PLACEHOLDER_SECRET = "change-me-before-anyone-else-can-reach-this"  # noqa: S105 - no secret
# Source: RFC 7518, 3.2: a key as long as the hash, or longer.
HMAC_LENGTHS = {"HS256": 32, "HS384": 48, "HS512": 64}

DEVELOPMENT, PRODUCTION = "development", "production"
TOKEN_LENGTH_MIN = 24
# As the database has it (audit_archive_is_old).
AUDIT_DAYS_MIN = 90
DATABASES = ("database_url", "database_replica_url", "owner_url", "backup_url", "restore_url")
# Passwords that somebody tries first.
GUESSES = frozenset({
    "", "...", "admin", "changeme", "change-me", "example", "password", "postgres", "root",
    "secret", "sofinance", "sofinance_app", "test",
})  # fmt: skip


def at_odds(value: Callable[[str], Any]) -> Iterable[str]:
    """Yield what is wrong with settings that are given, whichever command reads them."""
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
    for name in DATABASES:
        if environment == PRODUCTION and value(name) and _is_guessed(value(name)):
            yield f"{name.upper()} has a password that everybody tries first; in production no."
    if 0 < value("retention_audit_days") < AUDIT_DAYS_MIN:
        yield (
            f"RETENTION_AUDIT_DAYS is less than {AUDIT_DAYS_MIN}, for which the audit log stays "
            "where it is; 0 keeps it there for good."
        )


def unfit_to_serve(value: Callable[[str], Any]) -> Iterable[str]:
    """Yield what the service and its workers do not start with."""
    if value("captcha_mode") == "turnstile" and not value("turnstile_secret_key"):
        yield "TURNSTILE_SECRET_KEY is missing: with CAPTCHA_MODE=turnstile nobody could pass."
    yield from unsafe(value)
    if (
        value("environment") != DEVELOPMENT
        and value("mfa_required_roles")
        and not value("data_encryption_key")
    ):
        yield (
            "DATA_ENCRYPTION_KEY is missing: MFA_REQUIRED_ROLES demands second factors, and "
            "without it nobody can enrol one."
        )
    yield from _stripe_at_odds(value)
    yield from _mail_at_odds(value)
    yield from lacking(value)
    yield from storage_at_odds(value)


def _stripe_at_odds(value: Callable[[str], Any]) -> Iterable[str]:
    if value("stripe_secret_key") and not value("stripe_webhook_secret"):
        yield "STRIPE_WEBHOOK_SECRET is missing: without it nobody would learn what was paid."
    if bool(value("stripe_success_url")) != bool(value("stripe_cancel_url")):
        yield "STRIPE_SUCCESS_URL and STRIPE_CANCEL_URL go together; one of them is missing."
    if value("stripe_secret_key") and value("sign_up_enabled") and not value("stripe_org_ids"):
        yield (
            "STRIPE_ORG_IDS is missing: with SIGN_UP_ENABLED anybody would be paid into your "
            "account."
        )
    if value("stripe_webhook_secret_previous") and not value("stripe_webhook_secret"):
        yield "STRIPE_WEBHOOK_SECRET_PREVIOUS is set and STRIPE_WEBHOOK_SECRET is not."


def storage_at_odds(value: Callable[[str], Any]) -> Iterable[str]:
    """Yield why the store of files cannot be opened."""
    if value("storage_backend") == "s3" and not value("s3_bucket"):
        yield "S3_BUCKET is missing: STORAGE_BACKEND=s3 keeps files in it."
    if bool(value("s3_access_key_id")) != bool(value("s3_secret_access_key")):
        yield "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together; one of them is missing."


def _mail_at_odds(value: Callable[[str], Any]) -> Iterable[str]:
    needed = {"smtp": "smtp_host", "folder": "mail_folder", "sendgrid": "sendgrid_api_key"}
    name = needed.get(value("email_mode"), "")
    if name and not value(name):
        yield f"{name.upper()} is missing: EMAIL_MODE={value('email_mode')} needs it."
    if value("mail_unsubscribe_url") and not value("data_encryption_key"):
        yield "DATA_ENCRYPTION_KEY is missing: links to MAIL_UNSUBSCRIBE_URL are sealed with it."
    if value("email_mode") == "sendgrid" and not value("mail_from"):
        yield "MAIL_FROM is missing: SendGrid takes no mail without a sender."
    if value("smtp_host") and not value("mail_from"):
        yield "MAIL_FROM is missing: SMTP_HOST will take no mail without a sender."
    if value("smtp_user") and not value("smtp_password"):
        yield "SMTP_USER is set and SMTP_PASSWORD is not."
    if value("smtp_password") and value("smtp_tls") == "off" and value("smtp_host") not in LOOPBACK:
        yield "SMTP_TLS is off: SMTP_PASSWORD would travel where anybody can read it."


def unsafe(value: Callable[[str], Any]) -> Iterable[str]:
    """Yield what is not started with, because it would not work or would let others in."""
    # In development `sofinance dev` brings a key of its own, later.
    is_tried_out = value("environment") == DEVELOPMENT
    if value("sign_up_enabled") and not value("data_encryption_key") and not is_tried_out:
        yield "DATA_ENCRYPTION_KEY is missing: SIGN_UP_ENABLED seals its links with it."
    if value("export_mode") != "off" and not value("data_encryption_key") and not is_tried_out:
        yield "DATA_ENCRYPTION_KEY is missing: EXPORT_MODE signs with secrets that it seals."
    if value("environment") != PRODUCTION:
        return
    if value("sign_up_enabled") and value("captcha_mode") == "off":
        yield "CAPTCHA_MODE is off: with SIGN_UP_ENABLED machines would sign up."
    if value("sign_up_enabled") and not value("smtp_host"):
        yield "SMTP_HOST is missing: SIGN_UP_ENABLED sends its links by mail."
    yield from _open_doors(value)
    yield from _exports(value)
    yield from _believed_proxies(value)


def _open_doors(value: Callable[[str], Any]) -> Iterable[str]:
    token = value("metrics_token")
    if value("metrics_enabled") and not token:
        yield "METRICS_TOKEN is missing: in production /metrics is not for everybody."
    elif token and len(token) < TOKEN_LENGTH_MIN:
        yield f"METRICS_TOKEN is too short: in production {TOKEN_LENGTH_MIN} characters or more."
    for origin in value("cors_origins").split(","):
        if origin.startswith("http://"):
            yield f"CORS_ORIGINS: {origin} is not https; anybody on its way could speak for it."
    if value("smtp_host") and value("smtp_tls") == "off" and not _is_local(value("smtp_host")):
        yield "SMTP_TLS is off: mail carries links that sign people in."


def _exports(value: Callable[[str], Any]) -> Iterable[str]:
    if value("export_mode") == "off":
        return
    if not value("export_allowed_hosts"):
        yield "EXPORT_ALLOWED_HOSTS is missing: in production webhooks go to known hosts only."
    if value("export_allow_http"):
        yield "EXPORT_ALLOW_HTTP is on: in production webhooks go to https:// only."
    if _names_everybody(value("export_allowed_networks")):
        yield "EXPORT_ALLOWED_NETWORKS names every address: webhooks could reach our own network."


def _believed_proxies(value: Callable[[str], Any]) -> Iterable[str]:
    if value("trust_proxy_headers") and not (
        value("trusted_proxy_ips") or value("trusted_proxy_cidrs")
    ):
        yield "TRUST_PROXY_HEADERS is on and no proxy is named in TRUSTED_PROXY_IPS or _CIDRS."
    for name in ("trusted_proxy_cidrs", "trusted_proxy_ips"):
        if _names_everybody(value(name)):
            yield f"{name.upper()} names every address: anybody could say who they are."


def _is_guessed(url: str) -> bool:
    """Say whether the password in a URL is one of those; a URL without any relies on the server."""
    parts = urlsplit(url)
    return parts.password is not None and unquote(parts.password).lower() in GUESSES


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names_everybody(text: str) -> bool:
    return any(part.strip() in {"0.0.0.0/0", "::/0"} for part in text.split(","))
