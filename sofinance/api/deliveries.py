"""What happened, what became of each message, and sending again what did not arrive."""

from __future__ import annotations

from typing import Any

import orjson
from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.events import EVENT_NAMES
from sofinance.infra.errors import ApiError
from sofinance.infra.fields import CursorQuery, Id, RawJson, Timestamp, cursor_page
from sofinance.infra.http import Call, Routes
from sofinance.infra.targets import target_refusal
from sofinance.infra.times import iso

routes = Routes()

STATUSES = ["pending", "delivered", "dead", "given_up"]
REPLAY_COUNT_MAX = 500


class EventQuery(CursorQuery):
    """Which events."""

    type = fields.Str(load_default=None, validate=validate.OneOf(EVENT_NAMES))
    aggregate = fields.Str(load_default=None, validate=validate.Length(1, 40))
    aggregate_id = Id(load_default=None)


class Event(Schema):
    """What happened."""

    id = Id(required=True)
    webhook_id = fields.Str(required=True, attribute="message_id")
    type = fields.Str(required=True)
    aggregate = fields.Str(required=True)
    aggregate_id = Id(required=True)
    occurred_at = Timestamp(required=True)


class EventWithBody(Event):
    """What happened, and what is told of it; null where no endpoint wanted it."""

    body = RawJson(required=True, allow_none=True)


class EventPage(Schema):
    """A page of events."""

    items = fields.List(fields.Nested(Event), required=True)
    next_cursor = Id(required=True, allow_none=True)


class DeliveryQuery(CursorQuery):
    """Which deliveries."""

    endpoint_id = Id(load_default=None)
    event_id = Id(load_default=None)
    status = fields.Str(load_default=None, validate=validate.OneOf(STATUSES))


class Delivery(Schema):
    """What became of an event at an endpoint."""

    id = Id(required=True)
    endpoint_id = Id(required=True)
    event_id = Id(required=True)
    webhook_id = fields.Str(required=True, attribute="message_id")
    type = fields.Str(required=True)
    aggregate = fields.Str(required=True)
    aggregate_id = Id(required=True)
    status = fields.Str(required=True)
    attempts = fields.Int(required=True)
    last_attempt_at = Timestamp(required=True, allow_none=True)
    last_status = fields.Int(required=True, allow_none=True)
    last_error = fields.Str(required=True, allow_none=True)
    delivered_at = Timestamp(required=True, allow_none=True)
    replay_count = fields.Int(required=True)
    last_replayed_at = Timestamp(required=True, allow_none=True)
    last_replayed_by = Id(required=True, allow_none=True)


class DeliveryPage(Schema):
    """A page of deliveries."""

    items = fields.List(fields.Nested(Delivery), required=True)
    next_cursor = Id(required=True, allow_none=True)


class BulkReplay(Schema):
    """Which dead letters to send again, the oldest first."""

    endpoint_id = Id(load_default=None, allow_none=True)
    limit = fields.Int(load_default=100, strict=True, validate=validate.Range(1, REPLAY_COUNT_MAX))


class Left(Schema):
    """Dead letters of an endpoint to which nothing is sent, and why."""

    endpoint_id = Id(required=True)
    count = fields.Int(required=True)
    code = fields.Str(
        required=True,
        metadata={"enum": ["export_target_missing", "invalid_export_target"]},
    )
    message = fields.Str(required=True)


class Replayed(Schema):
    """How many are sent again, how many dead letters there still are, and which were left."""

    replayed = fields.Int(required=True)
    remaining = fields.Int(required=True)
    left = fields.List(fields.Nested(Left), required=True)


class DeadLetterQuery(Schema):
    """Which dead letters."""

    limit = fields.Integer(load_default=50, validate=validate.Range(1, REPLAY_COUNT_MAX))
    offset = fields.Integer(load_default=0, validate=validate.Range(0, 1_000_000))


class DeadLetter(Schema):
    """A message of which all attempts failed."""

    event_id = Id(required=True, attribute="id", metadata={"description": "The delivery."})
    kind = fields.Str(required=True, attribute="type")
    webhook_id = fields.Str(required=True, attribute="message_id")
    endpoint_id = Id(required=True)
    target_url = fields.Str(required=True)
    attempts = fields.Int(required=True)
    last_error_code = fields.Str(required=True, allow_none=True, attribute="last_error")
    replay_count = fields.Int(required=True)
    created_at = Timestamp(required=True)
    last_replayed_at = Timestamp(required=True, allow_none=True)
    last_replayed_by = Id(required=True, allow_none=True)


