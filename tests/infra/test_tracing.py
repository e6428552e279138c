"""Which traces are kept, and what is told of them."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sofinance.infra import metrics, outgoing, trace_context, trace_export, tracing
from sofinance.infra.logs import TRACE, Trace
from sofinance.infra.tracing import RECORDER, Kept, Recorder, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 10_000
PLAIN = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """The recorder, on for a test; one trace in ten is drawn."""
    RECORDER.is_on, RECORDER.sample_percent = True, 10
    before = TRACE.get()
    yield RECORDER
    TRACE.set(before)
    RECORDER.is_on, RECORDER.waiting_count = False, 0
    RECORDER.waiting.clear()


def total(counter: Any, *labels: str) -> float:
    child = counter.labels(*labels) if labels else counter
    return float(child._value.get())  # noqa: SLF001 - there is no other way


def traced(duration_s: float = 0.01, *, has_failed: bool = False, span_count: int = 1) -> Trace:
    """Let a request pass, with so many queries."""
    trace = Trace("r", trace_context.new())
    TRACE.set(trace)
    tracing.begin(trace)
    for _ in range(span_count):
        tracing.note_query("sales.post_sale", 0.001, 1)
    tracing.finish(
        trace, "POST /x", duration_s, kind=tracing.SERVER, has_failed=has_failed, attributes={}
    )
    return trace


def test_of_ten_thousand_one_in_ten_is_kept_and_each_that_failed_or_was_slow(
    recorder: Recorder,
) -> None:
    draw = random.Random(7)  # noqa: S311 - a lot, not a secret
    kept: dict[str, set[str]] = {"failed": set(), "slow": set(), "plain": set()}
    all_of: dict[str, set[str]] = {"failed": set(), "slow": set(), "plain": set()}
    for _ in range(COUNT):
        kind = draw.choices(["failed", "slow", "plain"], [1, 1, 98])[0]
        trace = traced(1.001 if kind == "slow" else 1.0, has_failed=kind == "failed")
        assert trace.context is not None
        all_of[kind].add(trace.context.trace_id)
        kept[kind] |= {one.context.trace_id for one in recorder.take(10)}
    assert kept["failed"] == all_of["failed"] != set()
    assert kept["slow"] == all_of["slow"] != set()
    share = len(kept["plain"]) / len(all_of["plain"])
    assert 0.08 < share < 0.12  # six standard deviations
    # Whoever else sees the same traces keeps the same.
    assert kept["plain"] == {one for one in all_of["plain"] if tracing.is_drawn(one, 10)}
    assert kept["plain"] <= {one for one in all_of["plain"] if tracing.is_drawn(one, 20)}


@pytest.mark.parametrize(
    ("percent", "tail", "is_drawn"),
    [
        (10, "f" * 14, True), (10, "e6666666666667", True), (10, "e6666666666666", False),
        (10, "0" * 14, False), (0, "f" * 14, False), (100, "0" * 14, True),
    ],
)  # fmt: skip
def test_the_lot_is_the_end_of_the_id(percent: int, tail: str, is_drawn: bool) -> None:  # noqa: FBT001
    assert tracing.is_drawn("1" * 18 + tail, percent) is is_drawn


def test_nothing_is_recorded_while_it_is_off() -> None:
    assert not RECORDER.is_on
    trace = traced(5.0, has_failed=True)
    assert trace.spans is None
    assert not RECORDER.waiting


def test_what_is_too_much_is_dropped_and_counted(recorder: Recorder) -> None:
    before = [total(metrics.SPANS_DROPPED, reason) for reason in ("long_trace", "too_many")]
    traced(has_failed=True, span_count=tracing.SPAN_COUNT_MAX + 5)
    assert len(recorder.waiting[0].spans) == tracing.SPAN_COUNT_MAX
    for _ in range(tracing.WAITING_COUNT_MAX // 2 + 10):
        traced(has_failed=True)
    assert recorder.waiting_count <= tracing.WAITING_COUNT_MAX
    assert total(metrics.SPANS_DROPPED, "long_trace") == before[0] + 5
    dropped = total(metrics.SPANS_DROPPED, "too_many") - before[1]
    room = tracing.WAITING_COUNT_MAX - (tracing.SPAN_COUNT_MAX + 1)
    assert dropped == 2 * (tracing.WAITING_COUNT_MAX // 2 + 10 - room // 2)


def test_what_comes_after_the_end_of_a_trace_is_nobody_s(recorder: Recorder) -> None:
    trace = traced(has_failed=True)
    tracing.note_query("jobs.late", 0.1, 1)
    assert trace.spans is None
    assert [span.name for span in recorder.waiting[0].spans] == ["sales.post_sale"]


def test_a_batch_is_what_a_collector_reads() -> None:
    context = trace_context.TraceContext(PLAIN, "b7ad6b7169203331", 3, "a=1", "00f067aa0ba902b7")
    told = {"http.response.status_code": 500, "error.type": "internal"}
    root = Span("POST /x", tracing.SERVER, 7.5, 0.5, has_failed=True, attributes=told,
                span_id="b7ad6b7169203331")  # fmt: skip
    child = Span("q", tracing.CLIENT, 7.75, 0.125, has_failed=False, attributes={"x": True},
                 span_id="1" * 16)  # fmt: skip
    body = trace_export.encode([Kept(context, root, [child])], {"service.name": "sofinance"})
    message = ExportTraceServiceRequest.FromString(body)
    (resource,) = message.resource_spans
    assert resource.resource.attributes[0].value.string_value == "sofinance"
    first, second = resource.scope_spans[0].spans
    assert (first.trace_id.hex(), first.span_id.hex()) == (PLAIN, "b7ad6b7169203331")
    assert (first.parent_span_id.hex(), first.trace_state) == ("00f067aa0ba902b7", "a=1")
    assert first.end_time_unix_nano - first.start_time_unix_nano == 500_000_000
    assert second.start_time_unix_nano - first.start_time_unix_nano == 250_000_000
    ago_s = time.perf_counter() - 7.5
    assert abs(first.start_time_unix_nano / 1e9 + ago_s - time.time()) < 60
    assert (first.status.code, second.status.code) == (2, 0)
    found = {one.key: one.value for one in first.attributes}
    assert found["http.response.status_code"].int_value == 500
    assert found["error.type"].string_value == "internal"
    assert (second.trace_id, second.parent_span_id) == (first.trace_id, first.span_id)
    assert second.span_id.hex() == "1" * 16
    assert second.attributes[0].value.bool_value is True


async def test_a_trace_that_cannot_be_written_is_lost_alone(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = trace_export.Exporter("http://127.0.0.1:9", {}, environment="staging")
    trace = Trace("r", trace_context.new())
    tracing.begin(trace)
    tracing.finish(
        trace, "POST /x", 0.01, kind=tracing.SERVER, has_failed=True, attributes={"a": "\udcff"}
    )
    before = total(metrics.SPANS_DROPPED, "not_sent")
    async with ClientSession() as session:
        await exporter.send_all(session)
    assert total(metrics.SPANS_DROPPED, "not_sent") == before + 1
    assert [record.message for record in caplog.records] == ["traces were dropped"]
    assert recorder.waiting_count == 0


def test_what_is_asked_of_somebody_else_is_a_span(recorder: Recorder) -> None:
    trace = Trace("r", trace_context.new())
    TRACE.set(trace)
    tracing.begin(trace)
    with tracing.timed("s3 put_object"):
        pass
    with pytest.raises(OSError, match="away"), tracing.timed("s3 get_object"):
        raise OSError("away")
    assert [(span.name, span.has_failed) for span in trace.spans or []] == [
        ("s3 put_object", False), ("s3 get_object", True),
    ]  # fmt: skip
    recorder.is_on = False
    with tracing.timed("s3 put_object"):
        pass
    assert len(trace.spans or []) == 2


async def test_a_request_of_ours_carries_the_trace_on(recorder: Recorder) -> None:
    heard: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(request.headers.copy())
        return web.Response(status=204 if request.path == "/good" else 500)

    app = web.Application()
    app.router.add_get("/{any}", answer)
    context = trace_context.TraceContext(PLAIN, "b7ad6b7169203331", 3, "a=1")
    trace = Trace("till-7/42", context)
    TRACE.set(trace)
    tracing.begin(trace)
    async with (
        TestServer(app) as server,
        ClientSession(trace_configs=[outgoing.traced()]) as session,
    ):
        gone = server.make_url("/gone")
        for path in ("/good", "/bad"):
            async with session.get(server.make_url(path)):
                pass
        await server.close()
        with pytest.raises(OSError, match="onnect"):
            await session.get(gone)
    spans = trace.spans or []
    assert [(span.name, span.has_failed) for span in spans] == [
        ("GET 127.0.0.1", False), ("GET 127.0.0.1", True), ("GET 127.0.0.1", True),
    ]  # fmt: skip
    for headers, span in zip(heard, spans, strict=False):
        assert headers["traceparent"] == f"00-{PLAIN}-{span.span_id}-03"
        assert headers["tracestate"] == "a=1"
        assert (headers["X-Trace-ID"], headers["X-Span-ID"]) == (PLAIN, span.span_id)
        assert headers["X-Request-ID"] == "till-7/42"
    assert len({span.span_id for span in spans}) == 3


async def test_a_collector_that_does_not_take_them_costs_the_spans_alone(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [503, 200, 400]

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=answers.pop(0))

    app = web.Application()
    app.router.add_post("/v1/traces", answer)
    monkeypatch.setattr(trace_export, "BACKOFF_S", 0.0)
    before = total(metrics.SPANS_SENT), total(metrics.SPANS_DROPPED, "not_sent")
    async with TestServer(app) as server, ClientSession() as session:
        exporter = trace_export.Exporter(
            str(server.make_url("")).rstrip("/"), {}, environment="staging"
        )
        traced(has_failed=True)
        await exporter.send_all(session)  # the second attempt is taken
        traced(has_failed=True, span_count=4)
        await exporter.send_all(session)  # refused for good
        await server.close()
        traced(has_failed=True)
        await exporter.send_all(session)  # nobody there
    assert total(metrics.SPANS_SENT) == before[0] + 2
    assert total(metrics.SPANS_DROPPED, "not_sent") == before[1] + 5 + 2
    assert answers == []
    assert recorder.waiting_count == 0
    await asyncio.sleep(0)
