"""From the outbox to the endpoints: what happened is written down, and queued for who wants it.

All of it is one transaction for each batch of an organisation: either an event is still in the
outbox, or it is stored with every delivery of it. Nothing here speaks over the network.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import orjson

from sofinance import queries as q
from sofinance.events import EVENT_TYPES
from sofinance.infra.db import Mode
from sofinance.infra.shapes import compile_dump
from sofinance.infra.times import iso

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from sofinance.infra.db import Database
    from sofinance.infra.sql import Connection

    Describe = Callable[..., Awaitable[Sequence[Any]]]

log = logging.getLogger(__name__)

ORGANISATION_COUNT_MAX = 1_000
BATCH = 500
# Source: Standard Webhooks recommends less than 20 kB.
BODY_BYTES_MAX = 20_000
# What more lines than that would surely be too long for.
LINE_COUNT_MAX = 100

DUMPS = {name: compile_dump(kind.data) for name, kind in EVENT_TYPES.items()}
DESCRIPTIONS: dict[str, Describe] = {
    "sale.posted": q.outbox.describe_sales,
    "sale.voided": q.outbox.describe_voids,
    "payment.posted": q.outbox.describe_payments,
    "goods_receipt.posted": q.outbox.describe_goods_receipts,
    "journal_entry.posted": q.outbox.describe_entries,
    "customer.created": q.outbox.describe_customers,
    "customer.changed": q.outbox.describe_customers,
    "product.created": q.outbox.describe_products,
    "product.changed": q.outbox.describe_products,
    "period.closed": q.outbox.describe_periods,
    "period.reopened": q.outbox.describe_periods,
}


async def fan_out(database: Database) -> int:
    """Take up every event of every organisation that is committed by now; returns how many."""
    async with database.untenanted(mode=Mode.WRITE) as conn:
        waiting = await q.outbox.list_outboxes(conn, limit=ORGANISATION_COUNT_MAX)
    return sum([await try_one(database, row.org_id) for row in waiting])


async def try_one(database: Database, org_id: int) -> int:
    """Take up one batch; whatever goes wrong with it, the other organisations go on."""
    try:
        return await fan_out_one(database, org_id)
    except Exception:
        log.exception("no events were taken up", extra={"metadata": {"org_id": org_id}})
        return 0


async def fan_out_one(database: Database, org_id: int) -> int:
    """Take up one batch of an organisation's events; returns how many, 0 while another does."""
    async with database.tenant(org_id) as conn:
        events = await q.outbox.take_events(conn, limit=BATCH)
        if not events:
            return 0
        bodies = await write_bodies(conn, org_id, events)
        await q.outbox.store_events(
            conn,
            ids=[event.id for event in events],
            types=[event.type for event in events],
            aggregates=[event.aggregate for event in events],
            aggregate_ids=[event.aggregate_id for event in events],
            subject_ids=[event.subject_id for event in events],
            occurred_at=[event.occurred_at for event in events],
            bodies=[bodies.get(event.id) for event in events],
        )
    return len(events)


async def write_bodies(conn: Connection, org_id: int, events: Sequence[Any]) -> dict[int, str]:
    """Write what is told of events that somebody listens to; by the event's id."""
    listeners = await q.outbox.list_listeners(conn, org_id=org_id)
    wanted: dict[str, list[Any]] = defaultdict(list)
    for event in events:
        if any(row.event_types is None or event.type in row.event_types for row in listeners):
            wanted[event.type].append(event)
    bodies = {}
    for name, some in wanted.items():
        found = await describe(conn, org_id, name, [event.subject_id for event in some])
        for event in some:
            if event.subject_id in found:
                bodies[event.id] = write_body(name, event.occurred_at, found[event.subject_id])
            else:
                # Nothing that has events is ever deleted.
                log.error("an event is about nothing", extra={"metadata": {"event_id": event.id}})
    return bodies


async def describe(
    conn: Connection, org_id: int, name: str, ids: Sequence[int]
) -> Mapping[int, dict[str, Any]]:
    """Read what is told of a type of event, by what it is about."""
    rows = await DESCRIPTIONS[name](conn, org_id=org_id, ids=ids)
    found: dict[int, dict[str, Any]] = {row["id"]: {**row} for row in rows}
    if name == "sale.posted":
        for sale in found.values():
            sale["lines"] = [] if sale["line_count"] <= LINE_COUNT_MAX else None
        with_lines = [sale_id for sale_id, sale in found.items() if sale["lines"] is not None]
        for line in await q.outbox.describe_sale_lines(
            conn, org_id=org_id, ids=with_lines, line_no_max=LINE_COUNT_MAX
        ):
            found[line.sale_id]["lines"].append(line)
    return found


def write_body(name: str, occurred_at: datetime, about: Mapping[str, Any]) -> str:
    """Write the message as it is sent, each time the same; without lines where it is too long."""
    body = _dumps(name, occurred_at, about)
    if len(body) >= BODY_BYTES_MAX and about.get("lines") is not None:
        body = _dumps(name, occurred_at, {**about, "lines": None})
    return body.decode()


def _dumps(name: str, occurred_at: datetime, about: Mapping[str, Any]) -> bytes:
    data = DUMPS[name](about, None)
    return orjson.dumps({"type": name, "timestamp": iso(occurred_at), "data": data})
