"""Roles and permissions: what a role may do, and what one user may do beyond it, or not."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import errors
from sofinance.infra.fields import Id, Timestamp
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

EFFECTS = ["ALLOW", "DENY"]


class Permission(Schema):
    """A permission: resource:action."""

    name = fields.Str(required=True)
    description = fields.Str(required=True)


class Permissions(Schema):
    """Every permission that there is."""

    items = fields.List(fields.Nested(Permission), required=True)


class RoleChange(Schema):
    """What a role is for."""

    description = fields.Str(load_default="", validate=validate.Length(max=200))


class NewRole(RoleChange):
    """A role of the organisation's own."""

    name = fields.Str(required=True, validate=validate.Regexp(r"\A[A-Z][A-Z0-9_]{1,39}\Z"))


class Role(Schema):
    """A role."""

    name = fields.Str(required=True)
    description = fields.Str(required=True)
    is_built_in = fields.Bool(required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class CountedRole(Role):
    """A role and how many active users have it."""

    user_count = fields.Int(required=True)


class RolePermissions(Schema):
    """What a role may do; `allowed` and `denied` are what the organisation changed of it."""

    role = fields.Str(required=True)
    is_built_in = fields.Bool(required=True)
    permissions = fields.List(fields.Str(), required=True)
    allowed = fields.List(fields.Str(), required=True)
    denied = fields.List(fields.Str(), required=True)


class RoleEffect(Schema):
    """Whether a role may."""

    effect = fields.Str(required=True, validate=validate.OneOf(EFFECTS))


class UserEffect(Schema):
    """Whether a user may, whatever the role says."""

    type = fields.Str(required=True, validate=validate.OneOf(EFFECTS))


class UserPermissions(Schema):
    """What a user may do, all things considered, and where it comes from."""

    user_id = Id(required=True)
    role = fields.Str(required=True)
    is_active = fields.Bool(required=True)
    all_branches = fields.Bool(required=True)
    branch_ids = fields.List(Id(), required=True)
    effective = fields.List(fields.Str(), required=True)
    role_permissions = fields.List(fields.Str(), required=True)
    allowed_overrides = fields.List(fields.Str(), required=True, attribute="allowed")
    denied_overrides = fields.List(fields.Str(), required=True, attribute="denied")


@routes.endpoint("GET", "/permissions", permission="roles:read", returns=Permissions())
async def list_permissions(call: Call) -> Any:
    """List every permission; they are the release's, so none is added or removed."""
    return {"items": await q.auth.list_permissions(call.conn)}


@routes.endpoint("GET", "/permissions/mine", any_user=True, returns=UserPermissions())
async def get_own_permissions(call: Call) -> Any:
    """Get what the caller's user may do; an API key may do at most that."""
    return await q.roles.get_user_permissions(call.conn, org_id=call.org_id, user_id=call.user_id)


# -- roles ---------------------------------------------------------------------------------------


@routes.endpoint("GET", "/roles", permission="roles:read", returns=paged(CountedRole()))
async def list_roles(call: Call) -> Any:
    """List roles, the built-in ones first."""
    rows = await q.roles.list_roles(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset
    )
    return rows, await q.roles.count_roles(call.conn, org_id=call.org_id)


@routes.endpoint(
    "POST", "/roles", permission="roles:write", admin=True, org_wide=True, body=NewRole(),
    returns=Role(), status=201, location="/roles/{name}",
)  # fmt: skip
async def create_role(call: Call) -> Any:
    """Create a role, which may do nothing until permissions are given to it."""
    return await q.roles.create_role(call.conn, org_id=call.org_id, **call.body)


@routes.endpoint("GET", "/roles/{name}", permission="roles:read", returns=Role())
async def get_role(call: Call) -> Any:
    """Get a role."""
    return await q.roles.get_role(call.conn, org_id=call.org_id, name=call.path["name"])


@routes.endpoint(
    "PUT", "/roles/{name}", permission="roles:write", admin=True, org_wide=True, body=RoleChange(),
    returns=Role(), if_match="optional",
)  # fmt: skip
async def describe_role(call: Call) -> Any:
    """Say what a role is for."""
    key = {"org_id": call.org_id, "name": call.path["name"]}
    call.before(await q.roles.get_role(call.conn, **key))
    return await q.roles.describe_role(call.conn, **key, **call.body)


@routes.endpoint(
    "DELETE",
    "/roles/{name}",
    permission="roles:write",
    admin=True,
    org_wide=True,
    if_match="optional",
)
async def delete_role(call: Call) -> Any:
    """Delete a role that nobody has; the built-in ones stay."""
    deleted = await q.roles.delete_role(call.conn, org_id=call.org_id, name=call.path["name"])
    call.before(deleted)
    return deleted


@routes.endpoint(
    "GET", "/permissions/roles/{role}", permission="roles:read", returns=RolePermissions()
)
async def get_role_permissions(call: Call) -> Any:
    """Get what a role may do."""
    return await q.roles.get_role_permissions(call.conn, org_id=call.org_id, name=call.path["role"])


@routes.endpoint(
    "PUT", "/permissions/roles/{role}/{permission}", permission="roles:write", admin=True,
    org_wide=True, body=RoleEffect(), returns=RolePermissions(),
)  # fmt: skip
async def grant_to_role(call: Call) -> Any:
    """Let a role do something (ALLOW) or keep it from that (DENY).

    403 unless you have the permission and all that the role has, and for one's own role.
    """
    call.before(await get_role_permissions(call))
    await q.roles.grant_to_role(call.conn, org_id=call.org_id, **call.path, **call.body)
    return await get_role_permissions(call)


@routes.endpoint(
    "DELETE",
    "/permissions/roles/{role}/{permission}",
    permission="roles:write",
    admin=True,
    org_wide=True,
)
async def reset_for_role(call: Call) -> None:
    """Undo what was changed of a role's permission."""
    call.before(await get_role_permissions(call))
    if not await q.roles.reset_for_role(call.conn, org_id=call.org_id, **call.path):
        raise errors.not_found()


# -- users ---------------------------------------------------------------------------------------


@routes.endpoint(
    "GET", "/permissions/users/{user_id}", permission="users:read", returns=UserPermissions()
)
async def get_user_permissions(call: Call) -> Any:
    """Get what a user may do and where it comes from."""
    key = {"org_id": call.org_id, "user_id": call.path["user_id"]}
    await q.users.get_user(call.conn, org_id=call.org_id, id=key["user_id"], caller_id=call.user_id)
    return await q.roles.get_user_permissions(call.conn, **key)


@routes.endpoint(
    "PUT", "/permissions/users/{user_id}/{permission}", permission="roles:write", admin=True,
    body=UserEffect(), returns=UserPermissions(), entity="users",
)  # fmt: skip
async def grant_to_user(call: Call) -> Any:
    """Let a user do something beyond the role (ALLOW), or not although the role may (DENY).

    403 unless you have the permission and all that the user has, and for oneself.
    """
    call.before(await get_user_permissions(call))
    call.audit(entity_id=call.path["user_id"])
    await q.roles.grant_to_user(
        call.conn, org_id=call.org_id, **call.path, effect=call.body["type"]
    )
    return await get_user_permissions(call)


@routes.endpoint(
    "DELETE", "/permissions/users/{user_id}/{permission}", permission="roles:write", admin=True,
    entity="users",
)  # fmt: skip
async def reset_for_user(call: Call) -> None:
    """Let the role alone decide about a user's permission again."""
    call.before(await get_user_permissions(call))
    call.audit(entity_id=call.path["user_id"])
    if not await q.roles.reset_for_user(call.conn, org_id=call.org_id, **call.path):
        raise errors.not_found()
