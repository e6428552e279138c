"""The WebSocket: who is let in, what they hear, and how each is sent away."""

from __future__ import annotations

import asyncio
import json
import re
import socket as sockets
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from sofinance.app import MACHINE
from sofinance.infra import hub
from sofinance.infra.db import Database
from sofinance.infra.notify import tell
from sofinance.infra.sql import Row
from tests.support import sign_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Api, Org, Psql, User

    MakeApi = Callable[..., Awaitable[Api]]

PATH = "/api/v1/notifications/ws"
WAIT_S = 60


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(settings)
    await opened.open()
    yield opened
    await opened.close()


@asynccontextmanager
async def connected(
    api: Api, user: User | None = None, query: str = "", **options: Any
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Connect, as somebody or as nobody yet."""
    headers = dict(options.pop("headers", {}))
    if user is not None:
        headers["Authorization"] = f"Bearer {user.token}"
    async with api.session.ws_connect(
        api.base_url + PATH + query, headers=headers, **options
    ) as ws:
        yield ws


async def heard(ws: aiohttp.ClientWebSocketResponse) -> Any:
    """Return the next message."""
    frame = await ws.receive(timeout=WAIT_S)
    assert frame.type is aiohttp.WSMsgType.TEXT, (frame, ws.close_code)
    return json.loads(frame.data)


async def titles(ws: aiohttp.ClientWebSocketResponse, count: int) -> list[str]:
    """Return the titles of the next notifications."""
    return [(await heard(ws))["notification"]["title"] for _ in range(count)]


async def closed(ws: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """Wait for the end; return its code and why."""
    async with asyncio.timeout(WAIT_S):
        while True:
            frame = await ws.receive()
            if frame.type is aiohttp.WSMsgType.CLOSE:
                return frame.data, frame.extra
            assert frame.type is aiohttp.WSMsgType.TEXT, frame


async def until(condition: Callable[[], bool]) -> None:
    """Wait till something holds."""
    async with asyncio.timeout(2 * WAIT_S):
        while not condition():  # noqa: ASYNC110 - another task's doing
            await asyncio.sleep(0.05)


async def say(database: Database, user: User, *words: str) -> None:
    """Tell a user something, each word in a transaction of its own."""
    for word in words:
        async with database.tenant(user.org_id) as conn:
            await tell(conn, org_id=user.org_id, user_ids=[user.id], type="message", title=word)


# -- who is let in -----------------------------------------------------------------------------


async def test_a_token_comes_as_a_header_a_subprotocol_or_the_first_message(
    api: Api, org: Org, database: Database
) -> None:
    admin = org.admin
    await say(database, admin, "before")
    async with connected(api, admin) as ws:
        assert await heard(ws) == {"type": "ready", "last_id": 1, "unread_count": 1}
    protocols = ("sofinance.v1", f"bearer.{admin.token}")
    async with connected(api, protocols=protocols) as ws:
        assert ws.protocol == "sofinance.v1"
        assert (await heard(ws))["type"] == "ready"
    async with connected(api) as ws:
        await ws.send_json({"type": "auth", "token": admin.token, "last_id": 0})
        assert await heard(ws) == {"type": "ready", "last_id": 0, "unread_count": 1}
        assert await titles(ws, 1) == ["before"]


async def test_a_ticket_opens_one_socket(api: Api, org: Org, psql: Psql) -> None:
    issued = (await api.post("/notifications/ws-ticket", org)).data
    assert issued["expires_in"] == 30
    query = f"?ticket={issued['ticket']}"
    async with connected(api, query=query) as ws:
        assert (await heard(ws))["type"] == "ready"
    async with connected(api, query=query) as ws:
        assert (await closed(ws))[0] == 4401
    ((told,),) = psql(
        "select after from audit_log where action = 'notifications.issue_ticket'", org=org
    )
    assert told["ticket"] == "[secret]"
    late = (await api.post("/notifications/ws-ticket", org)).data["ticket"]
    psql("update notification_ticket set expires_at = now()", role="sofinance_owner", org=org)
    async with connected(api, query=f"?ticket={late}") as ws:
        assert (await closed(ws))[0] == 4401


async def test_a_ticket_of_an_ended_session_opens_nothing(api: Api, org: Org, psql: Psql) -> None:
    ticket = (await api.post("/notifications/ws-ticket", org)).data["ticket"]
    end_sessions(psql, org, org.admin)
    async with connected(api, query=f"?ticket={ticket}") as ws:
        assert (await closed(ws))[0] == 4401


async def test_an_api_key_connects_and_gets_no_ticket(api: Api, org: Org) -> None:
    body = {"name": "Display", "permissions": ["products:read"]}
    secret = (await api.post("/api-keys", org, body)).data["secret"]
    headers = {"Authorization": f"Bearer {secret}"}
    refused = await api.post("/notifications/ws-ticket", headers=headers)
    assert refused.refused == (403, "session_required")
    async with connected(api, headers=headers) as ws:
        assert (await heard(ws))["type"] == "ready"


def end_sessions(psql: Psql, org: Org, user: User) -> None:
    """End the sessions of a user behind the service's back."""
    psql(
        "update user_session set revoked_at = now(), revoked_why = 'administrator'"
        " where user_id = %s",
        [user.id],
        org=org,
    )


@pytest.mark.parametrize(
    "query", ["?ticket=sfw_1_1_no", "?ticket=nonsense", "?ticket=sfw_999999_1_x", "?token={token}"]
)
async def test_no_good_credential_is_closed_with_4401(api: Api, org: Org, query: str) -> None:
    async with connected(api, query=query.format(token=org.admin.token)) as ws:
        assert (await closed(ws))[0] == 4401


@pytest.mark.parametrize(
    "first",
    [
        {"type": "auth", "token": "nonsense"}, {"type": "auth"}, {"type": "ping"}, [], "auth",
        {"type": "auth", "token": "{token}", "last_id": -1},
        {"type": "auth", "token": "{token}", "last_id": "1"},
    ],
)  # fmt: skip
async def test_another_first_message_is_closed_with_4401(api: Api, org: Org, first: Any) -> None:
    text = json.dumps(first).replace("{token}", org.admin.token)
    async with connected(api) as ws:
        await ws.send_str(text)
        assert (await closed(ws))[0] == 4401


async def test_who_says_nothing_is_closed_with_4401(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "FIRST_MESSAGE_TIMEOUT_S", 0.1)
    async with connected(api) as ws:
        assert await closed(ws) == (4401, "no token came")


async def test_a_revoked_session_is_not_let_in(api: Api, org: Org, psql: Psql) -> None:
    cashier = org.member("CASHIER")
    assert (await api.get("/auth/me", cashier)).status == 200  # remembered
    end_sessions(psql, org, cashier)
    async with connected(api, cashier) as ws:
        assert (await closed(ws))[0] == 4401


async def test_whoever_has_to_do_something_first_is_closed_with_4403(
    api: Api, org: Org, psql: Psql
) -> None:
    cashier = org.member("CASHIER")
    psql(
        "update app_user set must_change_password = true where id = %s",
        [cashier.id], org=org, role="sofinance_owner",
    )  # fmt: skip
    async with connected(api, cashier) as ws:
        assert await closed(ws) == (4403, "password_change")


async def test_a_request_that_is_no_websocket_is_told_so(api: Api, org: Org) -> None:
    no_key = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "ü",
    }  # fmt: skip
    for headers in (None, no_key):
        answer = await api.get("/notifications/ws", org, headers=headers)
        assert answer.refused == (426, "upgrade_required")
        assert answer.headers["Upgrade"] == "websocket"


