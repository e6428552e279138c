"""Tills as identities of their own: a device is paired with a till, a cashier signs in on it."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from marshmallow import Schema, fields, validate

from sofinance import queries as q
from sofinance.infra import audit, metrics, passwords, sessions, throttle, totp
from sofinance.infra.errors import ApiError, invalid_request, not_found
from sofinance.infra.fields import ID_MAX, Id, Timestamp
from sofinance.infra.guard import Opaque, make_secret, read_opaque, write_opaque
from sofinance.infra.http import Call, Routes
from sofinance.infra.notify import tell
from sofinance.infra.own_account import confirm_password, own_session
from sofinance.infra.pace import Beat

routes = Routes()
CREDENTIAL = "sft"
BEARER = "bearer "
CODE_MINUTES = 10
# 60 random bits, of which a hundred wrong ones a minute may be tried.
CODE_CHARACTERS = 12
CODE_GROUP = 4


class PairingCode(Schema):
    """What is typed into the device that is to be the till; it is never shown again."""

    till_id = Id(required=True)
    pairing_code = fields.Str(required=True)
    expires_at = Timestamp(required=True)


class Pairing(Schema):
    """The pairing code that an administrator sees."""

    code = fields.Str(required=True, validate=validate.Length(1, 80), load_only=True)


class PairedTill(Schema):
    """Which till the device is now, and its credential, which is never shown again."""

    till_id = Id(required=True)
    till_name = fields.Str(required=True)
    branch_id = Id(required=True)
    till_credential = fields.Str(required=True)


class NewPin(Schema):
    """A PIN for tills, and the caller's password."""

    password = fields.Str(required=True, validate=validate.Length(1, 128), load_only=True)
    pin = fields.Str(required=True, validate=validate.Length(1, 32), load_only=True)


class Pin(Schema):
    """When the caller's PIN was chosen."""

    changed_at = Timestamp(required=True)


class TillSignIn(Schema):
    """Who signs in on a till; the till's credential is here or in ``Authorization: Bearer``."""

    user = fields.Str(
        required=True, validate=validate.Length(1, 254),
        metadata={"description": "The address, or the number (`id`) of the user."},
    )  # fmt: skip
    pin = fields.Str(required=True, validate=validate.Length(1, 32), load_only=True)
    till_credential = fields.Str(
        load_default=None, allow_none=True, validate=validate.Length(1, 1_000), load_only=True
    )


class TillSession(Schema):
    """The tokens of a session on a till."""

    access_token = fields.Str(required=True)
    refresh_token = fields.Str(required=True)
    token_type = fields.Str(required=True)
    expires_in = fields.Int(required=True, metadata={"description": "Seconds."})
    refresh_expires_in = fields.Int(required=True, metadata={"description": "Seconds."})
    user_id = Id(required=True)
    till_id = Id(required=True)
    branch_id = Id(required=True)


@routes.endpoint(
    "POST", "/tills/{id}/pairing-code", permission="tills:pair", returns=PairingCode(),
    status=201, idempotent=False,
)  # fmt: skip
async def issue_pairing_code(call: Call) -> Any:
    """Issue the code with which a device becomes this till; it is good once, for ten minutes.

    The code before it is worthless. A till that is paired stays so until the code is used.
    """
    secret = "".join(secrets.choice(totp.ALPHABET) for _ in range(CODE_CHARACTERS))
    issued = await q.tills.issue_pairing_code(
        call.conn, org_id=call.org_id, till_id=call.path["id"], user_id=call.user_id,
        code_hash=hashlib.sha256(secret.encode()).digest(), minutes=CODE_MINUTES,
    )  # fmt: skip
    return {**issued, "pairing_code": write_code(call.org_id, issued.till_id, secret)}


@routes.endpoint("DELETE", "/tills/{id}/pairing", permission="tills:pair")
async def end_pairing(call: Call) -> None:
    """Take a till back from its device: its credential, its sessions and an open code end."""
    key = {"org_id": call.org_id, "till_id": call.path["id"]}
    ended = await q.tills.end_pairing(call.conn, **key)
    voided = await q.tills.void_pairing_code(call.conn, **key)
    if not ended and not voided:
        raise not_found()


