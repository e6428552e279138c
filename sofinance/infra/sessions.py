"""Sessions: what a sign-in begins, and the two tokens that it hands out.

An access token lives for minutes and names its session; a refresh token is good for one renewal.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Literal

from sofinance import queries as q
from sofinance.infra.guard import make_secret, unauthorized, write_opaque

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
    if await q.auth.lock_user(conn, org_id=org_id, user_id=user_id) is None:
        raise unauthorized("This user is disabled.")
    secret, token_hash = make_secret()
    session = await q.auth.begin_session(
        conn,
        org_id=org_id,
        user_id=user_id,
        kind=kind,
        till_id=till_id,
        has_second_factor=has_second_factor,
        # Bytes that are no UTF-8 came in as surrogates.
        device=call.user_agent.encode("utf-8", "replace").decode(),
        ip=None if call.ip is None else ipaddress.ip_interface(call.ip),
        idle_minutes=settings.session_idle_minutes,
        life_minutes=settings.session_life_minutes,
        token_hash=token_hash,
    )
    await q.auth.end_surplus_sessions(
        conn, org_id=org_id, user_id=user_id, limit=settings.session_count_max
    )
    return tokens(call, org_id=org_id, user_id=user_id, session=session, secret=secret)


def tokens(call: Call, *, org_id: int, user_id: int, session: Any, secret: str) -> dict[str, Any]:
    """Return what a client gets of a session (its id, its seconds left) and a refresh secret."""
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
