"""The schedule of backups, and what operators ask of them: done by the commands, as processes.

A process can be broken off with all that it began, and its memory goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sofinance import config
from sofinance import queries as q
from sofinance.backups import programs, store
from sofinance.backups.records import BASE, FULL, LOST_AFTER_HOURS
from sofinance.backups.scratch import sweep
from sofinance.infra.command import EXIT_GOOD
from sofinance.infra.db import Mode
from sofinance.jobs import JobFailedError
from sofinance.tools.backup import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sofinance.infra.db import Database

log = logging.getLogger(__name__)

NOT_CONFIGURED = "nothing was done: BACKUP_URL is not set"
# What is broken off may end what it began in this time; then it is killed.
STOP_TIMEOUT_S = 15
ERROR_LENGTH_MAX = 1_000
# Tasks at once, and how old one may grow before nobody does it any more.
RUNNING_COUNT_MAX = 2
TASK_HOURS_MAX = 24
LOOK_S = 1.0
GIVEN_UP_COUNT_MAX = 100


async def take_away_leftovers() -> None:
    """Stop and remove what a restore left here that was killed; log what that was."""
    for path in await asyncio.to_thread(sweep):
        log.warning("what a killed restore left is gone", extra={"metadata": {"path": str(path)}})


class CommandFailedError(Exception):
    """A command ended with another code than 0; its text is what it complained of."""


async def run_command(*words: str, variables: Mapping[str, str] | None = None) -> Any:
    """Run `sofinance` with these words and --json; return what it says.

    The environment is ours, so secrets stand on no command line.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sofinance", *words, "--json",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **(variables or {})},
        start_new_session=True,
    )  # fmt: skip
    try:
        said, complaint = await process.communicate()
    except asyncio.CancelledError:
        # As Ctrl-C: it takes back what it began, a scratch server or a half-made database.
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await take_away_leftovers()  # its server runs in a session of its own
        raise
    answer = json.loads(said) if said.strip() else {}
    if process.returncode != EXIT_GOOD:
        lines = complaint.decode(errors="replace").strip().splitlines()
        why = answer.get("error") or (lines[-1] if lines else "")
        raise CommandFailedError(
            (why.removeprefix("sofinance: ") or f"exit code {process.returncode}")[
                :ERROR_LENGTH_MAX
            ]
        )
    return answer


async def back_up(database: Database) -> str:
    """Take a backup, and remove old ones."""
    settings = config.load_given(os.environ)
    if not settings.backup_url:
        return NOT_CONFIGURED
    return await _take(database, FULL, place_of(settings).location())


async def back_up_base(database: Database) -> str:
    """Take a base backup, where the server's log is archived, and remove old ones."""
    settings = config.load_given(os.environ)
    if not settings.backup_url:
        return NOT_CONFIGURED
    async with database.untenanted() as conn:
        archiver = await q.system.get_archiver(conn)
    if not archiver.is_archiving:
        return "nothing was done: the server archives no log (archive_mode)"
    return await _take(database, BASE, place_of(settings).location())


async def verify_newest(_database: Database) -> str:
    """Restore the newest backup into a server made for it, compare and verify."""
    settings = config.load_given(os.environ)
    if not settings.backup_url:
        return NOT_CONFIGURED
    try:
        said = await run_command("drill", "--backup", "latest")
    except CommandFailedError as error:
        raise JobFailedError(str(error)) from None
    return f"{said['backup']}: {said['rows']} rows came back in {said['rto_s']} s, and verify"


async def _take(database: Database, kind: str, location: str) -> str:
    async with database.untenanted(mode=Mode.WRITE) as conn:
        await q.system.forget_lost_backups(conn, hours=LOST_AFTER_HOURS)
        record = await q.system.begin_backup(
            conn, kind=kind, location=location, org_id=None, user_id=None
        )
    try:
        said = await take_recorded(database, kind, record)
    except CommandFailedError as error:
        raise JobFailedError(str(error)) from None
    return f"{said['file']}: {said['bytes']} bytes; removed {len(said['removed'])}"


async def take_recorded(database: Database, kind: str, record: int) -> Any:
    """Take a backup that is written down already; one that fails does not stay pending."""
    words = ("backup", "--record", str(record)) + (("base",) if kind == BASE else ())
    try:
        return await run_command(*words)
    except CommandFailedError as error:
        # Mostly it has written so itself; not when it was killed.
        async with database.untenanted(mode=Mode.WRITE) as conn:
            await q.system.fail_backup(conn, id=record, error=str(error))
        raise


# -- what operators ask for ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a task."""

    message: str
    database_name: str | None = None
    restored_tables: list[str] | None = field(default=None)


