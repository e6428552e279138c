"""Signing up: an organisation of one's own, by a link that proves the e-mail address."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit, metrics, passwords, sealed_links, throttle
from sofinance.infra.db import ALL_BRANCHES, LOCK_TIMEOUT_MS, Mode
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Exact, Flag, Id, LowerEmail, Money
from sofinance.infra.http import Call, Routes
from sofinance.infra.pace import Beat
from sofinance.schemas import known_time_zone

routes = Routes()

PURPOSE = "sign_up"
SUBJECT = "Your account for the books"
WELCOME = """\
Somebody, you we hope, asked for an account with {email}.

{how}

It is good for {minutes} minutes, and once. If it was not you, do nothing.
"""
BY_LINK = "Go on here:\n\n{url}#token={token}"
BY_TOKEN = "Where you asked for it, enter this:\n\n{token}"  # noqa: S105 - no token yet
KNOWN = """\
Somebody, you we hope, asked for an account with {email}.

You have one already: sign in with this address. If you do not remember the
password, ask for a new one where you sign in. If it was not you, do nothing.
"""
NAME = validate.Length(1, 100)


class SignUpRequest(Schema):
    """Whose account it will be."""

    email = LowerEmail(required=True, validate=validate.Length(max=254))
    captcha_token = fields.Str(
        load_default=None, allow_none=True, validate=validate.Length(max=2_048), load_only=True,
        metadata={"description": "Needed with CAPTCHA_MODE=turnstile."},
    )  # fmt: skip


class SignUpRequested(Schema):
    """What is on its way."""

    valid_minutes = fields.Int(
        required=True, metadata={"description": "How long the link is good."}
    )


class NewOrganisation(Schema):
    """What an organisation begins with; its currency and its kind of prices are fixed for life."""

    name = fields.Str(required=True, validate=validate.Length(1, 200))
    currency = fields.Str(required=True, validate=validate.Regexp(r"\A[A-Z]{3}\Z"))
    time_zone = fields.Str(load_default="UTC", validate=known_time_zone)
    prices_include_tax = Flag(load_default=False)
    standard_tax_percent = Exact(load_default=Decimal(0), sign="not_negative")
    default_credit_limit = Money(load_default=Decimal(0), sign="not_negative")


class SignUp(Schema):
    """What stood in the mail, the organisation, and who will administer it."""

    token = fields.Str(
        required=True, validate=validate.Length(1, sealed_links.TOKEN_LENGTH_MAX), load_only=True
    )
    password = fields.Str(
        required=True, validate=validate.Length(1, passwords.LENGTH_MAX), load_only=True
    )
    first_name = fields.Str(required=True, validate=NAME)
    last_name = fields.Str(required=True, validate=NAME)
    organisation = fields.Nested(NewOrganisation, required=True)


class SignedUp(Schema):
    """The new organisation and its administrator, who signs in next."""

    org_id = Id(required=True)
    user_id = Id(required=True)
    email = fields.Str(required=True)


@routes.endpoint(
    "POST", "/sign-up", public=True, body=SignUpRequest(), returns=SignUpRequested(), status=202,
    idempotent=False, limit="sign_in", refuses=(403,), message="A mail is on its way.",
)  # fmt: skip
async def request_sign_up(call: Call) -> Any:
    """Ask for an account: a mail brings the link to go on with.

    The answer, and its time, are the same whether there is an account with this address or not;
    the mail says which. 403 `sign_up_disabled` where nobody may sign up. With a captcha: 400
    `captcha_required`, 403 `captcha_failed`.
    """
    demand_enabled(call)
    email, minutes = call.body["email"], call.settings.sign_up_minutes
    await call.captcha.check(call.body["captcha_token"], ip=call.ip)
    await throttle.mail_asked_for(call.limiter, call.ip, to=email)
    beat = Beat()
    token = sealed_links.write(call.secret_box, email, purpose=PURPOSE, minutes=minutes)
    async with call.untenanted() as conn:
        found = await q.auth.find_sign_in(conn, email=email)
    url = call.settings.sign_up_url
    how = BY_LINK.format(url=url, token=token) if url else BY_TOKEN.format(token=token)
    text = WELCOME.format(email=email, how=how, minutes=minutes)
    if found is not None:
        text = KNOWN.format(email=email)
    call.mailer.send(to=email, subject=SUBJECT, text=text)
    await beat.wait()
    return {"valid_minutes": minutes}


@routes.endpoint(
    "POST", "/sign-up/confirm", public=True, body=SignUp(), returns=SignedUp(), status=201,
    idempotent=False, limit="sign_in", refuses=(403, 409),
)  # fmt: skip
async def sign_up(call: Call) -> Any:
    """Make the organisation and its administrator with the token of the mail; then sign in.

    400 `invalid_sign_up_token` for one that is none or is over, 409 `sign_in_address_taken` for one
    that was used, 422 `invalid_request` for a password that will not do.
    """
    demand_enabled(call)
    body, asked = call.body, call.body["organisation"]
    email = sealed_links.read(call.secret_box, body["token"], purpose=PURPOSE)
    if email is None:
        raise invalid_token()
    about = [email, body["first_name"], body["last_name"], asked["name"]]
    passwords.demand_good(body["password"], field="password", about=about)
    password_hash = await passwords.hash_password(body["password"])
    async with call.untenanted(mode=Mode.WRITE) as conn:
        made = await q.orgs.create_organisation(
            conn,
            name=asked["name"],
            base_currency=asked["currency"],
            time_zone=asked["time_zone"],
            prices_include_tax=asked["prices_include_tax"],
            standard_tax_percent=asked["standard_tax_percent"],
            default_credit_limit=asked["default_credit_limit"],
            admin_email=email,
            admin_password_hash=password_hash,
            admin_first_name=body["first_name"],
            admin_last_name=body["last_name"],
        )
        org_id, user_id = made.org_id, made.admin_id
        await q.request.set_tenant(
            conn, org_id=org_id, user_id=user_id, branch_ids=ALL_BRANCHES,
            statement_timeout_ms=call.db.statement_timeout_ms, lock_timeout_ms=LOCK_TIMEOUT_MS,
        )  # fmt: skip
        await audit.write(
            call, conn, org_id=org_id, user_id=user_id, action="sign_up.sign_up",
            entity="organisation", entity_id=org_id,
            after={"name": asked["name"], "currency": asked["currency"], "email": email},
        )  # fmt: skip
    metrics.SIGN_UPS.inc()
    return {"org_id": org_id, "user_id": user_id, "email": email}


def demand_enabled(call: Call) -> None:
    """Raise sign_up_disabled (403) where nobody may sign up."""
    if not call.settings.sign_up_enabled:
        raise ApiError("sign_up_disabled", "Nobody can sign up here by themselves.", status=403)


def invalid_token() -> ApiError:
    """Say that a link is not good, and not why."""
    return ApiError(
        "invalid_sign_up_token",
        "This link is not good any more. Ask for another mail.",
        status=400,
    )
