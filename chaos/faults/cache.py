"""6: Redis is killed, hangs, is slow, forgets everything, and refuses to write."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from tests.ports import free_port
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.stage import Stage

# How long each trouble lasts, and how long sales may pause for it.
SECONDS = 2.0
PAUSE_S_MAX = 1.0


async def break_redis(stage: Stage) -> str:
    """Break Redis in every way: the limits count without it, and no sale notices."""
    redis = RedisServer("--enable-debug-command", "yes")
    stage.at_end(redis.close)
    redis.start()
    await stage.gunicorn(REDIS_URL=redis.url)
    stage.begin()
    await stage.heal()
    troubles: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "killed": (redis.kill, redis.start),
        "frozen": (redis.freeze, redis.thaw),
        "slow": (lambda: redis("DEBUG", "SLEEP", str(SECONDS)), lambda: None),
        "flushed": (lambda: redis("FLUSHALL"), lambda: None),
        "read-only": (
            lambda: redis("REPLICAOF", "127.0.0.1", str(free_port())),
            lambda: redis("REPLICAOF", "NO", "ONE"),
        ),
    }
    for name, (begin, end) in troubles.items():
        began_s = time.monotonic()
        trouble = asyncio.create_task(asyncio.to_thread(begin))
        await stage.heal(began_s)
        await asyncio.sleep(SECONDS)
        if name == "killed":
            said = await _readiness(stage)
            stage.demand(f"without Redis it says {said}", holds=said == (200, "degraded"))
        await trouble
        await asyncio.to_thread(end)
        ended_s = time.monotonic()
        sold = stage.crowd.done_between(began_s, ended_s)
        stage.demand(f"{name}: nothing was sold", holds=sold > 0)
        await stage.pause(0.3, 0.8)
    stage.demand(
        f"sales paused for {stage.heal_s:.2f} s", holds=(stage.heal_s or 0.0) < PAUSE_S_MAX
    )
    stage.demand(f"somebody noticed: {stage.crowd.codes}", holds=set(stage.crowd.codes) == {""})
    return f"Redis {', '.join(troubles)}: {SECONDS:.0f} s each"


async def _readiness(stage: Stage) -> tuple[int, str]:
    async with stage.crowd.session.get(f"{stage.crowd.urls[0]}/readyz") as answer:
        body = json.loads(await answer.read())
    return answer.status, str(body["data"]["status"])
