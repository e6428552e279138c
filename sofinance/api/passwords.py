"""Changing one's password, and choosing a new one by a link in a mail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit, passwords, throttle
from sofinance.infra.db import Mode
from sofinance.infra.errors import ApiError, invalid_request
from sofinance.infra.guard import make_secret, read_opaque, write_opaque
from sofinance.infra.http import Call, Routes
from sofinance.infra.own_account import confirm_password, own_session
from sofinance.infra.pace import Beat

if TYPE_CHECKING:
    from sofinance.infra.sql import Connection

routes = Routes()
RESET_TOKEN = "sfp"  # noqa: S105 - what such a token begins with
PASSWORD = validate.Length(1, passwords.LENGTH_MAX)
ASKED_SUBJECT = "Choose a new password"
ASKED = """\
Somebody, you we hope, asked for a new password for {email}.

{how}

It is good for {minutes} minutes, and once. If it was not you, do nothing: the
password stays as it is.
"""
BY_LINK = "Choose one on this page:\n\n{url}#token={token}"
BY_TOKEN = "Where you asked for it, enter this:\n\n{token}"  # noqa: S105 - no token yet
CHANGED_SUBJECT = "Your password was changed"
CHANGED = """\
The password of {email} was changed just now, and whoever was signed in with
the old one is signed out.

