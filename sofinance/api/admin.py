"""Administration: breaking the glass where it is read-only."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.administration import BREAK_GLASS
from sofinance.infra.audit import CRITICAL
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import Id, PageQuery, Timestamp
from sofinance.infra.guard import make_secret, write_opaque
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

TTL_MINUTES, TTL_MINUTES_MAX = 30, 240


class NewBreakGlass(Schema):
    """Why, and for how long."""

    reason = fields.Str(required=True, validate=validate.Length(10, 500))
    ttl_minutes = fields.Int(
        load_default=TTL_MINUTES, strict=True, validate=validate.Range(1, TTL_MINUTES_MAX)
    )


class BreakGlass(Schema):
    """A broken glass: whose, why and until when."""

    id = Id(required=True)
    user_id = Id(required=True)
    reason = fields.Str(required=True)
    created_at = Timestamp(required=True)
    expires_at = Timestamp(required=True)
    revoked_at = Timestamp(required=True, allow_none=True)
    revoked_by = Id(required=True, allow_none=True)


class BrokenGlass(BreakGlass):
    """The same with its token, which is never shown again."""

    token = fields.Str(required=True)


@routes.endpoint(
    "POST", "/admin/break-glass", permission="system:manage", org_wide=True, admin=True,
    in_read_only=True, body=NewBreakGlass(), returns=BrokenGlass(), status=201, idempotent=False,
    limit="sign_in", entity="break_glass",
)  # fmt: skip
async def break_glass(call: Call) -> Any:
    """Break the glass: get a token that lets you change things in the read-only mode.

    Send it as X-Break-Glass-Token. It is yours alone, ends after `ttl_minutes`, and each use is in
    the audit log as CRITICAL. 403 `session_required` for an API key and on a till.
    """
    if call.principal.session_id is None or call.principal.till_id is not None:
        raise ApiError(
            "session_required", "Sign in with your password for this; no key will do.", status=403
        )
    secret, token_hash = make_secret()
    made = await q.admin.create_break_glass(
        call.conn, org_id=call.org_id, user_id=call.user_id, token_hash=token_hash, **call.body
    )
    call.audit(severity=CRITICAL)
    token = write_opaque(BREAK_GLASS, call.org_id, made.id, secret)
    return {**dict(made.items()), "token": token}


@routes.endpoint(
    "GET", "/admin/break-glass", permission="system:manage", org_wide=True, admin=True,
    query=PageQuery(), returns=paged(BreakGlass()),
)  # fmt: skip
async def list_break_glass(call: Call) -> Any:
    """List broken glasses, the latest first; never their tokens."""
    rows = await q.admin.list_break_glass(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset
    )
    return rows, await q.admin.count_break_glass(call.conn, org_id=call.org_id)


@routes.endpoint(
    "DELETE", "/admin/break-glass/{id}", permission="system:manage", org_wide=True, admin=True,
    in_read_only=True, entity="break_glass",
)  # fmt: skip
async def revoke_break_glass(call: Call) -> Any:
    """End a broken glass at once; 404 when it has been ended already."""
    call.audit(severity=CRITICAL)
    call.before(
        await q.admin.revoke_break_glass(
            call.conn, org_id=call.org_id, id=call.path["id"], revoked_by=call.user_id
        )
    )
