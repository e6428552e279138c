"""3: the job worker is killed between sending and writing it down; 19: receivers are hostile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import time
from typing import TYPE_CHECKING

from chaos.processes import python, resident_bytes
from chaos.receivers import Receiver, Villain, drip, flood, redirect, stall

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos.processes import Running
    from chaos.stage import Stage

METADATA = "169.254.169.254"
# A name that is one's own machine's at first, and a cloud's metadata's a moment later.
REBOUND = "rebinding.chaos.example"
HOSTS = "/etc/hosts"
KILLS = 4
# How long a good receiver thinks about a message.
PAUSE_S = 0.2
# A claim that died with its worker runs out after a minute (the courier's LEASE_S).
ARRIVE_S = 100.0
SECONDS, REBIND_S = 8.0, 40.0
MEMORY_MIB_MAX = 300
ENCRYPTION_KEY = "5a" * 32
REFUSED = """
select count(*) from webhook_delivery as delivery
inner join webhook_endpoint as endpoint
    on delivery.org_id = endpoint.org_id and delivery.endpoint_id = endpoint.id
where delivery.org_id = %s and delivery.last_error = 'invalid_export_target:address'
    and position(%s in endpoint.url) > 0
"""
PENDING = "select count(*) from webhook_delivery where org_id = %s and status = 'pending'"
SETTINGS = {
    "EXPORT_MODE": "webhook", "EXPORT_ALLOW_HTTP": "true",
    "EXPORT_ALLOWED_NETWORKS": "127.0.0.1/32", "EXPORT_TIMEOUT_S": "2",
    "EXPORT_RETRY_DELAYS_S": "0,1,1,2,2", "EXPORT_CIRCUIT_OPEN_S": "1",
    "DATA_ENCRYPTION_KEY": ENCRYPTION_KEY,
}  # fmt: skip


async def kill_couriers(stage: Stage, *, kills: int = KILLS) -> str:
    """Kill workers while they deliver: every sale arrives, and a second time is recognisable."""
    await stage.gunicorn(**SETTINGS)
    async with Receiver(pause_s=PAUSE_S) as receiver:
        await stage.post("/webhooks", {"url": receiver.url})
        workers = [_worker(stage) for _ in range(2)]
        stage.begin()
        await stage.heal()
        for number in range(kills):
            count, until_s = len(receiver.sales), time.monotonic() + ARRIVE_S
            while len(receiver.sales) == count and time.monotonic() < until_s:
                await asyncio.sleep(0.01)
            workers[number % 2].kill()  # something is on its way just now
            workers[number % 2].again()
        await stage.settle()
        began_s = time.monotonic()
        await _arrive(stage, receiver)
        while _pending(stage) and time.monotonic() < began_s + ARRIVE_S:
            await asyncio.sleep(0.5)
        stage.demand("it is not all written down", holds=not _pending(stage))
    again = sum(len(ids) > 1 for ids in receiver.sales.values())
    stage.demand("nothing was on its way when it was killed", holds=again > 0)
    stage.figures["last one after s"] = round(time.monotonic() - began_s, 1)
    return (
        f"kill -9 of `sofinance worker` {kills} times: {len(receiver.sales)} sales told, {again} "
        "more than once, each under one webhook-id"
    )


async def hostile(stage: Stage) -> str:
    """Deliver to receivers that redirect, flood, stall, drip and rebind; the good one has all."""
    async with contextlib.AsyncExitStack() as stack:
        hosts = stack.enter_context(_own_hosts(stage.folder / "hosts"))
        trap = await stack.enter_async_context(Villain(stall))
        acts = {
            "metadata": functools.partial(redirect, where=f"http://{METADATA}/latest/meta-data/"),
            "home": functools.partial(redirect, where=trap.url),
            "flood": flood, "stall": stall, "drip": drip,
        }  # fmt: skip
        villains = {
            name: await stack.enter_async_context(Villain(act)) for name, act in acts.items()
        }
        good = await stack.enter_async_context(Receiver())
        rebound = await stack.enter_async_context(Receiver(closes=True))
        await stage.gunicorn(**SETTINGS)
        port = rebound.url.rpartition(":")[2]
        urls = [good.url, *(villain.url for villain in villains.values())]
        for url in [*urls, f"http://{REBOUND}:{port}"]:
            await stage.post("/webhooks", {"url": url})
        worker = _worker(stage)
        memory = [resident_bytes(worker.pid)]
        stage.begin()
        await stage.heal()
        began_s = time.monotonic()
        while time.monotonic() < began_s + REBIND_S and not _is_refused(stage):
            await asyncio.sleep(0.5)
            memory.append(resident_bytes(worker.pid))
            if rebound.sales and METADATA not in hosts.read_text("utf-8"):
                hosts.write_text(f"127.0.0.1 localhost\n{METADATA} {REBOUND}\n", "utf-8")
        stage.demand("the rebound name was not refused", holds=_is_refused(stage))
        await asyncio.sleep(max(0.0, began_s + SECONDS - time.monotonic()))
        await stage.settle()
        await _arrive(stage, good)
        memory.append(resident_bytes(worker.pid))
    stage.demand("the rebound name was never its own", holds=bool(rebound.sales))
    stage.demand("a redirect was followed", holds=trap.count == 0)
    for name, villain in villains.items():
        stage.demand(f"{name} was never asked", holds=villain.count > 0)
    mib = max(memory) >> 20
    stage.demand(f"the worker took {mib} MiB", holds=mib < MEMORY_MIB_MAX)
    stage.demand("the worker ended", holds=worker.runs)
    return (
        f"receivers that redirect to {METADATA}, answer 10 GB, stall, drip, rebind: "
        f"{len(good.sales)} sales told to the good one, {mib} MiB at most"
    )


def _pending(stage: Stage) -> int:
    with stage.postgres.superuser() as conn:
        (row,) = conn.execute(PENDING, [stage.shop.org_id]).fetchall()
    return int(row[0])


def _is_refused(stage: Stage) -> bool:
    """Say whether something was not sent because a name is another address now."""
    with stage.postgres.superuser() as conn:
        (row,) = conn.execute(REFUSED, [stage.shop.org_id, REBOUND]).fetchall()
    return bool(row[0])


def _worker(stage: Stage) -> Running:
    return stage.run(python("sofinance", "worker"), stage.environment(**SETTINGS))


async def _arrive(stage: Stage, receiver: Receiver) -> None:
    """Wait till every sale that was acknowledged has been told, under one webhook-id each."""
    wanted = {
        line.done.data["id"]
        for line in stage.journal.read().values()
        if line.order.kind in {"sale", "credit"} and line.done is not None
    }
    until_s = time.monotonic() + ARRIVE_S
    while wanted - receiver.sales.keys() and time.monotonic() < until_s:
        await asyncio.sleep(0.1)
    missing = wanted - receiver.sales.keys()
    stage.demand(f"{len(missing)} of {len(wanted)} sales were never told", holds=not missing)
    twice = [sale for sale, ids in receiver.sales.items() if len(set(ids)) > 1]
    stage.demand(f"sales told under two ids: {twice[:3]}", holds=not twice)
    stage.demand("nothing was told", holds=bool(wanted))


@contextlib.contextmanager
def _own_hosts(path: Path) -> Iterator[Path]:
    """Give this run a list of hosts of its own, over the system's; see `isolate`."""
    path.write_text(f"127.0.0.1 localhost {REBOUND}\n", "utf-8")
    subprocess.run(["mount", "--bind", str(path), HOSTS], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", HOSTS], check=True)
