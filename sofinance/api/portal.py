"""The customers' portal: one's own statement and receipts, by a link in a mail and no password.

A session here is no user's: it has no permissions, the guard knows nothing of it, and what it sees
is selected by the customer whom the database says it is of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit, throttle
from sofinance.infra.db import Mode
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Id, LowerEmail, Timestamp
from sofinance.infra.guard import make_secret, read_opaque, write_opaque
from sofinance.infra.http import Call, Routes, paged
from sofinance.infra.pace import Beat
from sofinance.infra.visitors import SESSION, VISITOR, demand_portal, given_session, over

if TYPE_CHECKING:
    from sofinance.infra.sql import Connection

routes = Routes()
# What the token in a link begins with.
LINK = "sfl"
SUBJECT = "Your purchases and your balance"
MAIL = """\
Somebody, you we hope, asked {shop} what there is of {email}: purchases,
payments, and what is owed. Here it is:

{url}#token={token}

This is good for {minutes} minutes, and once. If it was not you, do nothing.
"""


class LinkRequest(Schema):
    """Who wants to look, and at which organisation's books."""

    organisation = Id(required=True)
    email = LowerEmail(required=True, validate=validate.Length(max=254))
    captcha_token = fields.Str(
        load_default=None, allow_none=True, validate=validate.Length(max=2_048), load_only=True,
        metadata={"description": "Needed with CAPTCHA_MODE=turnstile."},
    )  # fmt: skip


class LinkRequested(Schema):
    """What is on its way, if the address is a customer's."""

    valid_minutes = fields.Int(
        required=True, metadata={"description": "How long the link is good."}
    )


class UsedLink(Schema):
    """What stood behind the `#` of the link."""

    token = fields.Str(required=True, validate=validate.Length(1, 200), load_only=True)


class PortalSession(Schema):
    """A session; its token is never shown again."""

    token = fields.Str(required=True)
    token_type = fields.Str(required=True)
    expires_in = fields.Int(required=True, metadata={"description": "Seconds."})
    expires_at = Timestamp(required=True)


class PortalLink(Schema):
    """A link of the last month, and the session that began with it."""

    id = Id(required=True)
    issued_at = Timestamp(required=True)
    issued_by = Id(
        required=True, allow_none=True,
        metadata={"description": "Who had it sent; null if the customer asked."},
    )  # fmt: skip
    expires_at = Timestamp(required=True)
    used_at = Timestamp(required=True, allow_none=True)
    session_expires_at = Timestamp(required=True, allow_none=True)
    session_ended_at = Timestamp(required=True, allow_none=True)


class LinkSent(Schema):
    """Until when the link in the mail is good."""

    expires_at = Timestamp(required=True)


# -- coming and going ------------------------------------------------------------------------------


@routes.endpoint(
    "POST", "/portal/links", public=True, body=LinkRequest(), returns=LinkRequested(), status=202,
    idempotent=False, limit="sign_in", refuses=(403, 404),
    message="If the address is a customer's, a mail is on its way.",
)  # fmt: skip
async def request_link(call: Call) -> Any:
    """Ask for a mail with a link to one's own statement and receipts.

    The answer, and its time, are the same whether there is such a customer or not; none is made. A
    customer has at most three open links. 404 `portal_disabled` without PORTAL_URL. With a captcha:
    400 `captcha_required`, 403 `captcha_failed`.
    """
    demand_portal(call)
    org_id, email = call.body["organisation"], call.body["email"]
    await call.captcha.check(call.body["captcha_token"], ip=call.ip)
    await throttle.mail_asked_for(
        call.limiter, call.ip, to=f"portal:{org_id}:{email}", everywhere=throttle.LINKS_TO
    )
    beat = Beat()
    async with call.tenant(org_id, mode=Mode.READ) as conn:
        found = await q.portal.find_customer(conn, org_id=org_id, email=email)
    if found is not None:
        await send_link(call, org_id, found.id)
    await beat.wait()
    return {"valid_minutes": call.settings.portal_link_minutes}


@routes.endpoint(
    "POST", "/portal/sessions", public=True, body=UsedLink(), returns=PortalSession(), status=201,
    idempotent=False, limit="sign_in", refuses=(401, 404),
)  # fmt: skip
async def begin_session(call: Call) -> Any:
    """Use a link up, for a session in the portal: send its token as `Authorization: Bearer`.

    401 `invalid_portal_link` for one that is none, was used or is over.
    """
    demand_portal(call)
    asked = read_opaque(LINK, call.body["token"])
    if asked is None:
        raise invalid_link()
    org_id, key = asked.org_id, {"org_id": asked.org_id, "customer_id": asked.id}
    secret, secret_hash = make_secret()
    async with call.tenant(org_id) as conn:
        await q.portal.lock_customer(conn, **key)
        session = await q.portal.begin_session(
            conn, **key, token_hash=asked.digest, secret_hash=secret_hash,
            life_minutes=call.settings.portal_session_minutes,
        )  # fmt: skip
        if session is not None:
            await note(call, conn, org_id, "begin_session", asked.id, session_id=session.id)
        elif await q.portal.is_used_link(conn, **key, token_hash=asked.digest):
            # Somebody else may read the customer's mail, or did.
            await note(call, conn, org_id, "begin_session", asked.id, refused=True)
    if session is None:
        raise invalid_link()  # raised here, since what is raised inside undoes the note
    return {
        "token": write_opaque(SESSION, org_id, session.id, secret),
        "token_type": "bearer",
        "expires_in": session.life_s,
        "expires_at": session.expires_at,
    }


