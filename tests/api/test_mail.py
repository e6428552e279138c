"""Mail that is reserved once and delivered by a worker: scanned, tried, given up, replayed."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sofinance.api.mail import UNSUBSCRIBE, unsubscribe_url
from sofinance.infra import sealed_links
from sofinance.infra.circuit import CLOSED, OPEN, Circuit
from sofinance.infra.db import Database
from sofinance.infra.secretbox import SecretBox
from sofinance.jobs import JobFailedError, mailing
from sofinance.jobs.mailing import AWAY, Postman
from tests.infra.test_mail import smtp, taken
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.api.conftest import Shop
    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

SCANS = ["/api/v1/admin/email-scan", "/v1/admin/email-scan"]
STATE = "select status, attempt_count, last_error from mail order by id"


class Clock:
    """A clock that stands until it is told."""

    now_s = 1_000.0

    def __call__(self) -> float:
        """Return its time."""
        return self.now_s


def a_circuit(clock: Clock) -> Circuit:
    """Return a circuit like the worker's."""
    return Circuit(
        "mail-test", failure_count_max=5, window_s=60, recovery_s=30, counts=AWAY, clock=clock
    )


@asynccontextmanager
async def postman(settings: Settings, circuit: Circuit | None = None) -> AsyncIterator[Postman]:
    """Yield who delivers with these settings."""
    database = Database(settings)
    await database.open()
    yield Postman(database, circuit=circuit or a_circuit(Clock()))
    await database.close()


def by_smtp(settings: Settings, port: int) -> Settings:
    """Return settings that send to a server of the test."""
    return replace(
        settings, smtp_host="127.0.0.1", smtp_port=port, smtp_tls="off", smtp_timeout_s=30,
        mail_from="books@shop.example",
    )  # fmt: skip


def reserve(psql: Psql, org: Org, count: int = 1, recipient: str = "c@example.com") -> None:
    """Reserve mails, as a scan would."""
    psql(
        "insert into mail (org_id, dedupe_key, kind, recipient, subject, body)"
        " select %s, 'receivable:' || n, 'receivable_reminder', %s, 'Open', 'Please pay.'"
        " from generate_series(1, %s) as n",
        [org.id, recipient, count], org=org,
    )  # fmt: skip


def due(psql: Psql, org: Org) -> None:
    """Let everything be due."""
    psql("update mail set due_at = now(), lease_until = null where status = 'pending'", org=org)


async def owe(shop: Shop, psql: Psql, *, days: int = 40, **customer: Any) -> int:
    """Let a customer owe something for so many days; returns the sale."""
    body = {"name": "Carla Client", "credit_limit": "500", "email": "carla@example.com"}
    made = await shop.api.post("/customers", shop.org, {**body, **customer})
    sale = int((await shop.sell(customer_id=made.data["id"])).data["id"])
    psql(
        f"set session_replication_role = replica; update receivable set sold_on ="
        f" current_date - {days} where sale_id = {sale}; reset session_replication_role",
        role="superuser",
    )
    return sale


# -- the scan --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCANS)
async def test_a_debt_is_told_of_once_for_each_multiple_of_its_age(
    api_with: MakeApi, shop: Shop, psql: Psql, path: str
) -> None:
    api = await api_with(mail_reminder_days=30)
    sale = await owe(shop, psql)
    answer = await api.post(path, shop.org, prefix="")
    assert (answer.status, answer.data) == (202, {"sent": 1, "skipped": 0})
    assert (await api.post(path, shop.org, prefix="")).data["sent"] == 0
    row = psql("select dedupe_key, kind, recipient, subject, body from mail", org=shop.org)[0]
    assert row[:3] == (f"receivable:{sale}:1", "receivable_reminder", "carla@example.com")
    assert str(sale) in row[3]
    assert "11 USD" in row[4]
    psql(
        "set session_replication_role = replica; update receivable set sold_on ="
        f" current_date - 61 where sale_id = {sale}", role="superuser",
    )  # fmt: skip
    assert (await api.post(path, shop.org, prefix="")).data["sent"] == 1


