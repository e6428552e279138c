"""The real thing, each in processes of its own: gunicorn, a worker, Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import yaml

from tests.ops import promql
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WORKERS = 3
TOKEN = "the-metrics-are-read-with-this"  # noqa: S105 - of made-up workers
# Waits end when what is waited for is there: these are of a machine that does much else.
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 120
ANSWER_TIMEOUT_S = 60
SIGHT_S = 120  # till a scrape has seen what is so
# Prometheus looks and thinks every so often, and alerts wait no longer than a thought. A look may
# take as long as till the next, and a window holds several, should one of them come to nothing.
SCRAPE_S, RULE_S, WINDOW_S = 2, 1, 8


def until(what: str, holds: Callable[[], Any], timeout_s: float) -> None:
    """Wait till something holds."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.1)


def ask(
    port: int,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    *,
    source: str = "127.0.0.1",
    **headers: str,
) -> tuple[int, bytes]:
    """Ask over a connection of its own, from an address; returns the status and the body."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=ANSWER_TIMEOUT_S, source_address=(source, 0)
    )
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def answers(port: int, path: str) -> bool:
    """Say whether it is answered with 200."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(port, path)[0] == 200
    return False


@contextlib.contextmanager
def process(
    *command: str, stdout: int | None = None, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for as long as a block runs; its output is the test's, or a file's."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    running = subprocess.Popen(
        command, cwd=promql.ROOT, env={**kept, **variables}, stdin=subprocess.DEVNULL,
        stdout=stdout,
    )  # fmt: skip
    try:
        yield running
    finally:
        end(running)


def end(running: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    """End a process, if it has not ended."""
    if running.poll() is None:
        running.send_signal(how)
        running.send_signal(signal.SIGCONT)
        running.wait(STOP_TIMEOUT_S)


def environment(database_url: str) -> dict[str, str]:
    """Return the settings of everything of ours here."""
    return {
        "DATABASE_URL": database_url,
        "DATABASE_PREPARED_STATEMENTS": str("TEST_PGBOUNCER" not in os.environ),
        "JWT_SECRET": "x" * 40, "METRICS_TOKEN": TOKEN,
        "RATE_LIMIT_PER_MINUTE": "100000", "RATE_LIMIT_BURST": "100000",
        "LOG_LEVEL": "critical", "JOB_HEARTBEAT_TTL_SECONDS": "10",
    }  # fmt: skip


@contextlib.contextmanager
def gunicorn(
    port: int, folder: Path, *, stdout: int | None = None, **settings: str
) -> Iterator[None]:
    """Serve with several workers, whose metrics' files are in `folder`."""
    with process(
        sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--log-level", "critical",
        stdout=stdout, **settings, HOST="127.0.0.1", PORT=str(port),
        WEB_CONCURRENCY=str(WORKERS), PROMETHEUS_MULTIPROC_DIR=str(folder),
    ) as arbiter:  # fmt: skip
        until("gunicorn", lambda: answers(port, "/readyz"), START_TIMEOUT_S)
        until("all workers", lambda: len(pids(folder)) == WORKERS, START_TIMEOUT_S)
        assert arbiter.poll() is None
        yield


def pids(folder: Path, having: bytes = b"") -> set[str]:
    """Return the workers that count requests, or those that counted this."""
    files = folder.glob("counter_*.db")
    return {path.stem.partition("_")[2] for path in files if having in path.read_bytes()}


def sofinance(*words: str, said: str = "", **settings: str) -> None:
    """Run a command of ours to its end."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    subprocess.run(
        [sys.executable, "-m", "sofinance", *words], cwd=promql.ROOT, env={**kept, **settings},
        input=said, text=True, check=True, stdout=subprocess.DEVNULL, timeout=START_TIMEOUT_S,
    )  # fmt: skip


def worker(settings: dict[str, str]) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Run jobs."""
    return process(sys.executable, "-m", "sofinance", "worker", **settings)


class Prometheus:
    """A Prometheus with the configuration and the rules of ops/prometheus, in a hurry."""

    def __init__(self, port: int) -> None:
        self.port = port

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression finds now."""
        status, body = ask(self.port, f"/api/v1/query?{urlencode({'query': expression})}")
        answer = json.loads(body)
        assert (status, answer["status"]) == (200, "success"), (expression, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the one number that an expression finds, if any."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def sees(self) -> bool:
        """Say whether the last scrape brought something."""
        return self.value('up{job="sofinance"}') == 1

    def shows(self, expression: str, value: float) -> None:
        """Wait till an expression finds a number."""
        until(f"{expression} is {value}", lambda: self.value(expression) == value, SIGHT_S)

    def has_fired(self, alert: str, since_s: float) -> bool:
        """Say whether an alert has fired since a time of the clock, also if it rests again."""
        passed_s = max(1, int(time.time() - since_s))
        series = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
        return bool(self.query(f"count_over_time({series}[{passed_s}s])"))

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = json.loads(ask(self.port, "/api/v1/alerts")[1])["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@contextlib.contextmanager
def prometheus(service_port: int, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus on what we ship, except for where it looks and how long it waits."""
    folder.mkdir()
    token = folder / "token"
    token.write_text(TOKEN)
    config = yaml.safe_load((promql.PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "scrape_timeout": f"{SCRAPE_S}s",
                        "evaluation_interval": f"{RULE_S}s"}  # fmt: skip
    config["rule_files"] = [str(folder / "rules.yml")]
    del config["alerting"]
    job = next(one for one in config["scrape_configs"] if one["job_name"] == "sofinance")
    config["scrape_configs"] = [job]
    job["authorization"] = {"credentials_file": str(token)}
    job["static_configs"] = [{"targets": [f"127.0.0.1:{service_port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": hurried()}))
    port = free_port()
    with process(
        promql.program("prometheus"), "--config.file", str(folder / "prometheus.yml"),
        "--storage.tsdb.path", str(folder / "data"), "--log.level", "error",
        "--enable-feature", "exemplar-storage",
        "--web.listen-address", f"127.0.0.1:{port}",
    ):  # fmt: skip
        until("Prometheus", lambda: answers(port, "/-/ready"), START_TIMEOUT_S)
        yield Prometheus(port)


def hurried() -> list[dict[str, Any]]:
    """Return all groups of rules with short waits and windows; thresholds stay."""
    groups = []
    for path in promql.rule_files():
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                rule["expr"] = re.sub(r"\[\d+m\]", f"[{WINDOW_S}s]", rule["expr"])
                if "for" in rule:
                    rule["for"] = f"{RULE_S}s"
            groups.append(group)
    return groups
