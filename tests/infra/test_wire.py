"""What arrives on the wire, byte by byte: each oddity is refused by its code, in the envelope."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from yarl import URL

from sofinance.infra.envelope import ENVELOPE_KEYS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Api, Org

    MakeApi = Callable[..., Awaitable[Api]]

BODY_MAX = 2_048
BODY = b'{"name":"Fruit"}'
PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n"


async def exchange(api: Api, *parts: bytes) -> tuple[bytes, int, dict[str, str], Any]:
    """Send the parts, one after the other; return what came first, status, headers and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(api.base_url).port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        async with asyncio.timeout(30):
            first = await reader.readline()
            interim = b""
            if b" 100 " in first:
                interim = first + await reader.readline()
                first = await reader.readline()
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head if line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
    finally:
        writer.close()
    return interim, int(first.split()[1]), headers, orjson.loads(body) if body else None


def post(org: Org, *, content_type: str = "application/json", path: str = "categories") -> bytes:
    """Return the head of a POST, as far as what is said of the body."""
    return (
        f"POST /api/v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {org.admin.token}\r\n"
        f"Content-Type: {content_type}\r\n"
    ).encode()


def sized(body: bytes) -> bytes:
    """Return the rest of the head, and the body."""
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(*chunks: bytes) -> list[bytes]:
    """Return the rest of the head and the chunks."""
    sent = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return [b"Transfer-Encoding: chunked\r\n\r\n", *sent, b"0\r\n\r\n"]


@pytest.fixture
async def small(api_with: MakeApi) -> Api:
    """An application with little patience."""
    return await api_with(max_body_bytes=BODY_MAX, request_body_timeout_s=1)


def refused(answer: tuple[bytes, int, dict[str, str], Any]) -> tuple[int, str]:
    """Return status and code; every refusal has the envelope and the security headers."""
    _, status, headers, body = answer
    assert body.keys() == ENVELOPE_KEYS
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    return status, body["error"]["code"]


# --- bodies ---------------------------------------------------------------------------------------


async def test_a_body_comes_sized_or_in_chunks(small: Api, org: Org) -> None:
    assert (await exchange(small, post(org), sized(BODY)))[1] == 201
    _, status, _, body = await exchange(small, post(org), *chunked(b'{"name":', b'"Meat"}'))
    assert (status, body["data"]["name"]) == (201, "Meat")


@pytest.mark.parametrize(
    "parts",
    [
        [sized(b"x" * (BODY_MAX + 1))],
        [b"Content-Length: 5000000000\r\n\r\n"],
        chunked(*[b"x" * 1_024] * 4),
    ],
)
async def test_a_body_has_a_limit(small: Api, org: Org, parts: list[bytes]) -> None:
    answer = await exchange(small, post(org), *parts)
    assert refused(answer) == (413, "payload_too_large")


async def test_a_large_body_is_refused_before_it_comes(api_with: MakeApi, org: Org) -> None:
    patient = await api_with(max_body_bytes=BODY_MAX, request_body_timeout_s=60)
    # Within the time that `exchange` waits, and so not after the time for a body.
    answer = await exchange(patient, post(org) + b"Content-Length: 99999999\r\n\r\n")
    assert refused(answer) == (413, "payload_too_large")


