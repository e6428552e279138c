"""Customers in their portal: whose session a request comes with, if there is one.

Such a session is no user's: the guard knows nothing of it, and it has no permissions.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sofinance import queries as q
from sofinance.infra.db import Mode
from sofinance.infra.errors import ApiError
from sofinance.infra.guard import Opaque, read_opaque, unauthorized

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sofinance.infra.http import Call
    from sofinance.infra.sql import Connection

# What the token of such a session begins with.
SESSION = "sfc"
BEARER = "bearer "
# What the documents call the credential.
VISITOR = "portal"


@asynccontextmanager
async def visiting(call: Call) -> AsyncIterator[tuple[Connection, int, Any]]:
    """Open a transaction that reads for the customer whose session it is; else 401.

    Yields the connection, the organisation and the customer. The session is looked up in the same
    transaction, every time: ended is ended.
    """
    asked = given_session(call)
    async with call.tenant(asked.org_id, mode=Mode.REPORT) as conn:
        visitor = await q.portal.find_session(
            conn, org_id=asked.org_id, session_id=asked.id, secret_hash=asked.digest
        )
        if visitor is None:
            raise over()
        yield conn, asked.org_id, visitor


def given_session(call: Call) -> Opaque:
    """Return the credential of a session in the portal, as it was sent; else 401.

    Raises portal_disabled (404) for whoever has one while there is no portal.
    """
    header = call.authorization or ""
    asked = None
    if header.lower().startswith(BEARER):
        asked = read_opaque(SESSION, header[len(BEARER) :].strip())
    if asked is None:
        raise unauthorized("This needs a session in the portal: Authorization: Bearer sfc_...")
    demand_portal(call)
    return asked


def demand_portal(call: Call) -> None:
    """Raise portal_disabled (404) where there is no portal."""
    if not call.settings.portal_url:
        raise ApiError(
            "portal_disabled", "There is no customers' portal here: PORTAL_URL is not set.",
            status=404,
        )  # fmt: skip


def over() -> ApiError:
    """Say that a session is not good, and not why."""
    return unauthorized("The session in the portal has ended. Ask for another link.")
