"""Signing in, and who one is."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit, passwords, sessions, throttle
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Id, Timestamp
from sofinance.infra.http import Call, Routes

routes = Routes()


class Credentials(Schema):
    """An address and its password."""

    email = fields.Email(required=True, validate=validate.Length(max=254))
    password = fields.Str(required=True, validate=validate.Length(1, 128), load_only=True)


class User(Schema):
    """A user, as others may see one."""

    id = Id(required=True)
    org_id = Id(required=True)
    email = fields.Str(required=True)
    first_name = fields.Str(required=True)
    last_name = fields.Str(required=True)
    role = fields.Str(required=True)
    is_active = fields.Bool(required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class Tokens(Schema):
    """An access token, to send as ``Authorization: Bearer``, and what renews it, once."""

    access_token = fields.Str(required=True)
    refresh_token = fields.Str(required=True)
    token_type = fields.Str(required=True)
    expires_in = fields.Int(required=True, metadata={"description": "Seconds."})
    refresh_expires_in = fields.Int(required=True, metadata={"description": "Seconds."})


class SignedIn(Tokens):
    """The tokens of a session, and whose it is."""

    user = fields.Nested(User, required=True)


@routes.endpoint(
    "POST", "/auth/login", public=True, body=Credentials(), returns=SignedIn(), idempotent=False,
    limit="sign_in", refuses=(401,),
)  # fmt: skip
async def login(call: Call) -> Any:
    """Sign in with an address and a password.

    401 `invalid_credentials` for an unknown address, a wrong password and a disabled user alike:
    the answer, and the time it takes, do not tell which. 429 `rate_limited` after ten wrong tries.
    """
    attempt = await throttle.attempt(call.limiter, call.body["email"], call.ip)
    async with call.untenanted() as conn:
        found = await q.auth.find_sign_in(conn, email=call.body["email"])
    user = stored = None
    if found is not None:
        async with call.tenant(found.org_id) as conn:
            stored = await q.auth.get_credentials(conn, org_id=found.org_id, user_id=found.user_id)
            user = await q.auth.get_user(conn, org_id=found.org_id, user_id=found.user_id)
    matches = await passwords.verify_password(
        call.body["password"], stored.password_hash if stored else None
    )
    if user is None or not matches or not user.is_active:
        raise ApiError("invalid_credentials", "The address or the password is wrong.", status=401)
    await attempt.succeeded()
    async with call.tenant(user.org_id, user_id=user.id) as conn:
        tokens = await sessions.begin(
            call, conn, org_id=user.org_id, user_id=user.id, kind="password"
        )
        await audit.write(
            call, conn, org_id=user.org_id, user_id=user.id, session_id=tokens["session_id"],
            action="auth.login", entity="auth", entity_id=tokens["session_id"],
        )  # fmt: skip
    return {**tokens, "user": user}


@routes.endpoint("GET", "/auth/me", any_user=True, gate_free=True, returns=User())
async def get_me(call: Call) -> Any:
    """Get the caller."""
    return await q.auth.get_user(call.conn, org_id=call.org_id, user_id=call.user_id)
