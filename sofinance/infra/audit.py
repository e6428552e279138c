"""The audit log: who did what to which thing, how it was before and after, and from where.

A row is written in the transaction of the deed, or in one of its own when somebody was refused
(403): by route.py around a handler, by `write` where a handler opens its own transactions. What it
holds of secrets and of persons is masked (masking.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sofinance import queries as q
from sofinance.infra.envelope import dumps
from sofinance.infra.fields import ID_DIGITS_MAX, ID_MAX
from sofinance.infra.http import Paged
from sofinance.infra.logs import safe_agent
from sofinance.infra.masking import MISSING, compile_mask, mask

if TYPE_CHECKING:
    from aiohttp import web
    from marshmallow import Schema

    from sofinance.infra.answer import Answer, Dump
    from sofinance.infra.errors import ApiError
    from sofinance.infra.guard import Principal
    from sofinance.infra.http import Call, Endpoint
    from sofinance.infra.logs import Trace
    from sofinance.infra.masking import Masker
    from sofinance.infra.sql import Connection

Severity = Literal["INFO", "WARNING", "ERROR", "CRITICAL"]

USER_AGENT_LENGTH_MAX = 500
INFO: Severity = "INFO"
WARNING: Severity = "WARNING"
CRITICAL: Severity = "CRITICAL"
# What a denial's row says: the code of the error and its details.
DENIAL, DENIAL_KEYS = "denial", {"code", "details"}


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
    """Write down who did what, in the transaction in which it is done."""
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
        after=None if after is None else dumps(mask(after, kind=entity)),
        request_id=call.request_id.encode(),
        ip=None if call.ip is None else call.ip.encode(),
        user_agent=call.user_agent.encode(),
        severity=severity.encode(),
    )


class Auditor:
    """Writes the audit rows of one endpoint."""

    def __init__(self, endpoint: Endpoint, dump: Dump | None) -> None:
        self._action = endpoint.name.encode()
        self._kind = endpoint.entity
        returns = endpoint.returns
        self._shape = None if isinstance(returns, Paged) else dump
        # Where nothing is to be masked the answer is kept as it was written, byte for byte.
        self._mask = self._masker(returns)

    def of_change(self, request: web.Request, call: Call, answer: Answer) -> str:
        """Return the statement that writes down what a handler did."""
        data, notes = answer.data, call.notes
        entity_id = notes.get("entity_id")
        if entity_id is None:
            found = data.get("id") if isinstance(data, dict) else None
            entity_id = found if type(found) is int else call.path.get("id")
        before = self._shaped(notes["before"]) if "before" in notes else MISSING
        after: bytes | None = None
        if data is not None:
            after = answer.json if self._mask is None else dumps(self._mask(data, before))
        return self._row(
            request, call.principal, call.request_id, call.ip, entity_id=entity_id,
            before=None if before is MISSING else dumps(mask(before, kind=self._kind)),
            after=after, severity=notes.get("severity", INFO),
        )  # fmt: skip

    def of_denial(
        self, request: web.Request, principal: Principal, trace: Trace, denial: ApiError
    ) -> str:
        """Return the statement that writes down that somebody tried what they may not."""
        after = {"code": denial.code, "details": denial.details}
        named = request.match_info.get("id") or request.match_info.get("user_id") or ""
        is_short = named.isascii() and named.isdecimal() and len(named) <= ID_DIGITS_MAX
        number = int(named) if is_short else 0
        return self._row(
            request, principal, trace.request_id, trace.ip, before=None,
            entity_id=number if 0 < number <= ID_MAX else None,
            after=dumps(mask(after, kind=DENIAL)), severity=WARNING,
        )  # fmt: skip

    def _row(  # noqa: PLR0913 - all that an audit row says
        self,
        request: web.Request,
        principal: Principal,
        request_id: str,
        ip: str | None,
        *,
        entity_id: int | None,
        before: bytes | None,
        after: bytes | None,
        severity: str,
    ) -> str:
        return q.request.write_audit.literal(
            org_id=principal.org_id,
            user_id=principal.user_id,
            session_id=principal.session_id,
            api_key_id=principal.api_key_id,
            action=self._action,
            entity_type=self._kind.encode(),
            entity_id=entity_id,
            before=before,
            after=after,
            request_id=request_id.encode(),
            ip=None if ip is None else ip.encode(),
            user_agent=user_agent(request).encode(),
            severity=severity.encode(),
        )

    def _masker(self, returns: Schema | Paged | None) -> Masker | None:
        if isinstance(returns, Paged) or (returns is not None and returns.many):
            return lambda data, before: mask(data, before, kind=self._kind)
        return None if returns is None else compile_mask(returns, self._kind)

    def _shaped(self, before: Any) -> Any:
        """Write how it was like the answer writes how it is, where it has all of its fields."""
        if self._shape is None:
            return before
        try:
            return self._shape(before, {})
        except (KeyError, AttributeError):
            return before


def user_agent(request: web.Request) -> str:
    """Return the client's program, as much of it as a row holds, without personal data."""
    return safe_agent(request.headers.get("User-Agent", ""))[:USER_AGENT_LENGTH_MAX]
