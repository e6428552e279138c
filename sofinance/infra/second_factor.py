"""The second factor at a sign-in: a code of an authenticator app, or one of the recovery codes.

Each code is good once: the row that remembers it is changed under its lock, so of many requests
with one code the database lets a single one through.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra import audit, metrics, throttle, totp
from sofinance.infra.db import Mode
from sofinance.infra.errors import ApiError
from sofinance.infra.secretbox import SealError

if TYPE_CHECKING:
    from sofinance.infra.http import Call
    from sofinance.infra.secretbox import SecretBox
    from sofinance.infra.sql import Connection

PURPOSE = "totp"
CODE_LENGTH_MAX = 40


async def prove(call: Call, *, org_id: int, user_id: int, code: str | None) -> bool:
    """Check the second factor of somebody whose password was right, in a public endpoint.

    Returns whether there is one. Raises second_factor_required (401) without a code, invalid_code
    (401) for one that is wrong or was used, rate_limited (429) after ten wrong ones.
    """
    async with call.tenant(org_id, mode=Mode.READ) as conn:
        factor = await q.second_factor.find_factor(conn, org_id=org_id, user_id=user_id)
    if factor is None or not factor.is_confirmed:
        return False
    if code is None:
        raise required()
    attempt = await guess(call, org_id=org_id, user_id=user_id)
    async with call.tenant(org_id, user_id=user_id) as conn:
        is_good = await check(conn, call.secret_box, org_id, user_id, code)
        if not is_good:
            await audit.write(
                call, conn, org_id=org_id, user_id=user_id, action="auth.login", entity="users",
                entity_id=user_id, after={"refused": "invalid_code"}, severity="WARNING",
            )  # fmt: skip
    if not is_good:
        metrics.SIGN_INS.labels("invalid_code").inc()
        raise invalid_code()
    await attempt.succeeded()
    return True


async def demand(call: Call, conn: Connection, code: str) -> None:
    """Use up a code of the caller's; raises invalid_code (401)."""
    if not await check(conn, call.secret_box, call.org_id, call.user_id, code):
        raise invalid_code()


async def guess(call: Call, *, org_id: int, user_id: int) -> throttle.Attempt:
    """Charge a guess at somebody's code, apart from those at the password: it was right."""
    account = f"code:{org_id}:{user_id}"
    return await throttle.attempt(call.limiter, account, call.ip, everywhere=throttle.CODES)


async def check(
    conn: Connection, secret_box: SecretBox, org_id: int, user_id: int, code: str
) -> bool:
    """Use up a code of a user's confirmed second factor; False if it is not good, or not any more.

    Raises encryption_key_missing (503) where the secret cannot be read.
    """
    key = {"org_id": org_id, "user_id": user_id}
    digest = totp.recovery_digest(code)
    if digest is not None:
        return await q.second_factor.use_recovery_code(conn, **key, code_hash=digest) == 1
    factor = await q.second_factor.find_factor(conn, **key)
    if factor is None or not factor.is_confirmed:
        return False
    secret = unseal(secret_box, factor.secret, **key)
    step = totp.accept(secret, code, last_step=factor.last_step, now=datetime.now(UTC))
    if step is None:
        return False
    sealed = factor.secret
    if secret_box.is_stale(sealed):
        sealed = secret_box.seal(secret, purpose=PURPOSE, **key)
    return await q.second_factor.use_step(conn, **key, last_step=step, secret=sealed) == 1


def unseal(secret_box: SecretBox, sealed: bytes, *, org_id: int, user_id: int) -> bytes:
    """Read an authenticator's secret; raises encryption_key_missing (503) without its key."""
    try:
        return secret_box.open(sealed, purpose=PURPOSE, org_id=org_id, user_id=user_id)
    except SealError:
        raise ApiError(
            "encryption_key_missing",
            "This service does not have the key of your authenticator's secret; its operator "
            "sets DATA_ENCRYPTION_KEY_PREVIOUS. A recovery code works.",
            status=503,
        ) from None


def required() -> ApiError:
    """Say that the password is not enough."""
    return ApiError(
        "second_factor_required", "Sign in with a code of your second factor.", status=401
    )


def invalid_code() -> ApiError:
    """Say that a code is not good: wrong, too old, or used before."""
    return ApiError("invalid_code", "This code is wrong, or was used already.", status=401)