@routes.endpoint(
    "POST", "/tills/pair", public=True, body=Pairing(), returns=PairedTill(), status=201,
    idempotent=False, limit="sign_in", refuses=(401,),
)  # fmt: skip
async def pair(call: Call) -> Any:
    """Make this device a till, with a pairing code; a device that was the till is it no more.

    401 `invalid_pairing_code` for one that is wrong, was used or has ended.
    """
    attempt = await throttle.attempt(call.limiter, f"pairing from {call.ip}", call.ip)
    asked = read_code(call.body["code"])
    if asked is None:
        raise invalid_pairing_code()
    org_id, key = asked.org_id, {"org_id": asked.org_id, "till_id": asked.id}
    secret, secret_hash = make_secret()
    async with call.tenant(org_id) as conn:
        till = await q.tills.use_pairing_code(conn, **key, code_hash=asked.digest)
        if till is None:
            raise invalid_pairing_code()
        await q.tills.end_pairing(conn, **key)
        credential = await q.tills.create_credential(
            conn, **key, secret_hash=secret_hash, paired_by=till.issued_by
        )
        await tell(
            conn, org_id=org_id, user_ids=[till.issued_by], type="till_paired",
            title=f"A device is now {till.name}",
            message=f"It was paired with the code that you issued, from {call.ip}.",
            data={"till_id": till.id, "branch_id": till.branch_id},
        )  # fmt: skip
        await audit.write(
            call, conn, org_id=org_id, user_id=till.issued_by, action="tills.pair", entity="tills",
            entity_id=till.id, after={"till": till.name, "credential_id": credential.id},
        )  # fmt: skip
    await attempt.succeeded()
    return {
        "till_id": till.id,
        "till_name": till.name,
        "branch_id": till.branch_id,
        "till_credential": write_opaque(CREDENTIAL, org_id, credential.id, secret),
    }


@routes.endpoint(
    "POST", "/auth/pin", any_user=True, own_transactions=True, body=NewPin(), returns=Pin(),
    idempotent=False, limit="sign_in",
)  # fmt: skip
async def set_pin(call: Call) -> Any:
    """Choose the PIN with which one signs in on tills; one's sessions on tills end.

    422 `invalid_request` says what is wrong with one that will not do.
    """
    session_id = own_session(call)
    confirmed = await confirm_password(call, call.body["password"], action="tills.set_pin")
    problems = passwords.pin_problems(call.body["pin"])
    if problems:
        raise invalid_request({"pin": list(problems.values())})
    pin_hash = await passwords.hash_password(call.body["pin"])
    key = {"org_id": call.org_id, "user_id": call.user_id}
    async with call.transaction() as conn:
        await confirmed.lock(call, conn)
        await q.tills.end_till_sessions(conn, **key)
        await audit.write(
            call, conn, org_id=call.org_id, user_id=call.user_id, session_id=session_id,
            action="tills.set_pin", entity="users", entity_id=call.user_id,
        )  # fmt: skip
        return await q.tills.set_pin(conn, **key, pin_hash=pin_hash)


@routes.endpoint(
    "POST", "/auth/till", public=True, body=TillSignIn(), returns=TillSession(),
    idempotent=False, limit="sign_in", refuses=(401, 409),
)  # fmt: skip
async def sign_in_on_till(call: Call) -> Any:
    """Sign in on a paired till with a PIN; the session sells at that till only.

    401 `till_not_paired` without a live credential; 401 `invalid_pin` for an unknown user, one of
    another branch, a wrong PIN and one that twenty wrong tries have ended alike.
    """
    beat = Beat()
    asked = read_opaque(CREDENTIAL, given_credential(call))
    till = None if asked is None else await find_till(call, asked)
    if asked is None or till is None:
        raise unpaired()
    org_id, name = asked.org_id, call.body["user"].strip()
    number = int(name) if name.isascii() and name.isdecimal() and len(name) < 19 else None
    attempt = await throttle.attempt(
        call.limiter, f"pin:{org_id}:{till.id}:{number or name.lower()}", call.ip,
        everywhere=throttle.PINS,
    )  # fmt: skip
    tried = None
    async with call.tenant(org_id) as conn:
        user = await q.tills.find_cashier(
            conn, org_id=org_id, branch_id=till.branch_id, user_id=number,
            email=None if number is not None else name.lower(),
        )  # fmt: skip
        if user is not None:
            tried = await q.tills.try_pin(conn, org_id=org_id, user_id=user.id)
    pin_hash = None if tried is None else tried.pin_hash
    if not await passwords.verify_password(call.body["pin"], pin_hash) or user is None:
        await note_failure(call, org_id, till, user)
        await beat.wait()
        raise invalid_pin()
    await attempt.succeeded()
    return await begin(call, org_id, till, user.id, pin_hash or "")


