"""What PostgreSQL refuses becomes what a client reads; nothing of ours leaks with it."""

from __future__ import annotations

from typing import Any

import asyncpg
import orjson
import pytest

from sofinance.infra import errors, rate_limit
from sofinance.infra.buckets import Policy
from sofinance.infra.errors import ApiError, NotFoundError, from_postgres, translate, wants_problem
from sofinance.infra.logs import Trace
from sofinance.infra.pool import PoolFullError

WORDS = {"toy_name_taken": "Taken.", "stock_not_negative": "Not enough."}


def refusal(state: str, constraint: str | None = None, detail: str | None = None) -> Any:
    """Make an error as asyncpg makes it from PostgreSQL's message."""
    fields = {"S": "ERROR", "V": "ERROR", "C": state, "M": "new row violates it"}
    if constraint is not None:
        fields["n"] = constraint
    if detail is not None:
        fields["D"] = detail
    return asyncpg.PostgresError.new(fields)


@pytest.mark.parametrize(
    ("state", "constraint", "status", "code"),
    [
        ("23505", "toy_name_taken", 409, "toy_name_taken"),
        ("23503", "toy_name_taken", 409, "toy_name_taken"),
        ("23P01", "toy_name_taken", 409, "toy_name_taken"),
        ("23514", "toy_name_taken", 422, "toy_name_taken"),
        ("23514", "stock_not_negative", 409, "stock_not_negative"),
        ("P0002", "toy_name_taken", 404, "toy_name_taken"),
        ("P0002", None, 404, "not_found"),
        ("SF403", "toy_name_taken", 403, "toy_name_taken"),
        ("40001", None, 503, "try_again"),
        ("40P01", None, 503, "try_again"),
        ("55P03", None, 503, "try_again"),
        ("57014", None, 503, "try_again"),
        ("53300", None, 503, "unavailable"),
        ("08006", None, 503, "unavailable"),
        ("57P01", None, 503, "unavailable"),
        ("22003", None, 422, "invalid_request"),
        ("22P02", None, 422, "invalid_request"),
        ("22008", None, 422, "invalid_request"),
        ("22021", None, 422, "invalid_request"),
    ],
)
def test_a_refusal_has_its_status_and_its_code(
    state: str, constraint: str | None, status: int, code: str
) -> None:
    known = from_postgres(refusal(state, constraint), WORDS)
    assert known is not None
    assert (known.status, known.code) == (status, code)
    if status == 503:
        assert known.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("state", "constraint"),
    [
        ("23505", "nobody_wrote_a_comment"),
        ("23514", None),
        ("23502", None),
        ("25006", None),
        ("42501", None),
        ("42703", None),
        ("22012", None),
        ("XX000", None),
    ],
)
def test_what_is_our_bug_is_not_translated(state: str, constraint: str | None) -> None:
    assert from_postgres(refusal(state, constraint), WORDS) is None


def test_only_json_of_our_triggers_leaves_the_house() -> None:
    def details(detail: str) -> Any:
        known = from_postgres(refusal("23514", "toy_name_taken", detail), WORDS)
        assert known is not None
        return known.details

    assert details('{"off": "0.01", "status": 1}') == {"off": "0.01", "status": 1}
    assert details("Failing row contains (1, secret).") == {}
    assert details("{not json") == {}
    assert details('["a list"]') == {}


def test_other_errors_are_known_or_ours() -> None:
    def seen(error: BaseException) -> tuple[int, str] | None:
        known = translate(error, WORDS)
        return None if known is None else (known.status, known.code)

    assert seen(ApiError("x", "X.", status=418)) == (418, "x")
    assert seen(NotFoundError("toys.get_toy")) == (404, "not_found")
    assert seen(TimeoutError()) == (503, "unavailable")
    assert seen(ConnectionRefusedError()) == (503, "unavailable")
    assert seen(asyncpg.InterfaceError("connection is closed")) == (503, "unavailable")
    out_of_range = asyncpg.DataError("invalid input for query argument $1: (value out of int64)")
    assert seen(out_of_range) == (422, "invalid_request")
    assert seen(asyncpg.DataError("expected a date instance, got 'str'")) is None
    assert seen(asyncpg.InternalClientError("a bug")) is None
    goodbye = asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is ...")
    assert seen(goodbye) == (503, "unavailable")
    assert seen(PoolFullError("Too many wait.")) == (503, "try_again")
    assert seen(KeyError("total")) is None


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/problem+json", True),
        ("Application/Problem+JSON", True),
        ("application/json, application/problem+json", True),
        ("application/json;q=0.5, application/problem+json;q=0.6", True),
        ("application/json, application/problem+json;q=0.5", False),
        ("application/problem+json;q=0", False),
        ("application/problem+json;q=much", False),
        ("text/html, application/problem+json;charset=utf-8;q=0.1", True),
    ],
)
def test_problem_details_are_for_who_prefers_them(accept: str, wanted: bool) -> None:  # noqa: FBT001
    assert wants_problem(accept) is wanted


def test_problem_details_say_the_same_as_the_envelope() -> None:
    error = ApiError("toy_name_taken", "Taken.", status=409, name="bear")
    assert orjson.loads(errors.problem(error, trace=Trace("r-1"), path="/toys")) == {
        "type": "urn:sofinance:error:toy_name_taken",
        "title": "Taken.",
        "status": 409,
        "detail": "Taken.",
        "instance": "/toys",
        "code": "toy_name_taken",
        "details": {"name": "bear"},
        "request_id": "r-1",
        "trace_id": None,
    }


def test_a_refused_request_has_the_registered_problem_type() -> None:
    policy = Policy.per_minute("user", 60, 2)
    error = rate_limit.refusal([(policy, 2_000_000)], policy_header='"user";q=2;w=2')
    problem = orjson.loads(errors.problem(error, trace=Trace("r-1"), path="/toys"))
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["user"]
    assert problem["status"] == 429
    assert problem["code"] == "rate_limited"
    assert error.headers == {
        "Retry-After": "1", "RateLimit": '"user";r=0;t=2', "RateLimit-Policy": '"user";q=2;w=2',
    }  # fmt: skip