async def test_who_is_not_written_to(api_with: MakeApi, shop: Shop, psql: Psql) -> None:
    api = await api_with(mail_reminder_days=30)
    await owe(shop, psql, days=29, email="young@example.com")
    await owe(shop, psql, email=None)
    await owe(shop, psql, email="gone@example.com", status="ACTIVE")
    psql("update customer set status = 'INACTIVE' where email = 'gone@example.com'", org=shop.org)
    await owe(shop, psql, email="no@example.com")
    assert (
        await api.post("/admin/mail/blocks", shop.org, {"email": "no@example.com"})
    ).status == 201
    scanned = await api.post("/admin/email-scan", shop.org)
    assert scanned.data == {"sent": 0, "skipped": 1}
    assert (
        await api.post("/admin/mail/unblock", shop.org, {"email": "NO@example.com"})
    ).status == 200
    assert (await api.post("/admin/email-scan", shop.org)).data == {"sent": 1, "skipped": 0}


async def test_without_a_way_to_send_nothing_is_reserved(
    api_with: MakeApi, shop: Shop, psql: Psql
) -> None:
    api = await api_with(mail_reminder_days=30, email_mode="off")
    await owe(shop, psql)
    assert (await api.post("/admin/email-scan", shop.org)).data == {"sent": 0, "skipped": 1}
    assert psql("select count(*) from mail", org=shop.org) == [(0,)]


async def test_low_stock_is_told_to_the_branchs_managers_once_a_day(
    api_with: MakeApi, shop: Shop, psql: Psql, other_org: Org
) -> None:
    api = await api_with(mail_low_stock=True)
    psql(f"update stock set reorder_level = quantity + 1 where product_id = {shop.product_ids[0]}",
         org=shop.org)  # fmt: skip
    scanned = (await api.post("/admin/email-scan", shop.org)).data
    assert scanned["sent"] == 1
    (row,) = psql("select recipient, subject, body from mail", org=shop.org)
    assert row[0] == shop.org.member("MANAGER").email
    assert "reorder at" in row[2]
    assert (await api.post("/admin/email-scan", shop.org)).data == {"sent": 0, "skipped": 1}
    assert psql("select count(*) from mail", org=other_org) == [(0,)]


async def test_only_administrators_scan(api: Api, org: Org) -> None:
    for path in SCANS:
        refused = await api.post(path, org.member("MANAGER"), prefix="")
        assert refused.refused == (403, "forbidden")


# -- delivery --------------------------------------------------------------------------------------


async def test_what_is_reserved_is_delivered_once_by_many(
    settings: Settings, psql: Psql, org: Org
) -> None:
    reserve(psql, org, 4)
    with smtp("plain") as (port, server):
        options = by_smtp(settings, port)
        async with postman(options) as one, postman(options) as two:
            await asyncio.gather(one.deliver(org.id), two.deliver(org.id))
            assert one.sent_count + two.sent_count == 4
        messages = [taken(server) for _ in range(4)]
    assert {message["to"][0] for message in messages} == {"c@example.com"}
    assert "Please pay." in messages[0]["content"]
    assert psql("select distinct status, attempt_count from mail", org=org) == [("sent", 1)]


async def test_a_busy_server_is_tried_again_a_minute_later(
    settings: Settings, psql: Psql, org: Org
) -> None:
    reserve(psql, org)
    with smtp("busy") as (port, server):
        async with postman(by_smtp(settings, port)) as sender:
            for attempt in (1, 2):
                await sender.deliver(org.id)
                (state,) = psql(STATE, org=org)
                assert state[:2] == ("pending", attempt)
                assert "example.com" not in state[2]
                wait_s = psql("select extract(epoch from due_at - now()) from mail", org=org)
                assert 60 * 2 ** (attempt - 1) - 5 < wait_s[0][0] <= 60 * 2 ** (attempt - 1)
                await sender.deliver(org.id)  # not yet
                due(psql, org)
            await sender.deliver(org.id)
        assert taken(server)["to"] == ["c@example.com"]
    assert psql(STATE, org=org) == [("sent", 3, None)]


