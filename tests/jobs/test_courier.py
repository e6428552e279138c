"""The courier: what happened is told, signed, in its order, at least once, and to nobody else."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook

from sofinance.api.retention import DAILY
from sofinance.events import EVENT_TYPES, SaleLine
from sofinance.infra.db import Database
from sofinance.jobs import dead_letters
from sofinance.jobs.courier import Courier, Pace
from sofinance.jobs.fan_out import BODY_BYTES_MAX, fan_out, write_body
from sofinance.jobs.forgetting import forget_expired
from sofinance.jobs.post import Parcel, Result, judge
from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

pytestmark = pytest.mark.empty_database
LOCAL = {
    "export_mode": "webhook",
    "export_allow_http": True,
    "export_allowed_networks": "127.0.0.0/8",
    "export_retry_delays_s": "0,0,0",
    "export_circuit_failures": 1_000,
}
OWNER = "sofinance_owner"


@dataclass
class Receiver:
    """An endpoint of somebody else: answers what it is told to, and keeps what it was sent."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Take a message."""
        self.got.append((dict(request.headers), await request.read()))
        await asyncio.sleep(self.wait_s)
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
    """Create an endpoint for what happens to customers; returns it with its secret."""
    wanted = {"url": url, "event_types": ["customer.created", "customer.changed"], **changes}
    return (await api.post("/webhooks", org, wanted)).data


async def customer(api: Api, org: Org, *, changes: int = 0) -> int:
    """Create a customer and change it so often."""
    made = (await api.post("/customers", org, {"name": "Carla"})).data["id"]
    for number in range(changes):
        answer = await api.put(f"/customers/{made}", org, {"name": f"Carla {number}"})
        assert answer.status == 200
    return int(made)


async def deliveries(api: Api, org: Org) -> list[Any]:
    """Return the deliveries, the oldest first."""
    items: list[Any] = (await api.get("/webhook-deliveries?limit=100", org)).data["items"]
    return items[::-1]


def hurry(psql: Psql) -> None:
    """Let everything be due."""
    psql("update webhook_lane set next_attempt_at = now()", role=OWNER)


# -- what is told ----------------------------------------------------------------------------------


