"""The envelope: the same six keys, whatever happened and whatever is switched on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from sofinance import __version__
from sofinance.config import Settings
from sofinance.infra.envelope import ENVELOPE_KEYS, Envelope, dumps
from sofinance.infra.errors import ApiError

SETTINGS = Settings.for_tests(database_url="postgresql://nobody@localhost/nothing")


def envelope(**changes: Any) -> Envelope:
    return Envelope.configured(replace(SETTINGS, **changes))


def success(made: Envelope, data: Any) -> Any:
    return orjson.loads(made.success(b'"OK"', orjson.dumps(data), "r-1", made.mirrored(data)))


def test_success_and_failure_have_the_same_keys() -> None:
    answer = success(envelope(), {"id": 1})
    assert answer.keys() == ENVELOPE_KEYS
    assert answer["timestamp"].endswith("Z")
    del answer["timestamp"]
    assert answer == {
        "success": True, "message": "OK", "data": {"id": 1}, "error": None, "meta": {},
    }  # fmt: skip
    error = ApiError("toy_name_taken", 'Taken: "x".', status=409, lines={0: "x"})
    answer = orjson.loads(envelope().failure(error, "r-1"))
    assert answer.keys() == ENVELOPE_KEYS
    assert (answer["success"], answer["data"], answer["message"]) == (False, None, 'Taken: "x".')
    assert answer["error"] == {
        "code": "toy_name_taken", "message": 'Taken: "x".', "details": {"lines": {"0": "x"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "meta"),
    [
        ({}, {}),
        (
            {"enable_response_enrichment": True},
            {"app_version": __version__, "correlation_id": "r-1"},
        ),
        (
            {"enable_response_enrichment": True, "include_app_version_meta": False},
            {"correlation_id": "r-1"},
        ),
        (
            {"enable_response_enrichment": True, "include_correlation_id": False},
            {"app_version": __version__},
        ),
    ],
)
def test_meta_is_enriched_when_asked_for(changes: dict[str, bool], meta: dict[str, str]) -> None:
    made = envelope(**changes)
    assert success(made, {})["meta"] == meta
    assert orjson.loads(made.failure(ApiError("x", "X.", status=400), "r-1"))["meta"] == meta


PAGE = {"items": [1], "pagination": {"total": 9, "page": 2, "limit": 1, "has_next": True}}


def test_keys_are_mirrored_for_old_clients_only() -> None:
    assert success(envelope(), PAGE).keys() == ENVELOPE_KEYS
    assert success(envelope(mirror_pagination_keys=True), PAGE).keys() == ENVELOPE_KEYS
    mirrors = envelope(enable_key_mirroring=True)
    answer = success(mirrors, {"id": 1, "name": "x", "message": "mine", "data": "mine"})
    assert answer.keys() == ENVELOPE_KEYS | {"id", "name"}
    assert (answer["id"], answer["message"]) == (1, "OK")
    assert success(mirrors, PAGE).keys() == ENVELOPE_KEYS
    assert success(mirrors, [1]).keys() == ENVELOPE_KEYS
    pages = success(envelope(enable_key_mirroring=True, mirror_pagination_keys=True), PAGE)
    assert pages.keys() == ENVELOPE_KEYS | {"items", "page", "size", "total"}
    assert (pages["items"], pages["page"], pages["size"], pages["total"]) == ([1], 2, 1, 9)


def test_rows_and_odd_values_become_json() -> None:
    class Record:
        def items(self) -> Any:
            return {"a": 1}.items()

    assert dumps({1: Record(), "b": b"x"}) == b'{"1":{"a":1},"b":"b\'x\'"}'
