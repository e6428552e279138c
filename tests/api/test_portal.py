"""The customers' portal: links are good once, sessions are nobody else's, rows are one's own."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_string
from email.policy import default
from typing import TYPE_CHECKING, Any

import pytest

from sofinance.app import find_endpoints
from sofinance.infra import pace
from tests.api.conftest import Shop, open_shop
from tests.infra.test_mail import smtp, taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support import Answer, Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

PAGE = "https://shop.example.com/account"
NO_LINK = (401, "invalid_portal_link")
OVER = (401, "unauthorized")
OFF = (404, "portal_disabled")
READS = ("/portal/me", "/portal/statement", "/portal/receipts", "/portal/receipts/1")


def address(org: Org, name: str = "carla") -> str:
    return f"{name}.{org.id}@example.com"


@dataclass
class Portal:
    """A portal with a mail server beside it, and a customer of a shop."""

    api: Api
    shop: Shop
    server: Any
    customer_id: int

    async def ask(self, email: str | None = None, org_id: int | None = None) -> Answer:
        """Ask for a link, as the customer unless it is said as whom."""
        body = {
            "organisation": org_id or self.shop.org.id,
            "email": email or address(self.shop.org),
        }
        return await self.api.post("/portal/links", json=body)

    async def next_mail(self) -> dict[str, Any]:
        """Wait for the mail server to take a mail, and return it."""
        async with asyncio.timeout(120):
            mail = await asyncio.to_thread(taken, self.server)
        read = message_from_string(mail["content"], policy=default)
        return {**mail, "content": read.get_content()}

    async def link(self, email: str | None = None) -> str:
        """Ask for a link and return its token, from the mail."""
        assert (await self.ask(email)).status == 202
        return token_of(await self.next_mail())

    async def enter(self, token: str) -> Answer:
        """Use a link."""
        return await self.api.post("/portal/sessions", json={"token": token})

    async def session(self, email: str | None = None) -> str:
        """Enter by a link; return the session's token."""
        return str((await self.enter(await self.link(email))).data["token"])

    async def get(self, path: str, session: str) -> Answer:
        """Ask for something in the portal."""
        return await self.api.get(f"/portal{path}", headers=bearer(session))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def token_of(mail: dict[str, Any]) -> str:
    found = re.search(r"sfl_\d+_\d+_[\w-]{43}", mail["content"])
    assert found, mail["content"]
    return found[0]


@asynccontextmanager
async def open_portal(api_with: MakeApi, org: Org, **settings: Any) -> AsyncIterator[Portal]:
    """Yield a portal whose mail is taken by a mail server in its own process."""
    with smtp("plain") as (port, server):
        api = await api_with(
            smtp_host="127.0.0.1", smtp_port=port, smtp_tls="off",
            mail_from="Shop <shop@shop.example>", **{"portal_url": PAGE, **settings},
        )  # fmt: skip
        shop = await open_shop(api, org)
        customer_id = await shop.customer(email=address(org), credit_limit="500")
        yield Portal(api, shop, server, customer_id)


@pytest.fixture
async def portal(api_with: MakeApi, org: Org) -> AsyncIterator[Portal]:
    async with open_portal(api_with, org) as opened:
        yield opened


def audited(psql: Psql, org: Org) -> list[Any]:
    return psql(
        "select action, user_id, entity_id, severity, audit_log::text from audit_log"
        " where action like 'portal.%%' order by id", [], org=org,
    )  # fmt: skip


def sessions(psql: Psql, org: Org) -> int:
    statement = "select count(*) from portal_session where ended_at is null and expires_at > now()"
    return int(psql(statement, org=org)[0][0])


# -- getting in ----------------------------------------------------------------------------------


