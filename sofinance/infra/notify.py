"""Telling users something: in the transaction of what happened, so both are there or neither is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from sofinance import queries as q

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sofinance.infra.sql import Connection

# Users that are told about one thing.
TOLD_COUNT_MAX = 1_000
TITLE_LENGTH_MAX, MESSAGE_LENGTH_MAX = 200, 2_000


async def tell(  # noqa: PLR0913 - all that a notification says
    conn: Connection,
    *,
    org_id: int,
    user_ids: Sequence[int],
    type: str,  # noqa: A002 - the column's name
    title: str,
    message: str = "",
    data: dict[str, Any] | None = None,
    sent_by: int | None = None,
    dedupe_key: str | None = None,
) -> int:
    """Tell users something, in a transaction of their organisation; returns how many were told.

    Of what has the same `dedupe_key` each is told once. What is too long is cut.
    """
    return await q.notifications.tell(
        conn,
        org_id=org_id,
        user_ids=sorted(set(user_ids)),
        type=type,
        title=title[:TITLE_LENGTH_MAX],
        message=message[:MESSAGE_LENGTH_MAX],
        data=orjson.dumps(data or {}).decode(),
        sent_by=sent_by,
        dedupe_key=dedupe_key,
    )


async def tell_allowed(  # noqa: PLR0913 - all that a notification says
    conn: Connection,
    *,
    org_id: int,
    permission: str,
    branch_id: int | None = None,
    type: str,  # noqa: A002 - the column's name
    title: str,
    message: str = "",
    data: dict[str, Any] | None = None,
    dedupe_key: str | None = None,
) -> int:
    """Tell whoever has a permission, in a branch or anywhere; returns how many were told."""
    found = await q.notifications.list_to_tell(
        conn, org_id=org_id, permission=permission, branch_id=branch_id, limit=TOLD_COUNT_MAX
    )
    return await tell(
        conn, org_id=org_id, user_ids=[row.id for row in found], type=type, title=title,
        message=message, data=data, dedupe_key=dedupe_key,
    )  # fmt: skip
