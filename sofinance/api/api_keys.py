"""API keys: credentials of machines, which act for the user who made them and may do less."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import errors
from sofinance.infra.fields import Id, PageQuery, Timestamp
from sofinance.infra.guard import API_KEY, forbidden, make_secret, write_opaque
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

DAYS_MAX = 366
DAYS_DEFAULT = 90
OVERLAP_MINUTES_MAX = 7 * 24 * 60
DAYS = fields.Int(load_default=DAYS_DEFAULT, strict=True, validate=validate.Range(1, DAYS_MAX))


class NewKey(Schema):
    """What a key is for, and how much it may do; without branches, in all that its user has."""

    name = fields.Str(required=True, validate=validate.Length(1, 100))
    permissions = fields.List(
        fields.Str(validate=validate.Length(1, 100)),
        required=True,
        validate=validate.Length(1, 200),
    )
    branch_ids = fields.List(
        Id(), load_default=None, allow_none=True, validate=validate.Length(1, 1_000)
    )
    expires_in_days = DAYS


class Rotation(Schema):
    """For how long the new key is good, and the old one still is."""

    expires_in_days = DAYS
    overlap_minutes = fields.Int(
        load_default=0, strict=True, validate=validate.Range(0, OVERLAP_MINUTES_MAX)
    )


class Key(Schema):
    """A key; its secret is not kept."""

    id = Id(required=True)
    user_id = Id(required=True)
    name = fields.Str(required=True)
    permissions = fields.List(fields.Str(), required=True)
    branch_ids = fields.List(Id(), required=True, allow_none=True)
    created_at = Timestamp(required=True)
    expires_at = Timestamp(required=True)
    last_used_on = fields.Date(required=True, allow_none=True)
    revoked_at = Timestamp(required=True, allow_none=True)
    replaces = Id(required=True, allow_none=True)


class CreatedKey(Key):
    """A new key with its secret, which is shown this once: ``Authorization: Bearer <secret>``."""

    secret = fields.Str(required=True)


class KeyQuery(PageQuery):
    """Whose keys: without a user one's own, or everyone's."""

    user_id = Id(load_default=None)
    everyone = fields.Bool(load_default=False)
    include_ended = fields.Bool(load_default=False)


@routes.endpoint(
    "POST", "/api-keys", permission="api_keys:write", admin=True, body=NewKey(),
    returns=CreatedKey(), status=201, location="/api-keys/{id}", idempotent=False,
)  # fmt: skip
async def create_key(call: Call) -> Any:
    """Make a key that acts for you, with permissions and branches that you have."""
    body = dict(call.body)
    return await make(call, own_ids=body.pop("branch_ids"), replaces=None, **body)


@routes.endpoint(
    "GET", "/api-keys", any_user=True, query=KeyQuery(), returns=paged(Key()), refuses=(404,)
)
async def list_keys(call: Call) -> Any:
    """List keys, the latest first: one's own, with users:read those of others as well."""
    asked = call.query["user_id"]
    user_id = None if asked is None and call.query["everyone"] else asked or call.user_id
    if user_id != call.user_id:
        if not call.allows("users:read"):
            raise forbidden("This needs the permission users:read.", permission="users:read")
        if user_id is None and call.principal.branch_ids is not None:
            raise forbidden("Keys of everyone are for who has all branches: give a user_id.")
        if user_id is not None:
            await see(call, user_id)
    wanted = {
        "org_id": call.org_id,
        "of_user_id": user_id,
        "include_ended": call.query["include_ended"],
    }
    rows = await q.api_keys.list_keys(call.conn, limit=call.limit, offset=call.offset, **wanted)
    return rows, await q.api_keys.count_keys(call.conn, **wanted)


@routes.endpoint("GET", "/api-keys/{id}", any_user=True, returns=Key())
async def get_key(call: Call) -> Any:
    """Get a key: one's own, with users:read that of anybody."""
    return await find(call, "users:read")


@routes.endpoint(
    "POST", "/api-keys/{id}/rotate", permission="api_keys:write", admin=True, body=Rotation(),
    returns=CreatedKey(), status=201, location="/api-keys/{id}", idempotent=False,
)  # fmt: skip
async def rotate_key(call: Call) -> Any:
    """Make a key in the place of one of yours, which ends now, or after `overlap_minutes`.

    409 `api_key_replaces_once` for a key that was rotated before.
    """
    old = await q.api_keys.get_key(call.conn, org_id=call.org_id, id=call.path["id"])
    if old.user_id != call.user_id:
        raise errors.not_found()
    call.before(
        await q.api_keys.end_key(
            call.conn, org_id=call.org_id, id=old.id, minutes=call.body["overlap_minutes"]
        )
    )
    return await make(
        call,
        name=old.name,
        permissions=old.permissions,
        own_ids=old.branch_ids,
        expires_in_days=call.body["expires_in_days"],
        replaces=old.id,
    )


@routes.endpoint("DELETE", "/api-keys/{id}", any_user=True, admin=True, in_read_only=True)
async def revoke_key(call: Call) -> None:
    """End a key at once: one's own, with users:write that of anybody who has no more than you."""
    key = await find(call, "users:write")
    call.before(key)
    await q.api_keys.end_key(call.conn, org_id=call.org_id, id=key.id, minutes=0)


async def find(call: Call, permission: str) -> Any:
    """Return the path's key; not_found (404) for that of others without the permission."""
    key = await q.api_keys.get_key(call.conn, org_id=call.org_id, id=call.path["id"])
    if key.user_id != call.user_id:
        if not call.allows(permission):
            raise errors.not_found()
        await see(call, key.user_id)
    return key


async def see(call: Call, user_id: int) -> None:
    """Raise not_found (404) for a user who works in none of the caller's branches."""
    await q.users.get_user(call.conn, org_id=call.org_id, id=user_id, caller_id=call.user_id)


async def make(call: Call, **about: Any) -> Any:
    """Make a key of the caller's; returns it with its secret."""
    secret, secret_hash = make_secret()
    key = await q.api_keys.create_key(
        call.conn, org_id=call.org_id, user_id=call.user_id, secret_hash=secret_hash, **about
    )
    return {**key, "secret": write_opaque(API_KEY, call.org_id, key.id, secret)}
