"""Signing in, staying signed in, and who one is."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit, metrics, passwords, second_factor, sessions, throttle
from sofinance.infra.errors import ApiError, invalid_request
from sofinance.infra.fields import Id, Timestamp
from sofinance.infra.http import Call, Routes
from sofinance.infra.pace import Beat

routes = Routes()
ADDRESS = validate.Length(max=254)
PASSWORD = validate.Length(1, 128)
TOKEN = validate.Length(1, 200)
CODE = validate.Length(1, second_factor.CODE_LENGTH_MAX)
OF_CODE = {"description": "Of the authenticator app, or a recovery code; where one is enrolled."}


class Credentials(Schema):
    """An address and its password."""

    email = fields.Email(required=True, validate=ADDRESS)
    password = fields.Str(required=True, validate=PASSWORD, load_only=True)

    code = fields.Str(
        load_default=None, allow_none=True, validate=CODE, load_only=True, metadata=OF_CODE
    )


class Renewal(Schema):
    """The refresh token that came last."""

    refresh_token = fields.Str(required=True, validate=TOKEN, load_only=True)


class TokenRequest(Schema):
    """What OAuth2 tools send; RFC 6749 wants everything else ignored, `scope` included."""

    class Meta:
        unknown = EXCLUDE

    grant_type = fields.Str(
        required=True, validate=validate.Length(1, 100),
        metadata={"description": "password or refresh_token."},
    )  # fmt: skip
    username = fields.Str(validate=ADDRESS, metadata={"description": "The address."})
    password = fields.Str(validate=PASSWORD, load_only=True)
    code = fields.Str(load_default=None, validate=CODE, load_only=True, metadata=OF_CODE)
    refresh_token = fields.Str(validate=TOKEN, load_only=True)


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


class Me(User):
    """The caller, and what they may do right now."""

    permissions = fields.List(fields.Str(), required=True)
    branch_ids = fields.List(
        Id(), required=True, allow_none=True, metadata={"description": "null: all branches."}
    )
    gate = fields.Str(
        required=True, allow_none=True,
        metadata={"description": "What has to be done first: password_change, second_factor."},
    )  # fmt: skip


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
    must_change_password = fields.Bool(
        required=True, metadata={"description": "True: nothing else is allowed until then."}
    )


@routes.endpoint(
    "POST", "/auth/login", public=True, body=Credentials(), returns=SignedIn(), idempotent=False,
    limit="sign_in", refuses=(401,),
)  # fmt: skip
async def login(call: Call) -> Any:
    """Sign in with an address and a password.

    401 `invalid_credentials` for an unknown address, a wrong password and a disabled user alike:
    the answer, and the time it takes, do not tell which. 401 `second_factor_required` where the
    user has enrolled one, and `invalid_code` for a code that is wrong or was used. 429
    `rate_limited` after ten wrong tries.
    """
    user, tokens = await sign_in(call, call.body["email"], call.body["password"], "password")
    return {**tokens, "user": user, "must_change_password": user.must_change_password}


@routes.endpoint(
    "POST", "/auth/refresh", public=True, body=Renewal(), returns=Tokens(), idempotent=False,
    limit="sign_in", refuses=(401,),
)  # fmt: skip
async def refresh(call: Call) -> Any:
    """Renew a session's tokens; each refresh token is good once.

    401 `refresh_token_reused` for one that was used before, which ends the session for everybody
    who has it; 401 `invalid_refresh_token` for any other that is not good.
    """
    return await sessions.renew(call, call.body["refresh_token"])


@routes.endpoint(
    "POST", "/auth/token", public=True, body=TokenRequest(), returns=Tokens(), idempotent=False,
    oauth=True, limit="sign_in",
)  # fmt: skip
async def get_token(call: Call) -> Any:
    """Sign in, or renew, as OAuth2 tools do: RFC 6749, grants `password` and `refresh_token`.

    The answer is the tokens without the envelope, and an error is RFC 6749's with our `code`.
    """
    match call.body["grant_type"]:
        case "password":
            username, password = demand(call, "username", "password")
            _, tokens = await sign_in(call, username, password, "token")
            return tokens
        case "refresh_token":
            (token,) = demand(call, "refresh_token")
            return await sessions.renew(call, token)
    raise ApiError(
        "unsupported_grant_type", "The grants are password and refresh_token.", status=400
    )


@routes.endpoint("GET", "/auth/me", any_user=True, gate_free=True, returns=Me())
async def get_me(call: Call) -> Any:
    """Get the caller, and what they may do with this token or key."""
    user = await q.auth.get_user(call.conn, org_id=call.org_id, user_id=call.user_id)
    branch_ids = call.principal.branch_ids
    return {
        **user,
        "permissions": sorted(call.permissions),
        "branch_ids": None if branch_ids is None else sorted(branch_ids),
        "gate": call.principal.gate,
    }


async def sign_in(
    call: Call, email: str, password: str, kind: sessions.Kind
) -> tuple[Any, dict[str, Any]]:
    """Return the user whom address and password prove, and the tokens of a new session.

    Raises invalid_credentials (401), on a beat, what second_factor.prove raises, and rate_limited
    (429).
    """
    beat = Beat()
    # As we lower it, here and where it is looked up: one account has one spelling to count.
    email = email.lower()
    attempt = await throttle.attempt(call.limiter, email, call.ip)
    async with call.untenanted() as conn:
        found = await q.auth.find_sign_in(conn, email=email)
    user = None
    if found is not None:
        async with call.tenant(found.org_id) as conn:
            user = await q.auth.get_credentials(conn, org_id=found.org_id, user_id=found.user_id)
    matches = await passwords.verify_password(password, user.password_hash if user else None)
    if user is None or not matches or not user.is_active:
        await refuse(call, user, "invalid_credentials")
        await beat.wait()
        raise invalid_credentials()
    await attempt.succeeded()
    has_second_factor = await second_factor.prove(
        call, org_id=user.org_id, user_id=user.id, code=call.body["code"]
    )
    is_old = passwords.needs_rehash(user.password_hash)
    password_hash = await passwords.hash_password(password) if is_old else None
    org_id, user_id = user.org_id, user.id
    async with call.tenant(org_id, user_id=user_id) as conn:
        locked = await q.auth.lock_user(
            conn, org_id=org_id, user_id=user_id, password_hash=user.password_hash
        )
        if locked is None:
            raise invalid_credentials()  # it was changed, or the user disabled, meanwhile
        if password_hash is not None:
            await q.auth.renew_password_hash(
                conn, org_id=org_id, user_id=user_id, password_hash=password_hash
            )
        tokens = await sessions.begin(
            call, conn, org_id=org_id, user_id=user_id, kind=kind,
            has_second_factor=has_second_factor,
        )  # fmt: skip
        session_id = tokens["session_id"]
        await audit.write(
            call, conn, org_id=org_id, user_id=user_id, session_id=session_id,
            action="auth.login", entity="sessions", entity_id=session_id, after={"kind": kind},
        )  # fmt: skip
    metrics.SIGN_INS.labels("succeeded").inc()
    return user, tokens


async def refuse(call: Call, user: Any, code: str) -> None:
    """Count a sign-in that failed, and write it down where it was tried on somebody we know."""
    metrics.SIGN_INS.labels(code).inc()
    if user is not None:
        async with call.tenant(user.org_id) as conn:
            await audit.write(
                call, conn, org_id=user.org_id, user_id=user.id, action="auth.login",
                entity="users", entity_id=user.id, after={"refused": code}, severity="WARNING",
            )  # fmt: skip


def demand(call: Call, *names: str) -> list[str]:
    """Return fields that this grant needs; raises invalid_request for the missing ones."""
    missing = {
        name: ["Missing data for required field."] for name in names if name not in call.body
    }
    if missing:
        raise invalid_request(missing)
    return [call.body[name] for name in names]


def invalid_credentials() -> ApiError:
    """Say that a sign-in failed, and not why."""
    return ApiError("invalid_credentials", "The address or the password is wrong.", status=401)
