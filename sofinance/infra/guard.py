"""Who calls, and what they may do: access tokens, and permissions by role."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from sofinance.infra.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

ADMIN = "ADMIN"
# Verified tokens that are remembered: some 600 bytes each.
TOKEN_COUNT_MAX = 10_000
TOKEN_LENGTH_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, as a verified token says."""

    org_id: int
    user_id: int
    role: str
    permissions: frozenset[str]
    branch_id: int | None
    expires_at_s: float

    def allows(self, permission: str) -> bool:
        """Say whether the caller may; an administrator may everything."""
        return self.role == ADMIN or permission in self.permissions


class Guard:
    """Issues access tokens and verifies them; remembers which it has verified."""

    def __init__(
        self, *, secret: str, algorithm: str, issuer: str, audience: str, token_minutes: int
    ) -> None:
        self._secret, self._algorithm = secret, algorithm
        self._issuer, self._audience = issuer, audience
        self._token_s = token_minutes * 60
        self._permissions: dict[str, frozenset[str]] = {}
        # By the whole header: a lookup instead of an HMAC and two JSON documents.
        self._known: OrderedDict[str, Principal] = OrderedDict()

    def learn_roles(self, grants: Iterable[tuple[str, str]]) -> None:
        """Replace what each role may do, from (role, permission) pairs."""
        permissions: dict[str, set[str]] = {}
        for role, permission in grants:
            permissions.setdefault(role, set()).add(permission)
        self._permissions = {role: frozenset(names) for role, names in permissions.items()}
        self._permissions[ADMIN] = frozenset().union(*self._permissions.values())
        self.forget()

    def forget(self) -> None:
        """Verify every token anew from here on."""
        self._known.clear()

    def issue_token(
        self, *, user_id: int, org_id: int, role: str, now: datetime, branch_id: int | None = None
    ) -> tuple[str, int]:
        """Return an access token and the seconds it is good for."""
        issued_at_s = int(now.timestamp())
        claims = {
            "sub": str(user_id),
            "org": org_id,
            "role": role,
            "branch": branch_id,
            "iss": self._issuer,
            "aud": self._audience,
            "iat": issued_at_s,
            "exp": issued_at_s + self._token_s,
        }
        return jwt.encode(claims, self._secret, algorithm=self._algorithm), self._token_s

    def authenticate(self, authorization: str | None) -> Principal:
        """Return who calls; raises unauthorized (401) without a token that is good right now."""
        if authorization is None:
            raise unauthorized("This needs an access token: Authorization: Bearer ...")
        known = self._known.get(authorization)
        if known is None:
            known = self._verify(authorization)
            self._known[authorization] = known
            if len(self._known) > TOKEN_COUNT_MAX:
                self._known.popitem(last=False)
        elif known.expires_at_s <= time.time():
            del self._known[authorization]
            raise unauthorized("The access token has expired.")
        else:
            self._known.move_to_end(authorization)
        return known

    def _verify(self, authorization: str) -> Principal:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_LENGTH_MAX:
            raise unauthorized("This needs an access token: Authorization: Bearer ...")
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[self._algorithm],
                issuer=self._issuer,
                audience=self._audience,
                # When it was issued is for people: another worker's clock may be ahead of ours.
                options={"require": ["exp", "iat", "sub"], "verify_iat": False},
            )
            return self._principal(claims)
        except jwt.ExpiredSignatureError:
            raise unauthorized("The access token has expired.") from None
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            raise unauthorized("The access token is not valid.") from None

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        role = str(claims["role"])
        branch_id = claims.get("branch")
        return Principal(
            org_id=int(claims["org"]),
            user_id=int(claims["sub"]),
            role=role,
            permissions=self._permissions.get(role, frozenset()),
            branch_id=None if branch_id is None else int(branch_id),
            expires_at_s=float(claims["exp"]),
        )


def unauthorized(message: str) -> ApiError:
    """Say that the caller did not prove who they are."""
    return ApiError(
        "unauthorized",
        message,
        status=401,
        headers={"WWW-Authenticate": 'Bearer realm="sofinance"'},
    )


def require(principal: Principal, permission: str) -> None:
    """Refuse (403 forbidden) unless the caller may."""
    if not principal.allows(permission):
        raise ApiError(
            "forbidden", f"This needs the permission {permission}.", status=403,
            permission=permission,
        )  # fmt: skip
