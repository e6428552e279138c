"""The forms that settings have: each check returns the text, or says what is wrong with it.

A check is given the variable's name and its text, and is named where the setting is declared.
"""

from __future__ import annotations

import re
from base64 import b64decode
from email.utils import parseaddr
from urllib.parse import parse_qsl, urlencode, urlsplit

from sofinance.infra.proxies import UNIX, network

SECRET_LENGTH_MIN = 32
KEY_BYTES = 32
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
HOST = re.compile(r"(\*\.)?([a-z0-9_-]+\.)*[a-z0-9_-]+|[0-9a-f:]+")
SENTRY_DSN = re.compile(r"https?://[^:@/\s]+@[^@/\s]+(/[^\s?#]*)?/[0-9]+")
ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?")
STRIPE_KEY = re.compile(r"[sr]k_[A-Za-z0-9_]{8,250}")
STRIPE_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=_-]{16,250}")
REDIS_FORM = "redis://:password@host:6379/0"
DATABASE_NUMBER = re.compile(r"(/[0-9]*)?")
BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/|$)")


def address(variable: str, text: str) -> str:
    """Return a mail address."""
    if parseaddr(text)[1].count("@") != 1 or not text.isprintable():
        raise ValueError(f"{variable} must be an address, such as books@shop.example.")
    return text


def signing_secret(variable: str, text: str) -> str:
    """Return a secret that is long enough to sign with."""
    if len(text) < SECRET_LENGTH_MIN:
        raise ValueError(
            f"{variable} has {len(text)} characters; it needs {SECRET_LENGTH_MIN} or more, "
            "for instance from `openssl rand -hex 32`."
        )
    return text


def key(variable: str, text: str) -> str:
    """Return the text of a key to encrypt with."""
    try:
        encryption_key(text)
    except ValueError as error:
        raise ValueError(f"{variable} {error}: `openssl rand -hex 32`.") from None
    return text


def encryption_key(text: str) -> bytes:
    """Return the 32 bytes of a key in hex or base64; a ValueError says that it is none."""
    try:
        bits = (
            bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else b64decode(text, altchars=b"-_")
        )
    except ValueError:
        bits = b""
    if len(bits) != KEY_BYTES or not any(bits):
        raise ValueError(f"must be {KEY_BYTES} random bytes in hex or base64")
    return bits


def stripe_key(variable: str, text: str) -> str:
    """Return a secret key of Stripe's, and no publishable one."""
    if not STRIPE_KEY.fullmatch(text):
        raise ValueError(f"{variable} must be a secret key of Stripe's: sk_... or rk_...")
    return text


def stripe_webhook_secret(variable: str, text: str) -> str:
    """Return what Stripe signs the webhooks of one endpoint with."""
    if not STRIPE_WEBHOOK_SECRET.fullmatch(text):
        raise ValueError(f"{variable} must be an endpoint's signing secret: whsec_...")
    return text


def redis(variable: str, text: str) -> str:
    """Return the URL of a Redis."""
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(f"{variable} must begin with redis://, rediss:// or unix://.")
    url, form = urlsplit(text), "unix:///run/redis/redis.sock" if text[0] == "u" else REDIS_FORM
    try:
        is_whole = url.path if url.scheme == "unix" else url.hostname and url.port != 0
    except ValueError:
        is_whole = ""
    if not is_whole or (url.scheme != "unix" and not DATABASE_NUMBER.fullmatch(url.path)):
        raise ValueError(f"{variable} must have the form {form}.")
    return text


def mail_server(variable: str, text: str) -> str:
    """Return the name or the address of a mail server."""
    if not HOST.fullmatch(text.lower()) or text.startswith("*"):
        raise ValueError(
            f"{variable} must be a host's name or address, such as mail.example.com; its port is "
            "another setting."
        )
    return text


def service(variable: str, text: str) -> str:
    """Return the URL of somebody's service, which nobody on the way can read or answer for."""
    url = urlsplit(text)
    is_ours = url.scheme == "http" and url.hostname in LOOPBACK
    if not (url.scheme == "https" and url.hostname) and not is_ours:
        raise ValueError(f"{variable} must begin with https://, or http:// on this machine.")
    return text


def page(variable: str, text: str) -> str:
    """Return the URL of a page of ours, and of no other: what is put behind it lets people in."""
    url = urlsplit(service(variable, text))
    if url.fragment or not text.isprintable() or " " in text:
        raise ValueError(f"{variable} must be a URL without a #; the token stands there.")
    return text


