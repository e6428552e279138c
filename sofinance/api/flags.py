"""Flags: what is switched on for whom. Which there are, the release says (docs/flags.md)."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import errors
from sofinance.infra.administration import demand_operator
from sofinance.infra.fields import Flag as TrueOrFalse
from sofinance.infra.fields import Id, PageQuery, Timestamp
from sofinance.infra.http import Call, Routes, paged

routes = Routes()

PERCENT = validate.Range(0, 100)
FLAG_COUNT_MAX = 500


class Flag(Schema):
    """A flag of this release, and what holds for it on the whole server."""

    name = fields.Str(required=True)
    description = fields.Str(required=True)
    owner = fields.Str(required=True)
    sunset = fields.Date(required=True, metadata={"description": "When it has to be gone."})
    default = fields.Bool(required=True)
    variants = fields.List(fields.Str(), required=True)
    is_operators = fields.Bool(
        required=True, metadata={"description": "Set by whoever runs the service only."}
    )
    global_percent = fields.Int(required=True, allow_none=True)
    is_killed = fields.Bool(required=True)


class Scope(Schema):
    """For whom: a branch, a user, or, without either, the organisation."""

    branch_id = Id(load_default=None, allow_none=True)
    user_id = Id(load_default=None, allow_none=True)


class NewOverride(Scope):
    """For whom, and for how many: 100 is on, 0 is off."""

    percent = fields.Int(required=True, strict=True, validate=PERCENT)


class Override(Schema):
    """What is set for the organisation, a branch or a user."""

    id = Id(required=True)
    flag = fields.Str(required=True)
    branch_id = Id(required=True, allow_none=True)
    user_id = Id(required=True, allow_none=True)
    percent = fields.Int(required=True)
    changed_by = Id(required=True, allow_none=True)
    changed_at = Timestamp(required=True)


class NewGlobal(Schema):
    """What holds for everybody; without a percentage, what the release declares."""

    percent = fields.Int(load_default=None, allow_none=True, strict=True, validate=PERCENT)
    is_killed = TrueOrFalse(load_default=False)


class Evaluation(Schema):
    """Whether a flag is on, and which level says so."""

    flag = fields.Str(required=True)
    is_on = fields.Bool(required=True)
    reason = fields.Str(
        required=True,
        metadata={"enum": ["killed", "user", "branch", "organisation", "global", "default"]},
    )
    variant = fields.Str(required=True, allow_none=True)


@routes.endpoint("GET", "/flags", permission="flags:read", returns=Flag(many=True))
async def list_flags(call: Call) -> Any:
    """List the flags of this release."""
    rows = await known(call)
    return [described(flag, rows.get(flag.name)) for flag in call.flags.declared]


@routes.endpoint(
    "GET", "/flags/{name}/overrides", permission="flags:read", org_wide=True, query=PageQuery(),
    returns=paged(Override()), refuses=(404,),
)  # fmt: skip
async def list_overrides(call: Call) -> Any:
    """List for whom a flag is set: the organisation, then branches, then users."""
    key = {"org_id": call.org_id, "flag": find(call).name}
    rows = await q.flags.list_overrides(call.conn, limit=call.limit, offset=call.offset, **key)
    return rows, await q.flags.count_overrides(call.conn, **key)


@routes.endpoint("GET", "/flags/{name}/evaluate", any_user=True, returns=Evaluation(),
                 refuses=(404,))  # fmt: skip
async def evaluate(call: Call) -> Any:
    """Say whether a flag is on for you, in the branch that X-Branch-Id names."""
    flag = find(call)
    decided = await call.flags.decide(
        flag.name, org_id=call.org_id, branch_id=call.branch_id, user_id=call.user_id,
        conn=call.conn,
    )  # fmt: skip
    return {
        "flag": flag.name,
        "is_on": decided.is_on,
        "reason": decided.reason,
        "variant": decided.variant,
    }


@routes.endpoint(
    "PUT", "/flags/{name}", permission="flags:write", org_wide=True, admin=True,
    body=NewOverride(), returns=Override(), refuses=(403, 404),
)  # fmt: skip
async def set_override(call: Call) -> Any:
    """Set a flag for the organisation, for a branch or for a user.

    For the organisation `percent` may be a share: it is on for so many of its users, always the
    same. Seen everywhere within 5 seconds.
    """
    key = scope_of(call, call.body)
    found = await q.flags.find_override(call.conn, **key)
    if found is not None:
        call.before(found)
    call.flags.forget()
    return await q.flags.set_override(
        call.conn, percent=call.body["percent"], changed_by=call.user_id, **key
    )


@routes.endpoint(
    "DELETE", "/flags/{name}", permission="flags:write", org_wide=True, admin=True, query=Scope(),
    refuses=(403, 404),
)  # fmt: skip
async def delete_override(call: Call) -> None:
    """Let a flag be for a scope as it is around it; 404 where it is not set."""
    removed = await q.flags.delete_override(call.conn, **scope_of(call, call.query))
    call.before(removed)
    call.audit(entity_id=removed.id)
    call.flags.forget()


@routes.endpoint(
    "PUT", "/flags/{name}/global", permission="system:manage", org_wide=True, admin=True,
    body=NewGlobal(), returns=Flag(), refuses=(404,),
)  # fmt: skip
async def set_global(call: Call) -> Any:
    """Set a flag for the whole server, or kill it: off for everybody; for the operator.

    Killing wins over whatever is set for anybody, and is undone with `is_killed: false`.
    """
    demand_operator(call)
    flag = find(call)
    call.before(described(flag, (await known(call)).get(flag.name)))
    await q.flags.set_flag(call.conn, name=flag.name, **call.body)
    call.audit(severity="WARNING")
    call.flags.forget()
    return described(flag, (await known(call))[flag.name])


async def known(call: Call) -> dict[str, Any]:
    """Return what the server knows of its flags, by name."""
    rows = await q.flags.list_flags(call.conn, limit=FLAG_COUNT_MAX)
    return {row.name: row for row in rows}


def find(call: Call) -> Any:
    """Return the path's flag; not_found (404) where the release has none of this name."""
    flag = call.flags.find(call.path["name"])
    if flag is None:
        raise errors.not_found()
    return flag


def scope_of(call: Call, asked: dict[str, Any]) -> dict[str, Any]:
    """Return for which flag and whom something is set; forbidden (403) for the operator's."""
    flag = find(call)
    if flag.is_operators:
        demand_operator(call)
    return {
        "org_id": call.org_id,
        "flag": flag.name,
        "branch_id": asked["branch_id"],
        "user_id": asked["user_id"],
    }


def described(flag: Any, row: Any) -> dict[str, Any]:
    """Return a flag with what the server knows of it."""
    return {
        "name": flag.name,
        "description": flag.description,
        "owner": flag.owner,
        "sunset": flag.sunset,
        "default": flag.default,
        "variants": list(flag.variants),
        "is_operators": flag.is_operators,
        "global_percent": None if row is None else row.percent,
        "is_killed": row is not None and row.is_killed,
    }
