"""7: the object store is gone, or hangs: sales go on, files wait, health says degraded."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING

import aiohttp

from chaos.writers import PREFIX
from tests.s3_server import S3Server

if TYPE_CHECKING:
    from chaos.stage import Stage

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(21)
SECONDS = 3.0
# Two attempts of a second to connect or two to read, and what is around them.
ANSWER_S_MAX = 12.0


class Store(S3Server):
    """An object store that can hang as well."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)


async def break_store(stage: Stage) -> str:
    """Let the store refuse, then hang; sell on meanwhile; then attach what could not be."""
    store = await asyncio.to_thread(Store)
    stage.at_end(store.stop)
    settings = {name.upper(): str(value) for name, value in store.settings().items()}
    await stage.gunicorn(**settings)
    stage.begin()
    await stage.heal()
    stage.demand("nothing can be attached", holds=await _attach(stage) == 201)
    for trouble in ("refuses", "hangs"):
        began_s = time.monotonic()
        if trouble == "refuses":
            await asyncio.to_thread(store.stop)
        else:
            store.signal(signal.SIGSTOP)
        status = await _attach(stage)
        took_s = time.monotonic() - began_s
        stage.demand(f"it {trouble}: a file was answered {status}", holds=status == 503)
        stage.demand(f"it {trouble}: that took {took_s:.1f} s", holds=took_s < ANSWER_S_MAX)
        health = await _ask(stage, "/health")
        ready = await _ask(stage, "/readyz")
        stage.demand(f"it {trouble}: health is {health}", holds=health == (200, "degraded"))
        stage.demand(f"it {trouble}: readiness is {ready}", holds=ready == (200, "healthy"))
        await asyncio.sleep(SECONDS)
        sold = stage.crowd.done_between(began_s, time.monotonic())
        stage.demand(f"it {trouble}: nothing was sold", holds=sold > 0)
        if trouble == "refuses":
            await asyncio.to_thread(store.start)
        else:
            store.signal(signal.SIGCONT)
        mended_s = time.monotonic()
        while (status := await _attach(stage)) != 201 and time.monotonic() < mended_s + 60:
            await asyncio.sleep(0.2)
        stage.demand(f"it {trouble}: afterwards {status}", holds=status == 201)
        stage.figures[f"{trouble}: files again after s"] = round(time.monotonic() - mended_s, 1)
    await stage.heal()
    stage.demand(f"tills noticed: {stage.crowd.codes}", holds=set(stage.crowd.codes) == {""})
    return "the object store refuses, then hangs: files are answered 503, no sale notices"


async def _attach(stage: Stage) -> int:
    """Attach a file to the customer; returns the status."""
    form = aiohttp.FormData()
    content = PNG + str(stage.chance.random()).encode()
    form.add_field("file", content, filename="a.png", content_type="image/png")
    crowd = stage.crowd
    url = f"{crowd.urls[0]}{PREFIX}/attachments?entity=customer&entity_id={crowd.customer_id}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            url, data=form, headers={"Authorization": f"Bearer {stage.token()}"}
        ) as answer,
    ):
        await answer.read()
        return answer.status


async def _ask(stage: Stage, path: str) -> tuple[int, str]:
    async with stage.crowd.session.get(f"{stage.crowd.urls[0]}{path}") as answer:
        body = json.loads(await answer.read())
    return answer.status, str(body["data"]["status"])
