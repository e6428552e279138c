"""Who calls, and what they may do: access tokens, API keys, and what each may right now.

A credential says who; what they may do is read from the database once and remembered with the
credential. The message that opens each transaction has the database confirm that it is still so
(`admit`), so what is remembered is never wrong, in however many workers.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sofinance import queries as q
from sofinance.infra.db import Mode, Scope
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import ID_MAX
from sofinance.infra.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sofinance.config import Settings
    from sofinance.infra.db import Database
    from sofinance.infra.http import GateFree

ADMIN = "ADMIN"
# Verified credentials that are remembered: some 3 kB each, most of it the permissions.
CREDENTIAL_COUNT_MAX = 10_000
CREDENTIAL_LENGTH_MAX = 4_096
SECRET_BYTES = 32
API_KEY = "sfk"
COUNTED_LENGTH = len(f"bearer {API_KEY}_")
# What of the service is open to somebody who has something to do first.
CHANGE_PASSWORD = "password_change"  # noqa: S105 - no secret
ENROL_SECOND_FACTOR, SHOW_SECOND_FACTOR = "second_factor", "second_factor_code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller, as a credential and the database say.

    `branch_ids` is None for all branches. `gate` names what the caller has to do before anything
    else: "password_change", "second_factor" (enrol one) or "second_factor_code" (sign in with it).
    """

    org_id: int
    user_id: int
    role: str
    permissions: frozenset[str]
    branch_ids: frozenset[int] | None
    session_id: int | None
    api_key_id: int | None
    till_id: int | None
    has_second_factor: bool
    gate: str | None
    expires_at_s: float
    scope: Scope

    def passes(self, gate_free: GateFree) -> bool:
        """Say whether what the caller has to do first can wait, at an endpoint so declared."""
        return gate_free is True or (bool(gate_free) and self.gate != CHANGE_PASSWORD)

    def allows(self, permission: str) -> bool:
        """Say whether the caller may."""
        return permission in self.permissions


NOBODY = Principal(
    org_id=0, user_id=0, role="", permissions=frozenset(), branch_ids=frozenset(), session_id=None,
    api_key_id=None, till_id=None, has_second_factor=False, gate=None, expires_at_s=0.0,
    scope=Scope(org_id=0),
)  # fmt: skip
# What a caller is told who has something else to do first.
GATES = {
    "password_change": (403, "password_change_required", "Change your password first."),
    "second_factor": (401, "mfa_required", "Your role needs a second factor: enrol one first."),
    "second_factor_code": (
        401,
        "second_factor_required",
        "Sign in with a code of your second factor.",
    ),
}


