"""All WebSockets of this process, and the one query a second that finds what is new for them.

No LISTEN: behind PgBouncer nobody hears. Each process asks for the users that are connected to it,
by the number of the last notification that each has; numbers are given in the order of commits
(0030_notifications.sql), so nothing is missed and nothing comes twice, in however many processes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from sofinance import queries as q
from sofinance.infra import metrics
from sofinance.infra.db import NO_DATABASE, Mode
from sofinance.infra.errors import ACCESS_CHANGED, ApiError
from sofinance.infra.guard import Opaque, Principal, read_opaque
from sofinance.infra.lobby import Lobby, RefusedError
from sofinance.infra.logs import TRACE
from sofinance.infra.rate_limit import network_of
from sofinance.infra.sockets import (
    CLOSE_TIMEOUT_S,
    FORBIDDEN,
    FRAME_BYTES_MAX,
    GOING_AWAY,
    PING_INTERVAL_S,
    TOO_MANY,
    TOO_SLOW,
    TRY_AGAIN,
    UNAUTHORIZED,
    UPGRADED_AT_S,
    Socket,
    end,
    read,
    written,
)

if TYPE_CHECKING:
    from sofinance.config import Settings
    from sofinance.infra.db import Database
    from sofinance.infra.guard import Guard

log = logging.getLogger(__name__)

PROTOCOL, BEARER = "sofinance.v1", "bearer."
TICKET = "sfw"
POLL_S = 1.0
# How long a session that was ended may still hear something.
CHECK_S = 5.0
SOCKETS_PER_USER_MAX = 10
SOCKET_COUNT_MAX = 5_000
# Clients that are let in at once: when a process goes, all of its clients come here together.
ADMISSION_COUNT_MAX = 4
# Notifications that one query brings; what is left comes with the next, at once.
NEWS_COUNT_MAX = 2_000
FIRST_MESSAGE_TIMEOUT_S = 5.0
# How long a client is waited for that is sent away before it had a place.
AT_ONCE_S = 0.2
# How long a client that has no room for more is waited for.
FULL_TIMEOUT_S = 10.0


class Hub:
    """The sockets of one process."""

    def __init__(self, settings: Settings, db: Database, guard: Guard) -> None:
        self._db, self._guard = db, guard
        self._origins = {origin.strip() for origin in settings.cors_origins.split(",")}
        self._sockets: dict[tuple[int, int], set[Socket]] = defaultdict(set)
        self._full_since_s: dict[Socket, float] = {}
        self._wake = asyncio.Event()
        self._lobby = Lobby()
        self._admissions = asyncio.Semaphore(ADMISSION_COUNT_MAX)
        self._is_draining = False
        self._polling: asyncio.Task[None] | None = None
        self._checked_at_s = time.monotonic()

    @property
    def count(self) -> int:
        """How many are connected."""
        return sum(map(len, self._sockets.values()))

    def sockets_of(self, org_id: int, user_id: int) -> list[Socket]:
        """Return those of a user."""
        return list(self._sockets.get((org_id, user_id), ()))

    def start(self) -> None:
        """Begin to look for news."""
        self._polling = asyncio.ensure_future(self._poll_for_ever())

    async def stop(self) -> None:
        """Stop looking for news."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    async def drain(self) -> None:
        """Send everybody away (1001), to connect to another process."""
        self._is_draining = True
        sockets = self._all()
        for socket in sockets:
            socket.close(GOING_AWAY, "shutting down: connect again")
        await asyncio.gather(*(socket.closing for socket in sockets if socket.closing))

    def _all(self) -> list[Socket]:
        return [socket for sockets in self._sockets.values() for socket in sockets]

    # -- a client comes ----------------------------------------------------------------------

    async def serve(
        self, request: web.Request, *, ticket: str | None, last_id: int | None
    ) -> web.StreamResponse:
        """Serve one client until it goes, or is sent away.

        Raises upgrade_required (426), origin_not_allowed (403) and too_many_sockets (503) before
        there is a WebSocket; after that it is closed with a code.
        """
        ws = self._upgrade(request)
        await ws.prepare(request)
        request[UPGRADED_AT_S] = time.perf_counter()
        socket = await self._received(request, ws, ticket, last_id)
        if socket is None:
            return ws
        self._sockets[socket.who].add(socket)
        metrics.SOCKETS.set(self.count)
        self._wake.set()
        try:
            await socket.run(self._renew)
        finally:
            self._leave(socket)
        return ws

    async def _received(
        self, request: web.Request, ws: web.WebSocketResponse, ticket: str | None,
        last_id: int | None,
    ) -> Socket | None:  # fmt: skip
        """Let a client in, or close its connection; one without a place is not waited for."""
        trace = TRACE.get()
        is_silent = ticket is None and token_of(request) is None and "token" not in request.query
        outcome, patience_s = "served", AT_ONCE_S
        try:
            with self._lobby.place(network_of(trace and trace.ip), is_silent=is_silent):
                patience_s = CLOSE_TIMEOUT_S
                return await self._admit(request, ws, ticket, last_id)
        except RefusedError as refusal:
            outcome = str(refusal.code)
            await end(ws, request.transport, refusal.code, str(refusal), timeout_s=patience_s)
            return None
        finally:
            metrics.SOCKETS_OPENED.labels(outcome).inc()

    def _upgrade(self, request: web.Request) -> web.WebSocketResponse:
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        ws = web.WebSocketResponse(
            heartbeat=PING_INTERVAL_S, max_msg_size=FRAME_BYTES_MAX, compress=False,
            # Where none is ours aiohttp would log those that were offered, a token among them.
            protocols=(PROTOCOL,) if PROTOCOL in protocols(offered) else (),
        )  # fmt: skip
        try:
            is_websocket = bool(ws.can_prepare(request))
        except ValueError:
            is_websocket = False  # aiohttp on a key that is not ASCII
        if not is_websocket:
            raise ApiError(
                "upgrade_required", "This is a WebSocket: connect with a WebSocket client.",
                status=426, headers={"Upgrade": "websocket", "Connection": "Upgrade"},
            )  # fmt: skip
        origin = request.headers.get("Origin")
        if origin and origin not in self._origins and host_of(origin) != request.host:
            raise ApiError(
                "origin_not_allowed", "Pages of this origin may not connect: see CORS_ORIGINS.",
                status=403,
            )  # fmt: skip
        if self._is_draining or self.count + self._lobby.count >= SOCKET_COUNT_MAX:
            raise ApiError(
                "too_many_sockets", "No more connections here just now. Try again in a moment.",
                status=503, headers={"Retry-After": "1"},
            )  # fmt: skip
        return ws

    async def _admit(
        self, request: web.Request, ws: web.WebSocketResponse, ticket: str | None,
        last_id: int | None,
    ) -> Socket:  # fmt: skip
        if "token" in request.query:
            raise RefusedError(UNAUTHORIZED, "no token in the URL: send it, or get a ticket")
        token = None if ticket is not None else token_of(request)
        if ticket is None and token is None:
            token, last_id = await first_message(ws, last_id)
        try:
            async with self._admissions:
                if ticket is not None:
                    principal = await self._principal_of_ticket(ticket)
                else:
                    principal = await self._guard.resolve(f"Bearer {token}")
                if principal.gate is not None:
                    raise RefusedError(FORBIDDEN, principal.gate)
                async with self._db.admitted(principal.scope, mode=Mode.READ) as conn:
                    key = {"org_id": principal.org_id, "user_id": principal.user_id}
                    latest_id = await q.notifications.get_last_id(conn, **key)
                    unread_count = await q.notifications.count_unread(conn, **key)
        except ApiError as refusal:
            raise RefusedError(UNAUTHORIZED, refusal.code) from None
        except NO_DATABASE as error:
            if getattr(error, "sqlstate", None) == ACCESS_CHANGED:
                raise RefusedError(UNAUTHORIZED, "the session has changed: try again") from None
            raise RefusedError(TRY_AGAIN, "the database does not answer: try again") from error
        if len(self.sockets_of(principal.org_id, principal.user_id)) >= SOCKETS_PER_USER_MAX:
            raise RefusedError(TOO_MANY, "too many connections of yours")
        sent_id = latest_id if last_id is None else min(last_id, latest_id)
        socket = Socket(ws, request.transport, principal, sent_id, principal.expires_at_s)
        socket.queue.put_nowait(written("ready", last_id=sent_id, unread_count=unread_count))
        return socket

    async def _principal_of_ticket(self, ticket: str) -> Principal:
        opaque = read_opaque(TICKET, ticket)
        found = None if opaque is None else await self._use(opaque)
        if opaque is None or found is None:
            raise RefusedError(UNAUTHORIZED, "the ticket is not good, or not any more")
        return await self._guard.resolve_session(opaque.org_id, found.user_id, found.session_id)

    async def _use(self, opaque: Opaque) -> Any:
        async with self._db.tenant(opaque.org_id) as conn:
            return await q.notifications.use_ticket(
                conn, org_id=opaque.org_id, token_hash=opaque.digest
            )

    async def _renew(self, socket: Socket, token: str) -> Principal | None:
        """Let somebody who is connected go on with a new token; None if it is not theirs."""
        try:
            principal = await self._guard.resolve(f"Bearer {token}")
        except (ApiError, *NO_DATABASE):
            return None
        who = principal.org_id, principal.user_id
        return principal if who == socket.who and principal.gate is None else None

    def _leave(self, socket: Socket) -> None:
        left = self._sockets[socket.who]
        left.discard(socket)
        if not left:
            del self._sockets[socket.who]
        self._full_since_s.pop(socket, None)
        metrics.SOCKETS.set(self.count)
        metrics.SOCKETS_CLOSED.labels(str(socket.ws.close_code or 1006)).inc()

    # -- there are news ----------------------------------------------------------------------

    async def _poll_for_ever(self) -> None:
        has_failed = False
        while True:
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if not self._sockets:
                continue
            started_s = time.perf_counter()
            try:
                await self._check()
                await self._poll()
                has_failed = False
            except NO_DATABASE:
                if not has_failed:
                    log.warning("no notifications: the database does not answer", exc_info=True)
                has_failed = True
            metrics.SOCKET_POLLS.observe(time.perf_counter() - started_s)
            if has_failed:
                await asyncio.sleep(POLL_S)

    async def _poll(self) -> None:
        """Offer every socket what is new for its user."""
        after = {who: min(s.sent_id for s in sockets) for who, sockets in self._sockets.items()}
        users = sorted(after)
        async with self._db.untenanted() as conn:
            rows = await q.notifications.list_news(
                conn, org_ids=[org_id for org_id, _ in users],
                user_ids=[user_id for _, user_id in users],
                after_ids=[after[who] for who in users], limit=NEWS_COUNT_MAX,
            )  # fmt: skip
        reached: dict[tuple[int, int], int] = {}
        for row in rows:
            who = row.org_id, row.user_id
            if row.id is None:
                reached[who] = row.last_id  # what was new is deleted
                continue
            reached[who] = row.id
            for socket in self._sockets.get(who, ()):
                if socket.sent_id >= after[who]:
                    self._offer(socket, row)
        for who, last_id in reached.items():
            self._pass_over(who, last_id)
        if len(rows) == NEWS_COUNT_MAX:
            self._wake.set()

    def _pass_over(self, who: tuple[int, int], last_id: int) -> None:
        """Note how far sockets are that have room: what was between is deleted."""
        for socket in self._sockets.get(who, ()):
            if socket not in self._full_since_s:
                socket.sent_id = max(socket.sent_id, last_id)

    def _offer(self, socket: Socket, row: Any) -> None:
        """Offer a notification; one without room for it gets it later, in its order, or goes."""
        if socket in self._full_since_s and socket.queue.full():
            if time.monotonic() - self._full_since_s[socket] > FULL_TIMEOUT_S:
                socket.close(TOO_SLOW, "reads too slowly")
            return
        if socket.offer(row):
            self._full_since_s.pop(socket, None)
            metrics.SOCKET_NOTIFICATIONS.inc()
        else:
            self._full_since_s.setdefault(socket, time.monotonic())

    async def _check(self) -> None:
        """Send away whose token has expired, and from time to time whose session has ended."""
        now_s = time.time()
        for socket in self._all():
            if socket.expires_at_s <= now_s:
                socket.close(UNAUTHORIZED, "the token has expired")
        if time.monotonic() - self._checked_at_s < CHECK_S:
            return
        self._checked_at_s = time.monotonic()
        sockets = self._all()
        async with self._db.untenanted() as conn:
            ended = await q.notifications.list_ended(
                conn, org_ids=[socket.principal.org_id for socket in sockets],
                user_ids=[socket.principal.user_id for socket in sockets],
                session_ids=[socket.principal.session_id or 0 for socket in sockets],
                key_ids=[socket.principal.api_key_id or 0 for socket in sockets],
            )  # fmt: skip
        for row in ended:
            sockets[row.place - 1].close(UNAUTHORIZED, "the session has ended")