@routes.endpoint(
    "DELETE", "/portal/sessions/current", public=True, status=204, idempotent=False,
    refuses=(401, 404), credential=VISITOR,
)  # fmt: skip
async def end_session(call: Call) -> Any:
    """Leave the portal: the session ends."""
    asked = given_session(call)
    key: dict[str, Any] = {
        "org_id": asked.org_id, "session_id": asked.id, "secret_hash": asked.digest,
    }  # fmt: skip
    async with call.tenant(asked.org_id) as conn:
        visitor = await q.portal.find_session(conn, **key)
        if visitor is None or not await q.portal.end_session(conn, **key):
            raise over()
        await note(
            call, conn, asked.org_id, "end_session", visitor.customer_id, session_id=asked.id
        )


# -- what the staff does ---------------------------------------------------------------------------


@routes.endpoint(
    "POST", "/customers/{id}/portal-links", permission="customers:portal", own_transactions=True,
    returns=LinkSent(), status=202, idempotent=False, refuses=(404, 409),
    message="A mail is on its way.",
)  # fmt: skip
async def issue_link(call: Call) -> Any:
    """Send a customer a link to the portal, to the address that is on file.

    409 `customer_not_reachable` for one without an address, or who is inactive; 409
    `portal_links_open` while three are open; 404 `portal_disabled` without PORTAL_URL.
    """
    demand_portal(call)
    customer_id = call.path["id"]
    async with call.transaction(mode=Mode.READ) as conn:
        customer = await q.customers.get_customer(conn, org_id=call.org_id, id=customer_id)
    if customer.email is None or customer.status == "INACTIVE":
        raise ApiError(
            "customer_not_reachable", "This customer is inactive, or has no address.", status=409
        )
    expires_at = await send_link(call, call.org_id, customer_id)
    if expires_at is None:
        raise ApiError(
            "portal_links_open",
            "This customer has three open links. They end within half an hour.",
            status=409,
        )
    return {"expires_at": expires_at}


@routes.endpoint(
    "GET", "/customers/{id}/portal-links", permission="customers:portal",
    returns=paged(PortalLink()),
)  # fmt: skip
async def list_links(call: Call) -> Any:
    """List a customer's links of the last month and their sessions, the latest first."""
    customer = await q.customers.get_customer(call.conn, org_id=call.org_id, id=call.path["id"])
    key = {"org_id": call.org_id, "customer_id": customer.id}
    rows = await q.portal.list_links(call.conn, **key, limit=call.limit, offset=call.offset)
    return rows, await q.portal.count_links(call.conn, **key)


@routes.endpoint("DELETE", "/customers/{id}/portal-sessions", permission="customers:portal")
async def end_sessions(call: Call) -> None:
    """End a customer's sessions in the portal, and take open links away."""
    customer_id = call.path["id"]
    await q.customers.get_customer(call.conn, org_id=call.org_id, id=customer_id)
    key = {"org_id": call.org_id, "customer_id": customer_id}
    await q.portal.lock_customer(call.conn, **key)
    await q.portal.void_links(call.conn, **key)
    await q.portal.end_sessions(call.conn, **key)


# -- behind them -----------------------------------------------------------------------------------


async def send_link(call: Call, org_id: int, customer_id: int) -> Any:
    """Open a link and put its mail aside for sending; returns its end, None if there is none.

    For a customer who is gone meanwhile, and for one who has three.
    """
    minutes = call.settings.portal_link_minutes
    secret, token_hash = make_secret()
    key = {"org_id": org_id, "customer_id": customer_id}
    user_id = call.user_id or None
    opened = call.tenant(org_id) if user_id is None else call.transaction()
    async with opened as conn:
        customer = await q.portal.lock_customer(conn, **key)
        if customer is None:
            return None
        await q.portal.forget_lapsed_links(conn, **key)
        link = await q.portal.open_link(
            conn, **key, token_hash=token_hash, issued_by=user_id, life_minutes=minutes
        )
        await note(call, conn, org_id, "send_link", customer_id, refused=link is None)
        org = await q.orgs.get_organisation(conn, org_id=org_id)
    if link is None:
        return None
    token = write_opaque(LINK, org_id, customer_id, secret)
    text = MAIL.format(
        shop=org.name, email=customer.email, url=call.settings.portal_url, token=token,
        minutes=minutes,
    )  # fmt: skip
    call.mailer.send(to=customer.email, subject=SUBJECT, text=text)
    return link.expires_at


async def note(  # noqa: PLR0913 - all that is known of it
    call: Call,
    conn: Connection,
    org_id: int,
    what: str,
    customer_id: int,
    *,
    session_id: int | None = None,
    refused: bool = False,
) -> None:
    """Write down what happened at the portal's door; a session there is no user's session."""
    after = {"portal_session_id": session_id} if session_id is not None else None
    await audit.write(
        call, conn, org_id=org_id, user_id=call.user_id or None,
        session_id=call.principal.session_id, action=f"portal.{what}", entity="customers",
        entity_id=customer_id, after={"refused": True} if refused else after,
        severity="WARNING" if refused else "INFO",
    )  # fmt: skip


def invalid_link() -> ApiError:
    """Say that a link is not good, and not why."""
    return ApiError(
        "invalid_portal_link",
        "This link is not good any more. Ask for another mail.",
        status=401,
    )
