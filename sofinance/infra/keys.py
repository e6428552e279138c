"""The keys that sign access tokens: which one signs, which ones still verify, since and until when.

From the settings come one secret that signs and one more that only verifies. From a directory
comes one file per key, whose name says when it was made and for which algorithm:
``20261121T093000Z-eddsa.pem``, ``...-es256.pem`` (private keys, PKCS8) or ``...-hs256.key`` (a
secret). There the newest signs, a little after it appeared, so that every worker knows it before
the first token with it does; the one before it verifies until those tokens have died.

A key has one algorithm and the token must name both. What else a token's header says of keys (jku,
x5u, jwk, x5c) is never looked at. Source: RFC 8725 (JWT best practice), RFC 9068 (access tokens).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sofinance.infra.command import EXIT_USAGE, SetupError
from sofinance.infra.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sofinance.config import Settings

log = logging.getLogger(__name__)

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068 calls it so
TOKEN_TYPES = frozenset({TOKEN_TYPE, "application/at+jwt"})
TOKEN_LENGTH_MAX = 4_096
SECRET_LENGTH_MIN = 32
KEY_FILE_BYTES_MAX = 16_384
KEY_COUNT_MAX = 20
# Between clocks of workers; none for expiry, which only ever costs a client a refresh.
CLOCK_SKEW_S = 60
# A token that names a key we do not know makes us look again, but not more often than this.
LOOK_INTERVAL_S = 1.0
# The algorithms of key files, by the word in their names.
ALGORITHMS = {"eddsa": "EdDSA", "es256": "ES256", "hs256": "HS256"}
SUFFIXES = {"eddsa": "pem", "es256": "pem", "hs256": "key"}
NAME = re.compile(r"(?P<made>\d{8}T\d{6}Z)-(?P<kind>eddsa|es256|hs256)\.(?P<suffix>pem|key)")
STAMP = "%Y%m%dT%H%M%SZ"
CHALLENGE = 'Bearer realm="sofinance", error="invalid_token"'


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its name in tokens, its one algorithm, when it was made and from what."""

    kid: str
    algorithm: str
    source: str
    made_at_s: float | None
    signing: PrivateKey | bytes = field(repr=False, compare=False)
    verifying: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | bytes = field(
        repr=False, compare=False
    )
    # What /.well-known/jwks.json shows; None for a secret.
    public: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Term:
    """When a key begins to sign, and when it verifies no longer; infinity if that is open."""

    key: Key
    begins_at_s: float
    ends_at_s: float
    signs: bool = True

    def state(self, now_s: float, signing: Key) -> str:
        """Say in a word what the key does now."""
        if self.key is signing:
            return "signing"
        if now_s >= self.ends_at_s:
            return "retired"
        return "waiting" if self.signs and now_s < self.begins_at_s else "verifying"


