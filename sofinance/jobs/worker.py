"""The worker: claims what is due, runs it, and shows that it lives.

Any number may run. A claim is a row that one of them updated (SKIP LOCKED), with a lease that the
run renews; a worker that dies loses its lease, and another takes over. A worker that was only away
finds that its claim is no longer the job's, and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sofinance import __version__
from sofinance import queries as q
from sofinance.infra import trace_context, tracing
from sofinance.infra.command import STATEMENT_TIMEOUT_MS
from sofinance.infra.db import NO_DATABASE, Database, Mode
from sofinance.infra.flags import Flags
from sofinance.infra.logs import TRACE, Trace
from sofinance.jobs import TOLD_LENGTH_MAX, JobFailedError, notices
from sofinance.jobs.courier import Courier

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from sofinance.config import Settings
    from sofinance.jobs import Job

log = logging.getLogger(__name__)

POLL_S = 1.0
BEAT_S = 5.0
# Jobs that one worker runs at once: a long one does not keep the others waiting.
RUNNING_COUNT_MAX = 4
# A connection for each job at work, one for claims and leases, one for signs of life, two for
# events: to take them up and to deliver.
POOL_SIZE = RUNNING_COUNT_MAX + 4
# What runs when the worker is told to stop may end in this time; then it is broken off.
STOP_TIMEOUT_S = 20
# How often a lease is renewed within its length.
RENEWALS = 3


@contextlib.asynccontextmanager
async def at_work(
    settings: Settings, jobs: Sequence[Job], *, delivers: bool = True
) -> AsyncGenerator[Worker]:
    """Yield a worker with a pool of its own, whose jobs are known; it runs when it is told to.

    It delivers webhooks as well, unless it is there for its jobs alone.
    """
    database = Database(
        replace(
            settings,
            database_pool_size=POOL_SIZE,
            database_statement_timeout_ms=STATEMENT_TIMEOUT_MS,
        )
    )
    await database.open()
    try:
        courier = Courier.configured(settings, database) if delivers else None
        worker = Worker(database, jobs, courier, operator_org_id=settings.operator_org_id)
        await worker.declare()
        yield worker
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def running(settings: Settings, jobs: Sequence[Job]) -> AsyncGenerator[None]:
    """Run jobs in this process for as long as a block runs."""
    stopping = asyncio.Event()
    async with at_work(settings, jobs) as worker:
        run = asyncio.create_task(worker.run(stopping))
        try:
            yield
        finally:
            stopping.set()
            await run


class Worker:
    """One process that runs jobs."""

    def __init__(
        self, database: Database, jobs: Sequence[Job], courier: Courier | None = None, *,
        operator_org_id: int = 0,
    ) -> None:  # fmt: skip
        self._db = database
        self._courier = courier
        self._operator_org_id = operator_org_id
        self._jobs = {job.name: job for job in jobs}
        self._flags = Flags(database)
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._running: set[asyncio.Task[bool]] = set()

    async def declare(self) -> None:
        """Make the jobs known to the database."""
        async with self._write() as conn:
            for job in self._jobs.values():
                await q.jobs.declare_job(
                    conn,
                    name=job.name,
                    description=job.description,
                    every_s=job.every_s,
                    offset_s=job.offset_s,
                    lease_s=job.lease_s,
                )

    async def run(self, stopping: asyncio.Event) -> None:
        """Run what falls due until told to stop; a database that is away is waited for."""
        beating = asyncio.create_task(self._beat())
        delivering = None
        if self._courier is not None:
            delivering = asyncio.create_task(self._courier.run(stopping))
        try:
            while not stopping.is_set():
                if len(self._running) == RUNNING_COUNT_MAX or not await self._start_next():
                    await self._pause(stopping)
        finally:
            beating.cancel()
            await self._finish_all()
            if delivering is not None:
                await delivering
            with contextlib.suppress(*NO_DATABASE, asyncio.CancelledError):
                await beating
            with contextlib.suppress(*NO_DATABASE):
                async with self._write() as conn:
                    await q.jobs.leave_runner(conn, name=self.name)

    async def run_once(self) -> bool:
        """Run all that is due, one after the other; say whether all of it went well."""
        went_well = True
        if self._courier is not None:
            await self._courier.run_once()
        while (claim := await self._claim()) is not None:
            went_well &= await self._do(claim)
        return went_well

    async def _pause(self, stopping: asyncio.Event) -> None:
        """Wait a moment, or less when something ends or we are told to stop."""
        waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(stopping.wait()), *self._running}
        await asyncio.wait(waiting, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        for future in waiting - self._running:
            future.cancel()
        self._running = {task for task in self._running if not task.done()}

    async def _start_next(self) -> bool:
        """Begin to run what is due, if anything is."""
        try:
            claim = await self._claim()
        except NO_DATABASE:
            log.warning("no job was claimed: the database does not answer", exc_info=True)
            return False
        if claim is None:
            return False
        self._running.add(asyncio.create_task(self._do(claim)))
        return True

    async def _claim(self) -> Any:
        if await self._flags.is_on("pause_jobs"):
            return None
        async with self._write() as conn:
            return await q.jobs.claim_job(conn, runner=self.name, names=sorted(self._jobs))

    async def _do(self, claim: Any) -> bool:
        """Run a job under its claim, as a trace of its own; say whether it went well."""
        trace = Trace(f"job:{claim.name}:{claim.claim_no}", trace_context.new())
        before, started_s = TRACE.set(trace), perf_counter()
        tracing.begin(trace)
        outcome = "failed"
        try:
            outcome = await self._do_traced(claim)
        finally:
            tracing.finish(
                trace, f"job {claim.name}", perf_counter() - started_s, kind=tracing.INTERNAL,
                has_failed=outcome == "failed",
                attributes={"job.name": claim.name, "job.outcome": outcome},
            )  # fmt: skip
            TRACE.reset(before)
        return outcome == "succeeded"

    async def _do_traced(self, claim: Any) -> str:
        """Run a job and write down what came of it: succeeded, failed or stopped."""
        work = asyncio.ensure_future(self._jobs[claim.name].work(self._db))
        renewing = asyncio.create_task(self._renew(claim, work))
        outcome = "failed"
        try:
            told = await work
            outcome = "succeeded"
        except asyncio.CancelledError:
            outcome, told = "stopped", "its worker was stopped"
        except JobFailedError as error:
            told = str(error)
            log.warning("job failed", extra={"metadata": {"job": claim.name, "why": told}})
        except Exception as error:
            # Whatever it is, it is this job's: the others go on.
            told = f"{type(error).__name__}: {error}"
            log.exception("job failed", extra={"metadata": {"job": claim.name}})
        finally:
            renewing.cancel()
        await self._finish(claim, outcome, told[:TOLD_LENGTH_MAX])
        return outcome

    async def _renew(self, claim: Any, work: asyncio.Future[str]) -> None:
        """Show that a job runs until it has ended; break it off when the claim is lost."""
        while True:
            await asyncio.sleep(claim.lease_s / RENEWALS)
            try:
                async with self._write() as conn:
                    is_ours = await q.jobs.renew_job(conn, name=claim.name, claim_no=claim.claim_no)
            except NO_DATABASE:
                continue  # the lease says how long we may go on without
            if not is_ours:
                log.warning("job taken over", extra={"metadata": {"job": claim.name}})
                work.cancel()
                return

    async def _finish(self, claim: Any, outcome: str, told: str) -> None:
        try:
            async with self._write() as conn:
                is_ours = await q.jobs.finish_job(
                    conn, name=claim.name, claim_no=claim.claim_no, outcome=outcome, told=told
                )
            if is_ours and outcome == "failed":
                await notices.tell_of_failure(
                    self._db, self._operator_org_id, job=claim.name, why=told
                )
        except NO_DATABASE:
            # The lease runs out and the run is written down as lost; the job is run again.
            log.warning("a run's end was not written down", exc_info=True)
            return
        metadata = {"job": claim.name, "outcome": outcome, "told": told}
        log.info("job ended" if is_ours else "job was taken over", extra={"metadata": metadata})

    async def _finish_all(self) -> None:
        """Let what runs end in time, and break off what does not."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=STOP_TIMEOUT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            try:
                async with self._write() as conn:
                    await q.jobs.beat_runner(conn, name=self.name, version=__version__)
                await self._flags.flush_when_due()
            except NO_DATABASE:
                log.warning("no sign of life was given", exc_info=True)
            await asyncio.sleep(BEAT_S)

    def _write(self) -> Any:
        return self._db.untenanted(mode=Mode.WRITE)
