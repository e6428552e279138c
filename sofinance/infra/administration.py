"""What holds for administrative endpoints only: from where, and when nothing may be changed.

ADMIN_IP_ALLOWLIST_CIDRS says from which addresses they are called; ADMIN_READ_ONLY stops their
writes, but for whoever has broken the glass: a token with a reason, for one user and a short time.
Each use of one is in the audit log, whether or not anything else is.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.audit import CRITICAL
from sofinance.infra.db import Mode
from sofinance.infra.envelope import dumps
from sofinance.infra.errors import ApiError
from sofinance.infra.guard import Opaque, Principal, forbidden, read_opaque
from sofinance.infra.logs import safe_path
from sofinance.infra.proxies import Proxies, network

if TYPE_CHECKING:
    from aiohttp import web

    from sofinance.config import Settings
    from sofinance.infra.http import Call, Endpoint
    from sofinance.infra.sql import Connection

HEADER = "X-Break-Glass-Token"
BREAK_GLASS = "sfb"


def demand_operator(call: Call) -> None:
    """Let pass who runs the server, and not whoever has an organisation on it (403 forbidden)."""
    if not is_operator(call):
        raise forbidden("This is for whoever runs the service: see OPERATOR_ORG_ID.")


def is_operator(call: Call) -> bool:
    """Say whether the caller's organisation runs the server.

    In production nobody is taken for the operator who was not named: an administrator of one
    organisation could take, load and give up the backups of all.
    """
    settings = call.settings
    if settings.operator_org_id:
        return call.org_id == settings.operator_org_id
    return settings.environment != "production" and not settings.sign_up_enabled


class Administration:
    """The settings' rules for administrative endpoints."""

    def __init__(self, settings: Settings, proxies: Proxies) -> None:
        names = (name.strip() for name in settings.admin_ip_allowlist_cidrs.split(","))
        self._networks = tuple(network(name) for name in names if name)
        self._is_read_only = settings.admin_read_only
        self._proxies = proxies

    def admit(
        self, endpoint: Endpoint, request: web.Request, principal: Principal, ip: str | None
    ) -> Opaque | None:
        """Let a request in; returns the broken glass that it comes with, to be used.

        Raises address_not_allowed and break_glass_invalid (403), admin_read_only (409).
        """
        if not self.allows(ip):
            raise ApiError(
                "address_not_allowed",
                "Administration is not open to the address that you call from.",
                status=403,
            )
        if endpoint.mode is not Mode.WRITE or endpoint.in_read_only:
            return None
        token = request.headers.get(HEADER)
        if token is not None:
            glass = read_opaque(BREAK_GLASS, token)
            is_own = glass is not None and glass.org_id == principal.org_id
            if not is_own or principal.session_id is None:
                raise invalid()
            return glass
        if self._is_read_only:
            raise ApiError(
                "admin_read_only",
                "Administration is read-only right now; in an emergency, break the glass: "
                f"POST /admin/break-glass, then {HEADER}.",
                status=409,
            )
        return None

    def allows(self, ip: str | None) -> bool:
        """Say whether administration is open to an address.

        With a list, an address that cannot be told is not on it, nor is a proxy's: a client can
        bring about that it is taken for one.
        """
        if not self._networks:
            return True
        if ip is None or self._proxies.is_ours(ip):
            return False
        address = ipaddress.ip_address(ip)
        return any(address in known for known in self._networks)


async def use(conn: Connection, call: Call, glass: Opaque, request: web.Request) -> None:
    """Use a broken glass, in the transaction of the deed; raises break_glass_invalid (403)."""
    found = await q.admin.use_break_glass(
        conn, org_id=call.org_id, id=glass.id, user_id=call.user_id, token_hash=glass.digest
    )
    if found is None:
        raise invalid()
    await q.request.write_audit(
        conn,
        org_id=call.org_id,
        user_id=call.user_id,
        session_id=call.principal.session_id,
        api_key_id=None,
        action=b"admin.use_break_glass",
        entity_type=b"break_glass",
        entity_id=glass.id,
        before=None,
        after=dumps({"method": request.method, "path": safe_path(request.rel_url.raw_path)}),
        request_id=call.request_id.encode(),
        ip=None if call.ip is None else call.ip.encode(),
        user_agent=call.user_agent.encode(),
        severity=CRITICAL.encode(),
    )


def invalid() -> ApiError:
    """Say that a token opens nothing, and not why."""
    return ApiError(
        "break_glass_invalid", "This break-glass token is not good, or not any more.", status=403
    )