class DeadLetters(Schema):
    """A page of dead letters."""

    items = fields.List(fields.Nested(DeadLetter), required=True)
    total = fields.Int(required=True)


class ReplayedLetter(Schema):
    """A dead letter that is sent again: success is null until the worker knows."""

    event_id = Id(required=True, attribute="id")
    success = fields.Bool(required=True, allow_none=True)
    attempts = fields.Int(required=True)
    last_error_code = fields.Str(required=True, allow_none=True, attribute="last_error")
    last_replayed_at = Timestamp(required=True, allow_none=True)
    last_replayed_by = Id(required=True, allow_none=True)


@routes.endpoint(
    "POST", "/webhooks/{id}/test", permission="webhooks:write", org_wide=True,
    returns=Delivery(), status=202, location="/webhook-deliveries/{id}", refuses=(409,),
)  # fmt: skip
async def send_test_event(call: Call) -> Any:
    """Queue a `webhook.test` event for this endpoint alone.

    409 `webhook_endpoint_inactive` for one that gets nothing.
    """
    endpoint = await q.webhooks.get_endpoint(call.conn, org_id=call.org_id, id=call.path["id"])
    if not endpoint.is_active:
        raise ApiError(
            "webhook_endpoint_inactive", "This endpoint is not active: activate it.", status=409
        )
    body = {
        "type": "webhook.test",
        "timestamp": iso(call.now),
        "data": {"endpoint_id": endpoint.id},
    }
    delivery_id = await q.deliveries.send_test_event(
        call.conn, endpoint_id=endpoint.id, body=orjson.dumps(body).decode()
    )
    call.audit(entity_id=delivery_id)
    return await q.deliveries.get_delivery(call.conn, org_id=call.org_id, id=delivery_id)


@routes.endpoint(
    "GET", "/webhook-events", permission="webhooks:read", org_wide=True, query=EventQuery(),
    returns=EventPage(),
)  # fmt: skip
async def list_events(call: Call) -> Any:
    """List events in their order, from a cursor on, for as long as they are kept."""
    query = dict(call.query)
    limit, cursor = query.pop("limit"), query.pop("cursor")
    rows = await q.deliveries.list_events(
        call.conn, org_id=call.org_id, after_id=cursor or 0, limit=limit + 1, **query
    )
    return cursor_page(rows, limit, "id")


@routes.endpoint(
    "GET", "/webhook-events/{id}", permission="webhooks:read", org_wide=True,
    returns=EventWithBody(),
)  # fmt: skip
async def get_event(call: Call) -> Any:
    """Get an event with what is told of it."""
    return await q.deliveries.get_event(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "GET", "/webhook-deliveries", permission="webhooks:read", org_wide=True,
    query=DeliveryQuery(), returns=DeliveryPage(),
)  # fmt: skip
async def list_deliveries(call: Call) -> Any:
    """List deliveries, the latest first: what arrived, what waits, what is dead."""
    query = dict(call.query)
    limit, cursor = query.pop("limit"), query.pop("cursor")
    rows = await q.deliveries.list_deliveries(
        call.conn, org_id=call.org_id, before_id=cursor, limit=limit + 1, **query
    )
    return cursor_page(rows, limit, "id")


@routes.endpoint(
    "GET", "/webhook-deliveries/{id}", permission="webhooks:read", org_wide=True,
    returns=Delivery(),
)  # fmt: skip
async def get_delivery(call: Call) -> Any:
    """Get a delivery."""
    return await q.deliveries.get_delivery(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "POST", "/webhook-deliveries/replay", permission="webhooks:write", org_wide=True,
    body=BulkReplay(), returns=Replayed(), status=202, limit="report",
)  # fmt: skip
async def replay_deliveries(call: Call) -> Any:
    """Send dead letters again, the oldest first; each begins its attempts anew.

    Those of an endpoint that is not active, or whose URL nothing may be sent to any more, stay
    dead; `left` says how many, and why.
    """
    wanted = {"org_id": call.org_id, "endpoint_id": call.body["endpoint_id"]}
    found = await q.deliveries.count_dead_of_endpoints(call.conn, **wanted)
    left: list[dict[str, Any]] = [
        {
            "endpoint_id": row.endpoint_id,
            "count": row.dead_count,
            "code": error.code,
            "message": error.message,
        }
        for row in found
        if (error := refusal(call, row)) is not None
    ]
    rows = await q.deliveries.list_dead_elsewhere(
        call.conn,
        **wanted,
        left_endpoint_ids=[row["endpoint_id"] for row in left],
        limit=call.body["limit"],
    )
    replayed = await q.deliveries.replay_deliveries(
        call.conn, ids=[row.id for row in rows], user_id=call.user_id, attempts=0
    )
    remaining = sum(row.dead_count for row in found) - replayed
    return {"replayed": replayed, "remaining": remaining, "left": left}