async def test_a_customer_looks_at_what_is_theirs_by_a_link_in_a_mail(
    portal: Portal, psql: Psql
) -> None:
    shop, org = portal.shop, portal.shop.org
    bought = (await shop.sell(paid="1.00", customer_id=portal.customer_id)).data
    paid = await portal.api.post(f"/sales/{bought['id']}/payments", org, {"amount": "4.00"})
    assert paid.status == 201
    asked = await portal.ask(address(org).upper())
    assert (asked.status, asked.data) == (202, {"valid_minutes": 30})
    mail = await portal.next_mail()
    assert mail["to"] == [address(org)]
    token = token_of(mail)
    assert f"{PAGE}#token={token}" in mail["content"]
    entered = await portal.enter(token)
    assert (entered.status, entered.data["token_type"]) == (201, "bearer")
    assert entered.data["expires_in"] == 3600
    session = entered.data["token"]

    me = (await portal.get("/me", session)).data
    assert (me["customer_id"], me["email"]) == (portal.customer_id, address(org))
    assert (me["organisation"], me["session_expires_at"]) == (
        org.name, entered.data["expires_at"],
    )  # fmt: skip

    statement = (await portal.get("/statement", session)).data
    assert (statement["balance"], statement["available_credit"]) == ("6.00", "494.00")
    (owed,) = statement["open_sales"]
    assert (owed["id"], owed["total"], owed["paid"], owed["outstanding"]) == (
        bought["id"], "11.00", "5.00", "6.00",
    )  # fmt: skip
    assert owed["receipt_number"] == bought["receipt_number"]
    amounts = [(payment["amount"], payment["is_voided"]) for payment in statement["payments"]]
    assert amounts == [("4.00", False), ("1.00", False)]
    assert statement["is_complete"]

    (listed,) = (await portal.get("/receipts", session)).data["items"]
    assert (listed["id"], listed["outstanding_amount"]) == (bought["id"], "6.00")
    assert listed["receipt_number"] == bought["receipt_number"]
    receipt = (await portal.get(f"/receipts/{bought['id']}", session)).data
    assert receipt["receipt_number"] == bought["receipt_number"]
    assert [line["total"] for line in receipt["items"]] == ["11.00"]
    assert [payment["amount"] for payment in receipt["payments"]] == ["1.00", "4.00"]
    # Nothing of how the shop works.
    assert not {"cashier_id", "cashier_name", "till_id", "notes", "entry_id"} & receipt.keys()

    (sent, begun) = audited(psql, org)
    assert (sent[:4], begun[:4]) == (
        ("portal.send_link", None, portal.customer_id, "INFO"),
        ("portal.begin_session", None, portal.customer_id, "INFO"),
    )
    for secret in (token.split("_", 3)[3], session.split("_", 3)[3]):
        assert secret not in sent[4] + begun[4]
    ((stored,),) = psql(
        "select link.token_hash = sha256(%s) and session.secret_hash = sha256(%s)"
        " from portal_session as session inner join portal_link as link on link.id = link_id",
        [token.split("_", 3)[3].encode(), session.split("_", 3)[3].encode()], org=org,
    )  # fmt: skip
    assert stored


async def test_a_link_is_good_once(portal: Portal, psql: Psql) -> None:
    token = await portal.link()
    session = (await portal.enter(token)).data["token"]
    assert (await portal.enter(token)).refused == NO_LINK
    assert (await portal.get("/me", session)).status == 200
    assert sessions(psql, portal.shop.org) == 1
    told = [(row[0], row[2], row[3]) for row in audited(psql, portal.shop.org)]
    assert told == [
        ("portal.send_link", portal.customer_id, "INFO"),
        ("portal.begin_session", portal.customer_id, "INFO"),
        ("portal.begin_session", portal.customer_id, "WARNING"),
    ]


async def test_of_twenty_uses_of_a_link_at_once_one_begins_a_session(
    portal: Portal, psql: Psql
) -> None:
    token = await portal.link()
    answers = await asyncio.gather(*(portal.enter(token) for _ in range(20)))
    assert [answer.refused for answer in answers if answer.status != 201] == [NO_LINK] * 19
    assert sessions(psql, portal.shop.org) == 1


