"""One key each: what a key is, its name in tokens, and its file.

A file's name says when the key was made and for which algorithm:
``20261121T093000Z-eddsa.pem``, ``...-es256.pem`` (private keys, PKCS8) or ``...-hs256.key`` (a
secret). Which key signs and which ones verify is the ring's, in keys.py.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sofinance.infra.command import EXIT_USAGE, SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

SECRET_LENGTH_MIN = 32
KEY_FILE_BYTES_MAX = 16_384
KEY_COUNT_MAX = 20
# The algorithms of key files, by the word in their names.
ALGORITHMS = {"eddsa": "EdDSA", "es256": "ES256", "hs256": "HS256"}
SUFFIXES = {"eddsa": "pem", "es256": "pem", "hs256": "key"}
NAME = re.compile(r"(?P<made>\d{8}T\d{6}Z)-(?P<kind>eddsa|es256|hs256)\.(?P<suffix>pem|key)")
STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its name in tokens, its one algorithm, when it was made and from what."""

    kid: str
    algorithm: str
    source: str
    made_at_s: float | None
    signing: PrivateKey | bytes = field(repr=False, compare=False)
    verifying: PublicKey | bytes = field(repr=False, compare=False)
    # What /.well-known/jwks.json shows; None for a secret.
    public: Mapping[str, str] | None


def secret_key(
    secret: bytes, algorithm: str, *, source: str, made_at_s: float | None = None
) -> Key:
    """Return the key of a shared secret; its `kid` does not give the secret away."""
    digest = hmac.digest(secret, b"sofinance access token key id\0" + algorithm.encode(), "sha256")
    return Key(_base64url(digest[:12]), algorithm, source, made_at_s, secret, secret, None)


def private_key(key: PrivateKey, *, source: str, made_at_s: float | None = None) -> Key:
    """Return the key of an Ed25519 or P-256 pair; its `kid` is the thumbprint of RFC 7638."""
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        algorithm = "EdDSA"
        point = public.public_bytes_raw()
        required = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(point)}
    else:
        algorithm = "ES256"
        numbers = public.public_numbers()
        x, y = (_base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        required = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    kid = thumbprint(required)
    shown = {**required, "kid": kid, "alg": algorithm, "use": "sig"}
    return Key(kid, algorithm, source, made_at_s, key, public, shown)


def thumbprint(required: Mapping[str, str]) -> str:
    """Return the RFC 7638 thumbprint over a key's required members, which come in ABC order."""
    members = ",".join(f'"{name}":"{required[name]}"' for name in sorted(required))
    return _base64url(hashlib.sha256(f"{{{members}}}".encode()).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# -- files -----------------------------------------------------------------------------------------


def read_folder(folder: Path) -> list[Key]:
    """Read the keys of a folder, the oldest first; raises SetupError with every bad file."""
    keys: list[Key] = []
    problems: list[str] = []
    for path in _files(folder):
        try:
            keys.append(_read_key(path))
        except ValueError as error:
            problems.append(f"{path}: {error}.")
    if problems:
        raise SetupError(" ".join(problems), exit_code=EXIT_USAGE)
    if len(keys) > KEY_COUNT_MAX:
        raise SetupError(
            f"JWT_KEYS_DIR {folder} holds {len(keys)} keys; {KEY_COUNT_MAX} are enough: remove "
            "retired ones.",
            exit_code=EXIT_USAGE,
        )
    return sorted(keys, key=lambda key: (key.made_at_s or 0.0, key.source))


def make_key(folder: Path, kind: str, *, now: datetime) -> Path:
    """Write a new key into the folder, readable by its owner only; returns its path."""
    path = folder / f"{now.astimezone(UTC).strftime(STAMP)}-{kind}.{SUFFIXES[kind]}"
    if kind == "hs256":
        content = secrets.token_urlsafe(48).encode() + b"\n"
    else:
        made: PrivateKey = (
            ed25519.Ed25519PrivateKey.generate()
            if kind == "eddsa"
            else ec.generate_private_key(ec.SECP256R1())
        )
        content = made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    _write_new(path, content)
    return path


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all, and over no other one."""
    partial = path.with_name(f".{path.name}.partial")  # dotted: no ring reads it
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)  # a rename would replace what is there
    finally:
        partial.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    """Return the folder's files; dotted ones are half written, or Kubernetes' own."""
    try:
        return sorted(
            path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise SetupError(
            f"JWT_KEYS_DIR: cannot read {folder}: {error.strerror}.", exit_code=EXIT_USAGE
        ) from None


def listing(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what tells whether files came, went or changed, without opening them."""
    found = []
    for path in _files(folder):
        try:
            known = path.stat()
        except FileNotFoundError:
            continue  # it went while we looked; the next look finds the rest
        found.append((path.name, known.st_mtime_ns, known.st_size))
    return tuple(found)


def _read_key(path: Path) -> Key:
    match = NAME.fullmatch(path.name)
    if match is None or SUFFIXES[match["kind"]] != match["suffix"]:
        raise ValueError(
            "its name does not say when it was made and for what, like "
            "20261121T093000Z-eddsa.pem, -es256.pem or -hs256.key"
        )
    made_at_s = _stamp_s(match["made"])
    try:
        with path.open("rb") as file:
            content = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"cannot read it: {error.strerror}") from None
    if len(content) > KEY_FILE_BYTES_MAX:
        raise ValueError("it is too large for a key")
    if match["kind"] == "hs256":
        secret = content.strip()
        if len(secret) < SECRET_LENGTH_MIN:
            raise ValueError(
                f"the secret has {len(secret)} bytes; it needs {SECRET_LENGTH_MIN} or more"
            )
        if secret.startswith(b"-----BEGIN"):
            # Key confusion, prepared by hand: whoever has the public key could sign.
            raise ValueError("it holds a PEM key, not a secret")
        return secret_key(secret, "HS256", source=path.name, made_at_s=made_at_s)
    wanted = ALGORITHMS[match["kind"]]
    try:
        loaded = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("it is no unencrypted private key in PEM (PKCS8)") from None
    fits = isinstance(loaded, ed25519.Ed25519PrivateKey) if wanted == "EdDSA" else (
        isinstance(loaded, ec.EllipticCurvePrivateKey) and isinstance(loaded.curve, ec.SECP256R1)
    )  # fmt: skip
    if not fits or not isinstance(loaded, PrivateKey):
        raise ValueError(f"it is no key for {wanted}")
    return private_key(loaded, source=path.name, made_at_s=made_at_s)


def _stamp_s(text: str) -> float:
    try:
        return datetime.strptime(text, STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise ValueError(f"there is no such time as {text}") from None