async def test_pages_of_other_origins_are_refused(api_with: MakeApi, org: Org) -> None:
    api = await api_with(cors_origins="https://office.example.com")
    host = api.base_url.removeprefix("http://")
    for origin in ("https://office.example.com", f"http://{host}"):
        async with connected(api, org.admin, headers={"Origin": origin}) as ws:
            assert (await heard(ws))["type"] == "ready"
    for origin in ("https://evil.example", "null", f"http://{host}.evil.example", "http://["):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(api, org.admin, headers={"Origin": origin}):
                pass
        assert refused.value.status == 403


# -- what they hear ----------------------------------------------------------------------------


async def test_what_is_told_is_heard_by_all_of_the_users_sockets_and_nobody_else(
    api: Api, org: Org, other_org: Org, database: Database
) -> None:
    cashier = org.member("CASHIER")
    async with (
        connected(api, cashier) as one,
        connected(api, cashier) as two,
        connected(api, org.admin) as admin,
        connected(api, other_org.admin) as other,
    ):
        for ws in (one, two, admin, other):
            assert (await heard(ws))["type"] == "ready"
        await say(database, cashier, "a", "b", "c")
        assert await titles(one, 3) == await titles(two, 3) == ["a", "b", "c"]
        await say(database, org.admin, "to the admin")
        await say(database, other_org.admin, "to the other")
        assert await titles(admin, 1) == ["to the admin"]
        assert await titles(other, 1) == ["to the other"]