async def test_a_link_that_is_over_or_forged_is_refused(
    portal: Portal, other_org: Org, psql: Psql
) -> None:
    org, other = portal.shop.org, await portal.shop.customer(email=address(portal.shop.org, "dan"))
    token = await portal.link()
    secret = token.split("_", 3)[3]
    for forged in (
        "x",
        f"sfc_{org.id}_{portal.customer_id}_{secret}",
        f"sfl_{other_org.id}_{portal.customer_id}_{secret}",
        f"sfl_{org.id}_{other}_{secret}",
        f"sfl_{org.id}_{portal.customer_id}_{secret[:-1]}",
        f"sfl_{2**63 - 1}_{portal.customer_id}_{secret}",
    ):
        assert (await portal.enter(forged)).refused == NO_LINK
    past = "issued_at = now() - interval '40 minutes', expires_at = now() - interval '10 minutes'"
    psql(f"update portal_link set {past}", org=org, role="sofinance_owner")
    assert (await portal.enter(token)).refused == NO_LINK
    assert sessions(psql, org) == 0


async def test_whether_there_is_such_a_customer_is_told_neither_by_the_answer_nor_by_its_time(
    portal: Portal, other_org: Org, psql: Psql
) -> None:
    org = portal.shop.org
    gone = await portal.shop.customer(email=address(org, "gone"), status="INACTIVE")
    answers = []
    for email, org_id in (
        ("nobody@example.com", org.id), (address(org, "gone"), org.id),
        (address(org), other_org.id), (address(org), 2**62), (address(org), org.id),
    ):  # fmt: skip
        began_s = time.monotonic()
        answers.append(await portal.ask(email, org_id))
        assert time.monotonic() - began_s >= pace.BEAT_S
    assert len({(answer.status, str(answer.data)) for answer in answers}) == 1
    assert answers[0].status == 202
    assert (await portal.next_mail())["to"] == [address(org)]
    assert psql("select customer_id from portal_link", org=org) == [(portal.customer_id,)]
    # Nobody is made by asking.
    assert psql("select count(*) from customer", org=other_org) == [(0,)]
    known = psql("select id from customer order by id", org=org)
    assert known == [(portal.customer_id,), (gone,)]
    assert (await portal.ask("no address")).refused == (422, "invalid_request")


async def test_a_customer_has_three_open_links_however_many_ask(portal: Portal, psql: Psql) -> None:
    answers = await asyncio.gather(*(portal.ask() for _ in range(12)))
    assert {answer.status for answer in answers} == {202}
    tokens = [token_of(await portal.next_mail()) for _ in range(3)]
    assert psql("select count(*) from portal_link", org=portal.shop.org) == [(3,)]
    severities = [row[3] for row in audited(psql, portal.shop.org)]
    assert (severities.count("INFO"), severities.count("WARNING")) == (3, 9)
    # One that was used, or is over, makes room.
    assert (await portal.enter(tokens[0])).status == 201
    assert await portal.link() not in tokens
    past = "issued_at = now() - interval '40 minutes', expires_at = now() - interval '10 minutes'"
    psql(
        f"update portal_link set {past} where used_at is null", org=portal.shop.org,
        role="sofinance_owner",
    )  # fmt: skip
    assert await portal.link() not in tokens


async def test_asking_is_limited_by_address_and_by_mail_address(
    api_with: MakeApi, org: Org, other_org: Org
) -> None:
    api = await api_with(rate_limit_enabled=True, portal_url=PAGE, trust_proxy_headers=True,
                         trusted_proxy_ips="127.0.0.1")  # fmt: skip

    async def ask(email: str, org_id: int, ip: str) -> int:
        body = {"organisation": org_id, "email": email}
        headers = {"X-Forwarded-For": ip}
        return (await api.post("/portal/links", json=body, headers=headers)).status

    here = await asyncio.gather(*(ask(f"n{n}@example.com", org.id, "192.0.2.1") for n in range(15)))
    assert sorted(here) == [202] * 10 + [429] * 5
    # From everywhere, for one who may be a customer or not.
    spread = [await ask("x@example.com", org.id, f"198.51.{n}.1") for n in range(12)]
    assert spread == [202] * 10 + [429] * 2
    assert await ask("x@example.com", other_org.id, "198.51.100.1") == 202


