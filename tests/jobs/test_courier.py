"""The courier: what happened is told, signed, in its order, at least once, and to nobody else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from standardwebhooks.webhooks import Webhook

from sofinance.infra.db import Database
from sofinance.jobs.courier import Courier
from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

pytestmark = pytest.mark.empty_database
DEADLINE_S = 20
LOCAL = {
    "export_mode": "webhook",
    "export_allow_http": True,
    "export_allowed_networks": "127.0.0.0/8",
    "export_retry_delays_s": "0,0,0",
    "export_circuit_failures": 1_000,
}


@dataclass
class Receiver:
    """An endpoint of somebody else: answers what it is told to, and keeps what it was sent."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.Response:
        """Take a message."""
        self.got.append((dict(request.headers), await request.read()))
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers=self.headers)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What came, in its order."""
        return [orjson.loads(body) for _, body in self.got]

    @property
    def ids(self) -> list[str]:
        """The webhook-ids that came, in their order."""
        return [headers["webhook-id"] for headers, _ in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on this machine."""
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hook", made.answer)
    async with TestServer(app) as server:
        made.url = str(server.make_url("/hook"))
        yield made


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings under which webhooks go to this machine."""
    return replace(settings, **LOCAL)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def courier(settings: Settings, database: Database) -> Courier:
    """A courier."""
    return Courier.configured(settings, database)


async def endpoint(api: Api, org: Org, url: str, **changes: Any) -> Any:
    """Create an endpoint; returns it with its secret."""
    answer = await api.post("/webhooks", org, {"url": url, **changes})
    assert answer.status == 201, answer.data
    return answer.data


async def test_a_sale_is_told_signed_to_who_listens(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    made = await endpoint(api, org, receiver.url, event_types=["sale.posted"])
    shop = await open_shop(api, org)
    sale = (await shop.sell(shop.item(), shop.item(1, "2"), customer_id=await shop.customer())).data
    await courier.run_once()
    ((headers, body),) = receiver.got
    told = Webhook(made["secret"]).verify(body, headers)
    assert told["type"] == "sale.posted"
    assert told["data"]["id"] == sale["id"]
    assert told["data"]["total"] == sale["total"]
    assert [line["quantity"] for line in told["data"]["lines"]] == ["1", "2"]
    (delivery,) = (await api.get("/webhook-deliveries", org)).data["items"]
    assert (delivery["status"], delivery["attempts"], delivery["last_status"]) == (
        "delivered",
        1,
        200,
    )
    assert delivery["webhook_id"] == headers["webhook-id"]
