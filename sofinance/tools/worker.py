"""`sofinance worker` runs jobs; `sofinance jobs` tells how they are and steers them."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from sofinance import queries as q
from sofinance.infra import logs, telemetry
from sofinance.infra.command import (
    EXIT_FAILED,
    EXIT_GOOD,
    EXIT_USAGE,
    SetupError,
    database_options,
    settings_from,
)
from sofinance.infra.db import Mode
from sofinance.infra.monitor import monitored
from sofinance.jobs.backups import take_away_leftovers
from sofinance.jobs.maintaining import maintain_in_window, warn_if_not_owner
from sofinance.jobs.tasks import JOBS
from sofinance.jobs.worker import at_work
from sofinance.tools.operator_actions import name_operator
from sofinance.tools.orgs import connected
from sofinance.tools.tables import tell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from sofinance.jobs import Job

RUNS_TOLD = 20
UNKNOWN_JOB = "There is no job {0!r}: a worker makes them known when it starts."
STEERED = {
    "run": "{0} runs as soon as a worker is free: `sofinance jobs runs {0}` tells what came of it.",
    "pause": "{0} is paused: no worker runs it until `sofinance jobs resume {0}`.",
    "resume": "{0} is run again when it is due.",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    worker = subparsers.add_parser(
        "worker",
        help="run jobs when they are due",
        description="Run jobs when they are due, until a signal. Any number of workers may run "
        "beside the service; each job is run by one of them at a time.",
    )
    worker.add_argument(
        "--job", action="append", metavar="NAME", help="only this one; may be given again"
    )
    worker.add_argument(
        "--once", action="store_true", help="run what is due now and leave; exit 1 if any failed"
    )
    database_options(worker)
    worker.set_defaults(run=work)
    jobs = subparsers.add_parser(
        "jobs",
        help="tell how jobs are; run, pause or resume one",
        description="status: every job. runs: the latest runs of one. run: have a worker run it "
        "now. pause, resume: keep all workers from it, or no longer.",
    )
    jobs.add_argument(
        "action", nargs="?", default="status", choices=("status", "runs", "run", "pause", "resume")
    )
    jobs.add_argument("job", nargs="?", help="the job's name, for all but status")
    jobs.add_argument("--json", action="store_true", help="print one JSON document")
    database_options(jobs)
    jobs.set_defaults(run=steer)


async def work(args: argparse.Namespace) -> int:
    """Run jobs, until a signal or once."""
    settings = settings_from(args, serves=True)
    logs.configure(level=settings.log_level, environment=settings.environment)
    delivers, jobs = args.job is None, chosen(args.job)
    if any(job.work is maintain_in_window for job in jobs):
        warn_if_not_owner(settings)
    await take_away_leftovers()
    async with (
        telemetry.observed(settings),
        monitored(settings, 0 if args.once else settings.worker_port),
        at_work(settings, jobs, delivers=delivers) as worker,
    ):
        if args.once:
            return EXIT_GOOD if await worker.run_once() else EXIT_FAILED
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stopping.set)
        await worker.run(stopping)
    return EXIT_GOOD


def chosen(names: Sequence[str] | None) -> list[Job]:
    """Return the jobs of these names, or all."""
    if names is None:
        return [*JOBS]
    known = {job.name: job for job in JOBS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SetupError(
            f"There is no job {unknown[0]!r}; there are {', '.join(known)}.", exit_code=EXIT_USAGE
        )
    return [known[name] for name in names]


async def steer(args: argparse.Namespace) -> int:
    """Tell how jobs are, or steer one."""
    if (args.action == "status") != (args.job is None):
        raise SetupError(f"`jobs {args.action}` takes {'no' if args.job else 'a'} job's name.",
                         exit_code=EXIT_USAGE)  # fmt: skip
    async with connected(args) as database:
        if args.action == "status":
            async with database.untenanted() as conn:
                rows: Sequence[Any] = await q.jobs.list_jobs(conn)
            tell(args, rows, ("name", "is_running", "is_paused", "next_run_at", "last_success_at",
                              "consecutive_failures", "last_error"))  # fmt: skip
        elif args.action == "runs":
            async with database.untenanted() as conn:
                rows = await q.jobs.list_job_runs(conn, job=args.job, limit=RUNS_TOLD)
                known = {job.name for job in await q.jobs.list_jobs(conn)}
            if not rows and args.job not in known:
                raise SetupError(UNKNOWN_JOB.format(args.job), exit_code=EXIT_USAGE)
            tell(args, rows, ("claim_no", "outcome", "started_at", "ended_at", "runner", "told"))
        else:
            async with database.untenanted(mode=Mode.WRITE) as conn:
                await name_operator(conn)
                is_known = await q.jobs.steer_job(conn, name=args.job, action=args.action)
            if not is_known:
                raise SetupError(UNKNOWN_JOB.format(args.job), exit_code=EXIT_USAGE)
            print(STEERED[args.action].format(args.job))
    return EXIT_GOOD