# -- being in ------------------------------------------------------------------------------------


async def test_of_others_one_sees_nothing(
    portal: Portal, api_with: MakeApi, other_org: Org
) -> None:
    shop = portal.shop
    dan = await shop.customer(email=address(shop.org, "dan"), credit_limit="500")
    hers = (await shop.sell(paid="1.00", customer_id=portal.customer_id)).data["id"]
    his = (await shop.sell(paid="2.00", customer_id=dan)).data["id"]
    nobodys = (await shop.sell(paid="11.00")).data["id"]
    elsewhere = await open_shop(portal.api, other_org)
    theirs = (await elsewhere.sell(paid="11.00")).data["id"]
    session = await portal.session()
    for other in (his, nobodys, theirs, 2**62):
        assert (await portal.get(f"/receipts/{other}", session)).refused == (404, "not_found")
    assert (await portal.get(f"/receipts/{hers}", session)).status == 200
    listed = (await portal.get("/receipts", session)).data
    assert [row["id"] for row in listed["items"]] == [hers]
    assert listed["pagination"]["total"] == 1
    statement = (await portal.get("/statement", session)).data
    assert [row["id"] for row in statement["open_sales"]] == [hers]
    assert {row["sale_id"] for row in statement["payments"]} == {hers}
    assert statement["balance"] == "10.00"


async def test_a_voided_purchase_is_shown_as_such(portal: Portal) -> None:
    sold = (await portal.shop.sell(paid="11.00", customer_id=portal.customer_id)).data["id"]
    void = await portal.api.post(f"/sales/{sold}/void", portal.shop.org, {"reason": "test"})
    assert void.status == 200
    session = await portal.session()
    assert (await portal.get(f"/receipts/{sold}", session)).data["status"] == "VOIDED"
    statement = (await portal.get("/statement", session)).data
    assert (statement["balance"], statement["open_sales"]) == ("0.00", [])
    assert [payment["is_voided"] for payment in statement["payments"]] == [True]


async def test_without_a_session_nothing_is_told(portal: Portal, other_org: Org) -> None:
    session = await portal.session()
    org_id, id_, secret = session.split("_", 3)[1:]
    user = portal.shop.org.admin.token
    for wrong in (
        {}, {"Authorization": session}, bearer("x"), bearer(user), bearer(secret),
        bearer(f"sfl_{org_id}_{id_}_{secret}"), bearer(f"sfc_{org_id}_{id_}_{secret[:-1]}"),
        bearer(f"sfc_{other_org.id}_{id_}_{secret}"),
        bearer(f"sfc_{org_id}_{int(id_) + 1}_{secret}"),
        {"Cookie": f"session={session}"},
    ):  # fmt: skip
        for path in READS:
            assert (await portal.api.get(path, headers=wrong)).refused == OVER
        left = await portal.api.delete("/portal/sessions/current", headers=wrong)
        assert left.refused == OVER
    assert (await portal.get("/me", session)).status == 200


async def test_a_session_opens_nothing_but_the_portal(portal: Portal) -> None:
    session = await portal.session()
    opened = []
    for endpoint in find_endpoints():
        if not endpoint.public:
            path = re.sub(r"\{\w+\}", "1", endpoint.path)
            answer = await portal.api.call(
                endpoint.method, path, headers=bearer(session), prefix=""
            )
            if answer.refused != OVER:
                opened.append(f"{endpoint.method} {path}: {answer.text}")
    assert opened == []
    for path, body in (
        ("/auth/refresh", {"refresh_token": session}),
        ("/auth/till", {"user": "1", "pin": "4711", "till_credential": session}),
        ("/portal/sessions", {"token": session}),
    ):
        assert (await portal.api.post(path, json=body)).status == 401


