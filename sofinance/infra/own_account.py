"""What somebody changes about how they sign in: in a session of their own, the password again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra import passwords, throttle
from sofinance.infra.errors import ApiError
from sofinance.infra.guard import forbidden

if TYPE_CHECKING:
    from sofinance.infra.http import Call


def own_session(call: Call) -> int:
    """Return the session of a person; raises forbidden (403) for a key, and on a till."""
    principal = call.principal
    if principal.session_id is None or principal.till_id is not None:
        raise forbidden("Sign in with your password to do this.")
    return principal.session_id


async def confirm_password(call: Call, password: str) -> str:
    """Check the caller's own password; returns their address.

    Raises invalid_credentials (401), and rate_limited (429) like a sign-in.
    """
    user = await q.auth.get_credentials(call.conn, org_id=call.org_id, user_id=call.user_id)
    attempt = await throttle.attempt(call.limiter, user.email, call.ip)
    if not await passwords.verify_password(password, user.password_hash):
        raise ApiError("invalid_credentials", "The password is wrong.", status=401)
    await attempt.succeeded()
    return user.email
