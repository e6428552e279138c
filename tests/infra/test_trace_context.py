"""One trace id, from the client through the log to its answer."""

from __future__ import annotations

import io
import logging
import re
from typing import TYPE_CHECKING

import orjson
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from sofinance.infra import trace_context
from sofinance.infra.logs import JOURNAL

if TYPE_CHECKING:
    from tests.support import Api

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{ID}-{PARENT}-01"


def read(*headers: tuple[str, str]) -> trace_context.TraceContext:
    return trace_context.read(CIMultiDictProxy(CIMultiDict(headers)))


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (GOOD, 1),
        (f"00-{ID}-{PARENT}-00", 0),
        (f"00-{ID}-{PARENT}-03", 3),  # sampled, and the id is random: level 2
        (f"00-{ID}-{PARENT}-ff", 3),  # of flags that are not defined yet, nothing is said
        (f"01-{ID}-{PARENT}-01", 1),  # a later version begins with what we know
        (f"cc-{ID}-{PARENT}-01-what-the-future-brings", 1),
    ],
)
def test_a_request_belongs_to_its_trace(given: str, flags: int) -> None:
    context = read(("traceparent", given))
    assert (context.trace_id, context.flags) == (ID, flags)
    assert context.span_id != PARENT
    assert context.traceparent == f"00-{ID}-{context.span_id}-{flags:02x}"


@pytest.mark.parametrize(
    "given",
    [
        "", "x", GOOD.upper(), f"ff-{ID}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01",
        f"00-{ID}-{'0' * 16}-01", f"{GOOD}-more", f"cc-{ID}-{PARENT}-01.more", GOOD[:-1],
        f"00-{ID[:-1]}-{PARENT}-01", f" {GOOD}", f"{GOOD},{GOOD}",
    ],
)  # fmt: skip
def test_what_names_no_trace_begins_a_new_one(given: str) -> None:
    first, second = read(("traceparent", given), ("tracestate", "a=1")), read()
    for context in (first, second):
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-02", context.traceparent)
        assert context.state is None
    assert len({first.trace_id, second.trace_id, ID}) == 3


def test_two_traces_are_none() -> None:
    assert read(("traceparent", GOOD), ("traceparent", GOOD)).trace_id != ID


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (["rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE"],
         "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (["a=1 , b@c=2,,"], "a=1,b@c=2"),
        (["a=1,a=2"], None),
        (["A=1"], None),
        (["a"], None),
        (["a=é"], None),
        ([",".join(f"k{number}=1" for number in range(33))], None),
        ([f"a={'x' * 256},b={'x' * 256}"], None),
        ([""], None),
    ],
)  # fmt: skip
def test_the_vendors_list_is_kept_if_it_is_good(given: list[str], state: str | None) -> None:
    headers = [("tracestate", one) for one in given]
    assert read(("traceparent", GOOD), *headers).state == state


async def test_answer_log_and_problem_say_the_same(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(JOURNAL, "stream", stream)
    monkeypatch.setattr(JOURNAL, "level", logging.INFO)
    headers = {"traceparent": GOOD, "Accept": "application/problem+json"}
    answer = await api.get("/nowhere", headers=headers)
    assert answer.headers["traceparent"].startswith(f"00-{ID}-")
    assert answer.headers["X-Trace-ID"] == ID
    assert answer.headers["traceparent"].split("-")[2] == answer.headers["X-Span-ID"]
    assert answer.body["trace_id"] == ID
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["metadata"]["trace_id"] for line in lines] == [ID, ID]
    assert {line["metadata"]["span_id"] for line in lines} == {answer.headers["X-Span-ID"]}
    # A request that names itself in no way has one name for both.
    made = (await api.get("/info")).headers
    assert made["traceparent"].split("-")[1] == made["X-Request-ID"]


@pytest.mark.parametrize(
    ("headers", "trace_id", "parent_id"),
    [
        ((("X-Trace-ID", ID), ("X-Span-ID", PARENT)), ID, PARENT),
        ((("X-Trace-ID", ID.upper()),), ID, None),
        ((("X-Trace-ID", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"),), ID, None),
        ((("X-Trace-ID", ID), ("X-Span-ID", "x")), ID, None),
        ((("X-Trace-ID", "0" * 32), ("X-Span-ID", PARENT)), None, None),
        ((("X-Trace-ID", "till-7"),), None, None),
        ((("X-Span-ID", PARENT),), None, None),
        ((("traceparent", GOOD), ("X-Trace-ID", "f" * 32), ("X-Span-ID", "f" * 16)), ID, PARENT),
    ],
)
def test_our_own_headers_say_the_same(
    headers: tuple[tuple[str, str], ...], trace_id: str | None, parent_id: str | None
) -> None:
    context = read(*headers)
    assert (context.trace_id == ID) is (trace_id == ID)
    assert context.parent_id == parent_id
    assert context.span_id != PARENT
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", context.traceparent)


async def test_the_trace_of_our_own_headers_comes_back(api: Api) -> None:
    answer = await api.get("/info", headers={"X-Trace-ID": ID, "X-Span-ID": PARENT})
    assert (answer.headers["X-Trace-ID"], answer.headers["traceparent"][3:35]) == (ID, ID)
    assert answer.headers["X-Span-ID"] not in {PARENT, ""}
