"""A worker says that it lives, and what it sees, to whoever has the token."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest

from sofinance.infra.command import SetupError
from sofinance.infra.listening import listen
from sofinance.infra.monitor import monitored
from tests.ops import live

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sofinance.config import Settings

TOKEN = "a token for the scraper"  # noqa: S105 - nobody's


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client."""
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    """Settings under which the metrics need a token."""
    return replace(settings, metrics_token=TOKEN)


async def test_a_worker_tells_its_metrics_to_who_has_the_token(
    guarded: Settings, session: aiohttp.ClientSession
) -> None:
    async with monitored(guarded, live.free_port()) as port:
        url = f"http://127.0.0.1:{port}"
        async with session.get(f"{url}/livez") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "healthy"})
        for header in ({}, {"Authorization": "Bearer x"}):
            async with session.get(f"{url}/metrics", headers=header) as answer:
                assert (answer.status, await answer.text()) == (401, "")
        token = {"Authorization": f"Bearer {TOKEN}"}
        async with session.get(f"{url}/metrics", headers=token) as answer:
            assert answer.status == 200
            assert re.search("^log_lines_lost_total ", await answer.text(), re.MULTILINE)
        async with session.get(f"{url}/api/v1/sales", headers=token) as answer:
            assert answer.status == 404


async def test_metrics_can_be_off_and_the_port_be_taken(
    settings: Settings, session: aiohttp.ClientSession
) -> None:
    off = replace(settings, metrics_enabled=False)
    async with (
        monitored(off, live.free_port()) as port,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        assert answer.status == 404
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(SetupError, match="another program uses it"):
            async with monitored(off, taken.getsockname()[1]):
                pass


def test_the_worker_answers_while_it_works(settings: Settings) -> None:
    port = live.free_port()
    variables = live.environment(settings.database_url) | {"WORKER_PORT": str(port)}
    with live.worker(variables):
        live.until("a worker", lambda: live.answers(port, "/livez"), 30)
        status, body = live.ask(port, "/metrics", Authorization=f"Bearer {live.TOKEN}")
        assert status == 200
        assert b"circuit_state" in body
