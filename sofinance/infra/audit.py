"""Audit rows of what has no transaction around its handler: signing in, and trying to.

Whatever does have one is written down by route.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sofinance import queries as q
from sofinance.infra.envelope import dumps

if TYPE_CHECKING:
    from sofinance.infra.http import Call
    from sofinance.infra.sql import Connection

Severity = Literal["INFO", "WARNING", "ERROR", "CRITICAL"]


async def write(  # noqa: PLR0913 - all that an audit row says
    call: Call,
    conn: Connection,
    *,
    org_id: int,
    action: str,
    entity: str,
    user_id: int | None = None,
    session_id: int | None = None,
    entity_id: int | None = None,
    after: Any = None,
    severity: Severity = "INFO",
) -> None:
    """Write down who did what, in the transaction in which it is done.

    Nothing is filtered here: whoever calls this leaves out what is secret.
    """
    if not call.settings.enable_audit_logging:
        return
    await q.request.write_audit(
        conn,
        org_id=org_id,
        user_id=user_id,
        session_id=session_id,
        api_key_id=call.principal.api_key_id,
        action=action.encode(),
        entity_type=entity.encode(),
        entity_id=entity_id,
        before=None,
        after=None if after is None else dumps(after),
        request_id=call.request_id.encode(),
        ip=None if call.ip is None else call.ip.encode(),
        user_agent=call.user_agent.encode("utf-8", "replace"),
        severity=severity.encode(),
    )