@pytest.mark.parametrize(
    "parts", [[b"Content-Length: 16\r\n\r\n" + BODY[:5]], chunked(BODY[:5])[:-1]]
)
async def test_a_body_has_its_time(small: Api, org: Org, parts: list[bytes]) -> None:
    answer = await exchange(small, post(org), *parts)
    assert refused(answer) == (408, "request_timeout")
    assert answer[2]["connection"] == "close"


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"zstd", b"gzip, identity", b"x"])
async def test_a_compressed_body_is_not_inflated(small: Api, org: Org, encoding: bytes) -> None:
    bomb = gzip.compress(b"0" * 1_000_000)
    head = post(org) + b"Content-Encoding: " + encoding + b"\r\n"
    answer = await exchange(small, head, sized(bomb))
    assert refused(answer) == (415, "unsupported_content_encoding")
    assert answer[2]["accept-encoding"] == "identity"
    as_it_is = post(org) + b"Content-Encoding: identity\r\n"
    assert (await exchange(small, as_it_is, sized(BODY)))[1] == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain", "text/json", "application/x-www-form-urlencoded", "json", "", "*/*",
        "application/json; charset=latin-1", "application/json;charset=UTF-16",
        "application/json; charset*=utf-8''latin-1", "application/json, text/plain",
    ],
)  # fmt: skip
async def test_a_body_is_json_in_utf_8(small: Api, org: Org, content_type: str) -> None:
    answer = await exchange(small, post(org, content_type=content_type), sized(BODY))
    assert refused(answer) == (415, "unsupported_media_type")
    assert answer[2]["accept"] == "application/json"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"',
        "application/vnd.till+json", "application/json; profile=x",
    ],
)  # fmt: skip
async def test_json_has_many_names(small: Api, org: Org, content_type: str) -> None:
    assert (await exchange(small, post(org, content_type=content_type), sized(BODY)))[1] == 201


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"name":"a","name":"b"}', "given twice"),
        (b'{"name":"a","n\\u0061me":"b"}', "given twice"),
        (b"{" + b"".join(b'"%06d":1,' % n for n in range(60)) + b'"000059":1}', "given twice"),
        (b'{"name":NaN}', "unexpected character"),
        (b'{"name":-Infinity}', "no digit after sign"),
        (b'{"name":1e999}', "infinity"),
        (b'{"name":' + b"9" * 400 + b"}", "infinity"),
        (b'{"name":' + b"[" * 32 + b"]" * 32 + b"}", "deeper than 32 levels"),
        (b"[" * 2_000, "deeper than 32 levels"),
        (b"\xef\xbb\xbf" + BODY, "byte order mark"),
        (BODY.decode().encode("utf-16"), "UTF-8"),
        (b'{"name":"\xff"}', "UTF-8"),
        (b'{"name":"\\ud800"}', "surrogate"),
        (b"{'name':'a'}", "key"),
        (BODY + b" {}", "after document"),
        (b'{"name":"a",}', "trailing comma"),
        (b'{"name":01}', "leading zero"),
    ],
)
async def test_json_is_strict(small: Api, org: Org, body: bytes, why: str) -> None:
    answer = await exchange(small, post(org), sized(body))
    assert refused(answer) == (400, "malformed_json")
    assert why in answer[3]["error"]["details"]["why"]


@pytest.mark.parametrize(
    "body", [b'{"name":' + b"9" * 30 + b"}", b'{"name":1.0}', b"[]", b'"x"', b"null", b"0"]
)
async def test_json_that_is_something_else_is_named_by_its_fields(
    small: Api, org: Org, body: bytes
) -> None:
    assert refused(await exchange(small, post(org), sized(body))) == (422, "invalid_request")


async def test_depth_counts_brackets_and_not_what_stands_in_strings(small: Api, org: Org) -> None:
    body = b'{"name":"' + b"[{" * 40 + b'\\"[[[","is_active":true}'
    assert (await exchange(small, post(org), sized(body)))[1] == 201


# --- heads ----------------------------------------------------------------------------------------


async def test_who_waits_to_be_told_is_told_to_go_on(small: Api, org: Org) -> None:
    head = post(org) + b"Expect: 100-Continue\r\nContent-Length: 16\r\n\r\n"
    interim, status, _, _ = await exchange(small, head, BODY)
    assert (interim, status) == (b"HTTP/1.1 100 Continue\r\n\r\n", 201)


@pytest.mark.parametrize("path", ["categories", "nowhere"])
async def test_other_expectations_are_not_met(small: Api, org: Org, path: str) -> None:
    head = post(org, path=path) + b"Expect: 200-maybe\r\n"
    assert refused(await exchange(small, head, sized(BODY))) == (417, "expectation_failed")


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        PING + b"X: " + b"y" * 9_000 + b"\r\n\r\n",
        PING + b"y" * 9_000 + b": 1\r\n\r\n",
        PING + b"X: y\r\n" * 101 + b"\r\n",
    ],
)
async def test_a_head_has_a_limit(small: Api, request_head: bytes) -> None:
    assert refused(await exchange(small, request_head)) == (431, "head_too_large")


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/9.9\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        PING + b"Host : x\r\n\r\n",
        PING + b"A: b\0c\r\n\r\n",
        PING + b"A: b\r\n c\r\n\r\n",
        PING + b"Content-Length: -1\r\n\r\n",
        PING + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        PING + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        PING + b"Transfer-Encoding: gzip\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused(small: Api, request_head: bytes) -> None:
    answer = await exchange(small, request_head)
    assert refused(answer) == (400, "malformed_request")
    assert answer[2].get("connection", "close") == "close"


async def test_a_head_that_does_not_come_is_not_waited_for(
    api_with: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sofinance.app.CONNECTION", {"keepalive_timeout": 0.2})
    api = await api_with()
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(api.base_url).port)
    writer.write(PING)  # and no empty line
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_a_header_that_is_no_utf_8_is_no_failure_of_ours(
    api_with: MakeApi, org: Org, capsys: pytest.CaptureFixture[str]
) -> None:
    api = await api_with(log_level="info")
    capsys.readouterr()
    refusals = {"Idempotency-Key": 400, "If-Match": 400}
    names = (
        "User-Agent", "X-Request-ID", "traceparent", "tracestate", "Accept", "Origin", "Cookie",
        "X-Forwarded-For", "X-Break-Glass-Token", *refusals,
    )  # fmt: skip
    for name in names:
        odd = name.encode() + b": till \xff\xfe\r\n"
        body = b'{"name":"%b"}' % name.encode()
        _, status, _, _ = await exchange(api, post(org) + odd + sized(body))
        assert (name, status) == (name, refusals.get(name, 201))
    lines = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["message"] for line in lines].count("request completed") == len(names)
    assert {line["metadata"]["user_agent"] for line in lines} == {"", "till ??"}
