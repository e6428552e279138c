"""Exemplars: the traces behind the durations, of all workers, as Prometheus stores them."""

from __future__ import annotations

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sofinance.infra import metrics
from sofinance.infra.exemplars import AGE_MAX_S, Exemplars, Seen, forget_old
from sofinance.infra.tracing import RECORDER
from tests.ops import live

if TYPE_CHECKING:
    from pathlib import Path

    from sofinance.config import Settings
    from tests.support import Api

# Prometheus and files that workers share; what is counted is counted on all.
pytestmark = pytest.mark.once

OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
SIGHT_S = 120
CLIENTS = 12
ROUTES = ("/api/v1/info", "/livez", "/api/v1/sales", "/x")
TOKEN = {"Authorization": f"Bearer {live.TOKEN}"}


def exemplars_in(text: str) -> dict[tuple[str, str], str]:
    """Return the trace of each bucket by route and bound; the parser refuses what is none."""
    return {
        (sample.labels["route"], sample.labels["le"]): sample.exemplar.labels["trace_id"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.exemplar is not None
    }


def scraped(port: int) -> dict[tuple[str, str], str]:
    """Ask a worker, whichever, as Prometheus does."""
    status, body = live.ask(port, "/metrics", Accept=OPEN, **TOKEN)
    assert status == 200
    return exemplars_in(body.decode())


def send(port: int, trace_id: str) -> None:
    """Ask for something under a trace of ours."""
    route = ROUTES[int(trace_id, 16) % len(ROUTES)]
    live.ask(port, route, **{"X-Trace-ID": trace_id})


def test_every_worker_tells_the_exemplars_of_all_and_prometheus_keeps_them(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    port = live.free_port()
    began_s = time.time()
    with (
        live.prometheus(port, tmp_path / "prometheus") as prometheus,
        live.gunicorn(port, folder, **live.environment(settings.database_url)),
    ):
        sent: list[str] = []

        def told() -> dict[tuple[str, str], str]:
            return {place: trace for place, trace in scraped(port).items() if trace in sent}

        def is_told_by_all() -> bool:
            """Whichever worker is asked, it is the same."""
            one = told()
            return all(told() == one for _ in range(10))

        def is_of_several() -> bool:
            # Who asks alone may find the same worker each time, and the last may all be of one.
            names = [f"{number:032x}" for number in range(len(sent) + 1, len(sent) + 121)]
            sent.extend(names)
            with ThreadPoolExecutor(CLIENTS) as clients:
                list(clients.map(lambda name: send(port, name), names))
            live.until("the same of all", is_told_by_all, SIGHT_S)
            now = told()
            of_each = [
                {row[3] for row in json.loads(path.read_bytes())}
                for path in folder.glob("exemplars_*.json")
            ]
            assert len(of_each) <= live.WORKERS
            return {route for route, _ in now} >= {*ROUTES[:3], "unmatched"} and sum(
                bool(one & {*now.values()}) for one in of_each
            ) >= 2

        live.until("exemplars of several workers", is_of_several, SIGHT_S)

        def stored() -> set[str]:
            asked = {"query": "http_request_duration_seconds_bucket", "start": began_s,
                     "end": time.time() + 1}  # fmt: skip
            _, body = live.ask(prometheus.port, f"/api/v1/query_exemplars?{urlencode(asked)}")
            series = json.loads(body)["data"]
            return {one["labels"]["trace_id"] for found in series for one in found["exemplars"]}

        live.until("Prometheus", lambda: stored() >= {*told().values()}, SIGHT_S)


async def test_only_what_can_be_looked_at_is_an_example(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def known(trace_id: str) -> bool:
        await api.get("/info", headers={"X-Trace-ID": trace_id})
        answer = await api.call("GET", "/metrics", headers={"Accept": OPEN}, prefix="")
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        return trace_id in exemplars_in(answer.text).values()

    monkeypatch.setattr(metrics, "EXEMPLARS", Exemplars(metrics.BUCKETS_S))
    assert await known("a" * 32)  # nothing is recorded: it is in the log
    monkeypatch.setattr(RECORDER, "is_on", True)
    monkeypatch.setattr(RECORDER, "sample_percent", 0)
    assert not await known("b" * 32)
    monkeypatch.setattr(RECORDER, "sample_percent", 100)
    assert await known("c" * 32)
    RECORDER.take(10_000)
    plain = await api.call("GET", "/metrics", prefix="")
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert not re.search(r"# \{", plain.text)


def test_of_two_the_later_is_told_and_none_that_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    now_s = time.time()
    rows = [
        ("GET", "/a", 0, "b" * 32, 0.001, now_s + 60),
        ("GET", "/b", 0, "b" * 32, 0.001, now_s - AGE_MAX_S - 1),
    ]
    (tmp_path / "exemplars_1.json").write_text(json.dumps(rows))
    ours = Exemplars([0.005, 0.1])
    ours.note("GET", "/a", 0.001, "a" * 32)
    ours.note("GET", "/c", 7.0, "c" * 32)
    ours.write()
    found = ours._of_all()  # noqa: SLF001 - the merge alone
    assert found == {
        ("GET", "/a", 0): Seen("b" * 32, 0.001, now_s + 60),
        ("GET", "/c", 2): found["GET", "/c", 2],
    }
    assert len(list(tmp_path.glob("exemplars_*.json"))) == 2


def test_files_of_workers_that_are_gone_go_when_nobody_tells_them_any_more(tmp_path: Path) -> None:
    for name, age_s in (("exemplars_1.json", AGE_MAX_S + 1), ("exemplars_2.json", 1)):
        (tmp_path / name).write_text("[]")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    forget_old(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["exemplars_2.json"]