def host_of(origin: str) -> str | None:
    """Return the host and port of an origin; None for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def protocols(offered: str) -> list[str]:
    """Return the subprotocols that a client offers."""
    return [name.strip() for name in offered.split(",") if name.strip()]


def token_of(request: web.Request) -> str | None:
    """Return the token that came with the request: in a header, or as a subprotocol."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token
    for name in protocols(request.headers.get("Sec-WebSocket-Protocol", "")):
        if name.startswith(BEARER):
            return name.removeprefix(BEARER)
    return None


async def first_message(ws: web.WebSocketResponse, last_id: int | None) -> tuple[str, int | None]:
    """Wait for {"type": "auth", "token": ..., "last_id"?: ...}; raises RefusedError (4401)."""
    try:
        async with asyncio.timeout(FIRST_MESSAGE_TIMEOUT_S):
            frame = await ws.receive()
    except TimeoutError:
        raise RefusedError(UNAUTHORIZED, "no token came") from None
    said = read(frame.data) if frame.type is WSMsgType.TEXT else None
    if not isinstance(said, dict) or said.get("type") != "auth":
        raise RefusedError(UNAUTHORIZED, "send the token first")
    token, asked = said.get("token"), said.get("last_id", last_id)
    if not isinstance(token, str) or not (asked is None or (type(asked) is int and asked >= 0)):
        raise RefusedError(UNAUTHORIZED, "send the token first")
    return token, asked


__all__ = ["PROTOCOL", "TICKET", "Hub"]