If it was not you, ask for a new password at once, and tell your administrator.
"""


class PasswordChange(Schema):
    """The password until now and the one from now on."""

    current_password = fields.Str(required=True, validate=PASSWORD, load_only=True)
    new_password = fields.Str(required=True, validate=PASSWORD, load_only=True)


class ResetRequest(Schema):
    """Who has no password any more."""

    email = fields.Email(required=True, validate=validate.Length(max=254))
    captcha_token = fields.Str(
        load_default=None, allow_none=True, validate=validate.Length(max=2_048), load_only=True,
        metadata={"description": "Needed with CAPTCHA_MODE=turnstile."},
    )  # fmt: skip


class ResetRequested(Schema):
    """What is on its way, if the address is known."""

    valid_minutes = fields.Int(
        required=True, metadata={"description": "How long the link is good."}
    )


class Reset(Schema):
    """What stood in the mail, and the new password."""

    token = fields.Str(required=True, validate=validate.Length(1, 200), load_only=True)
    new_password = fields.Str(required=True, validate=PASSWORD, load_only=True)


@routes.endpoint(
    "POST", "/auth/change-password", any_user=True, gate_free=True, own_transactions=True,
    body=PasswordChange(), idempotent=False, limit="sign_in",
)  # fmt: skip
async def change_password(call: Call) -> Any:
    """Change one's own password; all of one's other sessions end.

    401 `invalid_credentials` for a wrong current password, counted like a wrong sign-in; 422
    `invalid_request` for a new one that will not do, or is the old one.
    """
    session_id = own_session(call)
    current, new = call.body["current_password"], call.body["new_password"]
    user = await confirm_password(call, current, action="passwords.change_password")
    if new == current:
        raise invalid_request({"new_password": ["This is the password that you have."]})
    passwords.demand_good(new, field="new_password", about=known_of(user))
    password_hash = await passwords.hash_password(new)
    async with call.transaction() as conn:
        await user.lock(call, conn)
        await set_password(conn, call.org_id, call.user_id, password_hash, except_id=session_id)
        await note(call, conn, call.org_id, call.user_id, "change_password")
    call.mailer.send(to=user.email, subject=CHANGED_SUBJECT, text=CHANGED.format(email=user.email))


@routes.endpoint(
    "POST", "/auth/password-reset-request", public=True, body=ResetRequest(),
    returns=ResetRequested(), status=202, idempotent=False, limit="sign_in", refuses=(403,),
    message="If the address is known, a mail is on its way.",
)  # fmt: skip
async def request_reset(call: Call) -> Any:
    """Ask for a mail with a link for a new password.

    The answer, and its time, are the same whether the address is known or not. A user has at most
    three such links at a time; who asks for more has three mails to look into. With a captcha: 400
    `captcha_required`, 403 `captcha_failed`.
    """
    email, minutes = call.body["email"], call.settings.password_reset_minutes
    await call.captcha.check(call.body["captcha_token"], ip=call.ip)
    await throttle.mail_asked_for(call.limiter, call.ip)
    beat = Beat()
    async with call.untenanted() as conn:
        found = await q.auth.find_sign_in(conn, email=email)
    if found is not None:
        await open_reset(call, found.org_id, found.user_id, minutes)
    await beat.wait()
    return {"valid_minutes": minutes}


@routes.endpoint(
    "POST", "/auth/password-reset", public=True, body=Reset(), status=204, idempotent=False,
    limit="sign_in",
)  # fmt: skip
async def reset_password(call: Call) -> Any:
    """Choose a new password with the token of a mail; all of one's sessions end.

    400 `invalid_reset_token` for one that is none, was used or is over; 422 `invalid_request` for a
    password that will not do, and then the token is still good.
    """
    opaque = read_opaque(RESET_TOKEN, call.body["token"])
    if opaque is None:
        raise invalid_token()
    org_id, user_id, token_hash = opaque.org_id, opaque.id, opaque.digest
    async with call.tenant(org_id, mode=Mode.READ) as conn:
        user = await q.passwords.find_reset(
            conn, org_id=org_id, user_id=user_id, token_hash=token_hash
        )
    if user is None:
        raise invalid_token()
    new = call.body["new_password"]
    passwords.demand_good(new, field="new_password", about=known_of(user))
    password_hash = await passwords.hash_password(new)
    async with call.tenant(org_id, user_id=user_id) as conn:
        locked = await q.auth.lock_user(conn, org_id=org_id, user_id=user_id, password_hash=None)
        used = await q.passwords.use_reset(
            conn, org_id=org_id, user_id=user_id, token_hash=token_hash
        )
        if locked is None or not used:
            raise invalid_token()  # disabled meanwhile, or somebody else was faster
        await set_password(conn, org_id, user_id, password_hash, except_id=None)
        await note(call, conn, org_id, user_id, "reset_password")
    call.mailer.send(to=user.email, subject=CHANGED_SUBJECT, text=CHANGED.format(email=user.email))


async def open_reset(call: Call, org_id: int, user_id: int, minutes: int) -> None:
    """Put a mail with a link aside for sending, unless the user is disabled or has three."""
    secret, token_hash = make_secret()
    async with call.tenant(org_id) as conn:
        if await q.auth.lock_user(conn, org_id=org_id, user_id=user_id, password_hash=None) is None:
            return
        user = await q.auth.get_user(conn, org_id=org_id, user_id=user_id)
        slot = await q.passwords.open_reset(
            conn, org_id=org_id, user_id=user_id, token_hash=token_hash, life_minutes=minutes
        )
        await note(call, conn, org_id, user_id, "request_reset", refused=slot is None)
    if slot is None:
        return
    url, token = (
        call.settings.password_reset_url,
        write_opaque(RESET_TOKEN, org_id, user_id, secret),
    )
    how = BY_LINK.format(url=url, token=token) if url else BY_TOKEN.format(token=token)
    text = ASKED.format(email=user.email, how=how, minutes=minutes)
    call.mailer.send(to=user.email, subject=ASKED_SUBJECT, text=text)


async def set_password(
    conn: Connection, org_id: int, user_id: int, password_hash: str, *, except_id: int | None
) -> None:
    """Set a password that its user has chosen, and end the sessions of the old one."""
    owner = {"org_id": org_id, "user_id": user_id}
    await q.passwords.set_password(conn, **owner, password_hash=password_hash)
    await q.sessions.end_sessions(conn, **owner, except_id=except_id, revoked_why="password")


async def note(
    call: Call, conn: Connection, org_id: int, user_id: int, what: str, *, refused: bool = False
) -> None:
    """Write down what became of a password."""
    await audit.write(
        call, conn, org_id=org_id, user_id=user_id, session_id=call.principal.session_id,
        action=f"passwords.{what}", entity="users", entity_id=user_id,
        after={"refused": True} if refused else None, severity="WARNING" if refused else "INFO",
    )  # fmt: skip


def known_of(user: Any) -> list[str]:
    """Return what others know of a user, and so a guesser of passwords does."""
    return [user.email, user.first_name, user.last_name]


def invalid_token() -> ApiError:
    """Say that a link is not good, and not why."""
    return ApiError(
        "invalid_reset_token",
        "This link is not good any more. Ask for another mail.",
        status=400,
    )
