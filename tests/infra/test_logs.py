"""Log lines: exactly the promised fields, and no credential in any of them."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from sofinance.infra import logs, metrics, trace_context
from sofinance.infra.logs import JOURNAL, TRACE, Trace, redact, safe_path

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = [
    "timestamp", "level", "service", "environment", "request_id", "user_id", "message", "metadata",
]  # fmt: skip
NOWHERE = {"ip_address": None, "user_agent": None, "trace_id": None, "span_id": None}


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the journal writes during a test."""
    before = JOURNAL.level, JOURNAL.environment, JOURNAL.stream
    level, handlers = logging.getLogger().level, logging.getLogger().handlers[:]
    stream = io.StringIO()
    logs.configure(level="debug", environment="staging", stream=stream)
    token = TRACE.set(None)
    yield stream
    TRACE.reset(token)
    JOURNAL.level, JOURNAL.environment, JOURNAL.stream = before
    logging.getLogger().setLevel(level)
    logging.getLogger().handlers[:] = handlers


def lines(stream: io.StringIO) -> list[Any]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_promised_fields_and_no_others(stream: io.StringIO) -> None:
    context = trace_context.new()
    trace = Trace("r-1", context, ip="192.0.2.7", user_agent="till/2")
    trace.user_id = 7
    TRACE.set(trace)
    JOURNAL.write(logging.INFO, "request completed", {"status": 201})
    TRACE.set(None)
    logging.getLogger("sofinance.test").warning("odd: %s", "x", extra={"metadata": {"a": 1}})
    first, second = lines(stream)
    assert list(first) == list(second) == FIELDS
    assert first["timestamp"].endswith("Z")
    assert len(first["timestamp"]) == len("2026-01-15T10:30:00.000Z")
    del first["timestamp"], second["timestamp"]
    assert first == {
        "level": "INFO", "service": "sofinance", "environment": "staging", "request_id": "r-1",
        "user_id": 7, "message": "request completed",
        "metadata": {
            "status": 201, "ip_address": "192.0.2.7", "user_agent": "till/2",
            "trace_id": context.trace_id, "span_id": context.span_id,
        },
    }  # fmt: skip
    assert second == {
        "level": "WARNING", "service": "sofinance", "environment": "staging", "request_id": None,
        "user_id": None, "message": "odd: x",
        "metadata": {"logger": "sofinance.test", "a": 1, **NOWHERE},
    }  # fmt: skip


def test_levels_have_their_common_names_and_a_least_one(stream: io.StringIO) -> None:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        JOURNAL.write(level, "x", {})
    named = [line["level"] for line in lines(stream)]
    assert named == ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    logs.configure(level="Error", environment="staging", stream=stream)
    logging.getLogger("sofinance.test").warning("unheard")
    JOURNAL.write(logging.WARNING, "unheard", {})
    assert len(lines(stream)) == 5


def test_an_exception_is_one_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("password=hunter2")  # noqa: TRY301 - this is what is logged
    except ValueError:
        logging.getLogger("sofinance.test").exception("it broke")
    (line,) = lines(stream)
    assert "ValueError" in line["metadata"]["exception"]
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql://app:s3cret@db:5432/x", "postgresql://app:[redacted]@db:5432/x"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("basic YTpi", "basic [redacted]"),
        ("eyJhbGciOi.eyJzdWIiOi.c2lnbg", "[redacted]"),
        ('{"password": "x y"}', '{"password": "[redacted] y"}'),
        ("token=abc&x=1", "token=[redacted]&x=1"),
        ("the key sfk_1_22_aB-_9 of", "the key [redacted] of"),
        ("DETAIL:  Failing row contains (1, Ada, 7).", "DETAIL:  Failing row contains [redacted]."),
        ("Key (name)=(Ada) is there", "Key (name)=[redacted] is there"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_credentials_are_blanked_out(text: str, left: str) -> None:
    assert redact(text) == left


def test_a_reader_that_went_away_stops_no_sale(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    def lost() -> float:
        return float(metrics.LOG_LINES_LOST._value.get())  # noqa: SLF001 - there is no other way

    before = lost()
    monkeypatch.setattr(JOURNAL, "stream", Broken())
    JOURNAL.write(logging.CRITICAL, "x", {})
    assert lost() == before + 1


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("mail to ada.l+x@shop.example failed", "mail to [personal] failed"),
        ("call +49 (89) 123-4567 now", "call [personal] now"),
        ("phone: 0700 123456, ok", "phone: [personal], ok"),
        ("{'phone': '0700123456'}", "{'phone': '[personal]'}"),
        ("1 + 2 = 3 at +5", "1 + 2 = 3 at +5"),
        ("2026-01-15T10:30:00.000+01:00", "2026-01-15T10:30:00.000+01:00"),
        ("sale 1234567890 of @home", "sale 1234567890 of @home"),
    ],
)
def test_nobody_s_address_or_number_is_logged(text: str, left: str) -> None:
    assert redact(text) == left


def test_what_is_logged_beside_a_message_is_masked_too(stream: io.StringIO) -> None:
    person = {"email": "a@b.example", "note": "ask c@d.example", "tries": [{"token": "x"}, 3]}
    logging.getLogger("sofinance.test").warning("odd", extra={"metadata": person})
    (line,) = lines(stream)
    assert line["metadata"] == {
        "logger": "sofinance.test", "email": "[personal]", "note": "ask [personal]",
        "tries": [{"token": "[secret]"}, 3], **NOWHERE,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/api/v1/sales/7", "/api/v1/sales/7"),
        ("/api/v1/customers/ada%40shop.example", "/api/v1/customers/[personal]"),
        ("/api/v1/customers/ada@shop.example/sales", "/api/v1/customers/[personal]/sales"),
        ("/x/%2B49 89 1234567", "/x/[personal]"),
        ("/x/eyJhbGciOi.eyJzdWIiOi.c2lnbg", "/x/[redacted]"),
        ("/x/sfr_1_22_aB-_9", "/x/[redacted]"),
        ("/x/a%20b", "/x/a%20b"),
    ],
)
def test_a_path_is_logged_without_people_and_keys(path: str, left: str) -> None:
    assert safe_path(path) == left
