"""The keys that sign access tokens: which one signs, which ones still verify, since and until when.

From the settings come one secret that signs and one more that only verifies. From a directory
comes one file per key (key_files.py). There the newest signs, a little after it appeared, so that
every worker knows it before the first token with it comes; the one before it verifies until the
tokens that it signed have died.

A key has one algorithm and the token must name both. What else a token's header says of keys (jku,
x5u, jwk, x5c) is never looked at. Source: RFC 8725 (JWT best practice), RFC 9068 (access tokens).
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt

from sofinance.infra.command import EXIT_USAGE, SetupError
from sofinance.infra.errors import ApiError
from sofinance.infra.key_files import Key, listing, read_folder, secret_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sofinance.config import Settings

log = logging.getLogger(__name__)

TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068 calls it so
TOKEN_TYPES = frozenset({TOKEN_TYPE, "application/at+jwt"})
TOKEN_LENGTH_MAX = 4_096
# Between clocks of workers; none for expiry, which only ever costs a client a refresh.
CLOCK_SKEW_S = 60
# A token that names a key we do not know makes us look again, but not more often than this.
LOOK_INTERVAL_S = 1.0
CHALLENGE = 'Bearer realm="sofinance", error="invalid_token"'


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
            self._found = listing(folder)
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
                found = listing(self._folder)
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
