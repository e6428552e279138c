"""What somebody changes about how they sign in: in a session of their own, the password again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra import audit, passwords, sessions, throttle
from sofinance.infra.db import Mode
from sofinance.infra.errors import ApiError
from sofinance.infra.guard import forbidden

if TYPE_CHECKING:
    from sofinance.infra.http import Call
    from sofinance.infra.sql import Connection


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Somebody who has just shown their password."""

    email: str
    first_name: str
    last_name: str
    password_hash: str

    async def lock(self, call: Call, conn: Connection) -> None:
        """Hold the caller's row, if the password is still the one that was shown."""
        locked = await q.auth.lock_user(
            conn, org_id=call.org_id, user_id=call.user_id, password_hash=self.password_hash
        )
        if locked is None:
            raise wrong_password()


def own_session(call: Call) -> int:
    """Return the session of a person; raises forbidden (403) for a key, and on a till."""
    session_id = sessions.current(call)
    if call.principal.till_id is not None:
        raise forbidden("Sign in with your password to do this.")
    return session_id


async def confirm_password(call: Call, password: str, *, action: str) -> Confirmed:
    """Check the caller's own password, in an endpoint with own_transactions.

    Raises invalid_credentials (401), which is audited as `action`, and rate_limited (429) like a
    sign-in.
    """
    async with call.transaction(mode=Mode.READ) as conn:
        user = await q.auth.get_credentials(conn, org_id=call.org_id, user_id=call.user_id)
    attempt = await throttle.attempt(call.limiter, user.email, call.ip)
    if not await passwords.verify_password(password, user.password_hash):
        async with call.transaction() as conn:
            await audit.write(
                call, conn, org_id=call.org_id, user_id=call.user_id,
                session_id=call.principal.session_id, action=action, entity="users",
                entity_id=call.user_id, after={"refused": "invalid_credentials"},
                severity="WARNING",
            )  # fmt: skip
        raise wrong_password()
    await attempt.succeeded()
    return Confirmed(user.email, user.first_name, user.last_name, user.password_hash)


def wrong_password() -> ApiError:
    """Say that it is not the caller's password."""
    return ApiError("invalid_credentials", "The password is wrong.", status=401)
