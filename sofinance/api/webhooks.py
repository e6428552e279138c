"""Webhooks: where an organisation has its events sent, and what its messages are signed with."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.events import EVENT_NAMES
from sofinance.infra import signatures
from sofinance.infra.fields import Flag, Id, Timestamp
from sofinance.infra.http import Call, Routes
from sofinance.infra.targets import URL_LENGTH_MAX, check_target

routes = Routes()

OVERLAP_MINUTES, OVERLAP_MINUTES_MAX = 24 * 60, 7 * 24 * 60
TYPES = fields.List(
    fields.Str(validate=validate.OneOf(EVENT_NAMES)),
    load_default=None,
    allow_none=True,
    validate=validate.Length(1, 50),
)


class NewEndpoint(Schema):
    """Where to send, and which events; without types, every event."""

    url = fields.Str(required=True, validate=validate.Length(1, URL_LENGTH_MAX))
    description = fields.Str(load_default="", validate=validate.Length(max=200))
    event_types = TYPES
    signature = fields.Str(load_default="hmac", validate=validate.OneOf(signatures.KINDS))


class EndpointChange(Schema):
    """Where to send from now on, and which events."""

    url = fields.Str(required=True, validate=validate.Length(1, URL_LENGTH_MAX))
    description = fields.Str(load_default="", validate=validate.Length(max=200))
    event_types = TYPES
    is_active = Flag(load_default=True)


class Rotation(Schema):
    """For how long the secret that is replaced still signs as well."""

    overlap_minutes = fields.Int(
        load_default=OVERLAP_MINUTES, strict=True, validate=validate.Range(0, OVERLAP_MINUTES_MAX)
    )


class Endpoint(Schema):
    """An endpoint."""

    id = Id(required=True)
    url = fields.Str(required=True)
    description = fields.Str(required=True)
    event_types = fields.List(fields.Str(), required=True, allow_none=True)
    signature = fields.Str(required=True)
    is_active = fields.Bool(required=True)
    disabled_at = Timestamp(required=True, allow_none=True)
    disabled_reason = fields.Str(required=True, allow_none=True)
    created_at = Timestamp(required=True)
    created_by = Id(required=True)
    updated_at = Timestamp(required=True)


class PublicKey(Schema):
    """What verifies messages that are signed with ed25519; null where the secret itself does."""

    public_key = fields.Str(required=True, allow_none=True)
    created_at = Timestamp(required=True)
    expires_at = Timestamp(required=True, allow_none=True)


class EndpointWithKeys(Endpoint):
    """An endpoint and what verifies its messages."""

    keys = fields.List(fields.Nested(PublicKey), required=True)


class CreatedEndpoint(Endpoint):
    """A new endpoint with its secret, which is shown this once; or its public key."""

    secret = fields.Str(required=True, allow_none=True)
    public_key = fields.Str(required=True, allow_none=True)


class NewSecret(Schema):
    """A new secret, which is shown this once; or its public key."""

    endpoint_id = Id(required=True)
    secret = fields.Str(required=True, allow_none=True)
    public_key = fields.Str(required=True, allow_none=True)


@routes.endpoint(
    "POST", "/webhooks", permission="webhooks:write", org_wide=True, admin=True,
    body=NewEndpoint(), returns=CreatedEndpoint(), status=201, location="/webhooks/{id}",
    idempotent=False, refuses=(400, 503),
)  # fmt: skip
async def create_endpoint(call: Call) -> Any:
    """Create an endpoint; its secret is shown this once.

    Refused by code: invalid_export_target (400), webhook_endpoint_at_most_20,
    encryption_not_configured (503).
    """
    check_target(call.settings, call.body["url"])
    endpoint = await q.webhooks.create_endpoint(
        call.conn, org_id=call.org_id, user_id=call.user_id, **call.body
    )
    return {**endpoint, **await make_secret(call, endpoint)}


@routes.endpoint(
    "GET", "/webhooks", permission="webhooks:read", org_wide=True, returns=Endpoint(many=True)
)
async def list_endpoints(call: Call) -> Any:
    """List the endpoints: 20 at most."""
    return await q.webhooks.list_endpoints(call.conn, org_id=call.org_id)


@routes.endpoint(
    "GET", "/webhooks/{id}", permission="webhooks:read", org_wide=True, returns=EndpointWithKeys()
)
async def get_endpoint(call: Call) -> Any:
    """Get an endpoint, and the public keys that verify its messages."""
    endpoint = await q.webhooks.get_endpoint(call.conn, org_id=call.org_id, id=call.path["id"])
    keys = await q.webhooks.list_public_keys(call.conn, org_id=call.org_id, endpoint_id=endpoint.id)
    return {**endpoint, "keys": keys}


@routes.endpoint(
    "PUT", "/webhooks/{id}", permission="webhooks:write", org_wide=True, admin=True,
    body=EndpointChange(), returns=Endpoint(), if_match="optional", refuses=(400,),
)  # fmt: skip
async def change_endpoint(call: Call) -> Any:
    """Replace where to send and which events; an inactive one gets nothing and keeps its queue."""
    check_target(call.settings, call.body["url"])
    wanted = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.webhooks.get_endpoint(call.conn, **wanted))
    return await q.webhooks.change_endpoint(call.conn, **wanted, **call.body)


@routes.endpoint(
    "DELETE", "/webhooks/{id}", permission="webhooks:write", org_wide=True, admin=True,
    if_match="optional",
)  # fmt: skip
async def delete_endpoint(call: Call) -> Any:
    """Delete an endpoint with its deliveries; what waited for it is not sent."""
    endpoint = await q.webhooks.delete_endpoint(call.conn, org_id=call.org_id, id=call.path["id"])
    call.before(endpoint)
    return endpoint


@routes.endpoint(
    "POST", "/webhooks/{id}/rotate-secret", permission="webhooks:write", org_wide=True,
    admin=True, body=Rotation(), returns=NewSecret(), idempotent=False, refuses=(503,),
)  # fmt: skip
async def rotate_secret(call: Call) -> Any:
    """Replace the secret; for `overlap_minutes` the one before signs every message as well."""
    endpoint = await q.webhooks.get_endpoint(call.conn, org_id=call.org_id, id=call.path["id"])
    await q.webhooks.retire_secrets(
        call.conn,
        org_id=call.org_id,
        endpoint_id=endpoint.id,
        minutes=call.body["overlap_minutes"],
    )
    return {"endpoint_id": endpoint.id, **await make_secret(call, endpoint)}


async def make_secret(call: Call, endpoint: Any) -> dict[str, str | None]:
    """Give an endpoint a secret; returns what its receiver needs."""
    secret = signatures.make_secret(endpoint.signature)
    public_key = signatures.public_key(secret)
    await q.webhooks.add_secret(
        call.conn,
        org_id=call.org_id,
        endpoint_id=endpoint.id,
        sealed=call.secret_box.seal(
            secret.encode(), purpose=signatures.PURPOSE, org_id=call.org_id, user_id=endpoint.id
        ),
        public_key=public_key,
    )
    return {"secret": None if public_key else secret, "public_key": public_key}