async def do_tasks(database: Database) -> str:
    """Do what operators asked for, two at a time; break off what they cancel.

    One worker runs this at a time, so what is running when it begins is nobody's any more.
    """
    removed = await _remove_given_up(database)
    async with database.untenanted(mode=Mode.WRITE) as conn:
        await q.system.reopen_backup_tasks(conn, hours=TASK_HOURS_MAX)
    count, running = 0, dict[asyncio.Task[None], int]()
    try:
        while True:
            while len(running) < RUNNING_COUNT_MAX:
                async with database.untenanted(mode=Mode.WRITE) as conn:
                    task = await q.system.claim_backup_task(conn)
                if task is None:
                    break
                running[asyncio.create_task(_do(database, task))] = task.id
                count += 1
            if not running:
                return f"did {count} tasks, removed {removed} backups"
            done, _ = await asyncio.wait(
                running, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
            )
            for ended in done:
                del running[ended]
                ended.result()
            await _break_off(database, running)
    finally:
        for left in running:
            left.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _break_off(database: Database, running: dict[asyncio.Task[None], int]) -> None:
    """Break off what somebody asked to, and wait till all that it began is gone."""
    if not running:
        return
    async with database.untenanted() as conn:
        rows = await q.system.list_cancelled_tasks(conn, limit=RUNNING_COUNT_MAX)
    unwanted = {row.id for row in rows}
    for task, number in list(running.items()):
        if number in unwanted:
            task.cancel()
            await asyncio.wait([task])
            del running[task]
            await _end(database, number, "CANCELLED", Outcome("it was broken off"))


async def _do(database: Database, task: Any) -> None:
    try:
        outcome = await WORK[task.kind](database, task)
    except CommandFailedError as error:
        await _end(database, task.id, "FAILED", Outcome(str(error)))
    else:
        await _end(database, task.id, "SUCCESS", outcome)


async def _end(database: Database, number: int, status: str, outcome: Outcome) -> None:
    async with database.untenanted(mode=Mode.WRITE) as conn:
        await q.system.end_backup_task(
            conn, id=number, status=status, message=outcome.message,
            database_name=outcome.database_name, restored_tables=outcome.restored_tables,
        )  # fmt: skip


async def _create(database: Database, task: Any) -> Outcome:
    if not config.load_given(os.environ).backup_url:
        async with database.untenanted(mode=Mode.WRITE) as conn:
            await q.system.fail_backup(conn, id=task.backup_id, error=NOT_CONFIGURED)
        raise CommandFailedError(NOT_CONFIGURED)
    said = await take_recorded(database, FULL, task.backup_id)
    return Outcome(f"{said['rows']} rows in {said['seconds']} s")


async def _verify(_database: Database, task: Any) -> Outcome:
    """Restore into a server that is made for it, and goes again."""
    _demand_here(task)
    said = await run_command("drill", "--backup", task.file_name)
    return Outcome(
        f"{said['rows']} rows came back in {said['rto_s']} s, all equal, and the books verify",
        restored_tables=said["tables"],
    )


async def _restore(_database: Database, task: Any) -> Outcome:
    """Restore into a new database beside the live one, which stays as it is."""
    _demand_here(task)
    url = config.load_given(os.environ).restore_url
    if not url:
        raise CommandFailedError("RESTORE_URL is not set where the worker runs")
    stamp = f"{datetime.now(UTC):{store.STAMP}}".lower()
    name = f"restored_{task.id}_{stamp}"
    there = {"RESTORE_URL": programs.with_database(url, name), "RESTORE_URL_FILE": ""}
    said = await run_command("restore", task.file_name, "--create", variables=there)
    return Outcome(
        f"{said['rows']} rows are in the database {name}, all equal, and the books verify; "
        f"`sofinance restore --switch-to {name}` puts it in place of the live one",
        database_name=name,
        restored_tables=said["tables"],
    )


def _demand_here(task: Any) -> None:
    here = place_of(config.load_given(os.environ)).location()
    if task.location != here:
        raise CommandFailedError(f"it is in {task.location}, and BACKUP_DIR is {here}")


WORK = {"CREATE": _create, "VERIFY": _verify, "DRY_RUN": _verify, "RESTORE": _restore}


async def _remove_given_up(database: Database) -> int:
    """Remove the files of backups that were given up and are where we look."""
    async with database.untenanted() as conn:
        rows = await q.system.list_backups_given_up(conn, limit=GIVEN_UP_COUNT_MAX)
    if not rows:
        return 0
    place = place_of(config.load_given(os.environ))
    places = {each.location(): each for each in (place, place / "base")}
    count = 0
    for row in rows:
        if row.location in places:
            await asyncio.to_thread(store.remove, places[row.location], row.file_name)
            async with database.untenanted(mode=Mode.WRITE) as conn:
                await q.system.note_backups_removed(
                    conn, location=row.location, file_names=[row.file_name]
                )
            count += 1
    return count