async def test_a_session_ends_when_one_leaves_and_by_itself(portal: Portal, psql: Psql) -> None:
    first, second = await portal.session(), await portal.session()
    left = await portal.api.delete("/portal/sessions/current", headers=bearer(first))
    assert left.status == 204
    assert (await portal.get("/me", first)).refused == OVER
    again = await portal.api.delete("/portal/sessions/current", headers=bearer(first))
    assert again.refused == OVER
    assert (await portal.get("/me", second)).status == 200
    past = "began_at = now() - interval '2 hours', expires_at = now() - interval '1 second'"
    psql(
        f"update portal_session set {past} where ended_at is null", org=portal.shop.org,
        role="sofinance_owner",
    )  # fmt: skip
    assert (await portal.get("/me", second)).refused == OVER


# -- the staff -----------------------------------------------------------------------------------


async def test_the_staff_sends_a_link_and_ends_sessions(portal: Portal, psql: Psql) -> None:
    api, org, path = portal.api, portal.shop.org, f"/customers/{portal.customer_id}"
    sent = await api.post(f"{path}/portal-links", org)
    assert (sent.status, list(sent.data)) == (202, ["expires_at"])
    mail = await portal.next_mail()
    assert mail["to"] == [address(org)]
    session = (await portal.enter(token_of(mail))).data["token"]
    unused = await portal.link()
    listed = (await api.get(f"{path}/portal-links", org)).data["items"]
    assert [(link["issued_by"], link["used_at"] is None) for link in listed] == [
        (None, True), (org.admin.id, False),
    ]  # fmt: skip
    assert (await api.delete(f"{path}/portal-sessions", org)).status == 204
    (ended,) = (await api.get(f"{path}/portal-links", org)).data["items"]
    assert ended["session_ended_at"] < ended["session_expires_at"]
    assert (await portal.get("/me", session)).refused == OVER
    assert (await portal.enter(unused)).refused == NO_LINK
    rows = [(row[0], row[1]) for row in audited(psql, org)]
    assert rows == [
        ("portal.send_link", org.admin.id), ("portal.begin_session", None),
        ("portal.send_link", None), ("portal.end_sessions", org.admin.id),
    ]  # fmt: skip
    cashier = org.member("CASHIER")
    for answer in (
        await api.post(f"{path}/portal-links", cashier),
        await api.delete(f"{path}/portal-sessions", cashier),
    ):
        assert answer.refused == (403, "forbidden")
    assert (await api.post(f"{path}/portal-links", org.member("MANAGER"))).status == 202


async def test_the_staff_is_told_why_no_link_is_sent(portal: Portal, other_org: Org) -> None:
    api, org = portal.api, portal.shop.org
    path = f"/customers/{portal.customer_id}/portal-links"
    statuses = [(await api.post(path, org)).status for _ in range(4)]
    assert statuses == [202, 202, 202, 409]
    assert (await api.post(path, org)).refused == (409, "portal_links_open")
    silent = await portal.shop.customer(name="No address")
    unreachable = (409, "customer_not_reachable")
    assert (await api.post(f"/customers/{silent}/portal-links", org)).refused == unreachable
    gone = await portal.shop.customer(email=address(org, "gone"), status="INACTIVE")
    assert (await api.post(f"/customers/{gone}/portal-links", org)).refused == unreachable
    assert (await api.post(path, other_org)).refused == (404, "not_found")
    ended = await api.delete(f"/customers/{portal.customer_id}/portal-sessions", other_org)
    assert ended.refused == (404, "not_found")


# -- the customer who changes, and who goes ------------------------------------------------------


async def test_another_address_and_an_inactive_customer_end_links_and_sessions(
    portal: Portal, psql: Psql
) -> None:
    api, org, path = portal.api, portal.shop.org, f"/customers/{portal.customer_id}"
    changes: list[dict[str, str]] = [
        {"email": address(org, "moved")}, {"email": address(org, "moved"), "status": "INACTIVE"},
    ]  # fmt: skip
    for change in changes:
        email = psql("select email from customer where id = %s", [portal.customer_id], org=org)[0][
            0
        ]
        session, unused = await portal.session(email), await portal.link(email)
        assert (await api.put(path, org, {"name": "Carla", "phone": "+15550001111"})).status == 200
        # Without an address there was nothing to keep, either.
        assert (await portal.get("/me", session)).refused == OVER
        assert (await portal.enter(unused)).refused == NO_LINK
        assert (await api.put(path, org, {"name": "Carla", **change})).status == 200
    assert (await portal.ask(address(org, "moved"))).status == 202
    assert psql("select count(*) from portal_link", org=org) == [(0,)]


