"""2: answers are lost on either way: after COMMIT, before it, whole, by half."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from chaos.proxy import DatabaseProxy, Fate, HttpProxy, Loss, is_commit

if TYPE_CHECKING:
    from chaos.proxy import Link
    from chaos.stage import Stage

SECONDS = 10.0
CUT_SHARE = 0.03  # of commits, each way
LOSS_SHARE = 0.02  # of exchanges over HTTP, each kind


async def lose_answers(stage: Stage, *, seconds: float = SECONDS) -> str:
    """Lose commits and answers at random; a retry under the same key replays the first answer."""
    cut: Counter[Fate] = Counter()
    lost: Counter[Loss] = Counter()

    async def judge(_: Link, turn: bytes) -> Fate:
        if is_commit(turn):
            for fate in (Fate.CUT_BEFORE, Fate.CUT_AFTER):
                if stage.chance.random() < CUT_SHARE:
                    cut[fate] += 1
                    return fate
        return Fate.PASS

    def draw() -> Loss:
        for loss in (Loss.REQUEST, Loss.ANSWER, Loss.HALF):
            if stage.chance.random() < LOSS_SHARE:
                lost[loss] += 1
                return loss
        return Loss.NONE

    async with DatabaseProxy(stage.postgres.port, judge) as database:
        service = await stage.serve(DATABASE_URL=stage.postgres.url(port=database.port))
        direct = stage.crowd.urls.pop()
        async with HttpProxy(int(direct.rpartition(":")[2]), draw) as http:
            stage.crowd.urls = [f"http://127.0.0.1:{http.port}"]
            stage.begin()
            await asyncio.sleep(seconds)
            stage.crowd.urls = [direct]
            await stage.heal()
            await stage.settle()
    for what in (Fate.CUT_BEFORE, Fate.CUT_AFTER):
        stage.demand(f"{what} never happened", holds=cut[what] > 0)
    stage.demand("no answer was lost", holds=lost.total() > 0)
    stage.demand("it ended", holds=service.runs)
    # The proxy is gone and with it the service's database: it ends in order, another one reports.
    await stage.serve()
    stage.crowd.urls = stage.crowd.urls[-1:]
    return (
        f"cut before COMMIT {cut[Fate.CUT_BEFORE]} times, after it {cut[Fate.CUT_AFTER]}; lost "
        f"{lost[Loss.REQUEST]} requests, {lost[Loss.ANSWER]} answers, {lost[Loss.HALF]} by half"
    )