async def test_who_comes_back_misses_nothing_and_hears_nothing_twice(
    api: Api, org: Org, database: Database
) -> None:
    cashier, seen, last_id = org.member("CASHIER"), [], 0
    words = [f"{number:03}" for number in range(60)]
    telling = asyncio.ensure_future(say(database, cashier, *words))
    while len(seen) < len(words):
        async with connected(api, cashier, query=f"?last_id={last_id}") as ws:
            assert (await heard(ws))["last_id"] <= last_id
            for _ in range(min(7, len(words) - len(seen))):
                told = (await heard(ws))["notification"]
                seen.append(told["title"])
                last_id = told["id"]
    await telling
    assert seen == words


async def test_one_who_was_away_long_gets_all_that_is_kept(
    api: Api, org: Org, database: Database
) -> None:
    cashier = org.member("CASHIER")
    async with database.tenant(org.id) as conn:
        for number in range(350):
            await tell(
                conn, org_id=org.id, user_ids=[cashier.id], type="message", title=str(number)
            )
    async with connected(api, cashier, query="?last_id=0") as ws:
        await heard(ws)
        assert await titles(ws, 350) == [str(number) for number in range(350)]


async def test_deleted_news_are_passed_over(api: Api, org: Org, database: Database) -> None:
    cashier = org.member("CASHIER")
    async with connected(api, cashier, query="?last_id=0") as ws:
        await heard(ws)
        async with database.tenant(org.id) as conn:
            for title in ("x", "y"):
                await tell(conn, org_id=org.id, user_ids=[cashier.id], type="message", title=title)
            await conn.execute("delete from notification where title in ('x', 'y')")
        await say(database, cashier, "z")
        assert await titles(ws, 1) == ["z"]


async def test_a_transaction_that_ends_late_is_not_passed_over(
    api: Api, org: Org, database: Database
) -> None:
    """Numbers are given in the order of commits: who tells later waits for who told before."""
    cashier = org.member("CASHIER")
    async with connected(api, cashier) as ws:
        await heard(ws)
        async with database.tenant(org.id) as conn:
            await tell(conn, org_id=org.id, user_ids=[cashier.id], type="message", title="first")
            second = asyncio.ensure_future(say(database, cashier, "second"))
            await asyncio.sleep(1.5)
            assert not second.done()
        await second
        assert await titles(ws, 2) == ["first", "second"]


async def test_a_ping_is_answered(api: Api, org: Org) -> None:
    async with connected(api, org.admin) as ws:
        await heard(ws)
        await ws.send_json({"type": "ping"})
        assert await heard(ws) == {"type": "pong"}


# -- how they are sent away --------------------------------------------------------------------


async def test_a_session_that_ends_ends_its_sockets(
    api: Api, org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CHECK_S", 0)
    cashier, clerk = org.member("CASHIER"), org.member("INVENTORY_CLERK")
    async with connected(api, cashier) as ws, connected(api, clerk) as other:
        await heard(ws)
        await heard(other)
        end_sessions(psql, org, cashier)
        assert await closed(ws) == (4401, "the session has ended")
        await other.send_json({"type": "ping"})
        assert await heard(other) == {"type": "pong"}


async def test_a_user_who_is_disabled_is_sent_away(
    api: Api, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "CHECK_S", 0)
    cashier = org.member("CASHIER")
    async with connected(api, cashier) as ws:
        await heard(ws)
        assert (await api.post(f"/users/{cashier.id}/disable", org)).status == 200
        assert (await closed(ws))[0] == 4401


async def test_an_expired_token_ends_its_socket_unless_another_came(
    api: Api, org: Org, settings: Settings
) -> None:
    cashier = org.member("CASHIER")
    hub_ = api.app[MACHINE].hub
    async with connected(api, cashier) as kept, connected(api, cashier) as lost:
        for ws in (kept, lost):
            await heard(ws)
        conn: Any = await asyncpg.connect(settings.database_url, record_class=Row)
        async with conn.transaction():
            await conn.execute(f"select set_config('app.org_id', '{org.id}', true)")
            token = await sign_in(conn, settings, org.id, cashier.id)
        await conn.close()
        for socket in hub_.sockets_of(org.id, cashier.id):
            socket.expires_at_s = time.time() + 2
        await kept.send_json({"type": "auth", "token": token})
        assert await closed(lost) == (4401, "the token has expired")
        await kept.send_json({"type": "ping"})
        assert await heard(kept) == {"type": "pong"}
        await kept.send_json({"type": "auth", "token": org.admin.token})
        assert (await closed(kept))[0] == 4401


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("nonsense", 4400), ('{"type": "subscribe"}', 4400), (b"\x00", 4400), ("x" * 9_000, 1009),
    ],
)  # fmt: skip
async def test_what_is_no_message_of_ours_ends_it(
    api: Api, org: Org, sent: str | bytes, code: int
) -> None:
    async with connected(api, org.admin) as ws:
        await heard(ws)
        await (ws.send_bytes(sent) if isinstance(sent, bytes) else ws.send_str(sent))
        assert (await closed(ws))[0] == code


