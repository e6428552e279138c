"""A second factor: enrolled and confirmed, used, taken away; recovery codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit, second_factor, totp
from sofinance.infra.errors import ApiError, not_found
from sofinance.infra.fields import Timestamp
from sofinance.infra.guard import forbidden
from sofinance.infra.http import Call, Routes
from sofinance.infra.own_account import confirm_password, own_session

if TYPE_CHECKING:
    from sofinance.infra.sql import Connection

routes = Routes()
# The name under which an app lists us.
ISSUER = "SOFinance"
CODE = validate.Length(1, second_factor.CODE_LENGTH_MAX)
PASSWORD = validate.Length(1, 128)
REMOVED_SUBJECT = "Your second factor was taken away"
REMOVED = """\
The second factor of {email} was taken away just now: from here on the password
is enough to sign in, and whoever was signed in elsewhere is signed out.

If it was not you, change your password at once, and tell your administrator.
"""


class Enrolment(Schema):
    """The caller's password, once more."""

    password = fields.Str(required=True, validate=PASSWORD, load_only=True)


class Authenticator(Schema):
    """What an authenticator app needs; it is never shown again."""

    secret = fields.Str(
        required=True, metadata={"description": "Base 32, to be typed into the app."}
    )
    otpauth_uri = fields.Str(required=True, metadata={"description": "The same, for a QR code."})


class Code(Schema):
    """A code of the app, or a recovery code."""

    code = fields.Str(required=True, validate=CODE, load_only=True)


class Removal(Enrolment, Code):
    """Password and code."""


class RecoveryCodes(Schema):
    """Ten codes, each good once instead of the app; they are never shown again."""

    recovery_codes = fields.List(fields.Str(), required=True)


class SecondFactor(Schema):
    """Whether the caller has a second factor, and has shown it."""

    is_enrolled = fields.Bool(required=True)
    confirmed_at = Timestamp(required=True, allow_none=True)
    recovery_codes_left = fields.Int(required=True)
    is_required = fields.Bool(
        required=True, metadata={"description": "True: the role demands one."}
    )
    is_shown = fields.Bool(
        required=True, metadata={"description": "True: this session began with a code of it."}
    )


@routes.endpoint(
    "GET", "/auth/2fa", any_user=True, gate_free="second_factor", returns=SecondFactor()
)
async def get_factor(call: Call) -> Any:
    """Say whether the caller has a second factor."""
    factor = await q.second_factor.find_factor(call.conn, **caller(call))
    left_count = await q.second_factor.count_recovery_codes(call.conn, **caller(call))
    return {
        "is_enrolled": factor is not None and factor.is_confirmed,
        "confirmed_at": factor and factor.confirmed_at,
        "recovery_codes_left": left_count,
        "is_required": call.role in call.settings.second_factor_roles,
        "is_shown": call.principal.has_second_factor,
    }


@routes.endpoint(
    "POST", "/auth/2fa/enroll", any_user=True, gate_free="second_factor", own_transactions=True,
    body=Enrolment(), returns=Authenticator(), idempotent=False, limit="sign_in",
)  # fmt: skip
async def enroll(call: Call) -> Any:
    """Begin with an authenticator app: its secret, shown this once; a code of it is to follow.

    409 `user_totp_confirmed_stays` for who has one. 503 `encryption_not_configured` where the
    service has no key to keep the secret with.
    """
    own_session(call)
    confirmed = await confirm_password(call, call.body["password"], action="second_factor.enroll")
    secret = totp.new_secret()
    sealed = call.secret_box.seal(secret, purpose=second_factor.PURPOSE, **caller(call))
    async with call.transaction() as conn:
        await confirmed.lock(call, conn)
        await q.second_factor.begin_factor(conn, **caller(call), secret=sealed)
        await note(call, conn, "enroll")
    return {
        "secret": totp.written(secret),
        "otpauth_uri": totp.provisioning_uri(secret, issuer=ISSUER, account=confirmed.email),
    }


@routes.endpoint(
    "POST", "/auth/2fa/verify", any_user=True, gate_free="second_factor", own_transactions=True,
    body=Code(), returns=RecoveryCodes(), idempotent=False, limit="sign_in",
)  # fmt: skip
async def verify(call: Call) -> Any:
    """Put the app to use with a first code; all other sessions of the caller end.

    401 `invalid_code`; 409 `second_factor_not_begun` before `/auth/2fa/enroll`.
    """
    session_id = own_session(call)
    attempt = await second_factor.guess(call, **caller(call))
    async with call.transaction() as conn:
        factor = await q.second_factor.find_factor(conn, **caller(call))
        if factor is None:
            raise ApiError("second_factor_not_begun", "Enrol a second factor first.", status=409)
        secret = second_factor.unseal(call.secret_box, factor.secret, **caller(call))
        step = totp.accept(secret, call.body["code"], last_step=None, now=call.now)
        if step is None:
            raise second_factor.invalid_code()
        await q.second_factor.confirm_factor(conn, **caller(call), last_step=step)
        await change_sessions(call, conn, session_id, has_second_factor=True)
        codes = await make_recovery_codes(call, conn)
        await note(call, conn, "verify")
    await attempt.succeeded()
    return {"recovery_codes": codes}


