"""5: the disk under PostgreSQL is full, data and log; and it is slow to confirm."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
import time
from typing import TYPE_CHECKING

from chaos.database import Postgres, dedicated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos.stage import Stage

SIZE_MIB = 700
BLOCK = bytes(1 << 20)
FULL_S = 6.0
SLOW_S = 8.0
# PostgreSQL waits so long before each flush of its log, whoever else commits: all that it allows.
SLOW = {"commit_delay": "100000", "commit_siblings": "0"}  # microseconds
PAUSE_S_MAX = 5.0


@contextlib.contextmanager
def small(folder: Path) -> Iterator[Postgres]:
    """Make a server on a disk of its own, in memory; only root can.

    The mount is in a name space of this run's own (`isolate`), so that it cannot stay behind.
    """
    folder.mkdir(parents=True)
    mount = folder / "disk"
    mount.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0711", "tmpfs", str(mount)],
        check=True,
    )
    try:
        with dedicated(mount / "server") as postgres:
            yield postgres
    finally:
        subprocess.run(["umount", str(mount)], check=True)


async def fill(stage: Stage) -> str:
    """Take the last byte of the disk while tills sell, wait, and give it back."""
    service = await stage.gunicorn()
    pids = service.children()
    stage.begin()
    await stage.heal()
    await stage.pause(1, 2)
    ballast = stage.postgres.server.data.parent.parent / "ballast"
    await asyncio.to_thread(_fill, ballast)
    full_s = time.monotonic()
    await asyncio.sleep(FULL_S)
    sold = stage.crowd.done_between(full_s + FULL_S / 2, time.monotonic())
    ballast.unlink()
    mended_s = time.monotonic()
    down = not stage.postgres.runs
    if down:
        # No room for its log: PostgreSQL stops rather than lose any, its supervisor starts it.
        await asyncio.to_thread(stage.postgres.start)
    await stage.heal(mended_s)
    await stage.pause(1, 2)
    stage.demand("the service's processes are others", holds=service.children() == pids)
    stage.demand("nobody noticed", holds=stage.crowd.codes.get("unavailable", 0) > 0)
    stage.demand("it sold without room", holds=sold == 0)
    return f"no byte left for {FULL_S:.0f} s{', PostgreSQL stopped by itself' if down else ''}"


async def slow_down(stage: Stage, *, seconds: float = SLOW_S) -> str:
    """Have each flush of the log take 100 ms longer: tills wait for it, and nobody is refused."""
    await stage.gunicorn()
    stage.begin()
    await stage.heal()
    before_s = time.monotonic()
    await asyncio.sleep(seconds / 2)
    slow_s = time.monotonic()
    await asyncio.to_thread(_set, stage, SLOW)
    await asyncio.sleep(seconds)
    mended_s = time.monotonic()
    longest_s = max(stage.crowd.durations_since(slow_s))
    before = stage.crowd.done_between(before_s, slow_s) / (slow_s - before_s)
    meanwhile = stage.crowd.done_between(slow_s, mended_s) / (mended_s - slow_s)
    await asyncio.to_thread(_set, stage, dict.fromkeys(SLOW, ""))
    await stage.heal(mended_s)
    stage.demand(f"an order took {longest_s:.1f} s", holds=longest_s < PAUSE_S_MAX)
    stage.demand(f"tills noticed: {stage.crowd.codes}", holds=set(stage.crowd.codes) == {""})
    return (
        f"each flush of PostgreSQL's log takes 100 ms longer for {seconds:.0f} s: {meanwhile:.0f} "
        f"orders a second in place of {before:.0f}, the slowest in {longest_s:.1f} s"
    )


def _set(stage: Stage, options: dict[str, str]) -> None:
    """Change what PostgreSQL does, while it runs; an empty value is its default."""
    with stage.postgres.superuser() as conn:
        for name, value in options.items():
            change = f"set {name} = '{value}'" if value else f"reset {name}"
            conn.execute(f"alter system {change}".encode())
        conn.execute("select pg_reload_conf()")


def _fill(ballast: Path) -> None:
    """Write till nothing more fits, the last bytes one by one."""
    with ballast.open("wb", buffering=0) as file:
        size = len(BLOCK)
        while size:
            try:
                file.write(BLOCK[:size])
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