@dataclass(frozen=True, slots=True)
class Opaque:
    """A credential that is no JWT: ``<prefix>_<organisation>_<row>_<secret>``."""

    org_id: int
    id: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says."""

    org_id: int
    user_id: int
    session_id: int
    expires_at_s: float


class Guard:
    """Issues access tokens, verifies credentials, remembers what their holders may do."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._db = db
        self.keys = KeyRing.configured(settings)
        self._token_s = settings.access_token_minutes * 60
        self._second_factor_roles = settings.second_factor_roles
        # By the whole header: a lookup instead of an HMAC, two JSON documents and a query.
        self._known: OrderedDict[str, Principal] = OrderedDict()
        self.hits = self.misses = 0

    def issue_token(
        self, *, org_id: int, user_id: int, session_id: int, now: datetime
    ) -> tuple[str, int]:
        """Return an access token of a session and the seconds it is good for."""
        issued_at_s = int(now.timestamp())
        claims = {
            "sub": str(user_id),
            "org": org_id,
            "sid": session_id,
            "iat": issued_at_s,
            "exp": issued_at_s + self._token_s,
        }
        return self.keys.sign(claims), self._token_s

    def recall(self, authorization: str | None) -> Principal | None:
        """Return the caller if the credential is remembered; None says to `resolve` it.

        Raises unauthorized (401) without a credential, and for one that has expired since.
        """
        if authorization is None:
            raise unauthorized("This needs an access token: Authorization: Bearer ...")
        known = self._known.get(authorization)
        if known is None:
            self.misses += 1
            return None
        self.hits += 1
        if known.expires_at_s <= time.time():
            del self._known[authorization]
            if known.api_key_id is not None:
                return None  # a key is looked up again each day
            raise unauthorized("The access token has expired.")
        self._known.move_to_end(authorization)
        return known

    async def resolve(self, authorization: str) -> Principal:
        """Verify a credential, read what its holder may do, and remember it.

        Raises unauthorized (401) for one that is not good right now.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > CREDENTIAL_LENGTH_MAX:
            raise unauthorized("This needs an access token: Authorization: Bearer ...")
        if token.startswith(f"{API_KEY}_"):
            principal = await self._resolve_key(token)
        else:
            principal = await self._resolve_session(self._verify(token))
        self._known[authorization] = principal
        if len(self._known) > CREDENTIAL_COUNT_MAX:
            self._known.popitem(last=False)
        return principal

    def forget(self, authorization: str | None = None) -> None:
        """Resolve a credential, or every one, anew from here on."""
        if authorization is None:
            self._known.clear()
        else:
            self._known.pop(authorization, None)

    def _verify(self, token: str) -> Claims:
        try:
            return read_claims(self.keys.verify(token))
        except (KeyError, TypeError, ValueError):
            raise unauthorized("The access token is not valid.") from None

    async def resolve_session(self, org_id: int, user_id: int, session_id: int) -> Principal:
        """Return who has a session, as if they had come with an access token of now.

        Raises unauthorized (401) when it has ended.
        """
        expires_at_s = time.time() + self._token_s
        return await self._resolve_session(Claims(org_id, user_id, session_id, expires_at_s))

    async def _resolve_session(self, claims: Claims) -> Principal:
        async with self._db.tenant(claims.org_id, mode=Mode.READ) as conn:
            found = await q.auth.resolve_session(
                conn, org_id=claims.org_id, session_id=claims.session_id, user_id=claims.user_id
            )
        if found is None:
            raise unauthorized("The session has ended. Sign in again.")
        gate = None
        if found.must_change_password:
            gate = CHANGE_PASSWORD
        elif found.till_id is not None or found.has_second_factor:
            gate = None  # a till is itself something that one has
        elif found.is_enrolled:
            gate = SHOW_SECOND_FACTOR
        elif found.role in self._second_factor_roles:
            gate = ENROL_SECOND_FACTOR
        return make_principal(
            claims.org_id, found, session_id=claims.session_id, api_key_id=None,
            till_id=found.till_id, has_second_factor=found.has_second_factor, gate=gate,
            expires_at_s=claims.expires_at_s,
        )  # fmt: skip

    async def _resolve_key(self, token: str) -> Principal:
        opaque = read_opaque(API_KEY, token)
        if opaque is None:
            raise unauthorized("The API key is not valid.")
        async with self._db.tenant(opaque.org_id, mode=Mode.READ) as conn:
            found = await q.auth.resolve_api_key(
                conn, org_id=opaque.org_id, api_key_id=opaque.id, secret_hash=opaque.digest
            )
        if found is None:
            raise unauthorized("The API key is not valid.")
        today = datetime.now(UTC).date()
        if found.last_used_on != today:
            # In a transaction of its own, so that no posting of the key's waits for another's.
            async with self._db.tenant(opaque.org_id) as conn:
                await q.api_keys.note_use(conn, org_id=opaque.org_id, id=opaque.id)
        tomorrow = datetime.combine(today + timedelta(days=1), datetime.min.time(), UTC)
        return make_principal(
            opaque.org_id, found, session_id=None, api_key_id=opaque.id, till_id=None,
            has_second_factor=False, gate=None,
            expires_at_s=min(found.expires_at, tomorrow).timestamp(),
        )  # fmt: skip


def make_principal(  # noqa: PLR0913 - all that is known of a caller
    org_id: int,
    found: Any,
    *,
    session_id: int | None,
    api_key_id: int | None,
    till_id: int | None,
    has_second_factor: bool,
    gate: str | None,
    expires_at_s: float,
) -> Principal:
    """Return the caller from what was read of a session or a key."""
    branch_ids = None if found.branch_ids is None else frozenset(found.branch_ids)
    return Principal(
        org_id=org_id,
        user_id=found.user_id,
        role=found.role,
        permissions=frozenset(found.permissions),
        branch_ids=branch_ids,
        session_id=session_id,
        api_key_id=api_key_id,
        till_id=till_id,
        has_second_factor=has_second_factor,
        gate=gate,
        expires_at_s=expires_at_s,
        scope=Scope(
            org_id=org_id,
            user_id=found.user_id,
            branch_ids=branch_ids,
            session_id=session_id,
            api_key_id=api_key_id,
            till_id=till_id,
            access_version=found.access_version,
        ),
    )


def read_claims(claims: Mapping[str, Any]) -> Claims:
    """Return what we need of a token's claims; raises KeyError, TypeError or ValueError."""
    org_id, user_id, session_id = int(claims["org"]), int(claims["sub"]), int(claims["sid"])
    if not all(0 < number <= ID_MAX for number in (org_id, user_id, session_id)):
        raise ValueError("an id is out of range")
    return Claims(org_id, user_id, session_id, float(claims["exp"]))


def make_secret() -> tuple[str, bytes]:
    """Return a secret of 256 random bits, and the digest under which it is kept."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    return secret, digest(secret)


def digest(secret: str) -> bytes:
    """Return the digest under which a random secret is kept."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


def write_opaque(prefix: str, org_id: int, row_id: int, secret: str) -> str:
    """Return a credential that carries where it is looked up."""
    return f"{prefix}_{org_id}_{row_id}_{secret}"


def read_opaque(prefix: str, token: str) -> Opaque | None:
    """Take a credential apart; None if it is none of this prefix."""
    parts = token.split("_", 3)
    if len(parts) != 4 or parts[0] != prefix or len(token) > CREDENTIAL_LENGTH_MAX:
        return None
    numbers = [
        int(part) if part.isascii() and part.isdecimal() and len(part) <= len(str(ID_MAX)) else 0
        for part in parts[1:3]
    ]
    if not all(0 < number <= ID_MAX for number in numbers):
        return None
    return Opaque(numbers[0], numbers[1], digest(parts[3]))


def is_looked_up(authorization: str) -> bool:
    """Say whether only the database can tell if a credential is good: it is an API key."""
    return authorization[:COUNTED_LENGTH].lower().startswith(f"bearer {API_KEY}_")


def unauthorized(message: str) -> ApiError:
    """Say that the caller did not prove who they are."""
    return ApiError(
        "unauthorized",
        message,
        status=401,
        headers={"WWW-Authenticate": 'Bearer realm="sofinance"'},
    )


def forbidden(message: str, **details: Any) -> ApiError:
    """Say that the caller may not do this."""
    return ApiError("forbidden", message, status=403, **details)
