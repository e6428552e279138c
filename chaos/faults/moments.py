"""15: back to a moment, from a copy of the files and the log since, taken while tills write."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chaos.checker import Verdict, check_as_of
from chaos.database import Postgres, dedicated
from chaos.processes import ROOT, python
from chaos.writers import Crowd
from sofinance.infra import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos.stage import Stage

SCRIPT = ROOT / "scripts" / "archive_wal.sh"
COMMAND_TIMEOUT_S, ARCHIVE_TIMEOUT_S = 180, 60
POLL_S = 0.05
PAUSE_S = (1.5, 3.0)
ENCRYPTION_KEY = "3c" * 32


@contextlib.contextmanager
def archiving(folder: Path) -> Iterator[Postgres]:
    """Make a server that archives its log, with the script where PostgreSQL's account can run it.

    As on a server of one's own (docs/backup.md).
    """
    folder.mkdir(parents=True)
    folder.chmod(0o711)
    script, segments = folder / SCRIPT.name, _segments(folder)
    shutil.copy(SCRIPT, script)
    script.chmod(0o755)
    segments.mkdir()
    options = {"archive_mode": "on", "archive_command": f"{script} %p %f {segments}"}
    with dedicated(folder / "server", options) as postgres:
        account = postgres.server.account
        os.chown(segments, account.uid, account.gid)
        with postgres.superuser() as conn:
            conn.execute("alter role sofinance_backup replication")
        yield postgres


async def go_back(stage: Stage, *, pause_s: tuple[float, float] = PAUSE_S) -> str:
    """Copy the files, note a moment and what was told by then, and go back to it elsewhere."""
    await stage.gunicorn()
    stage.begin()
    await stage.heal()
    await stage.pause(*pause_s)
    base = await asyncio.to_thread(_sofinance, stage, "backup", "base")
    await stage.pause(*pause_s)
    # Nobody else runs between these two: what is in the journal was told before the moment.
    told, moment = stage.journal.read(), datetime.now(UTC)
    await stage.pause(*pause_s)
    await asyncio.to_thread(_archive, stage)
    await stage.heal()
    await stage.crowd.stop()  # all that is done from here on is what an operator does
    later = len(stage.journal.read()) - len(told)
    data = stage.folder.parent / "then"
    back = await asyncio.to_thread(
        _sofinance, stage, "restore", "--at", moment.isoformat(), "--into", str(data)
    )
    replayed_to = datetime.fromisoformat(back["replayed_to"])
    stage.demand(f"asked for {moment}, got {replayed_to}", holds=replayed_to <= moment)
    found = await _look_back(stage, told, data)
    stage.figures |= {"base bytes": base["bytes"], "rto s": back["rto_s"]}
    stage.demand(f"tills noticed: {stage.crowd.codes}", holds=set(stage.crowd.codes) == {""})
    stage.demand("nothing was done since", holds=later > 0)
    return (
        f"files copied and log archived under load, restored to a moment in {back['rto_s']:.0f} s: "
        f"the {found.acknowledged} orders told by then are there, none of {later} begun later"
    )


async def _look_back(stage: Stage, told: dict[str, Any], data: Path) -> Verdict:
    """Check what was restored as everything is checked, by a service of its own."""
    then = Postgres.of(embedded.Server(data))
    await asyncio.to_thread(then.server.start)
    stage.at_end(then.stop)
    aside = copy.copy(stage)  # its processes end with the stage's
    aside.postgres = then
    aside.crowd = Crowd(stage.shop, stage.crowd.customer_id, aside.token(), stage.journal)
    try:
        await aside.serve()
        verdict = await check_as_of(aside, told)
    finally:
        await aside.crowd.close()
    stage.problems += [f"then: {problem}" for problem in verdict.problems]
    stage.demand(f"then: lost {verdict.lost[:3]}", holds=not verdict.lost)
    stage.demand(f"then: doubled {verdict.doubled[:3]}", holds=not verdict.doubled)
    stage.demand("nothing was told by then", holds=verdict.acknowledged > 0)
    return verdict


def _segments(folder: Path) -> Path:
    return folder / "wal"


def _sofinance(stage: Stage, *words: str) -> dict[str, Any]:
    """Run a command as an operator does; returns what it says."""
    folder = stage.folder.parent
    settings = stage.environment(
        BACKUP_URL=stage.postgres.url("sofinance_backup"), BACKUP_DIR=str(folder / "backups"),
        BACKUP_WAL_DIR=str(_segments(folder)), BACKUP_ENCRYPTION_KEY=ENCRYPTION_KEY,
        PG_BIN=str(stage.postgres.server.programs), XDG_STATE_HOME=str(folder / "state"),
    )  # fmt: skip
    done = subprocess.run(
        [*python("sofinance"), *words, "--json"], cwd=ROOT, env={**os.environ, **settings},
        capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-1000:]}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _archive(stage: Stage) -> None:
    """Have everything archived that was written until now, as archive_timeout does."""
    with stage.postgres.superuser() as conn:
        (row,) = conn.execute("select pg_walfile_name(pg_switch_wal())").fetchall()
    kept = _segments(stage.folder.parent) / f"{row[0]}.gz"
    until_s = time.monotonic() + ARCHIVE_TIMEOUT_S
    while not kept.exists():
        if time.monotonic() > until_s:
            raise RuntimeError(f"{kept.name} was not archived in {ARCHIVE_TIMEOUT_S} s")
        time.sleep(POLL_S)
