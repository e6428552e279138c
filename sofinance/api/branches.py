"""Branches and their tills."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra.fields import Flag, Id, PageQuery, Timestamp
from sofinance.infra.http import Call, Routes, paged
from sofinance.schemas import known_time_zone

routes = Routes()


class NewBranch(Schema):
    """What a branch says of itself."""

    name = fields.Str(required=True, validate=validate.Length(1, 200))
    address = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=500))
    phone = fields.Str(load_default=None, allow_none=True, validate=validate.Length(max=40))
    email = fields.Email(load_default=None, allow_none=True)
    time_zone = fields.Str(load_default=None, allow_none=True, validate=known_time_zone)
    is_active = Flag(load_default=True)


class Branch(Schema):
    """A branch."""

    id = Id(required=True)
    name = fields.Str(required=True)
    address = fields.Str(required=True, allow_none=True)
    phone = fields.Str(required=True, allow_none=True)
    email = fields.Str(required=True, allow_none=True)
    time_zone = fields.Str(required=True)
    is_active = fields.Bool(required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class CreatedBranch(Branch):
    """A new branch and its first till."""

    till_id = Id(required=True)


class BranchQuery(PageQuery):
    """Which branches."""

    search = fields.Str(load_default=None, validate=validate.Length(max=200))
    is_active = fields.Bool(load_default=None)


class NewTill(Schema):
    """What a till is called; its receipt numbers begin with it."""

    name = fields.Str(required=True, validate=validate.Length(1, 50))


class Till(Schema):
    """A till and how many receipts it has given."""

    id = Id(required=True)
    branch_id = Id(required=True)
    name = fields.Str(required=True)
    is_active = fields.Bool(required=True)
    receipt_count = fields.Int(required=True)
    created_at = Timestamp(required=True)


@routes.endpoint(
    "POST", "/branches", permission="branches:write", org_wide=True,
    body=NewBranch(), returns=CreatedBranch(),
    status=201, location="/branches/{id}",
)  # fmt: skip
async def create_branch(call: Call) -> Any:
    """Create a branch, with its first till."""
    return await q.branches.create_branch(call.conn, org_id=call.org_id, **call.body)


@routes.endpoint(
    "GET", "/branches", permission="branches:read", query=BranchQuery(), returns=paged(Branch())
)
async def list_branches(call: Call) -> Any:
    """List branches by name."""
    wanted = {"search": call.query["search"], "is_active": call.query["is_active"]}
    rows = await q.branches.list_branches(
        call.conn, org_id=call.org_id, limit=call.limit, offset=call.offset, **wanted
    )
    return rows, await q.branches.count_branches(call.conn, org_id=call.org_id, **wanted)


@routes.endpoint("GET", "/branches/{id}", permission="branches:read", returns=Branch())
async def get_branch(call: Call) -> Any:
    """Get a branch."""
    return await q.branches.get_branch(call.conn, org_id=call.org_id, id=call.path["id"])


@routes.endpoint(
    "PUT", "/branches/{id}", permission="branches:write", body=NewBranch(), returns=Branch(),
    if_match="optional",
)  # fmt: skip
async def change_branch(call: Call) -> Any:
    """Replace what a branch says of itself."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    call.before(await q.branches.get_branch(call.conn, **key))
    return await q.branches.change_branch(call.conn, **key, **call.body)


@routes.endpoint(
    "POST", "/branches/{id}/tills", permission="branches:write", body=NewTill(), returns=Till(),
    status=201, entity="tills",
)  # fmt: skip
async def create_till(call: Call) -> Any:
    """Create a till; it begins its own series of receipt numbers."""
    await q.branches.get_branch(call.conn, org_id=call.org_id, id=call.path["id"])
    return await q.branches.create_till(
        call.conn, org_id=call.org_id, branch_id=call.path["id"], name=call.body["name"]
    )


class Tills(Schema):
    """The tills of a branch."""

    items = fields.List(fields.Nested(Till), required=True)


@routes.endpoint("GET", "/branches/{id}/tills", permission="branches:read", returns=Tills())
async def list_tills(call: Call) -> Any:
    """List the tills of a branch."""
    key = {"org_id": call.org_id, "id": call.path["id"]}
    await q.branches.get_branch(call.conn, **key)
    return {
        "items": await q.branches.list_tills(
            call.conn, org_id=call.org_id, branch_id=call.path["id"]
        )
    }