async def test_a_sale_is_told_signed_to_who_listens(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    made = await endpoint(api, org, receiver.url, event_types=["sale.posted"])
    shop = await open_shop(api, org)
    on_credit = {"customer_id": await shop.customer()}
    sale = (await shop.sell(shop.item(), shop.item(1, "2"), **on_credit)).data
    await courier.run_once()
    ((headers, body),) = receiver.got
    told = Webhook(made["secret"]).verify(body, headers)
    assert told["type"] == "sale.posted"
    assert (told["data"]["id"], told["data"]["total"]) == (sale["id"], sale["total"])
    assert [line["quantity"] for line in told["data"]["lines"]] == ["1", "2"]
    (delivery,) = await deliveries(api, org)
    assert (delivery["status"], delivery["attempts"], delivery["last_status"]) == (
        "delivered", 1, 200,
    )  # fmt: skip
    assert delivery["webhook_id"] == headers["webhook-id"]


async def test_every_type_of_event_is_told(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    await endpoint(api, org, receiver.url, event_types=None)
    shop = await open_shop(api, org)
    on_credit = {"customer_id": await customer(api, org, changes=1)}
    first = (await shop.sell(**on_credit)).data
    second = (await shop.sell(**on_credit)).data
    paid = await api.post(f"/sales/{first['id']}/payments", org, {"amount": "1.00"})
    void = await api.post(f"/sales/{second['id']}/void", org, {"reason": "a test"})
    product = {"sku": "P1", "name": "Other", "price": "11.00", "cost": "6.00"}
    changed = await api.put(f"/products/{shop.product_ids[0]}", org, product)
    accounts = (await api.get("/accounts?size=100", org)).data["items"]
    ids = {account["code"]: account["id"] for account in accounts}
    lines = [
        {"account_id": ids["6000"], "debit": "5.00"}, {"account_id": ids["1000"], "credit": "5.00"},
    ]  # fmt: skip
    entry = await api.post("/journal/entries", org, {"lines": lines})
    period = {"starts_on": "2020-01-01", "ends_on": "2020-01-31"}
    made = (await api.post("/periods", org, period)).data["id"]
    closed = await api.post(f"/periods/{made}/close", org)
    reopened = await api.post(f"/periods/{made}/reopen", org)
    assert {a.status for a in (paid, void, changed, entry, closed, reopened)} <= {200, 201}
    await courier.run_once()
    told = {body["type"]: body["data"] for body in receiver.bodies}
    assert told.keys() == {
        "sale.posted", "sale.voided", "payment.posted", "goods_receipt.posted",
        "journal_entry.posted", "customer.created", "customer.changed", "product.created",
        "product.changed", "period.closed", "period.reopened",
    }  # fmt: skip
    assert told["payment.posted"]["amount"] == "1.00"
    assert told["payment.posted"]["sale_id"] == first["id"]
    assert told["sale.voided"]["id"] == second["id"]
    assert told["journal_entry.posted"]["id"] == entry.data["id"]
    assert "Carla" not in str(told["customer.changed"])  # nothing personal leaves


async def test_an_event_of_a_transaction_that_commits_late_is_not_skipped(
    api: Api, org: Org, courier: Courier, receiver: Receiver, settings: Settings
) -> None:
    await endpoint(api, org, receiver.url)
    conn: Any = await asyncpg.connect(settings.database_url)
    late = conn.transaction()
    await late.start()
    await conn.execute(
        f"select set_config('app.org_id', '{org.id}', true),"
        " set_config('app.branch_ids', 'all', true)"
    )
    early_id = await conn.fetchval(
        "insert into customer (org_id, name, currency, credit_limit)"
        f" values ({org.id}, 'Late', 'USD', 0) returning id"
    )
    other_id = await customer(api, org)  # a higher number, committed first
    await courier.run_once()
    assert [body["data"]["id"] for body in receiver.bodies] == [other_id]
    await late.commit()
    await conn.close()
    await courier.run_once()
    assert [body["data"]["id"] for body in receiver.bodies] == [other_id, early_id]


async def test_without_listeners_nothing_is_written_but_that_it_happened(
    api: Api, org: Org, database: Database
) -> None:
    made = await customer(api, org)
    assert await fan_out(database) == 1
    page = (await api.get("/webhook-events?aggregate=customer", org)).data["items"]
    assert [(event["type"], event["aggregate_id"]) for event in page] == [
        ("customer.created", made)
    ]
    assert (await api.get(f"/webhook-events/{page[0]['id']}", org)).data["body"] is None
    assert await deliveries(api, org) == []


def test_a_message_that_would_be_too_long_has_no_lines() -> None:
    now = datetime.now(UTC)
    about = dict.fromkeys(EVENT_TYPES["sale.posted"].data.fields) | {"currency": "USD"}
    line = dict.fromkeys(SaleLine().fields) | {"currency": "USD", "tax_code": "x" * 40}
    short = orjson.loads(write_body("sale.posted", now, {**about, "lines": [line]}))
    assert len(short["data"]["lines"]) == 1
    long = write_body("sale.posted", now, {**about, "lines": [line] * 200})
    assert len(long.encode()) < BODY_BYTES_MAX
    assert orjson.loads(long)["data"]["lines"] is None


# -- order, retries, the dead ----------------------------------------------------------------------


async def test_events_of_one_thing_arrive_in_order_whatever_fails(
    api: Api, org: Org, courier: Courier, receiver: Receiver, psql: Psql
) -> None:
    await endpoint(api, org, receiver.url)
    await customer(api, org, changes=3)
    receiver.answers = [500, 200, 503, 302, 200]
    for _ in range(4):
        await courier.run_once()
        hurry(psql)
    found = await deliveries(api, org)
    order = [delivery["webhook_id"] for delivery in found]
    assert receiver.ids == [order[0], order[0], order[1], order[1], order[1], order[2], order[3]]
    assert [delivery["attempts"] for delivery in found] == [2, 3, 1, 1]
    assert len({body for headers, body in receiver.got if headers["webhook-id"] == order[1]}) == 1


async def test_a_dead_letter_stops_its_thing_alone(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    await endpoint(api, org, receiver.url)
    made = await customer(api, org, changes=2)
    receiver.answers = [500, 500, 404]
    await courier.run_once()
    dead, second, third = await deliveries(api, org)
    assert (dead["status"], dead["attempts"], dead["last_error"]) == ("dead", 3, "http_404")
    assert [second["status"], third["status"]] == ["pending", "pending"]
    assert len(set(receiver.ids)) == 1
    other = await customer(api, org)
    await courier.run_once()
    assert receiver.bodies[-1]["data"]["id"] == other
    assert len(receiver.got) == 4

    letters = (await api.get("/v1/admin/export-dead-letter", org, prefix="")).data
    assert [letter["event_id"] for letter in letters["items"]] == [dead["id"]]
    assert letters["items"][0]["last_error_code"] == "http_404"
    path = f"/v1/admin/export-dead-letter/{dead['id']}/replay"
    without = await api.post(path, org, prefix="")
    assert without.refused == (400, "idempotency_key_required")
    first = await api.post(path, org, prefix="", key="again")
    again = await api.post(path, org, prefix="", key="again")
    assert (first.status, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert first.data["success"] is None
    assert first.data["last_replayed_by"] == org.admin.id
    await courier.run_once()
    assert [d["status"] for d in await deliveries(api, org)] == ["delivered"] * 4
    assert [b["data"]["id"] for b in receiver.bodies[4:]] == [made] * 3
    gone = await api.post(path, org, prefix="", key="later")
    assert gone.refused == (409, "delivery_not_dead")


async def test_a_dead_letter_that_is_given_up_lets_the_next_ones_pass(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    await endpoint(api, org, receiver.url)
    await customer(api, org, changes=1)
    receiver.answers = [500] * 3
    await courier.run_once()
    dead = (await deliveries(api, org))[0]
    given_up = await api.post(f"/webhook-deliveries/{dead['id']}/give-up", org)
    assert (given_up.status, given_up.data["status"]) == (200, "given_up")
    again = await api.post(f"/webhook-deliveries/{dead['id']}/replay", org)
    assert again.refused == (409, "delivery_not_dead")
    await courier.run_once()
    assert [d["status"] for d in await deliveries(api, org)] == ["given_up", "delivered"]


async def test_dead_letters_are_replayed_in_bulk(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    made = await endpoint(api, org, receiver.url)
    for _ in range(3):
        await customer(api, org)
    receiver.answers = [500] * 9
    await courier.run_once()
    assert {d["status"] for d in await deliveries(api, org)} == {"dead"}
    body = {"endpoint_id": made["id"], "limit": 2}
    answer = await api.post("/webhook-deliveries/replay", org, body)
    assert (answer.status, answer.data) == (202, {"replayed": 2, "remaining": 1, "left": []})
    await api.post("/webhook-deliveries/replay", org, {})
    await courier.run_once()
    assert {d["status"] for d in await deliveries(api, org)} == {"delivered"}


async def test_dead_letters_of_endpoints_that_get_nothing_are_left_in_bulk(
    api: Api, org: Org, courier: Courier, receiver: Receiver, psql: Psql
) -> None:
    good, off, away = [await endpoint(api, org, receiver.url) for _ in range(3)]
    for _ in range(2):
        await customer(api, org)
    receiver.answers = [500] * 18
    await courier.run_once()
    assert [d["status"] for d in await deliveries(api, org)] == ["dead"] * 6
    change = {"url": receiver.url, "is_active": False}
    answer = await api.put(f"/webhooks/{off['id']}", org, change)
    assert answer.status == 200
    psql(  # what was allowed when it was made
        "update webhook_endpoint set url = 'https://10.0.0.9/' where id = %s",
        [away["id"]], org=org,
    )  # fmt: skip
    answer = await api.post("/webhook-deliveries/replay", org, {})
    assert answer.status == 202
    left = [(one["endpoint_id"], one["count"], one["code"]) for one in answer.data["left"]]
    assert left == [
        (off["id"], 2, "export_target_missing"), (away["id"], 2, "invalid_export_target"),
    ]  # fmt: skip
    assert (answer.data["replayed"], answer.data["remaining"]) == (2, 4)
    await courier.run_once()
    rows = await deliveries(api, org)
    assert {(d["endpoint_id"], d["status"]) for d in rows} == {
        (good["id"], "delivered"), (off["id"], "dead"), (away["id"], "dead"),
    }  # fmt: skip
    body = {"endpoint_id": off["id"]}
    answer = await api.post("/webhook-deliveries/replay", org, body)
    assert (answer.data["replayed"], answer.data["remaining"]) == (0, 2)
    assert [one["endpoint_id"] for one in answer.data["left"]] == [off["id"]]


async def test_410_disables_the_endpoint(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    made = await endpoint(api, org, receiver.url)
    await customer(api, org, changes=1)
    receiver.answers = [410]
    await courier.run_once()
    shown = (await api.get(f"/webhooks/{made['id']}", org)).data
    assert (shown["is_active"], shown["disabled_reason"]) == (
        False, "the endpoint answered 410 Gone",
    )  # fmt: skip
    assert [d["status"] for d in await deliveries(api, org)] == ["dead", "pending"]
    dead = (await deliveries(api, org))[0]
    refused = await api.post(f"/webhook-deliveries/{dead['id']}/replay", org)
    assert refused.refused == (400, "export_target_missing")
    test = await api.post(f"/webhooks/{made['id']}/test", org)
    assert test.refused == (409, "webhook_endpoint_inactive")
    logs = (await api.get("/audit/logs?entity_type=webhooks", org)).data["items"]
    assert "webhooks.disable_endpoint" in {log["action"] for log in logs}
    await customer(api, org)
    await courier.run_once()  # is not queued
    back = await api.put(f"/webhooks/{made['id']}", org, {"url": receiver.url})
    assert (back.data["is_active"], back.data["disabled_at"]) == (True, None)
    await api.post(f"/webhook-deliveries/{dead['id']}/replay", org)
    await courier.run_once()
    assert [d["status"] for d in await deliveries(api, org)] == ["delivered"] * 2


async def test_a_circuit_leaves_alone_who_is_down_and_tries_with_one(
    api: Api, org: Org, database: Database, settings: Settings, receiver: Receiver, psql: Psql
) -> None:
    courier = Courier.configured(
        replace(settings, export_circuit_failures=2, export_retry_delays_s="0,0,0,0,0"), database
    )
    await endpoint(api, org, receiver.url)
    for _ in range(6):
        await customer(api, org)
    receiver.answers = [500] * 100
    await courier.run_once()
    first = len(receiver.got)
    assert first <= 6  # what was on its way at once, and no more
    await courier.run_once()
    assert len(receiver.got) == first
    psql("update webhook_circuit set open_until = now()", role=OWNER)
    await courier.run_once()
    assert len(receiver.got) == first + 1
    receiver.answers = []
    psql("update webhook_circuit set open_until = now()", role=OWNER)
    await courier.run_once()
    assert {d["status"] for d in await deliveries(api, org)} == {"delivered"}
    lines = (await api.get("/metrics", prefix="")).text.splitlines()
    assert 'outbox_queue_messages{status="pending"} 0.0' in lines
    assert 'webhook_deliveries_total{outcome="delivered"} 6.0' in lines


async def test_mode_off_sends_nothing_and_keeps_the_queue(
    api: Api, org: Org, database: Database, settings: Settings, receiver: Receiver
) -> None:
    await endpoint(api, org, receiver.url)
    await customer(api, org)
    await Courier.configured(replace(settings, export_mode="off"), database).run_once()
    assert receiver.got == []
    await Courier.configured(settings, database).run_once()
    assert len(receiver.got) == 1


async def test_of_three_couriers_each_message_is_sent_by_one(
    api: Api, org: Org, database: Database, settings: Settings, receiver: Receiver
) -> None:
    await endpoint(api, org, receiver.url)
    for _ in range(20):
        await customer(api, org)
    couriers = [Courier.configured(settings, database) for _ in range(3)]
    await asyncio.gather(*(courier.run_once() for courier in couriers))
    assert len(receiver.ids) == len(set(receiver.ids)) == 20


async def test_what_was_sent_and_not_written_down_is_sent_again_under_the_same_id(
    api: Api, org: Org, courier: Courier, receiver: Receiver, database: Database, psql: Psql
) -> None:
    """A courier that dies between the answer and the settling; tools/deliveries.py kills them."""
    await endpoint(api, org, receiver.url)
    await customer(api, org, changes=1)
    await fan_out(database)
    async with courier._post.session() as session:  # noqa: SLF001 - half of a round
        assert await courier._start(session) == 1  # noqa: SLF001 - ditto
        await asyncio.wait(courier._sending)  # noqa: SLF001 - ditto
    other = Courier.configured(database.settings, database)
    await other.run_once()
    assert len(receiver.got) == 1  # the claim holds
    hurry(psql)
    await other.run_once()
    first, again, second = receiver.ids
    assert first == again != second
    assert receiver.got[0][1] == receiver.got[1][1]


async def test_an_organisation_that_cannot_be_settled_keeps_nobody_else_from_it(
    api: Api, org: Org, other_org: Org, courier: Courier, receiver: Receiver, psql: Psql
) -> None:
    psql(
        "create function never() returns trigger language plpgsql as"
        f" $$begin if new.org_id = {org.id} then raise 'never'; end if; return new; end$$;"
        "create trigger never before update of attempts on webhook_delivery"
        " for each row execute function never()",
        role=OWNER,
    )
    for one in (org, other_org):
        await endpoint(api, one, receiver.url)
        await customer(api, one)
    await courier.run_once()
    assert len(receiver.got) == 2
    (stuck,), (settled,) = await deliveries(api, org), await deliveries(api, other_org)
    assert (stuck["status"], settled["status"]) == ("pending", "delivered")


async def test_events_are_forgotten_when_they_arrived_long_ago(
    api: Api, org: Org, courier: Courier, receiver: Receiver, database: Database, psql: Psql
) -> None:
    await endpoint(api, org, receiver.url)
    await customer(api, org)
    await customer(api, org)
    receiver.answers = [200, 500, 500, 500]
    await courier.run_once()
    assert (await forget_expired(database, kinds=DAILY))["events"] == 0
    psql(
        "update event set occurred_at = now() - interval '31 days'",
        role=OWNER, org=org,
    )  # fmt: skip
    longer = Database(replace(database.settings, retention_event_days=32))
    await longer.open()
    assert (await forget_expired(longer, kinds=DAILY))["events"] == 0
    await longer.close()
    assert (await forget_expired(database, kinds=DAILY))["events"] == 1
    assert [d["status"] for d in await deliveries(api, org)] == ["dead"]


async def test_dead_letters_of_named_organisations_are_replayed_by_themselves(
    api: Api, org: Org, settings: Settings, receiver: Receiver, database: Database, psql: Psql
) -> None:
    await endpoint(api, org, receiver.url)
    for _ in range(7):
        await customer(api, org)
    receiver.answers = [500] * 21
    courier = Courier.configured(settings, database)
    await courier.run_once()
    psql("update webhook_circuit set failures = 0", role=OWNER)
    database.settings = replace(settings, export_replay_org_ids=str(org.id))
    assert "replayed 0" in await dead_letters.replay_some(database)  # too young
    old = "update webhook_delivery set last_attempt_at = now() - interval '2 hours'"
    psql(old, role=OWNER, org=org)
    assert await dead_letters.replay_some(database) == (
        "replayed 5, spared 0 at endpoints that fail"
    )
    receiver.answers = [500] * 5
    await courier.run_once()
    assert len(receiver.got) == 21 + 5  # one attempt each
    logs = (await api.get("/audit/logs?entity_type=webhooks&limit=100", org)).data["items"]
    mine = [log for log in logs if log["action"] == "webhooks.auto_replay"]
    assert (len(mine), {log["user_id"] for log in mine}) == (5, {None})
    psql(old, role=OWNER, org=org)
    psql("update webhook_circuit set failures = 3", role=OWNER)
    assert "replayed 0, spared 2" in await dead_letters.replay_some(database)


# -- signatures ------------------------------------------------------------------------------------


async def test_ed25519_is_verified_with_the_public_key(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    made = await endpoint(api, org, receiver.url, signature="ed25519")
    assert made["secret"] is None
    shown = (await api.get(f"/webhooks/{made['id']}", org)).data["keys"]
    assert [key["public_key"] for key in shown] == [made["public_key"]]
    await customer(api, org)
    await courier.run_once()
    ((headers, body),) = receiver.got
    version, _, signature = headers["webhook-signature"].partition(",")
    assert version == "v1a"
    key = Ed25519PublicKey.from_public_bytes(b64decode(made["public_key"].removeprefix("whpk_")))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key.verify(b64decode(signature), content)


async def test_a_rotated_secret_signs_beside_the_new_one_for_a_while(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    made = await endpoint(api, org, receiver.url)
    rotate = f"/webhooks/{made['id']}/rotate-secret"
    newer = (await api.post(rotate, org, {})).data["secret"]
    await customer(api, org)
    await courier.run_once()
    headers, body = receiver.got[0]
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (made["secret"], newer):
        assert Webhook(secret).verify(body, headers)["type"] == "customer.created"
    newest = (await api.post(rotate, org, {"overlap_minutes": 0})).data["secret"]
    await customer(api, org)
    await courier.run_once()
    headers, body = receiver.got[1]
    assert len(headers["webhook-signature"].split()) == 1
    assert Webhook(newest).verify(body, headers)["type"] == "customer.created"


async def test_without_the_key_of_the_secrets_nothing_is_sent_unsigned(
    api: Api, org: Org, settings: Settings, database: Database, receiver: Receiver
) -> None:
    await endpoint(api, org, receiver.url)
    await customer(api, org)
    other = replace(settings, data_encryption_key="6b" * 32)
    await Courier.configured(other, database).run_once()
    assert receiver.got == []
    assert (await deliveries(api, org))[0]["last_error"] == "secret_does_not_open"


async def test_a_test_event_goes_to_its_endpoint_alone(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    made = await endpoint(api, org, receiver.url, event_types=["sale.posted"])
    await endpoint(api, org, receiver.url)
    answer = await api.post(f"/webhooks/{made['id']}/test", org)
    assert (answer.status, answer.data["type"]) == (202, "webhook.test")
    await courier.run_once()
    ((headers, body),) = receiver.got
    told = Webhook(made["secret"]).verify(body, headers)
    assert told["data"] == {"endpoint_id": made["id"]}


# -- the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://127.0.0.1/hook", "address"),
        ("https://10.0.0.1/hook", "address"),
        ("https://169.254.169.254/latest/meta-data", "address"),
        ("https://100.64.0.1/", "address"),
        ("https://[::1]/", "address"),
        ("https://[::ffff:127.0.0.1]/", "address"),
        ("https://[64:ff9b::7f00:1]/", "address"),
        ("https://[fe80::1%25eth0]/", "address"),
        ("https://[fec0::1]/", "address"),
        ("https://[::ffff:0:7f00:1]/", "address"),
        ("https://2130706433/", "address"),
        ("https://127.1/", "address"),
        ("https://0.0.0.0/", "address"),
        ("https://localhost/", "address"),
        ("http://example.com/", "scheme"),
        ("ftp://example.com/", "scheme"),
        ("https://user:password@example.com/", "credentials"),
        ("https://example.com\\@127.0.0.1/", "credentials"),
        ("https://example.com/#x", "form"),
        ("https://example.com:99999/", "form"),
        ("https://exa mple.com/", "form"),
        ("https:///x", "form"),
    ],
)
async def test_what_is_not_of_the_public_internet_is_refused(
    api_with: MakeApi, org: Org, url: str, reason: str
) -> None:
    api = await api_with(export_allow_http=False, export_allowed_networks="")
    answer = await api.post("/webhooks", org, {"url": url})
    assert answer.refused == (400, "invalid_export_target")
    assert answer.details["reason"] == reason


async def test_only_hosts_of_the_list_are_sent_to(api_with: MakeApi, org: Org) -> None:
    api = await api_with(export_allowed_hosts="hooks.example.com,*.partner.example")
    for host, status in (
        ("hooks.example.com", 201), ("a.partner.example", 201), ("HOOKS.example.com", 201),
        ("partner.example", 400), ("evilpartner.example", 400), ("example.com", 400),
        ("hooks.example.com.evil.example", 400),
    ):  # fmt: skip
        answer = await api.post("/webhooks", org, {"url": f"https://{host}/x"})
        assert answer.status == status, host


async def test_a_name_that_resolves_to_ourselves_is_refused_when_it_is_connected_to(
    api: Api, org: Org, settings: Settings, database: Database, receiver: Receiver, psql: Psql
) -> None:
    """The name is fine when it is given: where it leads is looked at when it is connected to."""
    made = await endpoint(api, org, receiver.url)
    await customer(api, org)
    port = receiver.url.split(":")[2]
    url = f"http://0x7f000001:{port}"
    psql("update webhook_endpoint set url = %s", [url], role=OWNER, org=org)
    strict = Courier.configured(replace(settings, export_allowed_networks=""), database)
    await strict.run_once()
    assert receiver.got == []
    (delivery,) = await deliveries(api, org)
    assert delivery["last_error"] == "invalid_export_target:address"
    refused = await api.post(f"/webhook-deliveries/{delivery['id']}/replay", org, prefix="/api/v1")
    assert refused.status == 202
    assert made["id"] == delivery["endpoint_id"]


async def test_a_redirect_is_not_followed(
    api: Api, org: Org, courier: Courier, receiver: Receiver
) -> None:
    await endpoint(api, org, receiver.url)
    await customer(api, org)
    receiver.answers = [302, 307, 301]
    receiver.headers = {"Location": receiver.url}
    await courier.run_once()
    assert len(receiver.got) == 3
    assert (await deliveries(api, org))[0]["last_error"] == "http_301"


async def test_who_hangs_is_not_waited_for(
    api: Api, org: Org, database: Database, settings: Settings, receiver: Receiver
) -> None:
    await endpoint(api, org, receiver.url)
    await customer(api, org)
    receiver.wait_s = 3
    hurried = replace(settings, export_timeout_s=1, export_retry_delays_s="0")
    await Courier.configured(hurried, database).run_once()
    (delivery,) = await deliveries(api, org)
    assert (delivery["status"], delivery["last_error"]) == ("dead", "timeout")


async def test_an_answer_without_end_is_not_read(api: Api, org: Org, courier: Courier) -> None:
    sent = 0

    async def talk(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        await request.read()
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 65_536)
            sent += 65_536

    app = web.Application()
    app.router.add_post("/hook", talk)
    async with TestServer(app) as server:
        await endpoint(api, org, str(server.make_url("/hook")))
        await customer(api, org)
        async with asyncio.timeout(60):
            await courier.run_once()
    assert (await deliveries(api, org))[0]["status"] == "delivered"
    assert sent < 50_000_000


def test_how_long_to_wait_is_taken_from_the_answer_within_bounds() -> None:
    parcel = Parcel(1, 1, 1, 1, 0.0, 0, "", "", b"", ())
    assert judge(parcel, 429, {"Retry-After": "30"}) == Result(
        parcel, status=429, error="http_429", is_down=True, retry_after_s=30
    )
    assert judge(parcel, 503, {"Retry-After": "999999999"}).retry_after_s == 86_400
    assert judge(parcel, 503, {"Retry-After": "soon"}).retry_after_s == 0
    assert judge(parcel, 204, {}).is_delivered


def test_a_claim_outlives_every_attempt_that_begins_in_time(settings: Settings) -> None:
    for timeout_s in (1, 15, 30):
        pace = Pace.configured(replace(settings, export_timeout_s=timeout_s))
        assert pace.begin_within_s >= pace.timeout_s
        assert pace.begin_within_s + pace.timeout_s < pace.lease_s