async def test_an_address_that_is_refused_for_good_is_blocked(
    settings: Settings, psql: Psql, org: Org
) -> None:
    reserve(psql, org)
    with smtp("refuse") as (port, _):
        async with postman(by_smtp(settings, port)) as sender:
            await sender.deliver(org.id)
    assert psql(STATE, org=org) == [("dead", 1, "refused: SMTP 550")]
    assert psql("select address, reason from mail_block", org=org) == [("c@example.com", "invalid")]


async def test_what_fails_five_times_is_given_up_and_replayed(
    api: Api, settings: Settings, psql: Psql, org: Org
) -> None:
    reserve(psql, org)
    port = free_port()
    for _ in range(5):
        async with postman(by_smtp(settings, port)) as sender:
            await sender.deliver(org.id)
        due(psql, org)
    assert psql("select status, attempt_count from mail", org=org) == [("dead", 5)]
    (dead,) = (await api.get("/admin/mail/dead-letter", org)).data["items"]
    assert (dead["status"], dead["attempt_count"]) == ("dead", 5)
    assert "recipient" not in dead
    replayed = await api.post(f"/admin/mail/{dead['id']}/replay", org)
    assert (replayed.status, replayed.data["status"]) == (202, "pending")
    assert (await api.post(f"/admin/mail/{dead['id']}/replay", org)).status == 404
    with smtp("plain") as (port, _):
        async with postman(by_smtp(settings, port)) as sender:
            await sender.deliver(org.id)
    assert psql("select status from mail", org=org) == [("sent",)]
    assert (await api.get("/admin/mail/dead-letter", org)).data["items"] == []


async def test_an_outage_opens_the_circuit_and_uses_up_no_attempts(
    settings: Settings, psql: Psql, org: Org
) -> None:
    reserve(psql, org, 12)
    clock = Clock()
    circuit = a_circuit(clock)
    port = free_port()
    async with postman(by_smtp(settings, port), circuit) as sender:
        await sender.deliver(org.id)
        assert circuit.state == OPEN
        tried = psql("select count(*) from mail where attempt_count > 0", org=org)[0][0]
        assert tried == 5
        await sender.deliver(org.id)
        assert psql("select sum(attempt_count) from mail", org=org) == [(5,)]
        clock.now_s += 30
        await sender.deliver(org.id)  # half open: one mail finds out
        assert psql("select sum(attempt_count) from mail", org=org) == [(6,)]
        assert circuit.state == OPEN
    clock.now_s += 30
    due(psql, org)
    with smtp("plain") as (port, _):
        async with postman(by_smtp(settings, port), circuit) as sender:
            await sender.deliver(org.id)
            assert circuit.state == CLOSED
    assert psql("select distinct status from mail", org=org) == [("sent",)]


async def test_a_worker_that_died_with_a_mail_in_hand_is_waited_for(
    settings: Settings, psql: Psql, org: Org
) -> None:
    reserve(psql, org)
    psql("update mail set lease_until = now() + interval '1 minute', attempt_count = 1", org=org)
    async with postman(settings) as sender:
        await sender.deliver(org.id)
        assert psql("select status from mail", org=org) == [("pending",)]
        psql("update mail set lease_until = now() - interval '1 second'", org=org)
        await sender.deliver(org.id)
    assert psql("select status, attempt_count from mail", org=org) == [("sent", 2)]


