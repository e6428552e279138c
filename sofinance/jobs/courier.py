"""The courier: takes events up, and sends what is due to the endpoints that wait for it.

Any number may run. What is due is claimed for a while (SKIP LOCKED, in one short transaction), sent
outside of any transaction, and settled in another. A courier that dies in between has sent without
writing it down: when its claim has run out another sends the same bytes under the same webhook-id.
Of one thing and endpoint there is one message on its way at a time, the oldest, so that the order
is kept; after a dead one nothing more of the thing is sent until somebody says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sofinance import queries as q
from sofinance.infra import signatures
from sofinance.infra.db import DEAD as AWAY
from sofinance.infra.db import NO_DATABASE, Mode
from sofinance.infra.notify import tell_allowed
from sofinance.infra.secretbox import SealError, SecretBox
from sofinance.infra.targets import Targets, split
from sofinance.jobs.fan_out import fan_out
from sofinance.jobs.post import Parcel, Post, Result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import aiohttp

    from sofinance.config import Settings
    from sofinance.infra.db import Database

log = logging.getLogger(__name__)

POLL_S = 1.0
# A claim lasts longer than an endpoint may take, with room for the database before and after.
LEASE_FACTOR = 3
LEASE_SLACK_S = 5
# Some of the wait more, so that what failed together does not come back together.
JITTER = 0.1
DELIVERED, RETRY, DEAD = "delivered", "retry", "dead"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, how long and how much at once."""

    delays_s: tuple[int, ...]
    timeout_s: float
    in_flight_max: int
    circuit_failures: int
    circuit_open_s: int

    @property
    def lease_s(self) -> int:
        """How long a claim lasts before another courier may take it over."""
        return round(self.timeout_s * LEASE_FACTOR) + LEASE_SLACK_S

    @property
    def begin_within_s(self) -> float:
        """How long after a claim an attempt may begin, so that it ends before the claim does."""
        return self.lease_s - self.timeout_s - LEASE_SLACK_S

    @classmethod
    def configured(cls, settings: Settings) -> Pace:
        """Return what the settings say."""
        return cls(
            delays_s=tuple(int(delay) for delay in split(settings.export_retry_delays_s)),
            timeout_s=settings.export_timeout_s,
            in_flight_max=settings.export_in_flight,
            circuit_failures=settings.export_circuit_failures,
            circuit_open_s=settings.export_circuit_open_s,
        )

    @property
    def per_endpoint_max(self) -> int:
        """How many to one endpoint: a slow one leaves room for the others."""
        return max(1, self.in_flight_max // 4)


class Courier:
    """One process that delivers."""

    def __init__(
        self,
        database: Database,
        *,
        pace: Pace,
        post: Post,
        secret_box: SecretBox,
        sends: bool,
        audits: bool = True,
    ) -> None:
        self._db = database
        self._pace = pace
        self._post = post
        self._box = secret_box
        self._sends = sends
        self._audits = audits
        self._sending: dict[asyncio.Task[Result | None], int] = {}
        self._results: list[Result] = []
        self._queued = asyncio.Event()

    @classmethod
    def configured(cls, settings: Settings, database: Database) -> Courier:
        """Return the courier of the settings."""
        pace = Pace.configured(settings)
        return cls(
            database,
            pace=pace,
            post=Post(
                Targets.configured(settings),
                timeout_s=pace.timeout_s,
                in_flight_max=pace.in_flight_max,
            ),
            secret_box=SecretBox.configured(settings),
            sends=settings.export_mode == "webhook",
            audits=settings.enable_audit_logging,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Take up and deliver until told to stop; a database that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_up(stopping))
            if self._sends:
                async with self._post.session() as session:
                    await self._deliver(session, stopping)

    async def run_once(self) -> None:
        """Take up what there is and send all that is due now."""
        while await fan_out(self._db):
            pass
        if self._sends:
            async with self._post.session() as session:
                while await self._start(session):
                    await self._finish_all()

    # -- taking up -----------------------------------------------------------------------------

    async def _take_up(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            count = 0
            try:
                count = await fan_out(self._db)
            except Exception:
                # Whatever it is, what is there is there still: it is tried again.
                log.exception("no events were taken up")
            if count:
                self._queued.set()
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), POLL_S)

    # -- delivering ----------------------------------------------------------------------------

    async def _deliver(self, session: aiohttp.ClientSession, stopping: asyncio.Event) -> None:
        try:
            while not stopping.is_set():
                try:
                    await self._settle()
                    started = await self._start(session)
                    is_idle = not started and not self._results
                except Exception:
                    # What was claimed comes back when its claim has run out.
                    log.exception("nothing was claimed or settled")
                    is_idle = True
                if is_idle:
                    await self._pause(stopping)
        finally:
            await self._finish_all()

    async def _pause(self, stopping: asyncio.Event) -> None:
        """Wait a moment, or less when something was queued or sent or we are told to stop."""
        self._queued.clear()
        events = {
            asyncio.ensure_future(stopping.wait()),
            asyncio.ensure_future(self._queued.wait()),
        }
        await asyncio.wait(
            {*events, *self._sending}, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED
        )
        for event in events:
            event.cancel()
        self._collect()

    def _collect(self) -> None:
        for task in [task for task in self._sending if task.done()]:
            del self._sending[task]
            result = task.result()
            if result is not None:
                self._results.append(result)

    async def _finish_all(self) -> None:
        """Let what is on its way arrive, and write it down."""
        if self._sending:
            await asyncio.wait(self._sending)
        self._collect()
        try:
            await self._settle()
        except NO_DATABASE:
            # Their claims run out: they are sent once more, under the same webhook-id.
            log.warning("deliveries were not settled", exc_info=True)

    async def _start(self, session: aiohttp.ClientSession) -> int:
        """Claim what is due, as much as there is room for, and begin to send it."""
        room = self._pace.in_flight_max - len(self._sending)
        if room <= 0:
            return 0
        loads = Counter(self._sending.values())
        busy = [endpoint for endpoint, n in loads.items() if n >= self._pace.per_endpoint_max]
        begin_by_s = time.monotonic() + self._pace.begin_within_s
        async with self._db.untenanted(mode=Mode.WRITE) as conn:
            claims = await q.outbox.claim_deliveries(
                conn, limit=room, per_endpoint=self._pace.per_endpoint_max,
                lease_s=self._pace.lease_s, busy_endpoint_ids=busy,
            )  # fmt: skip
        by_org: dict[int, list[Any]] = defaultdict(list)
        for claim in claims:
            by_org[claim.org_id].append(claim)
        for org_id, some in by_org.items():
            async for parcel in self._pack(org_id, some, begin_by_s):
                task = asyncio.create_task(self._post.send(session, parcel))
                self._sending[task] = parcel.endpoint_id
        return len(claims)

    async def _pack(
        self, org_id: int, claims: Sequence[Any], begin_by_s: float
    ) -> AsyncIterator[Parcel]:
        """Read what is to be sent, where to and signed with what."""
        claim_nos = {claim.delivery_id: claim.claim_no for claim in claims}
        async with self._db.tenant(org_id, mode=Mode.READ) as conn:
            rows = await q.outbox.list_parcels(conn, org_id=org_id, delivery_ids=sorted(claim_nos))
            secrets = await q.outbox.list_secrets(
                conn, org_id=org_id, endpoint_ids=sorted({row.endpoint_id for row in rows})
            )
        sealed: dict[int, list[bytes]] = defaultdict(list)
        for secret in secrets:
            sealed[secret.endpoint_id].append(secret.sealed)
        for row in rows:
            yield Parcel(
                org_id=org_id,
                endpoint_id=row.endpoint_id,
                delivery_id=row.id,
                claim_no=claim_nos[row.id],
                begin_by_s=begin_by_s,
                attempts=row.attempts,
                url=row.url,
                message_id=row.message_id,
                body=(row.body or "").encode(),
                secrets=self._open(org_id, row.endpoint_id, sealed[row.endpoint_id]),
            )

    def _open(self, org_id: int, endpoint_id: int, sealed: Sequence[bytes]) -> tuple[str, ...]:
        """Return the secrets; none where one does not open, and nothing is sent half-signed."""
        try:
            return tuple(
                self._box.open(
                    one, purpose=signatures.PURPOSE, org_id=org_id, user_id=endpoint_id
                ).decode()
                for one in sealed
            )
        except SealError:
            log.exception(
                "a webhook's secret does not open", extra={"metadata": {"endpoint": endpoint_id}}
            )
            return ()

    # -- settling ------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Write down what came of what was sent, an organisation at a time.

        Raises what says that the database is away; then what was sent is kept for later.
        """
        self._collect()
        by_org: dict[int, list[Result]] = defaultdict(list)
        for result in self._results:
            by_org[result.parcel.org_id].append(result)
        for org_id, results in by_org.items():
            try:
                await self._settle_some(org_id, results)
            except AWAY:
                raise
            except Exception:
                # Its claims run out and it is sent once more; the others are not kept from theirs.
                log.exception("deliveries were not settled", extra={"metadata": {"org_id": org_id}})
            self._results = [r for r in self._results if r.parcel.org_id != org_id]

    async def _settle_some(self, org_id: int, results: Sequence[Result]) -> None:
        fates = [fate(result, self._pace.delays_s) for result in results]
        async with self._db.tenant(org_id) as conn:
            await q.outbox.settle_deliveries(
                conn,
                delivery_ids=[result.parcel.delivery_id for result in results],
                claim_nos=[result.parcel.claim_no for result in results],
                outcomes=[outcome for outcome, _ in fates],
                statuses=[result.status for result in results],
                errors=[result.error for result in results],
                retries_s=[wait_s for _, wait_s in fates],
                are_down=[result.is_down for result in results],
                failures_max=self._pace.circuit_failures,
                open_s=self._pace.circuit_open_s,
            )
            for endpoint_id in sorted({r.parcel.endpoint_id for r in results if r.is_gone}):
                disabled = await q.outbox.disable_endpoint(
                    conn, org_id=org_id, id=endpoint_id, reason="the endpoint answered 410 Gone"
                )
                if disabled is not None:
                    await tell_allowed(
                        conn, org_id=org_id, permission="webhooks:write",
                        type="webhook_disabled", title="A webhook endpoint was disabled",
                        message="It answered 410 Gone, so nothing is sent to it any more.",
                        data={"endpoint_id": endpoint_id},
                    )  # fmt: skip
                if disabled is not None and self._audits:
                    await audit(conn, org_id, "webhooks.disable_endpoint", endpoint_id, "WARNING")
        for result, (outcome, _) in zip(results, fates, strict=True):
            if outcome == DEAD:
                metadata = {"delivery": result.parcel.delivery_id, "why": result.error}
                log.warning("a webhook is dead", extra={"metadata": metadata})


def fate(result: Result, delays_s: Sequence[int]) -> tuple[str, int]:
    """Return what becomes of a message after an attempt, and when the next one is due."""
    if result.is_delivered:
        return DELIVERED, 0
    made = result.parcel.attempts + 1
    if result.is_gone or made >= len(delays_s):
        return DEAD, 0
    wait_s = max(delays_s[made], result.retry_after_s)
    return RETRY, round(wait_s * (1 + random.random() * JITTER))  # noqa: S311 - no secret


async def audit(conn: Any, org_id: int, action: str, entity_id: int, severity: str) -> None:
    """Write down what the service did by itself: without a user, from the worker."""
    await q.request.write_audit(
        conn, org_id=org_id, user_id=None, session_id=None, api_key_id=None,
        action=action.encode(), entity_type=b"webhooks", entity_id=entity_id, before=None,
        after=None, request_id=None, ip=None, user_agent=b"sofinance worker",
        severity=severity.encode(),
    )  # fmt: skip