async def test_who_enters_while_the_address_changes_is_not_in_afterwards(
    portal: Portal, psql: Psql
) -> None:
    """Whichever of the two comes first, and without one waiting for the other in a circle."""
    org, path = portal.shop.org, f"/customers/{portal.customer_id}"
    for turn in range(10):
        email = psql("select email from customer where id = %s", [portal.customer_id], org=org)
        token = await portal.link(email[0][0])
        moved = {"name": "Carla", "email": address(org, f"moved{turn}")}
        entered, changed = await asyncio.gather(
            portal.enter(token), portal.api.put(path, org, moved)
        )
        assert (entered.status in {201, 401}, changed.status) == (True, 200), entered.text
        assert psql("select count(*) from portal_session", org=org) == [(0,)]


async def test_a_change_of_the_name_ends_nothing(portal: Portal) -> None:
    session = await portal.session()
    body = {"name": "Carla B.", "email": address(portal.shop.org), "status": "BLACKLISTED"}
    changed = await portal.api.put(f"/customers/{portal.customer_id}", portal.shop.org, body)
    assert changed.status == 200
    assert (await portal.get("/me", session)).data["name"] == "Carla B."


async def test_who_is_forgotten_leaves_the_portal(portal: Portal, psql: Psql) -> None:
    api, org = portal.api, portal.shop.org
    session, unused = await portal.session(), await portal.link()
    body = {"customer_id": portal.customer_id, "reason": "asked by letter"}
    assert (await api.post("/admin/data-deletion/requests", org, body)).status == 201
    done = await api.post("/admin/retention/cleanup", org, {})
    assert done.data["requests_processed"] == 1
    assert (await portal.get("/me", session)).refused == OVER
    assert (await portal.enter(unused)).refused == NO_LINK
    for table in ("portal_link", "portal_session"):
        assert psql(f"select count(*) from {table}", org=org) == [(0,)]


async def test_links_are_forgotten_a_month_after_their_end(portal: Portal, psql: Psql) -> None:
    org = portal.shop.org
    await portal.session()
    psql(
        "insert into portal_link"
        " (org_id, customer_id, slot, token_hash, issued_at, expires_at, used_at)"
        " select org_id, customer_id, slot, sha256('old'), issued_at - interval '31 days',"
        " expires_at - interval '31 days', used_at - interval '31 days' from portal_link",
        org=org, role="sofinance_owner",
    )  # fmt: skip
    assert (await portal.api.post("/admin/cleanup", org, {})).data["deleted"] == 1
    for table in ("portal_link", "portal_session"):
        assert psql(f"select count(*) from {table}", org=org) == [(1,)]


# -- a portal that there is not --------------------------------------------------------------------


async def test_without_its_page_there_is_no_portal(
    portal: Portal, api_with: MakeApi, psql: Psql
) -> None:
    session, link = await portal.session(), await portal.link()
    api, org = await api_with(portal_url=""), portal.shop.org
    body = {"organisation": org.id, "email": address(org)}
    assert (await api.post("/portal/links", json=body)).refused == OFF
    assert (await api.post("/portal/sessions", json={"token": link})).refused == OFF
    for path in READS:
        assert (await api.get(path, headers=bearer(session))).refused == OFF
    left = await api.delete("/portal/sessions/current", headers=bearer(session))
    assert left.refused == OFF
    sent = await api.post(f"/customers/{portal.customer_id}/portal-links", org)
    assert sent.refused == OFF
    # What there is can be ended all the same.
    ended = await api.delete(f"/customers/{portal.customer_id}/portal-sessions", org)
    assert ended.status == 204
    assert sessions(psql, org) == 0