async def test_sendgrid_takes_refuses_and_asks_for_patience(
    settings: Settings, psql: Psql, org: Org
) -> None:
    answers, seen = [429, 500, 202, 400], []

    async def take(request: web.Request) -> web.Response:
        seen.append((request.headers["Authorization"], await request.json()))
        return web.Response(status=answers.pop(0))

    app = web.Application()
    app.router.add_post("/v3/mail/send", take)
    async with TestServer(app) as server:
        options = replace(
            settings, email_mode="sendgrid", sendgrid_api_key="SG.of-the-test",
            sendgrid_url=str(server.make_url("/v3/mail/send")), mail_from="Shop <b@shop.example>",
            mail_unsubscribe_url=UNSUBSCRIBE_URL,
        )  # fmt: skip
        reserve(psql, org)
        async with postman(options) as sender:
            for _ in range(3):
                await sender.deliver(org.id)
                due(psql, org)
            assert psql(STATE, org=org) == [("sent", 3, None)]
            psql("delete from mail", org=org)
            reserve(psql, org, recipient="bad@example.com")
            await sender.deliver(org.id)
    assert psql(STATE, org=org) == [("dead", 1, "refused: HTTP 400")]
    authorization, body = seen[0]
    assert authorization == "Bearer SG.of-the-test"
    assert body["personalizations"] == [{"to": [{"email": "c@example.com"}]}]
    assert body["from"] == {"email": "b@shop.example", "name": "Shop"}
    assert body["content"][0]["value"].startswith("Please pay.")
    assert body["headers"].keys() == {
        "Auto-Submitted", "List-Unsubscribe", "List-Unsubscribe-Post",
    }  # fmt: skip
    assert body["headers"]["List-Unsubscribe"].startswith(f"<{UNSUBSCRIBE_URL}?token=")


