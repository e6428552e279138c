"""What happens around a handler, once per request.

Authenticate, permission, path, query, body; then in one transaction the tenant, the idempotency
key, the handler, the audit row, the stored answer; then COMMIT, and only then the answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
from aiohttp import web

from sofinance import queries as q
from sofinance.infra import administration, errors, idempotency, metrics
from sofinance.infra.answer import Answer, Writer, respond
from sofinance.infra.audit import Auditor, user_agent
from sofinance.infra.basic import authorization_of
from sofinance.infra.db import COMMIT, Mode, Scope, begin, commit, opening
from sofinance.infra.errors import ApiError
from sofinance.infra.etag import Precondition
from sofinance.infra.guard import GATES, NOBODY, Opaque, Principal, forbidden, is_looked_up
from sofinance.infra.http import Call, Endpoint, Upgrade
from sofinance.infra.idempotency import Key, Stored
from sofinance.infra.logs import TRACE, Trace
from sofinance.infra.parse import (
    BRANCH_HEADER,
    QueryReader,
    load,
    read_branch,
    read_form,
    read_json,
    read_path,
    read_signed,
    refuse_repeated,
)
from sofinance.infra.pool import StaleConnectionError
from sofinance.infra.shapes import compile_load
from sofinance.infra.upload import Upload

if TYPE_CHECKING:
    from collections.abc import Callable

    from sofinance.infra.machine import Machine
    from sofinance.infra.replica import Replica
    from sofinance.infra.sql import Connection

ATTEMPT_COUNT_MAX = 3
FORBIDDEN = 403
# The wait before another attempt is random, up to this, doubled each time.
BACKOFF_MS = 10
# The command tag of an INSERT that inserted.
RESERVED = "INSERT 0 1"


class Route:
    """An endpoint in an application: what can be worked out before the first request, is."""

    def __init__(self, endpoint: Endpoint, machine: Machine) -> None:
        self.endpoint = endpoint
        self._machine = machine
        self._handler = endpoint.handler
        # Probes and scrapers ask at the root, and are never told to come back later.
        self._is_limited = endpoint.is_limited
        self._fit = None if endpoint.body is None else compile_load(endpoint.body)
        self._writer = Writer(endpoint, machine.envelope)
        self._precondition = Precondition(endpoint.if_match, endpoint.method)
        self._query = QueryReader(endpoint.query)
        self._has_path = "{" in endpoint.path
        self._replica = machine.db.replica if endpoint.replica else None
        # In a crowd these are sent away before anything is done for them. A report may find a
        # connection to the standby, and what opens its own transactions may not need any.
        self._is_crowded_out = (
            self._is_limited and self._replica is None and not endpoint.own_transactions
        )
        writes = self._writes = endpoint.mode is Mode.WRITE
        self._audits = writes and machine.settings.enable_audit_logging
        self._keeps = writes and bool(endpoint.idempotent)
        self._key_required = endpoint.idempotent == "required" or (
            endpoint.method == "POST" and machine.settings.idempotency_required
        )
        self._auditor = Auditor(endpoint, self._writer.dump)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; raises what went wrong, for the middleware to render."""
        trace = TRACE.get() or Trace("")
        trace.is_oauth = self.endpoint.oauth
        if self._is_crowded_out:
            self._machine.db.pool.refuse_when_full()
        refuse_repeated(request)
        if self.endpoint.public:
            if self._is_limited:
                limit = self.endpoint.limit
                trace.quota = await self._machine.limiter.admit_address(trace.ip, limit)
            return await self._answer(request, NOBODY, trace)
        principal = await self._who(request, trace)
        try:
            return await self._answer(request, principal, trace)
        except Exception as error:
            denial = errors.translate(error, self._machine.vocabulary)
            if denial is not None and denial.status == FORBIDDEN:
                await self._audit_denial(request, principal, trace, denial)
            raise

    async def _answer(
        self, request: web.Request, principal: Principal, trace: Trace
    ) -> web.StreamResponse:
        self._admit(request, principal)
        glass = None
        if self.endpoint.admin:
            glass = self._machine.administration.admit(self.endpoint, request, principal, trace.ip)
        authorization = authorization_of(request, self.endpoint, self._machine.settings)
        path = read_path(request) if self._has_path else {}
        query = self._query.read(request)
        sent, body = {}, {}  # type: Any, dict[str, Any]
        if self._fit is not None:
            sent = await self._read_body(request)
            body = load(self._fit, sent)
        machine = self._machine
        timeout_s = machine.settings.request_body_timeout_s
        received = await read_signed(request, timeout_s) if self.endpoint.receives else None
        upload = Upload(request, machine.settings) if self.endpoint.upload else None

        def make_call(conn: Connection | None) -> Call:
            branch_id = branch_of(request, principal)
            return Call(
                principal, principal.org_id, principal.user_id, branch_id, body, query, path,
                trace.request_id, datetime.now(UTC), trace.ip,
                user_agent(request), authorization, request.headers.get("Accept", ""),
                machine.db, machine.guard, machine.limiter, machine.mailer, machine.captcha,
                machine.secret_box, machine.flags, machine.storage, machine.stripe,
                machine.settings, machine.draining, {}, upload, received, conn,
            )  # fmt: skip

        if self.endpoint.public:
            return await self._answer_alone(request, make_call(None), None)
        key = self._key(request, principal, sent) if self._keeps else None
        attempt = 1
        while True:
            try:
                return await self._once(request, principal.scope, make_call, key, glass)
            except (StaleConnectionError, asyncpg.PostgresError) as error:
                if attempt == ATTEMPT_COUNT_MAX or not is_worth_another_try(error):
                    raise
                if getattr(error, "sqlstate", None) == errors.ACCESS_CHANGED:
                    machine.guard.forget(authorization)
                    principal = await machine.guard.resolve(authorization or "")
                    self._admit(request, principal)
            await asyncio.sleep(random.random() * BACKOFF_MS / 1000 * 2**attempt)  # noqa: S311
            attempt += 1

    async def _read_body(self, request: web.Request) -> Any:
        settings = self._machine.settings
        timeout_s = settings.request_body_timeout_s
        if self.endpoint.oauth:
            return await read_form(request, timeout_s=timeout_s)
        return await read_json(request, timeout_s=timeout_s, depth_max=settings.max_json_depth)

    async def _who(self, request: web.Request, trace: Trace) -> Principal:
        """Return who calls, and charge them; whoever it is not known yet, by address."""
        machine, limit = self._machine, self.endpoint.limit
        authorization = authorization_of(request, self.endpoint, self._machine.settings)
        is_charged = False
        try:
            principal = machine.guard.recall(authorization)
            if principal is None:
                if is_looked_up(authorization or ""):
                    is_charged = True
                    trace.quota = await machine.limiter.admit_address(trace.ip, limit)
                principal = await machine.guard.resolve(authorization or "")
        except ApiError:
            # Guessing at credentials is asking, too: past the address's limit this is a 429.
            if not is_charged:
                trace.quota = await machine.limiter.admit_address(trace.ip, limit)
            raise
        trace.user_id, trace.org_id = principal.user_id, principal.org_id
        key_id = principal.api_key_id
        subject = f"user:{principal.user_id}" if key_id is None else f"key:{key_id}"
        trace.quota = await machine.limiter.admit_caller(principal.org_id, subject, limit)
        if self._refusal(request, principal) is not None:
            # Nobody is refused for what was so a while ago.
            principal = await machine.guard.resolve(authorization or "")
        return principal

    def _admit(self, request: web.Request, principal: Principal) -> None:
        refusal = self._refusal(request, principal)
        if refusal is not None:
            raise refusal

    def _refusal(self, request: web.Request, principal: Principal) -> ApiError | None:
        """Say why somebody may not call this; None if they may."""
        endpoint = self.endpoint
        if endpoint.public:
            return None
        if principal.gate is not None and not principal.passes(endpoint.gate_free):
            status, code, message = GATES[principal.gate]
            return ApiError(code, message, status=status)
        permission = endpoint.permission
        if permission is not None and not principal.allows(permission):
            return forbidden(f"This needs the permission {permission}.", permission=permission)
        if principal.branch_ids is None:
            return None
        return branch_refusal(request, principal.branch_ids, org_wide=endpoint.org_wide)

    async def _audit_denial(
        self, request: web.Request, principal: Principal, trace: Trace, denial: ApiError
    ) -> None:
        """Write down that somebody tried what they may not."""
        if not self._machine.settings.enable_audit_logging:
            return
        row = self._auditor.of_denial(request, principal, trace, denial)
        async with self._machine.db.tenant(principal.org_id, user_id=principal.user_id) as conn:
            await conn.execute(row)

    async def _answer_alone(
        self, request: web.Request, call: Call, glass: Opaque | None
    ) -> web.StreamResponse:
        """Answer at an endpoint that opens its own transactions and may stream."""
        if glass is not None:
            async with call.transaction() as conn:
                await administration.use(conn, call, glass, request)
        result = await self._handler(call)
        if isinstance(result, web.StreamResponse):
            return result
        if isinstance(result, Upgrade):
            return await self._machine.hub.serve(
                request, ticket=result.ticket, last_id=result.last_id
            )
        answer = self._writer.write(request, call, result)
        return self._writer.respond(request, answer)

    async def _once(
        self,
        request: web.Request,
        scope: Scope,
        make_call: Callable[[Connection | None], Call],
        key: Key | None,
        glass: Opaque | None,
    ) -> web.StreamResponse:
        """Answer, from wherever this endpoint may."""
        if self.endpoint.own_transactions:
            return await self._answer_alone(request, make_call(None), glass)
        if self._replica is not None:
            reported = await self._report(request, scope, make_call, self._replica)
            if reported is not None:
                return reported
        try:
            async with self._machine.db.pool.lend() as conn:
                return await self._attempt(request, make_call(conn), key, glass)
        except asyncpg.ReadOnlySQLTransactionError as error:
            if not self._writes:
                raise  # our bug
            raise StaleConnectionError("the primary takes no writes") from error

    async def _report(
        self,
        request: web.Request,
        scope: Scope,
        make_call: Callable[[Connection | None], Call],
        replica: Replica,
    ) -> web.Response | None:
        """Answer from the standby; None when it cannot, and the primary should."""
        if not replica.is_fit:
            replica.count_unfit()
            return None
        message = opening(self.endpoint.mode, scope, self._machine.db.statement_timeout_ms)
        try:
            async with replica.begun(message) as conn:
                call = make_call(conn)
                answer = self._writer.write(request, call, await self._handler(call))
                await commit(conn, COMMIT)
        except Exception as error:
            if replica.excuses(error):
                return None
            raise
        metrics.REPLICA_REPORTS.inc()
        return self._writer.respond(request, answer)

    async def _attempt(
        self, request: web.Request, call: Call, key: Key | None, glass: Opaque | None
    ) -> web.Response:
        """Do all of it once, from BEGIN to COMMIT."""
        seen = self._precondition.read(request) if self._writes else None
        stored = await self._open(call, key)
        if stored is not None:
            return self._replay(call, stored)
        if glass is not None:
            await administration.use(call.conn, call, glass, request)
        result = await self._handler(call)
        self._precondition.check(seen, result)
        answer = self._writer.write(request, call, result)
        await commit(call.conn, self._closing(request, call, key, answer))
        if key is not None:
            answer.headers.update(idempotency.expiry_headers(key.expires_at_s))
        return self._writer.respond(request, answer)

    async def _open(self, call: Call, key: Key | None) -> Stored | None:
        """Begin, and reserve the key; returns what was answered if it is an earlier request's."""
        message = opening(self.endpoint.mode, call.principal.scope, call.db.statement_timeout_ms)
        if key is None:
            await begin(call.conn, message)
            return None
        reserve = q.request.reserve_key.literal(
            org_id=call.org_id,
            key_hash=key.key_hash,
            fingerprint=key.fingerprint,
            expires_at_s=key.expires_at_s,
        )
        try:
            if await begin(call.conn, f"{message};\n{reserve}") == RESERVED:
                return None
            found = await q.request.find_answer(
                call.conn, org_id=call.org_id, key_hash=key.key_hash
            )
            if found is None or found.is_expired:
                await q.request.forget_expired_key(
                    call.conn, org_id=call.org_id, key_hash=key.key_hash
                )
                if await call.conn.execute(reserve) == RESERVED:
                    return None
                raise errors.try_again()  # somebody else found it expired, too
        except asyncpg.LockNotAvailableError:
            raise idempotency.in_use() from None
        if found.fingerprint != key.fingerprint:
            raise idempotency.reused()
        if found.status is None or found.body is None:
            raise idempotency.in_use()
        return Stored(found.status, found.body, found.etag, found.expires_at)

    def _closing(self, request: web.Request, call: Call, key: Key | None, answer: Answer) -> str:
        """Write the message that ends the transaction: audit row, stored answer, COMMIT."""
        parts: list[str] = []
        if self._audits:
            parts.append(self._auditor.of_change(request, call, answer))
        if key is not None:
            parts.append(
                q.request.store_answer.literal(
                    org_id=call.org_id,
                    key_hash=key.key_hash,
                    status=self.endpoint.status,
                    body=answer.body,
                    etag=None if answer.etag is None else answer.etag.encode(),
                )
            )
        parts.append(COMMIT)
        return ";\n".join(parts)

    def _key(self, request: web.Request, principal: Principal, sent: Any) -> Key | None:
        kept_s = self._machine.settings.idempotency_ttl_hours * idempotency.HOUR_S
        return idempotency.read_key(
            request,
            sent,
            principal,
            required=self._key_required,
            expires_at_s=int(time.time()) + kept_s,
        )

    def _replay(self, call: Call, stored: Stored) -> web.Response:
        """Answer as the first time."""
        headers = {"Idempotent-Replayed": "true", **idempotency.expiry_headers(stored.expires_at)}
        if stored.body:
            data = orjson.loads(stored.body)["data"]
            headers |= self._writer.headers(data, call.path)
        if stored.etag is not None:
            headers["ETag"] = stored.etag
        return respond(stored.status, stored.body, headers)


def is_worth_another_try(error: BaseException) -> bool:
    """Say whether nothing was done and the next attempt may well succeed."""
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate in errors.RETRIED or error.sqlstate == errors.ACCESS_CHANGED
    return isinstance(error, StaleConnectionError)


def branch_refusal(request: web.Request, own: frozenset[int], *, org_wide: bool) -> ApiError | None:
    """Say why somebody who has some branches may not call this; None if they may."""
    if org_wide:
        return ApiError(
            "all_branches_required",
            "This is about all branches, and you have some of them.",
            status=403,
        )
    if BRANCH_HEADER in request.headers and read_branch(request) not in own:
        return forbidden("You do not have this branch.")
    return None


def branch_of(request: web.Request, principal: Principal) -> int | None:
    """Return the branch to act in: the header's, else the only one that the caller has."""
    branch_id, own = read_branch(request), principal.branch_ids
    if branch_id is None and own is not None and len(own) == 1:
        return next(iter(own))
    return branch_id
