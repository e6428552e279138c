"""A real server's log: every line has the promised fields, and none has what nobody may read."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tests.ops import live, promql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sofinance.config import Settings
    from tests.support import Org

FIELDS = [
    "timestamp", "level", "service", "environment", "request_id", "user_id", "message", "metadata",
]  # fmt: skip
ORIGIN = {"ip_address", "user_agent", "trace_id", "span_id"}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
# None of this may be in any line.
PRIVATE = [
    "hunter2", "ada@shop.example", "ada%40shop.example", "+4915112345678", "Bearer ", "eyJ",
    "bot@crawler.example", "sfr_1_2_",
]  # fmt: skip


@contextlib.contextmanager
def logging_server(settings: Settings, folder: Path) -> Iterator[tuple[int, Path]]:
    """Serve with gunicorn, whose stdout is a file; yield the port and the file."""
    port, said = live.free_port(), folder / "stdout"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    variables = live.environment(settings.database_url) | {
        "LOG_LEVEL": "Info", "ENVIRONMENT": "development", "HOST": "127.0.0.1",
        "PORT": str(port), "WEB_CONCURRENCY": "2", "JWT_SECRET": settings.jwt_secret,
    }  # fmt: skip
    with said.open("wb") as stdout:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--log-level", "critical"],
            cwd=promql.ROOT, env={**kept, **variables}, stdout=stdout, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            live.until("gunicorn", lambda: live.answers(port, "/livez"), live.START_TIMEOUT_S)
            yield port, said
        finally:
            live.end(server)


def lines_of(said: Path) -> list[Any]:
    """Read a log; every line is a JSON object."""
    return [json.loads(line) for line in said.read_text("utf-8").splitlines()]


def hang_up(port: int) -> None:
    """Ask, and go away before anybody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/api/v1/info")
    connection.close()


def test_every_line_of_a_server_has_the_promised_fields(
    settings: Settings, org: Org, tmp_path: Path
) -> None:
    signed_in = {"Authorization": f"Bearer {org.admin.token}"}
    trace = {"X-Trace-ID": TRACE_ID, "X-Request-ID": "till-7/42"}
    sign_in = b'{"email": "ada@shop.example", "password": "hunter2"}'
    note = b'{"name": "hunter2 ada@shop.example", "notes": "+4915112345678"}'
    with logging_server(settings, tmp_path) as (port, said):
        asked = [
            lambda: live.ask(port, "/api/v1/info", **trace),
            lambda: live.ask(port, "/api/v1/branches", **signed_in),
            lambda: live.ask(port, "/api/v1/branches", Authorization="Bearer eyJa.eyJb.c"),
            lambda: live.ask(port, "/api/v1/auth/login", "POST", sign_in),
            lambda: live.ask(port, "/api/v1/categories", "POST", b"{", **signed_in),
            lambda: live.ask(port, "/api/v1/customers", "POST", note, **signed_in),
            lambda: live.ask(port, "/api/v1/customers/ada%40shop.example", **signed_in),
            lambda: live.ask(port, "/x/sfr_1_2_secret?email=ada@shop.example"),
            lambda: live.ask(port, "/x", **{"User-Agent": "bot/1 (bot@crawler.example)"}),
            lambda: live.ask(port, "/x", **{"X-Request-ID": "ada@shop.example"}),
            lambda: live.ask(port, "/x", "BREW"),
            lambda: hang_up(port),
        ]
        with ThreadPoolExecutor(8) as clients:
            for future in [clients.submit(one) for one in asked * 5]:
                future.result()
    lines, text = lines_of(said), said.read_text("utf-8")
    for line in lines:
        assert list(line) == FIELDS
        assert TIMESTAMP.fullmatch(line["timestamp"])
        assert line["level"] in LEVELS
        assert (line["service"], line["environment"]) == ("sofinance", "development")
        assert line["message"]
        assert line["metadata"].keys() >= ORIGIN
        if line["request_id"] is not None:
            assert line["metadata"]["ip_address"] == "127.0.0.1"
            assert re.fullmatch(r"[0-9a-f]{32}", line["metadata"]["trace_id"])
            assert re.fullmatch(r"[0-9a-f]{16}", line["metadata"]["span_id"])
    for private in PRIVATE:
        assert private not in text

    # Each request has a line when it begins and one when it is done, under the same span.
    counts = {
        message: Counter(
            line["metadata"]["span_id"] for line in lines if line["message"] == message
        )
        for message in ("request started", "request completed")
    }
    assert counts["request started"] == counts["request completed"]
    assert set(counts["request started"].values()) == {1}
    done = [line for line in lines if line["message"] == "request completed"]
    assert all(
        isinstance(line["metadata"]["status"], int) and line["metadata"]["duration_ms"] > 0
        for line in done
    )
    named = [line for line in lines if line["request_id"] == "till-7/42"]
    assert len(named) == 2 * 5
    assert {line["metadata"]["trace_id"] for line in named} == {TRACE_ID}
    assert {(line["user_id"], line["metadata"]["org_id"]) for line in done} == {
        (None, None), (org.admin.id, org.id),
    }  # fmt: skip
    # What was refused is found by its code, and who was not let in has a line of their own.
    codes = Counter(line["metadata"].get("error_code") for line in done)
    assert codes["unauthorized"] == 5
    assert codes["malformed_json"] == 5
    failures = [line for line in lines if line["message"] == "authentication failed"]
    assert {line["level"] for line in failures} == {"WARNING"}
    statuses = Counter(line["metadata"]["status"] for line in done)
    assert len(failures) == statuses[401] == 10