@routes.endpoint(
    "POST", "/webhook-deliveries/{id}/replay", permission="webhooks:write", org_wide=True,
    returns=Delivery(), status=202, refuses=(400, 409),
)  # fmt: skip
async def replay_delivery(call: Call) -> Any:
    """Send a dead letter again; its attempts begin anew, and later events of its thing follow.

    Refused by code: delivery_not_dead (409), export_target_missing and invalid_export_target
    (400).
    """
    return await replay(call)


@routes.endpoint(
    "POST", "/webhook-deliveries/{id}/give-up", permission="webhooks:write", org_wide=True,
    returns=Delivery(), refuses=(409,),
)  # fmt: skip
async def give_up_delivery(call: Call) -> Any:
    """Give a dead letter up: it is never sent, and later events of its thing are.

    409 `delivery_not_dead` for one that is not dead.
    """
    wanted = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.deliveries.get_delivery(call.conn, **wanted))
    if not await q.deliveries.give_up_delivery(call.conn, id=call.path["id"]):
        raise not_dead()
    return await q.deliveries.get_delivery(call.conn, **wanted)


@routes.endpoint(
    "GET", "/admin/export-dead-letter", permission="system:manage", org_wide=True, admin=True,
    query=DeadLetterQuery(), returns=DeadLetters(),
)  # fmt: skip
@routes.endpoint(
    "GET", "/v1/admin/export-dead-letter", permission="system:manage", org_wide=True, admin=True,
    prefix=False, query=DeadLetterQuery(), returns=DeadLetters(),
)  # fmt: skip
async def list_dead_letters(call: Call) -> Any:
    """List messages of which all attempts failed, the oldest first."""
    rows = await q.deliveries.list_dead_letters(
        call.conn, org_id=call.org_id, endpoint_id=None, **call.query
    )
    total = await q.deliveries.count_dead_letters(call.conn, org_id=call.org_id, endpoint_id=None)
    return {"items": rows, "total": total}


@routes.endpoint(
    "POST", "/admin/export-dead-letter/{id}/replay", permission="system:manage", org_wide=True,
    admin=True, returns=ReplayedLetter(), status=202, idempotent="required", limit="report",
    refuses=(400, 409),
)  # fmt: skip
@routes.endpoint(
    "POST", "/v1/admin/export-dead-letter/{id}/replay", permission="system:manage",
    org_wide=True, admin=True, prefix=False, returns=ReplayedLetter(), status=202,
    idempotent="required", limit="report", refuses=(400, 409),
)  # fmt: skip
async def replay_dead_letter(call: Call) -> Any:
    """Send a dead letter again; needs an Idempotency-Key.

    Refused by code: delivery_not_dead (409), export_target_missing and invalid_export_target
    (400).
    """
    return {**await replay(call), "success": None}


async def replay(call: Call) -> Any:
    """Begin the path's dead letter again; returns the delivery."""
    wanted = {"org_id": call.org_id, "id": call.path["id"]}
    delivery = await q.deliveries.get_delivery(call.conn, **wanted)
    call.before(delivery)
    endpoint = await q.webhooks.get_endpoint(call.conn, org_id=call.org_id, id=delivery.endpoint_id)
    refused = refusal(call, endpoint)
    if refused is not None:
        raise refused
    if not await q.deliveries.replay_deliveries(
        call.conn, ids=[delivery.id], user_id=call.user_id, attempts=0
    ):
        raise not_dead()
    return await q.deliveries.get_delivery(call.conn, **wanted)


def refusal(call: Call, endpoint: Any) -> ApiError | None:
    """Return why nothing is sent to an endpoint, if so; its URL is as good as the settings say."""
    if not endpoint.is_active:
        return ApiError(
            "export_target_missing", "Its endpoint is not active: activate it first.", status=400
        )
    return target_refusal(call.settings, endpoint.url)


def not_dead() -> ApiError:
    """Return the refusal to replay or give up what is under way or has arrived."""
    return ApiError(
        "delivery_not_dead", "This message is not dead: it arrived, waits, or was given up.",
        status=409,
    )  # fmt: skip