async def test_who_sends_too_much_is_sent_away(api: Api, org: Org) -> None:
    async with connected(api, org.admin) as ws:
        await heard(ws)
        for _ in range(61):
            await ws.send_json({"type": "ping"})
        assert (await closed(ws))[0] == 1008


async def test_a_user_has_ten_sockets_and_no_more(api: Api, org: Org) -> None:
    opened = [
        await api.session.ws_connect(
            api.base_url + PATH, headers={"Authorization": f"Bearer {org.admin.token}"}
        )
        for _ in range(10)
    ]
    for ws in opened:
        await heard(ws)
    async with connected(api, org.admin) as ws:
        assert (await closed(ws))[0] == 4429
    await opened.pop().close()
    async with connected(api, org.admin) as ws:
        assert (await heard(ws))["type"] == "ready"
    for ws in opened:
        await ws.close()


async def test_a_user_who_opens_many_at_once_has_ten(api: Api, org: Org) -> None:
    async def one() -> aiohttp.ClientWebSocketResponse:
        return await api.session.ws_connect(
            api.base_url + PATH, headers={"Authorization": f"Bearer {org.admin.token}"}
        )

    opened = await asyncio.gather(*(one() for _ in range(20)))
    frames = await asyncio.gather(*(ws.receive(timeout=WAIT_S) for ws in opened))
    closings = [frame.data for frame in frames if frame.type is aiohttp.WSMsgType.CLOSE]
    assert closings == [4429] * 10
    await asyncio.gather(*(ws.close() for ws in opened))


async def test_a_full_process_says_so_before_it_upgrades(
    api: Api, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "SOCKET_COUNT_MAX", 0)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with connected(api, org.admin):
            pass
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")


async def test_who_does_not_read_is_cut_off_and_nobody_else_waits(
    api: Api, org: Org, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sofinance.infra.sockets.SEND_TIMEOUT_S", 0.5)
    monkeypatch.setattr("sofinance.infra.sockets.CLOSE_TIMEOUT_S", 0.5)
    cashier = org.member("CASHIER")
    host, port = api.base_url.removeprefix("http://").split(":")
    with sockets.socket() as deaf:
        deaf.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        deaf.connect((host, int(port)))
        deaf.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {cashier.token}\r\n\r\n".encode()
        )
        async with connected(api, org.admin) as ws:
            await heard(ws)
            hub_ = api.app[MACHINE].hub
            await until(lambda: bool(hub_.sockets_of(org.id, cashier.id)))
            async with database.tenant(org.id) as conn:
                for number in range(1_000):
                    await tell(
                        conn, org_id=org.id, user_ids=[cashier.id], type="message",
                        title=str(number), message="\u20ac" * 2_000, data={"x": "x" * 3_900},
                    )  # fmt: skip
            await say(database, org.admin, "you")
            assert await titles(ws, 1) == ["you"]
            await until(lambda: not hub_.sockets_of(org.id, cashier.id))


async def test_the_metrics_tell(api: Api, org: Org) -> None:
    async def metric(name: str) -> float:
        text = (await api.get("/metrics", prefix="")).text
        found = re.search(rf"^{re.escape(name)} ([0-9.e+]+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    served = await metric('websocket_opened_total{outcome="served"}')
    refused = await metric('websocket_opened_total{outcome="4401"}')
    before = await metric("websocket_connections")
    async with connected(api, org.admin) as ws:
        await heard(ws)
        assert await metric("websocket_connections") == before + 1
    async with connected(api, query="?ticket=x") as ws:
        await closed(ws)
    assert await metric('websocket_opened_total{outcome="served"}') == served + 1
    assert await metric('websocket_opened_total{outcome="4401"}') == refused + 1
