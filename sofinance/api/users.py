"""Users: who works here, in which role and branches. Nobody is deleted, only disabled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from sofinance import queries as q
from sofinance.infra import audit, passwords
from sofinance.infra.db import Mode
from sofinance.infra.fields import Flag, Id, LowerEmail, PageQuery, Timestamp
from sofinance.infra.guard import forbidden
from sofinance.infra.http import Call, Routes, paged
from sofinance.infra.own_account import own_session

if TYPE_CHECKING:
    from sofinance.infra.sql import Connection

routes = Routes()

ROLE = validate.Regexp(r"\A[A-Z][A-Z0-9_]{1,39}\Z")
BRANCH_COUNT_MAX = 1_000


class Profile(Schema):
    """What one is called."""

    first_name = fields.Str(required=True, validate=validate.Length(1, 100))
    last_name = fields.Str(required=True, validate=validate.Length(1, 100))


class UserChange(Profile):
    """All that others decide about a user: `all_branches`, or some `branch_ids`."""

    email = LowerEmail(required=True, validate=validate.Length(max=254))
    role = fields.Str(required=True, validate=ROLE)
    all_branches = Flag(load_default=False)
    branch_ids = fields.List(
        Id(), load_default=list, validate=validate.Length(max=BRANCH_COUNT_MAX)
    )

    @validates_schema
    def check_branches(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse a user of no branch, and one of all and some."""
        if data.get("all_branches", False) == bool(data.get("branch_ids")):
            raise ValidationError("Give branch_ids, or all_branches.", "branch_ids")


class NewUser(UserChange):
    """A new user; without a password, one is made up and shown once."""

    password = fields.Str(
        load_default=None, allow_none=True, validate=validate.Length(1, 128), load_only=True
    )
    must_change_password = Flag(load_default=True)


class NewPassword(Schema):
    """A password for somebody else; without one, it is made up and shown once."""

    password = fields.Str(
        load_default=None, allow_none=True, validate=validate.Length(1, 128), load_only=True
    )


class Employee(Schema):
    """A user, as who manages users sees one."""

    id = Id(required=True)
    org_id = Id(required=True)
    email = fields.Str(required=True)
    first_name = fields.Str(required=True)
    last_name = fields.Str(required=True)
    role = fields.Str(required=True)
    is_active = fields.Bool(required=True)
    all_branches = fields.Bool(required=True)
    branch_ids = fields.List(Id(), required=True)
    must_change_password = fields.Bool(required=True)
    password_changed_at = Timestamp(required=True)
    created_at = Timestamp(required=True)
    updated_at = Timestamp(required=True)


class CreatedUser(Employee):
    """A new user, with the password that was made up, if one was."""

    temporary_password = fields.Str(required=True, allow_none=True)


class TemporaryPassword(Schema):
    """The password that was made up, if one was; it must be changed at the next sign-in."""

    id = Id(required=True)
    temporary_password = fields.Str(required=True, allow_none=True)


class UserQuery(PageQuery):
    """Which users; search looks in names and addresses."""

    search = fields.Str(load_default=None, validate=validate.Length(max=200))
    role = fields.Str(load_default=None, validate=ROLE)
    is_active = fields.Bool(load_default=None)


class Session(Schema):
    """A sign-in that goes on."""

    id = Id(required=True)
    kind = fields.Str(required=True)
    till_id = Id(required=True, allow_none=True)
    has_second_factor = fields.Bool(required=True)
    device = fields.Str(required=True)
    ip = fields.Str(required=True, allow_none=True)
    created_at = Timestamp(required=True)
    last_used_at = Timestamp(required=True)
    idle_until = Timestamp(required=True)
    expires_at = Timestamp(required=True)


class Sessions(Schema):
    """The sessions of a user."""

    items = fields.List(fields.Nested(Session), required=True)


CREATED = Employee()


async def find(call: Call, user_id: int, conn: Connection | None = None) -> Any:
    """Return a user; not_found (404) for one whom the caller may not see."""
    return await q.users.get_user(
        conn or call.conn, org_id=call.org_id, id=user_id, caller_id=call.user_id
    )


def check_own(call: Call, branch_ids: list[int]) -> None:
    """Refuse (403) branches that the caller does not have, whether there are any such or not."""
    own = call.principal.branch_ids
    if own is not None and not own.issuperset(branch_ids):
        raise forbidden("You do not have this branch.")


async def hashed(password: str, *about: str) -> str:
    """Return the hash of a password; invalid_request (422) for one that will not do."""
    passwords.demand_good(password, field="password", about=about)
    return await passwords.hash_password(password)


async def note(call: Call, conn: Connection, action: str, user_id: int, after: Any) -> None:
    """Write down what was done to a user, in an endpoint that opens its own transactions."""
    await audit.write(
        call, conn, org_id=call.org_id, user_id=call.user_id,
        session_id=call.principal.session_id, action=f"users.{action}", entity="users",
        entity_id=user_id, after=after,
    )  # fmt: skip


