"""Instances restarted one after the other, and reloaded, while tills sell: no request fails."""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.conftest import open_shop
from tests.ops import live, promql
from tests.ops.load import Load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sofinance.config import Settings
    from tests.api.conftest import Shop
    from tests.support import Api, Org, Psql

CLIENTS = 4
DRAIN_S, CHECK_MS = 5, 200
WAIT_S = 150
STOCK = "1000000"
# What the file of settings says at each reload, and whether answers then tell our version. What is
# wrong with the last one is told, and keeps nobody from selling.
RELOADS = [
    ("enable_response_enrichment: true", True),
    ("enable_response_enrichment: false", False),
    ("enable_response_enrichment: true", True),
    ("enable_response_enrichmend: false", True),
]

pytestmark = [pytest.mark.empty_database, pytest.mark.once]


@pytest.fixture
async def shop(api: Api, org: Org) -> Shop:
    """A shop that does not sell out."""
    return await open_shop(api, org, quantity=STOCK)


def environment(settings: Settings, port: int, **changes: str) -> dict[str, str]:
    """Return what an instance is started with; the test's own tokens are good there."""
    return {
        **live.environment(settings.database_url), "JWT_SECRET": settings.jwt_secret,
        "HOST": "127.0.0.1", "PORT": str(port), "RATE_LIMIT_ENABLED": "false",
        "DRAIN_DELAY_S": str(DRAIN_S), "WEB_CONCURRENCY": "2", **changes,
    }  # fmt: skip


@contextlib.contextmanager
def instance(
    settings: Settings, port: int, *command: str, **changes: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service, in one process unless told otherwise."""
    command = command or ("-m", "sofinance", "serve")
    started = live.process(sys.executable, *command, **environment(settings, port, **changes))
    with started as running:
        live.until("readiness", lambda: live.answers(port, "/health/ready"), WAIT_S)
        yield running


@contextlib.contextmanager
def haproxy(folder: Path, ports: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Run HAProxy on the file that we ship, with faster checks; yields its port and its state's."""
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    port, state = live.free_port(), live.free_port()
    text = (promql.ROOT / "ops" / "haproxy" / "haproxy.cfg").read_text("utf-8")
    text = text.replace("bind :80", f"bind 127.0.0.1:{port}")
    text = text.replace("127.0.0.1:8404", f"127.0.0.1:{state}")
    text = text.replace("inter 2s", f"inter {CHECK_MS}ms")
    for address, own in zip(("10.0.0.11:8000", "10.0.0.12:8000"), ports, strict=True):
        text = text.replace(address, f"127.0.0.1:{own}")
    config = folder / "haproxy.cfg"
    config.write_text(text)
    with live.process(program, "-db", "-q", "-f", str(config)):
        live.until("HAProxy", lambda: servers(state) == {"one": "UP", "two": "UP"}, WAIT_S)
        yield port, state


def servers(state: int) -> dict[str, str]:
    """Return what HAProxy thinks of each instance."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        _, body = live.ask(state, "/;csv")
        rows = csv.DictReader(body.decode().removeprefix("# ").splitlines())
        return {
            row["svname"]: row["status"].split()[0]
            for row in rows
            if row["pxname"] == "sofinance" and row["svname"] != "BACKEND"
        }
    return {}


def assert_nothing_was_lost(load: Load, psql: Psql) -> None:
    """Hold that all was answered, and that what is in the books is what was acknowledged."""
    assert load.failures == []
    assert load.answers.keys() == {200, 201}
    ((count,),) = psql("select count(*) from sale", role="superuser")
    assert count == len(load.sold) == len(set(load.sold))


@pytest.mark.parametrize("kind", ["one process", "gunicorn"])
def test_a_rolling_restart_fails_no_request(
    kind: str, settings: Settings, shop: Shop, psql: Psql, tmp_path: Path
) -> None:
    command = () if kind == "one process" else ("-m", "gunicorn", "-c", "gunicorn.conf.py")
    ports = (live.free_port(), live.free_port())
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(instance(settings, port, *command)) for port in ports)
        port, state = stack.enter_context(haproxy(tmp_path, ports))
        with Load(port, shop, clients=CLIENTS).running() as load:
            load.wait_for(100)
            for old, name, own in ((first, "one", ports[0]), (second, "two", ports[1])):
                old.send_signal(signal.SIGTERM)
                assert_leaves_politely(own)
                live.until("HAProxy noticed", lambda n=name: servers(state)[n] != "UP", WAIT_S)
                assert old.wait(WAIT_S) == 0
                stack.enter_context(instance(settings, own, *command))
                live.until("it is used", lambda n=name: servers(state)[n] == "UP", WAIT_S)
                load.wait_for(50)
    assert_nothing_was_lost(load, psql)
    assert load.count >= 300


def assert_leaves_politely(port: int) -> None:
    """Hold that one that leaves is not ready, alive, still answers, and ends the connection."""
    live.until("503", lambda: live.ask(port, "/health/ready")[0] == 503, DRAIN_S)
    assert live.ask(port, "/health/live")[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    connection.request("GET", "/api/v1/info")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    connection.close()


def test_a_reload_of_gunicorn_fails_no_request(
    settings: Settings, shop: Shop, psql: Psql, tmp_path: Path
) -> None:
    """Tills that talk to it directly, without anything that would try again."""
    port, folder = live.free_port(), tmp_path / "metrics"
    folder.mkdir()
    (folder / "counter_1.db").write_bytes(b"of an earlier gunicorn, which counted from another 0")
    config = tmp_path / "config"
    config.mkdir()
    changes = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "SOFINANCE_CONFIG_DIR": str(config)}
    command = ("-m", "gunicorn", "-c", "gunicorn.conf.py")
    with instance(settings, port, *command, **changes) as arbiter:
        assert not (folder / "counter_1.db").exists()
        unready = Unready(port)
        with Load(port, shop, clients=CLIENTS).running() as load, unready.watching():
            load.wait_for(60)
            for setting, told in RELOADS:
                before = workers(arbiter)
                (config / "default.yaml").write_text(setting)
                arbiter.send_signal(signal.SIGHUP)
                live.until(
                    "none but new workers",
                    lambda before=before: len(now := workers(arbiter)) == 2 and not before & now,
                    WAIT_S,
                )
                load.wait_for(60)
                assert tells_version(port) is told
        assert_nothing_was_lost(load, psql)
        assert unready.statuses == {200}, "a reload is nobody's reason to send requests elsewhere"
        body = live.ask(port, "/metrics", Authorization=f"Bearer {live.TOKEN}")[1].decode()
        counted = re.findall(
            r'^http_requests_total{.*route="/api/v1/sales",.*} (\S+)', body, re.MULTILINE
        )
        assert sum(map(float, counted)) >= len(load.sold), "counters outlive the workers"


def workers(arbiter: subprocess.Popen[bytes]) -> set[str]:
    """Return the arbiter's children."""
    ran = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(arbiter.pid)], capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split())


