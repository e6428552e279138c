"""Webhooks over TLS: to whoever proves to be who the URL names, and to nobody else."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from sofinance.jobs.courier import Courier
from tests import certificates
from tests.jobs.test_courier import LOCAL, customer, database, deliveries, endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from sofinance.config import Settings
    from sofinance.infra.db import Database
    from tests.support import Api, Org

    Deliver = Callable[["Receiver"], Awaitable[tuple[str, str | None]]]

__all__ = ["database"]  # a fixture

pytestmark = pytest.mark.empty_database
HOST = "hooks.partner.example"
ELSEWHERE = "10.0.0.1"
STRICT = {**LOCAL, "export_allow_http": False, "export_retry_delays_s": "0"}


@dataclass
class Receiver:
    """An endpoint over TLS on this machine: what clients named, and what they sent."""

    port: int = 0
    named: list[str | None] = field(default_factory=list)
    got: list[tuple[str, str, str | None]] = field(default_factory=list)
    answers: list[web.Response] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is, by its name."""
        return f"https://{HOST}:{self.port}/hook"

    async def answer(self, request: web.Request) -> web.Response:
        """Take a message."""
        await request.read()
        self.got.append((request.host, request.path, request.remote))
        return self.answers.pop(0) if self.answers else web.Response()

    def note_name(self, _tls: Any, name: str | None, _context: Any) -> None:
        """Note whom a client says that it wants to speak to (SNI)."""
        self.named.append(name)


@asynccontextmanager
async def receiving(pair: certificates.Pair, folder: Path) -> AsyncIterator[Receiver]:
    """Serve over TLS with a certificate."""
    receiver = Receiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.write(folder / "server.pem"))
    context.sni_callback = receiver.note_name
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


def shake_hands(listener: socket.socket, context: ssl.SSLContext) -> str | None:
    """Take one client; return why there is no TLS with it."""
    client, _ = listener.accept()
    with client:
        try:
            context.wrap_socket(client, server_side=True).close()
        except ssl.SSLError as error:
            return error.reason
    return None


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> certificates.Pair:
    """An authority that this machine trusts."""
    made = certificates.authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(made.write(tmp_path / "authority.pem")))
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were resolved; ours is here the first time, and elsewhere ever after."""
    names: list[str] = []
    resolve = socket.getaddrinfo

    def answer(host: Any, *args: Any, **options: Any) -> Any:
        if host != HOST:
            return resolve(host, *args, **options)
        names.append(host)
        return resolve("127.0.0.1" if len(names) == 1 else ELSEWHERE, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return names


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings under which webhooks go to this machine, over TLS only."""
    return replace(settings, **STRICT)


@pytest.fixture
async def deliver(
    api: Api, org: Org, settings: Settings, database: Database, asked: list[str]
) -> Deliver:
    """Have something happen, make one attempt to tell of it, and return what came of that."""
    assert asked == []

    async def tell(receiver: Receiver) -> tuple[str, str | None]:
        await endpoint(api, org, receiver.url)
        await customer(api, org)
        async with asyncio.timeout(120):
            await Courier.configured(settings, database).run_once()
        (delivery,) = await deliveries(api, org)
        return delivery["status"], delivery["last_error"]

    return tell


async def test_who_proves_the_name_is_told(
    deliver: Deliver, tmp_path: Path, authority: certificates.Pair, asked: list[str]
) -> None:
    """The name is asked for once; its address is connected to under the name."""
    async with receiving(certificates.server(HOST, by=authority), tmp_path) as receiver:
        assert await deliver(receiver) == ("delivered", None)
    assert receiver.named == [HOST]
    assert receiver.got == [(f"{HOST}:{receiver.port}", "/hook", "127.0.0.1")]
    assert asked == [HOST]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("expired", "tls:expired"),
        ("self-signed", "tls:self_signed"),
        ("of nobody's", "tls:untrusted"),
        ("of another name", "tls:name"),
    ],
)
async def test_a_certificate_that_does_not_prove_the_name_is_refused(
    deliver: Deliver, tmp_path: Path, authority: certificates.Pair, wrong: str, error: str
) -> None:
    pair = {
        "expired": lambda: certificates.server(HOST, by=authority, has_expired=True),
        "self-signed": lambda: certificates.server(HOST),
        "of nobody's": lambda: certificates.server(HOST, by=certificates.authority()),
        "of another name": lambda: certificates.server("partner.example", by=authority),
    }[wrong]()
    async with receiving(pair, tmp_path) as receiver:
        assert await deliver(receiver) == ("dead", error)
    assert receiver.got == []


async def test_a_version_of_tls_before_1_2_is_refused(
    deliver: Deliver, tmp_path: Path, authority: certificates.Pair
) -> None:
    pair = certificates.server(HOST, by=authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.write(tmp_path / "server.pem"))
    # OpenSSL speaks what is that old with nobody unless it is told to.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refused = asyncio.create_task(asyncio.to_thread(shake_hands, listener, context))
        assert await deliver(Receiver(listener.getsockname()[1])) == ("dead", "tls")
        assert await refused == "UNSUPPORTED_PROTOCOL"


async def test_a_redirect_over_tls_is_not_followed(
    deliver: Deliver, tmp_path: Path, authority: certificates.Pair
) -> None:
    async with receiving(certificates.server(HOST, by=authority), tmp_path) as receiver:
        there = f"https://{HOST}:{receiver.port}/elsewhere"
        receiver.answers = [web.Response(status=307, headers={"Location": there})]
        assert await deliver(receiver) == ("dead", "http_307")
    assert [path for _, path, _ in receiver.got] == ["/hook"]