class KeyRing:
    """The keys of this service: signs claims, verifies tokens, publishes what may be known."""

    def __init__(  # noqa: PLR0913 - each is a setting
        self,
        *,
        issuer: str,
        audience: str,
        fixed: Sequence[Key] = (),
        folder: Path | None = None,
        overlap_s: float = 0,
        activation_s: float = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take fixed keys, of which the first signs where there is no folder of keys."""
        self._issuer, self._audience, self._clock = issuer, audience, clock
        self._fixed, self._folder = tuple(fixed), folder
        self._overlap_s, self._activation_s = overlap_s, activation_s
        self._lock = threading.Lock()
        self._first_seen_s: dict[str, float] = {}
        self._looked_at_s = 0.0
        self._found: tuple[tuple[str, int, int], ...] = ()
        self._terms: tuple[Term, ...] = ()
        self._by_kid: dict[str, Term] = {}
        if folder is None:
            self._replace(())
        else:
            self._found = _listing(folder)
            self._replace(read_folder(folder), at_start=True)

    @classmethod
    def configured(cls, settings: Settings, *, clock: Callable[[], float] = time.time) -> KeyRing:
        """Return the ring that the settings describe; raises SetupError if a key is unusable."""
        fixed = [
            secret_key(secret.encode(), settings.jwt_algorithm, source=name)
            for name, secret in (
                ("JWT_SECRET", settings.jwt_secret),
                ("JWT_SECRET_PREVIOUS", settings.jwt_secret_previous),
            )
            if secret
        ]
        return cls(
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            fixed=fixed,
            folder=Path(settings.jwt_keys_dir) if settings.jwt_keys_dir else None,
            overlap_s=settings.jwt_key_overlap_minutes * 60,
            activation_s=settings.jwt_key_activation_s,
            clock=clock,
        )

    # -- tokens --------------------------------------------------------------------------------

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return an access token with these claims, our `iss` and our `aud`."""
        key = self.signing
        return jwt.encode(
            {**claims, "iss": self._issuer, "aud": self._audience},
            key.signing,
            algorithm=key.algorithm,
            headers={"kid": key.kid, "typ": TOKEN_TYPE},
        )

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that is good right now.

        Raises unauthorized (401) with the reason `token_expired`, `token_not_yet_valid`, or
        `token_invalid` for everything that says more about the sender than the sender may know.
        """
        if len(token) > TOKEN_LENGTH_MAX:
            raise refused("token_invalid", "The access token is not valid.")
        try:
            return self._verify(token)
        except jwt.InvalidTokenError:
            raise refused("token_invalid", "The access token is not valid.") from None

    def _verify(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        key = self._key_for(header.get("kid"))
        kind = header.get("typ")
        if (
            key is None
            or header.get("alg") != key.algorithm
            or "crit" in header
            or not isinstance(kind, str)
            or kind.lower() not in TOKEN_TYPES
        ):
            raise jwt.InvalidTokenError
        claims: dict[str, Any] = jwt.decode(
            token,
            key.verifying,
            algorithms=[key.algorithm],
            issuer=self._issuer,
            audience=self._audience,
            options={
                "require": ["exp", "iat", "sub", "iss", "aud"],
                # Times are compared below, with the ring's clock; `iat` is for people.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        now_s = self._clock()
        if _seconds(claims["exp"]) <= now_s:
            raise refused("token_expired", "The access token has expired.")
        if "nbf" in claims and _seconds(claims["nbf"]) > now_s + CLOCK_SKEW_S:
            raise refused("token_not_yet_valid", "The access token is not valid yet.")
        return claims

    def _key_for(self, kid: Any) -> Key | None:
        if not isinstance(kid, str):
            return None
        term = self._by_kid.get(kid)
        if term is None and self._clock() - self._looked_at_s >= LOOK_INTERVAL_S:
            # Another worker may know a key that appeared since we looked.
            self.refresh()
            term = self._by_kid.get(kid)
        if term is None or self._clock() >= term.ends_at_s:
            return None
        return term.key

    # -- keys ----------------------------------------------------------------------------------

    @property
    def signing(self) -> Key:
        """The key that signs now."""
        now_s = self._clock()
        began = [term for term in self._terms if term.signs and term.begins_at_s <= now_s]
        # A ring whose keys all begin later has to sign with one: nobody knows another.
        term = began[-1] if began else next(term for term in self._terms if term.signs)
        return term.key

    @property
    def terms(self) -> tuple[Term, ...]:
        """All keys with their times, the oldest first."""
        return self._terms

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as RFC 7517 has them: who verifies, and who soon signs."""
        now_s = self._clock()
        keys = [term.key.public for term in self._terms if now_s < term.ends_at_s]
        return {"keys": [key for key in keys if key is not None]}

    def refresh(self) -> bool:
        """Look into the folder again; says whether keys came or went.

        What cannot be read is logged and changes nothing: a half-copied file must not sign
        everybody out.
        """
        if self._folder is None:
            return False
        with self._lock:
            self._looked_at_s = self._clock()
            try:
                found = _listing(self._folder)
                if found == self._found:
                    return False
                keys = read_folder(self._folder)
            except SetupError as error:
                log.error("the keys stay as they were: %s", error.message)  # noqa: TRY400
                return False
            before = set(self._by_kid)
            self._found = found
            self._replace(keys)
            return before != set(self._by_kid)

    def _replace(self, keys: Sequence[Key], *, at_start: bool = False) -> None:
        if not keys and not self._fixed:
            raise SetupError("There is no key to sign access tokens with.", exit_code=EXIT_USAGE)
        now_s = self._clock()
        begins: list[float] = []
        for key in keys:
            made_at_s = key.made_at_s or 0.0
            # A key that was there before us is known to the others; one that comes while we run
            # may be unknown to them for as long again, whenever it was made.
            seen_at_s = self._first_seen_s.setdefault(key.kid, 0.0 if at_start else now_s)
            begins.append(max(made_at_s, seen_at_s) + self._activation_s)
        terms = [
            Term(key, begin, min(begins[index + 1 :], default=float("inf")) + self._overlap_s)
            for index, (key, begin) in enumerate(zip(keys, begins, strict=True))
        ]
        if keys:  # secrets beside a folder are left from before it: they verify, for as long as set
            terms = [Term(key, 0.0, float("inf"), signs=False) for key in self._fixed] + terms
        else:
            terms = [
                Term(key, 0.0, float("inf"), signs=index == 0)
                for index, key in enumerate(self._fixed)
            ]
        self._first_seen_s = {key.kid: self._first_seen_s[key.kid] for key in keys}
        self._terms = tuple(terms)
        self._by_kid = {term.key.kid: term for term in terms}


def refused(reason: str, message: str) -> ApiError:
    """Say why a token is not taken (401 unauthorized), as RFC 6750 wants it said."""
    challenge = f'{CHALLENGE}, error_description="{message}"'
    return ApiError(
        "unauthorized", message, status=401, headers={"WWW-Authenticate": challenge}, reason=reason
    )


def _seconds(value: Any) -> float:
    """Return a NumericDate; what is none makes the token invalid."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise jwt.InvalidTokenError
    return float(value)


# -- one key ---------------------------------------------------------------------------------------


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


def _listing(folder: Path) -> tuple[tuple[str, int, int], ...]:
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