def tells_version(port: int) -> bool:
    """Say whether answers have what ENABLE_RESPONSE_ENRICHMENT adds."""
    return "app_version" in json.loads(live.ask(port, "/api/v1/info")[1])["meta"]


class Unready:
    """Asks for readiness, as who balances the load does."""

    def __init__(self, port: int) -> None:
        self.port, self.statuses = port, set[Any]()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Ask for as long as a block runs."""
        ended = threading.Event()

        def ask() -> None:
            while not ended.wait(CHECK_MS / 1000):
                self.statuses.add(live.ask(self.port, "/health/ready")[0])

        watcher = threading.Thread(target=ask)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join(WAIT_S)


def test_a_request_under_way_is_answered_though_its_instance_ends(
    settings: Settings, shop: Shop
) -> None:
    """The body arrives after SIGTERM, and after the delay: it is still answered, whole."""
    port = live.free_port()
    body = b'{"name": "Second Street"}'
    with instance(settings, port, DRAIN_DELAY_S="1") as running:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        connection.putrequest("POST", "/api/v1/branches")
        connection.putheader("Authorization", f"Bearer {shop.org.admin.token}")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:5])
        time.sleep(0.3)
        running.send_signal(signal.SIGTERM)
        live.until("no new connections", lambda: not listens(port), WAIT_S)
        connection.send(body[5:])
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (201, "close")
        answer.read()
        assert running.wait(WAIT_S) == 0


def listens(port: int) -> bool:
    """Say whether somebody takes connections there."""
    try:
        live.ask(port, "/livez")
    except ConnectionRefusedError:
        return False
    except (OSError, http.client.HTTPException):
        return True
    return True


def test_serve_with_workers_is_gunicorn(settings: Settings) -> None:
    port = live.free_port()
    command = ("-m", "sofinance", "serve", "--workers", "3")
    with instance(settings, port, *command, DRAIN_DELAY_S="0") as arbiter:
        live.until("three workers", lambda: len(workers(arbiter)) == 3, WAIT_S)
        arbiter.send_signal(signal.SIGTERM)
        assert arbiter.wait(WAIT_S) == 0