@pytest.mark.empty_database
async def test_the_jobs_scan_and_deliver_for_every_organisation(
    api_with: MakeApi, settings: Settings, psql: Psql, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.api.conftest import open_shop  # noqa: PLC0415

    monkeypatch.setattr(mailing, "CIRCUIT", a_circuit(Clock()))
    options = replace(settings, mail_reminder_days=30)
    shop = await open_shop(await api_with(), org)
    await owe(shop, psql)
    database = Database(options)
    await database.open()
    assert await mailing.scan_mails(database) == "reserved 1 mails"
    assert await mailing.scan_mails(database) == "reserved 0 mails"
    assert await mailing.deliver_mails(database) == "sent 1 mails, 0 attempts failed"
    await database.close()
    assert psql("select status from mail", org=org) == [("sent",)]


@pytest.mark.empty_database
async def test_an_organisation_whose_mails_are_refused_keeps_no_others_back(
    api_with: MakeApi,
    settings: Settings,
    psql: Psql,
    org: Org,
    new_org: Callable[..., Awaitable[Org]],
) -> None:
    from tests.api.conftest import open_shop  # noqa: PLC0415

    api = await api_with()
    another = await new_org(name="Other")
    for each in (org, another):
        await owe(await open_shop(api, each), psql)
    psql(f"alter table mail add check (org_id <> {min(org.id, another.id)})",
         role="sofinance_owner")  # fmt: skip
    database = Database(replace(settings, mail_reminder_days=30))
    await database.open()
    with pytest.raises(JobFailedError, match="reserved 1 mails, none in 1 organisations"):
        await mailing.scan_mails(database)
    await database.close()


# -- no more of it ---------------------------------------------------------------------------------

UNSUBSCRIBE_URL = "https://office.example.com/api/v1/mail/unsubscribe"
ONE_CLICK = {"Content-Type": "application/x-www-form-urlencoded"}


def mails_in(settings: Settings) -> list[bytes]:
    """Return the mails in the folder."""
    return [path.read_bytes() for path in sorted(Path(settings.mail_folder).glob("*.eml"))]


def links_of(settings: Settings) -> list[str]:
    """Return the links to unsubscribe of the mails in the folder, after what a client demands."""
    links = []
    for raw in mails_in(settings):
        message = message_from_bytes(raw, policy=policy.default)
        # As it is, not as encoded words, which Python would fold a long URL into.
        assert b"\r\nList-Unsubscribe: <https://" in raw
        link = str(message["List-Unsubscribe"])
        assert re.fullmatch(rf"<{UNSUBSCRIBE_URL}\?token=[\w-]+>", link), link
        # RFC 8058, 3.1: one https URI, and this very value.
        assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert link.strip("<>") in message.get_content()
        links.append(link.strip("<>").removeprefix("https://office.example.com"))
    return links


async def test_one_click_in_a_mail_is_the_last_of_them(
    api: Api, settings: Settings, psql: Psql, org: Org, other_org: Org
) -> None:
    told = replace(settings, mail_unsubscribe_url=UNSUBSCRIBE_URL)
    reserve(psql, org)
    reserve(psql, other_org)
    async with postman(told) as works:
        await works.deliver(org.id)
        assert works.sent_count == 1
    (link,) = links_of(told)
    assert "example.com" not in link
    seen = await api.get(link, prefix="")
    assert (seen.status, seen.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert '<form method="post">' in seen.text
    assert "form-action 'self'" in seen.headers["Content-Security-Policy"]
    assert psql("select count(*) from mail_block", org=org) == [(0,)]
    psql(
        "insert into mail (org_id, dedupe_key, kind, recipient, subject, body) values"
        f" ({org.id}, 'low-stock:9', 'low_stock', 'c@example.com', 'Low', 'Low.')", org=org,
    )  # fmt: skip
    for _ in range(2):
        done = await api.post(
            link, prefix="", content=b"List-Unsubscribe=One-Click", headers=ONE_CLICK
        )
        assert done.data == {"is_unsubscribed": True}
    assert psql("select address, reason from mail_block", org=org) == [
        ("c@example.com", "unsubscribed")
    ]
    assert psql("select status from mail where kind = 'low_stock'", org=org) == [("skipped",)]
    assert psql("select count(*) from mail_block", org=other_org) == [(0,)]
    audited = psql(
        "select user_id, after from audit_log where action = 'mail.unsubscribe'", org=org
    )
    assert audited == [(None, None)] * 2


async def test_the_scan_leaves_out_who_unsubscribed_and_passwords_are_still_mailed(
    api_with: MakeApi, settings: Settings, shop: Shop, psql: Psql
) -> None:
    api = await api_with(mail_reminder_days=30)
    box = SecretBox.configured(settings)
    told = replace(settings, mail_unsubscribe_url=UNSUBSCRIBE_URL)
    email = shop.org.admin.email
    await owe(shop, psql, email=email)
    link = unsubscribe_url(told, box, shop.org.id, email)
    done = await api.post(link.removeprefix("https://office.example.com"), prefix="")
    assert done.status == 200
    assert (await api.post("/admin/email-scan", shop.org)).data == {"sent": 0, "skipped": 1}
    asked = await api.post("/auth/password-reset-request", None, {"email": email})
    assert asked.status == 202
    async with asyncio.timeout(60):
        while not mails_in(settings):  # noqa: ASYNC110 - another task writes it
            await asyncio.sleep(0.01)
    assert b"List-Unsubscribe" not in mails_in(settings)[0]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_our_own_links_unsubscribe(
    api: Api, settings: Settings, org: Org, psql: Psql, method: str
) -> None:
    box = SecretBox.configured(settings)
    text = f"{org.id} c@example.com"
    for token in (
        "x",
        sealed_links.write(box, text, purpose="sign_up", minutes=5),
        sealed_links.write(box, text, purpose=UNSUBSCRIBE, minutes=-1),
        sealed_links.write(SecretBox(b"k" * 32), text, purpose=UNSUBSCRIBE, minutes=5),
    ):
        refused = await api.call(method, f"/mail/unsubscribe?token={token}")
        assert refused.refused == (400, "invalid_unsubscribe_token")
    assert (await api.call(method, "/mail/unsubscribe")).status == 422
    assert psql("select count(*) from mail_block", org=org) == [(0,)]


async def test_mail_has_no_such_link_unless_it_is_known_where_it_leads(
    settings: Settings, psql: Psql, org: Org
) -> None:
    reserve(psql, org)
    async with postman(settings) as works:
        await works.deliver(org.id)
    (raw,) = mails_in(settings)
    assert b"nsubscribe" not in raw


async def test_a_mail_server_gets_the_link_on_one_line(
    settings: Settings, psql: Psql, org: Org
) -> None:
    reserve(psql, org)
    with smtp("plain") as (port, server):
        told = replace(by_smtp(settings, port), mail_unsubscribe_url=UNSUBSCRIBE_URL)
        async with postman(told) as works:
            await works.deliver(org.id)
        content = taken(server)["content"]
    assert re.search(rf"(?m)^List-Unsubscribe: <{UNSUBSCRIBE_URL}\?token=[\w-]+>\r?$", content)