def place(variable: str, text: str) -> str:
    """Return a directory, or the URL of a bucket and a prefix in it."""
    if "://" in text and not BUCKET.match(text):
        raise ValueError(f"{variable} must be a directory, or s3://bucket/prefix.")
    return text


def endpoint(variable: str, text: str) -> str:
    """Return the URL of a server."""
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError(f"{variable} must begin with https:// or http://.")
    return text


def collector(variable: str, text: str) -> str:
    """Return the URL of a collector of traces, without a path of its own."""
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
        raise ValueError(f"{variable} must be a URL such as http://127.0.0.1:4318.")
    return text


def sentry_dsn(variable: str, text: str) -> str:
    """Return a DSN as Sentry gives it."""
    if not SENTRY_DSN.fullmatch(text):
        raise ValueError(f"{variable} must be a DSN: https://<key>@<host>/<project's number>.")
    return text


def pairs(variable: str, text: str) -> str:
    """Return a list of name=value."""
    try:
        read_pairs(text)
    except ValueError as error:
        raise ValueError(f"{variable} {error}.") from None
    return text


def read_pairs(text: str) -> dict[str, str]:
    """Read `name=value, name=value`; a ValueError says what is wrong."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (word.strip() for word in part.partition("="))
        if not (name and value and part.isprintable()):
            raise ValueError("must be name=value, with commas between several")
        found[name] = value
    return found


def networks(variable: str, text: str) -> str:
    """Return a list of addresses and networks."""
    return _networks(variable, text)


def peers(variable: str, text: str) -> str:
    """Return such a list, in which `unix` stands for the peer of a Unix socket."""
    return _networks(variable, text, also=(UNIX,))


def _networks(variable: str, text: str, *, also: tuple[str, ...] = ()) -> str:
    for part in text.split(","):
        name = part.strip()
        try:
            if name and name not in also:
                network(name)
        except ValueError:
            raise ValueError(f"{variable}: {name!r} is no address and no network.") from None
    return text


def hosts(variable: str, text: str) -> str:
    """Return a list of hosts, *.example.com for all below one."""
    for part in text.lower().split(","):
        if not HOST.fullmatch(part.strip()):
            raise ValueError(
                f"{variable}: {part.strip()!r} is no host, such as hooks.example.com or "
                "*.example.com, without a port or a path."
            )
    return text.lower()


def numbers(variable: str, text: str) -> str:
    """Return a list of whole numbers."""
    if not re.fullmatch(r"[0-9]{1,9}( *, *[0-9]{1,9}){0,99}", text):
        raise ValueError(f"{variable} must be whole numbers with commas between them.")
    return text


def origins(variable: str, text: str) -> str:
    """Return a list of origins, each as browsers write it."""
    found = [origin.strip() for origin in text.split(",")]
    for origin in found:
        if not ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{variable}: {origin!r} is not an origin as browsers send it: scheme://host or "
                "scheme://host:port in lower case, without a path; there is no wildcard."
            )
    return ",".join(found)


def database_url(variable: str, text: str) -> str:
    """Return a URL that both asyncpg and psycopg take, from the spellings people have."""
    try:
        parts = urlsplit(text)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        for host in hosts:
            urlsplit(f"//{host}").port  # noqa: B018 - the attribute is what checks the port
    except ValueError as error:
        raise ValueError(f"{variable} is not a URL: {error}.") from None
    if parts.scheme not in {"postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"}:
        raise ValueError(f"{variable} must begin with postgresql://.")
    if not parts.path.strip("/"):
        raise ValueError(f"{variable} must name a database: postgresql://user@host:port/name.")
    if len(hosts) > 1 and "target_session_attrs=" not in parts.query:
        raise ValueError(
            f"{variable} names several hosts: say which is meant, for instance with "
            "?target_session_attrs=read-write."
        )
    # ?schema=public is what Prisma's URLs carry; PostgreSQL knows no such parameter.
    query = urlencode([pair for pair in parse_qsl(parts.query) if pair != ("schema", "public")])
    # Not urlunsplit: it takes the // from a URL without a host, as of a local socket.
    return f"postgresql://{parts.netloc}{parts.path}{f'?{query}' if query else ''}"