@routes.endpoint(
    "POST", "/users", permission="users:write", admin=True, own_transactions=True,
    body=NewUser(), returns=CreatedUser(), status=201, location="/users/{id}", idempotent=False,
)  # fmt: skip
async def create_user(call: Call) -> Any:
    """Create a user with no permission and no branch that you lack.

    409 `sign_in_address_taken` if the address signs in anywhere on this server. The password, or
    without one the `temporary_password` that is shown once, must be changed at the first sign-in
    unless `must_change_password` is false.
    """
    body = dict(call.body)
    given, branch_ids = body.pop("password"), body.pop("branch_ids")
    check_own(call, branch_ids)
    password = given or passwords.generate_password()
    password_hash = await hashed(password, body["email"], body["first_name"], body["last_name"])
    async with call.transaction() as conn:
        made = await q.users.create_user(
            conn, org_id=call.org_id, password_hash=password_hash, **body
        )
        await q.users.give_branches(conn, org_id=call.org_id, user_id=made.id, own_ids=branch_ids)
        user = dict(await find(call, made.id, conn))
        await note(call, conn, "create_user", made.id, CREATED.dump(user))
    return {**user, "temporary_password": None if given else password}


@routes.endpoint(
    "GET", "/users", permission="users:read", query=UserQuery(), returns=paged(Employee())
)
async def list_users(call: Call) -> Any:
    """List users by name; who has some branches sees whoever has one of them, or all."""
    wanted = {name: call.query[name] for name in ("search", "role", "is_active")}
    wanted |= {"org_id": call.org_id, "caller_id": call.user_id}
    rows = await q.users.list_users(call.conn, limit=call.limit, offset=call.offset, **wanted)
    return rows, await q.users.count_users(call.conn, **wanted)


@routes.endpoint("GET", "/users/profile", any_user=True, returns=Employee())
async def get_profile(call: Call) -> Any:
    """Get the caller, with role and branches."""
    return await find(call, call.user_id)


@routes.endpoint(
    "PUT", "/users/profile", any_user=True, body=Profile(), returns=Employee(), if_match="optional"
)
async def change_profile(call: Call) -> Any:
    """Replace what the caller is called; not for an API key, and not on a till (403)."""
    own_session(call)
    call.before(await find(call, call.user_id))
    await q.users.change_names(call.conn, org_id=call.org_id, id=call.user_id, **call.body)
    return await find(call, call.user_id)


@routes.endpoint("GET", "/users/{id}", permission="users:read", returns=Employee())
async def get_user(call: Call) -> Any:
    """Get a user."""
    return await find(call, call.path["id"])


@routes.endpoint(
    "PUT", "/users/{id}", permission="users:write", admin=True, body=UserChange(),
    returns=Employee(), if_match="optional",
)  # fmt: skip
async def change_user(call: Call) -> Any:
    """Replace a user's address, names, role and branches.

    403 for one's own role and branches, and for a user who has, or would have, a permission or a
    branch that you lack.
    """
    body, user_id = dict(call.body), call.path["id"]
    branch_ids = body.pop("branch_ids")
    check_own(call, branch_ids)
    call.before(await find(call, user_id))
    await q.users.change_user(call.conn, org_id=call.org_id, id=user_id, **body)
    key = {"org_id": call.org_id, "user_id": user_id, "own_ids": branch_ids}
    await q.users.take_branches(call.conn, **key)
    await q.users.give_branches(call.conn, **key)
    return await find(call, user_id)


@routes.endpoint(
    "POST", "/users/{id}/disable", permission="users:write", admin=True, in_read_only=True,
    returns=Employee(), if_match="optional",
)  # fmt: skip
async def disable_user(call: Call) -> Any:
    """Disable a user: sessions and API keys end at once, and for good."""
    return await set_activity(call, is_active=False)


@routes.endpoint(
    "POST", "/users/{id}/enable", permission="users:write", admin=True, returns=Employee(),
    if_match="optional",
)  # fmt: skip
async def enable_user(call: Call) -> Any:
    """Let a disabled user sign in again."""
    return await set_activity(call, is_active=True)


async def set_activity(call: Call, *, is_active: bool) -> Any:
    """Disable or enable the user of the path."""
    user_id = call.path["id"]
    call.before(await find(call, user_id))
    await q.users.change_activity(call.conn, org_id=call.org_id, id=user_id, is_active=is_active)
    return await find(call, user_id)


@routes.endpoint(
    "POST", "/users/{id}/reset-password", permission="users:write", admin=True,
    own_transactions=True, body=NewPassword(), returns=TemporaryPassword(), idempotent=False,
)  # fmt: skip
async def reset_password(call: Call) -> Any:
    """Give a user another password, which must be changed at the next sign-in; sessions end.

    403 for one's own, which is changed with the old one.
    """
    async with call.transaction(mode=Mode.READ) as conn:
        user = await find(call, call.path["id"], conn)
    if user.id == call.user_id:
        raise forbidden("Your own password is changed with your old one.")
    given = call.body["password"]
    password = given or passwords.generate_password()
    password_hash = await hashed(password, user.email, user.first_name, user.last_name)
    async with call.transaction() as conn:
        await q.users.reset_password(
            conn, org_id=call.org_id, id=user.id, password_hash=password_hash
        )
        await q.users.end_sessions(conn, org_id=call.org_id, user_id=user.id)
        await note(call, conn, "reset_password", user.id, None)
    return {"id": user.id, "temporary_password": None if given else password}


@routes.endpoint("GET", "/users/{id}/sessions", permission="users:read", returns=Sessions())
async def list_sessions(call: Call) -> Any:
    """List where a user is signed in, the latest first."""
    user = await find(call, call.path["id"])
    return {"items": await q.users.list_sessions(call.conn, org_id=call.org_id, user_id=user.id)}


@routes.endpoint(
    "DELETE", "/users/{id}/sessions", permission="users:write", admin=True, in_read_only=True
)
async def end_sessions(call: Call) -> None:
    """Sign a user out everywhere."""
    user = await find(call, call.path["id"])
    await q.users.end_sessions(call.conn, org_id=call.org_id, user_id=user.id)
