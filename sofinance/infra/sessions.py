"""Sessions: what a sign-in begins, the two tokens that it hands out, and how they are renewed.

An access token lives for minutes and names its session; a refresh token is good for one renewal.
Two who have the same refresh token cannot be told apart, so the second one ends the session for
both: whoever has the password signs in again, whoever stole the token does not.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Literal

from sofinance import queries as q
from sofinance.infra import audit, metrics
from sofinance.infra.errors import ApiError
from sofinance.infra.guard import make_secret, read_opaque, unauthorized, write_opaque
from sofinance.infra.notify import tell

if TYPE_CHECKING:
    from sofinance.infra.http import Call
    from sofinance.infra.sql import Connection

REFRESH_TOKEN = "sfr"  # noqa: S105 - what such a token begins with
BEARER = "bearer"
Kind = Literal["password", "token", "till"]


async def begin(  # noqa: PLR0913 - all that is known of a sign-in
    call: Call,
    conn: Connection,
    *,
    org_id: int,
    user_id: int,
    kind: Kind,
    till_id: int | None = None,
    has_second_factor: bool = False,
) -> dict[str, Any]:
    """Begin a session for somebody who has proven who they are; returns its tokens.

    `access_token`, `refresh_token`, `token_type`, `expires_in` and `refresh_expires_in` (seconds),
    and `session_id`. `conn` is in a transaction of the organisation; the user's row is locked in
    it, so that of many sign-ins at once no more than SESSION_COUNT_MAX stay: the oldest end.
    Raises unauthorized (401) for a user who is disabled by now.
    """
    settings = call.settings
    found = await q.auth.lock_user(conn, org_id=org_id, user_id=user_id, password_hash=None)
    if found is None:
        raise unauthorized("This user is disabled.")
    secret, token_hash = make_secret()
    session = await q.auth.begin_session(
        conn,
        org_id=org_id,
        user_id=user_id,
        kind=kind,
        till_id=till_id,
        has_second_factor=has_second_factor,
        device=call.user_agent,
        ip=address_of(call),
        idle_minutes=settings.session_idle_minutes,
        life_minutes=settings.session_life_minutes,
        token_hash=token_hash,
    )
    if kind != "till":
        await _tell_if_elsewhere(call, conn, org_id, user_id, session.id)
    await q.auth.end_surplus_sessions(
        conn, org_id=org_id, user_id=user_id, limit=settings.session_count_max
    )
    return _tokens(call, org_id=org_id, user_id=user_id, session=session, secret=secret)


async def _tell_if_elsewhere(
    call: Call, conn: Connection, org_id: int, user_id: int, session_id: int
) -> None:
    """Tell a user who has had sessions that this one is from elsewhere."""
    device = call.user_agent
    is_elsewhere = await q.sessions.is_elsewhere(
        conn, org_id=org_id, user_id=user_id, id=session_id, device=device, ip=address_of(call)
    )
    if is_elsewhere:
        await tell(
            conn, org_id=org_id, user_ids=[user_id], type="sign_in",
            title="Somebody signed in as you from elsewhere",
            message=f"From {call.ip or 'an unknown address'}, with {device or 'no name'}. "
            "If it was not you, end your sessions and change your password.",
            data={"session_id": session_id, "ip": call.ip, "device": device},
        )  # fmt: skip


def address_of(call: Call) -> Any:
    """Return the client's address."""
    return None if call.ip is None else ipaddress.ip_interface(call.ip)


async def renew(call: Call, refresh_token: str) -> dict[str, Any]:
    """Use a refresh token up and return new tokens of its session, like `begin`.

    Raises invalid_refresh_token (401) for one that is none, or whose session has ended; and
    refresh_token_reused (401) for one that was used before: its session has ended by then.
    """
    opaque = read_opaque(REFRESH_TOKEN, refresh_token)
    if opaque is None:
        raise _invalid()
    org_id, session_id = opaque.org_id, opaque.id
    async with call.tenant(org_id) as conn:
        found = await q.auth.lock_refresh_token(
            conn, org_id=org_id, session_id=session_id, token_hash=opaque.digest
        )
        if found is None:
            raise _invalid()
        if found.is_used:
            await _end_reused(call, conn, org_id, found.user_id, session_id)
        elif found.is_live:
            await q.auth.use_refresh_token(conn, org_id=org_id, token_hash=opaque.digest)
            secret, token_hash = make_secret()
            session = await q.auth.renew_session(
                conn,
                org_id=org_id,
                session_id=session_id,
                idle_minutes=call.settings.session_idle_minutes,
                token_hash=token_hash,
            )
    # Raised here, since what is raised inside undoes what ended the session.
    if found.is_used:
        metrics.SIGN_INS.labels("refresh_token_reused").inc()
        raise ApiError(
            "refresh_token_reused",
            "This refresh token was used before, so its session has ended. Sign in again.",
            status=401,
        )
    if not found.is_live:
        raise _invalid()
    return _tokens(call, org_id=org_id, user_id=found.user_id, session=session, secret=secret)


async def _end_reused(
    call: Call, conn: Connection, org_id: int, user_id: int, session_id: int
) -> None:
    """End a session whose refresh token somebody else has, too; told once."""
    ended = await q.sessions.end_session(
        conn, org_id=org_id, user_id=user_id, id=session_id, revoked_why="reuse"
    )
    if ended:
        await tell(
            conn, org_id=org_id, user_ids=[user_id], type="refresh_token_reused",
            title="One of your sessions was ended",
            message="Its refresh token was used twice, so somebody else may have it. "
            "Sign in again; if this happens again, change your password.",
            data={"session_id": session_id, "ip": call.ip},
        )  # fmt: skip
        await audit.write(
            call, conn, org_id=org_id, user_id=user_id, session_id=session_id,
            action="auth.refresh", entity="sessions", entity_id=session_id,
            after={"refused": "refresh_token_reused"}, severity="CRITICAL",
        )  # fmt: skip


def current(call: Call) -> int:
    """Return the caller's session; raises session_required (403) for an API key, which has none."""
    session_id = call.principal.session_id
    if session_id is None:
        raise ApiError(
            "session_required",
            "An API key cannot do this; sign in with the password.",
            status=403,
        )
    return session_id


def _tokens(call: Call, *, org_id: int, user_id: int, session: Any, secret: str) -> dict[str, Any]:
    access_token, expires_in_s = call.guard.issue_token(
        org_id=org_id, user_id=user_id, session_id=session.id, now=call.now
    )
    return {
        "access_token": access_token,
        "refresh_token": write_opaque(REFRESH_TOKEN, org_id, session.id, secret),
        "token_type": BEARER,
        "expires_in": min(expires_in_s, session.life_s),
        "refresh_expires_in": session.idle_s,
        "session_id": session.id,
    }


def _invalid() -> ApiError:
    return ApiError(
        "invalid_refresh_token",
        "The refresh token is not good, or its session has ended. Sign in again.",
        status=401,
    )
