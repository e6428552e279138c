"""One's own sessions: where one is signed in, and signing out."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

from sofinance import queries as q
from sofinance.infra import sessions
from sofinance.infra.errors import not_found
from sofinance.infra.fields import Id, Timestamp
from sofinance.infra.http import Call, Routes, paged
from sofinance.infra.own_account import own_session

routes = Routes()


class Session(Schema):
    """A session that goes on."""

    id = Id(required=True)
    kind = fields.Str(
        required=True, metadata={"description": "password, token (a tool's), or till (by PIN)."}
    )
    till_id = Id(required=True, allow_none=True)
    has_second_factor = fields.Bool(required=True)
    device = fields.Str(required=True, metadata={"description": "What the program says it is."})
    ip = fields.Str(required=True, allow_none=True)
    created_at = Timestamp(required=True)
    last_used_at = Timestamp(required=True, metadata={"description": "When it was last renewed."})
    idle_until = Timestamp(required=True, metadata={"description": "Its end unless renewed."})
    expires_at = Timestamp(required=True, metadata={"description": "Its end in any case."})
    is_current = fields.Bool(required=True, metadata={"description": "True: it is asking."})


@routes.endpoint("GET", "/auth/sessions", any_user=True, returns=paged(Session()))
async def list_sessions(call: Call) -> Any:
    """List one's own sessions, the newest first."""
    session_id = own_session(call)
    owner = {"org_id": call.org_id, "user_id": call.user_id}
    rows = await q.sessions.list_sessions(
        call.conn, **owner, session_id=session_id, limit=call.limit, offset=call.offset
    )
    return rows, await q.sessions.count_sessions(call.conn, **owner)


@routes.endpoint(
    "DELETE", "/auth/sessions/{id}", any_user=True, idempotent=False, limit="sign_in"
)  # fmt: skip
async def end_session(call: Call) -> Any:
    """End one of one's own sessions; its access token is refused from here on.

    404 `not_found` for one that has ended, and for somebody else's.
    """
    own_session(call)
    ended = await q.sessions.end_session(
        call.conn,
        org_id=call.org_id,
        user_id=call.user_id,
        id=call.path["id"],
        revoked_why="sign_out",
    )
    if not ended:
        raise not_found()


@routes.endpoint(
    "POST", "/auth/logout", any_user=True, gate_free=True, idempotent=False, limit="sign_in"
)  # fmt: skip
async def log_out(call: Call) -> Any:
    """Sign out: end this session, its access token and its refresh token with it."""
    session_id = sessions.current(call)
    call.audit(entity_id=session_id)
    await q.sessions.end_session(
        call.conn,
        org_id=call.org_id,
        user_id=call.user_id,
        id=session_id,
        revoked_why="sign_out",
    )


@routes.endpoint(
    "POST", "/auth/logout-all", any_user=True, gate_free=True, idempotent=False, limit="sign_in"
)  # fmt: skip
async def log_out_everywhere(call: Call) -> Any:
    """Sign out everywhere: end all of one's sessions, this one included."""
    call.audit(entity_id=own_session(call))
    owner = {"org_id": call.org_id, "user_id": call.user_id}
    await q.auth.lock_user(call.conn, **owner, password_hash=None)
    await q.sessions.end_sessions(call.conn, **owner, except_id=None, revoked_why="sign_out_all")