async def begin(call: Call, org_id: int, till: Any, user_id: int, pin_hash: str) -> Any:
    """Begin a session on a till for who gave the right PIN."""
    async with call.tenant(org_id, user_id=user_id) as conn:
        if not await q.tills.clear_pin_tries(
            conn, org_id=org_id, user_id=user_id, pin_hash=pin_hash
        ):
            raise invalid_pin()  # another one was chosen meanwhile
        tokens = await sessions.begin(
            call, conn, org_id=org_id, user_id=user_id, kind="till", till_id=till.id
        )
        await audit.write(
            call, conn, org_id=org_id, user_id=user_id, session_id=tokens["session_id"],
            action="auth.till", entity="tills", entity_id=till.id, after={"till": till.name},
        )  # fmt: skip
    metrics.SIGN_INS.labels("succeeded").inc()
    return {**tokens, "user_id": user_id, "till_id": till.id, "branch_id": till.branch_id}


async def note_failure(call: Call, org_id: int, till: Any, user: Any) -> None:
    """Write down a wrong PIN: who was tried, on which till."""
    metrics.SIGN_INS.labels("invalid_pin").inc()
    async with call.tenant(org_id) as conn:
        await audit.write(
            call, conn, org_id=org_id, user_id=None if user is None else user.id,
            action="auth.till", entity="tills", entity_id=till.id, after={"refused": "invalid_pin"},
            severity="WARNING",
        )  # fmt: skip


async def find_till(call: Call, asked: Opaque) -> Any:
    """Return the till that a credential is of, or None."""
    async with call.tenant(asked.org_id) as conn:
        return await q.tills.find_till(
            conn, org_id=asked.org_id, credential_id=asked.id, secret_hash=asked.digest
        )


def given_credential(call: Call) -> str:
    """Return the till's credential from the body, else from the header."""
    given = call.body["till_credential"]
    if given is None and (call.authorization or "").lower().startswith(BEARER):
        given = (call.authorization or "")[len(BEARER) :]
    return str(given or "").strip()


def write_code(org_id: int, till_id: int, secret: str) -> str:
    """Write a pairing code with where it is looked up: ``7-12-K3TD-9QXV-0B7M``."""
    starts = range(0, CODE_CHARACTERS, CODE_GROUP)
    return "-".join([str(org_id), str(till_id), *(secret[i : i + CODE_GROUP] for i in starts)])


def read_code(code: str) -> Opaque | None:
    """Take a pairing code apart, however it was typed; None if it is none."""
    org, _, rest = code.strip().partition("-")
    till, _, secret = rest.partition("-")
    letters = secret.upper().translate(totp.MISREAD)
    if len(letters) != CODE_CHARACTERS or not set(letters) <= set(totp.ALPHABET):
        return None
    if not all(part.isascii() and part.isdecimal() and len(part) < 19 for part in (org, till)):
        return None
    org_id, till_id = int(org), int(till)
    if not (0 < org_id <= ID_MAX and 0 < till_id <= ID_MAX):
        return None
    return Opaque(org_id, till_id, hashlib.sha256(letters.encode()).digest())


def invalid_pairing_code() -> ApiError:
    """Say that a pairing code is not good, and not why."""
    return ApiError(
        "invalid_pairing_code", "This pairing code is wrong, was used, or has ended.", status=401
    )


def invalid_pin() -> ApiError:
    """Say that a sign-in on a till failed, and not why."""
    return ApiError("invalid_pin", "The user or the PIN is wrong.", status=401)


def unpaired() -> ApiError:
    """Say that a till's credential is not good."""
    return ApiError("till_not_paired", "This device is not paired with a till.", status=401)