@routes.endpoint(
    "POST", "/auth/2fa/recovery-codes", any_user=True, gate_free="second_factor",
    own_transactions=True, body=Code(), returns=RecoveryCodes(), idempotent=False, limit="sign_in",
)  # fmt: skip
async def renew_recovery_codes(call: Call) -> Any:
    """Make ten new recovery codes; the ones before are worthless. Needs a code."""
    own_session(call)
    attempt = await second_factor.guess(call, **caller(call))
    async with call.transaction() as conn:
        await second_factor.demand(call, conn, call.body["code"])
        codes = await make_recovery_codes(call, conn)
        await note(call, conn, "renew_recovery_codes")
    await attempt.succeeded()
    return {"recovery_codes": codes}


@routes.endpoint(
    "POST", "/auth/2fa/disable", any_user=True, gate_free="second_factor", own_transactions=True,
    body=Removal(), idempotent=False, limit="sign_in",
)  # fmt: skip
async def disable(call: Call) -> None:
    """Take one's second factor away, with password and code; all other sessions end."""
    session_id = own_session(call)
    confirmed = await confirm_password(call, call.body["password"], action="second_factor.disable")
    attempt = await second_factor.guess(call, **caller(call))
    async with call.transaction() as conn:
        await second_factor.demand(call, conn, call.body["code"])
        await confirmed.lock(call, conn)
        await q.second_factor.delete_factor(conn, **caller(call))
        await change_sessions(call, conn, session_id, has_second_factor=False)
        await note(call, conn, "disable")
    await attempt.succeeded()
    call.mailer.send(
        to=confirmed.email, subject=REMOVED_SUBJECT, text=REMOVED.format(email=confirmed.email)
    )


@routes.endpoint(
    "DELETE", "/users/{id}/second-factor", permission="users:write", admin=True, entity="users"
)
async def reset_factor(call: Call) -> None:
    """Take away the second factor of somebody who lost it; all of their sessions end.

    403 `forbidden` for one's own; 403 `user_totp_taken_within_own_access` for somebody who may more
    than oneself, or in other branches.
    """
    key = {"org_id": call.org_id, "user_id": call.path["id"]}
    if key["user_id"] == call.user_id:
        raise forbidden("Take your own second factor away with a code of it: /auth/2fa/disable.")
    other = await q.users.get_user(
        call.conn, org_id=call.org_id, id=key["user_id"], caller_id=call.user_id
    )
    if not await q.second_factor.delete_factor(call.conn, **key):
        raise not_found()
    call.before({"email": other.email, "role": other.role, "second_factor": True})
    await q.second_factor.end_other_sessions(call.conn, **key, session_id=None)


async def change_sessions(
    call: Call, conn: Connection, session_id: int, *, has_second_factor: bool
) -> None:
    """End the caller's other sessions, and say of this one whether it has a second factor."""
    await q.second_factor.end_other_sessions(conn, **caller(call), session_id=session_id)
    await q.second_factor.mark_session(
        conn, org_id=call.org_id, session_id=session_id, has_second_factor=has_second_factor
    )


async def make_recovery_codes(call: Call, conn: Connection) -> list[str]:
    """Make ten recovery codes in the place of all before; only their digests are kept."""
    codes = totp.new_recovery_codes()
    digests = [digest for digest in map(totp.recovery_digest, codes) if digest is not None]
    await q.second_factor.delete_recovery_codes(conn, **caller(call))
    await q.second_factor.create_recovery_codes(conn, **caller(call), code_hashes=digests)
    return codes


async def note(call: Call, conn: Connection, what: str) -> None:
    """Write down what the caller did to their second factor."""
    await audit.write(
        call, conn, org_id=call.org_id, user_id=call.user_id, entity="users",
        session_id=call.principal.session_id, entity_id=call.user_id,
        action=f"second_factor.{what}",
    )  # fmt: skip


def caller(call: Call) -> dict[str, int]:
    """Return whose second factor it is."""
    return {"org_id": call.org_id, "user_id": call.user_id}
