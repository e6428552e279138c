"""What production refuses of settings: told at start, all at once, and by `config check`."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEVELOPMENT, PRODUCTION = "development", "production"
TOKEN_LENGTH_MIN = 24
# Passwords that somebody tries first.
GUESSES = frozenset({
    "", "...", "admin", "changeme", "change-me", "example", "password", "postgres", "root",
    "secret", "sofinance", "sofinance_app", "test",
})  # fmt: skip


def unsafe(value: Callable[[str], Any]) -> Iterable[str]:
    """Yield what is not started with, because it would not work or would let others in."""
    # In development `sofinance dev` brings a key of its own, later.
    is_tried_out = value("environment") == DEVELOPMENT
    if value("sign_up_enabled") and not value("data_encryption_key") and not is_tried_out:
        yield "DATA_ENCRYPTION_KEY is missing: SIGN_UP_ENABLED seals its links with it."
    if value("environment") != PRODUCTION:
        return
    if value("sign_up_enabled") and value("captcha_mode") == "off":
        yield "CAPTCHA_MODE is off: with SIGN_UP_ENABLED machines would sign up."
    if value("sign_up_enabled") and not value("smtp_host"):
        yield "SMTP_HOST is missing: SIGN_UP_ENABLED sends its links by mail."
    yield from _open_doors(value)
    yield from _believed_proxies(value)


def _open_doors(value: Callable[[str], Any]) -> Iterable[str]:
    for name in ("database_url", "owner_url", "backup_url", "restore_url"):
        if value(name) and _is_guessed(value(name)):
            yield f"{name.upper()} has a password that everybody tries first; in production no."
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
