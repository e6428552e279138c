"""The one error type of the API, and how the database's refusals become it.

The name of the broken constraint is the code and its comment in the database is the message, so
that a new rule needs no line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from sofinance.infra.pool import PoolFullError, PoolTimeoutError
from sofinance.infra.sql import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sofinance.infra.logs import Trace

# How long a client should wait before it asks again.
RETRY_AFTER_S = 1

# Which HTTP status a broken rule of each kind means.
RULE_STATUS = {
    "23503": 409,  # foreign key: the other row is missing or still in use
    "23505": 409,  # unique: taken
    "23514": 422,  # check, or a rule a trigger raised as check_violation
    "23P01": 409,  # exclusion: overlaps
    "P0002": 404,  # a posting function did not find what it was asked about
    "SF403": 403,  # a rule about who may change whose access
}
# Rules whose status is another than that of their kind: a well-formed request breaks them because
# of how things are just now, or for want of a permission or of the right till.
CODE_STATUS = {
    "api_key_ends_for_good": 409,
    "app_user_keeps_an_admin": 409,
    "org_role_built_in_stays": 409,
    "stripe_event_done_stays": 409,
    "stock_not_negative": 409,
    "customer_credit_limit": 409,
    "attachment_usage_within_quota": 409,
    "sale_line_price_override_allowed": 403,
    "sale_at_its_till": 403,
    "user_session_till_paired": 409,
}
# Serialization failure, deadlock, and a plan that a migration made stale: worth another try.
RETRIED = frozenset({"40001", "40P01", "0A000"})
# A lock or a statement took too long.
TRY_AGAIN = frozenset({"40001", "40P01", "55P03", "57014"})
# What our worker remembers of the caller is not so any more: function admit.
ACCESS_CHANGED = "SF401"
# The server is going down, coming up, or full. 08 and 53 are whole classes, tested by prefix.
UNAVAILABLE = frozenset({"57P01", "57P02", "57P03"})
# What asyncpg says of a connection that the server ended between two questions.
GOODBYE = "cannot switch to state"
# A value that PostgreSQL cannot take: too long, out of range, not of its type, not text.
BAD_VALUE = frozenset({"22001", "22003", "22007", "22008", "22021", "22P02", "22P05"})


# The type of problem details, where there is a registered one; ours are URNs of their codes.
PROBLEM_TYPES = {
    "rate_limited": "https://iana.org/assignments/http-problem-types#quota-exceeded",
}


class ApiError(Exception):
    """Everything a client can be told went wrong: a stable code, its status, its details."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int,
        headers: Mapping[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status
        self.headers: Mapping[str, str] = headers or {}
        self.details = details


def invalid_request(fields: Mapping[str, list[str]]) -> ApiError:
    """Say which fields of a body or a query do not fit their schema."""
    return ApiError("invalid_request", "Some fields are not valid.", status=422, fields=fields)


def not_found() -> ApiError:
    """Say that there is no such thing, or none that the caller may know of."""
    return ApiError("not_found", "There is no such thing here.", status=404)


def internal() -> ApiError:
    """Say that it is our fault, and nothing else: the rest is in the log."""
    return ApiError("internal", "Something broke on our side.", status=500)


def try_again(retry_after_s: int = RETRY_AFTER_S) -> ApiError:
    """Say that another request was in the way and that nothing was done."""
    return ApiError(
        "try_again",
        "The database was too busy with this; nothing was done. Send it again.",
        status=503,
        headers={"Retry-After": str(retry_after_s)},
    )


def unavailable(retry_after_s: int = RETRY_AFTER_S) -> ApiError:
    """Say that the database cannot be reached; whether it committed is then not known."""
    return ApiError(
        "unavailable",
        "The database is not reachable right now. Send it again, with the same Idempotency-Key.",
        status=503,
        headers={"Retry-After": str(retry_after_s)},
    )


def from_postgres(error: asyncpg.PostgresError, vocabulary: Mapping[str, str]) -> ApiError | None:
    """Translate PostgreSQL's refusal; None means that it is our bug and stays a 500."""
    state = error.sqlstate or ""
    status = RULE_STATUS.get(state)
    if status is not None:
        return _from_rule(error, status, vocabulary)
    if state in TRY_AGAIN:
        return try_again()
    if state in UNAVAILABLE or state[:2] in ("08", "53"):
        return unavailable()
    if state == "42501" and "row-level security" in str(error):
        return not_found()  # a row of a branch that the caller does not have
    if state in BAD_VALUE:
        return ApiError(
            "invalid_request", "A value is out of range or not of its type.", status=422
        )
    return None


def _from_rule(
    error: asyncpg.PostgresError, status: int, vocabulary: Mapping[str, str]
) -> ApiError | None:
    code = error.constraint_name
    if code is None:
        return not_found() if status == 404 else None
    message = vocabulary.get(code)
    if message is None:
        return None
    status = CODE_STATUS.get(code, status)
    known = ApiError(code, message, status=status)
    known.details.update(_details(error.detail))
    return known


def _details(detail: str | None) -> dict[str, Any]:
    # PostgreSQL puts row contents in DETAIL; only JSON that our triggers wrote leaves the house.
    if not detail or not detail.startswith("{"):
        return {}
    try:
        found: dict[str, Any] = orjson.loads(detail)
    except orjson.JSONDecodeError:
        return {}
    return found


def translate(  # noqa: PLR0911 - one for each kind
    error: BaseException, vocabulary: Mapping[str, str]
) -> ApiError | None:
    """Turn anything that a handler or a COMMIT raised into an ApiError; None is a bug of ours."""
    match error:
        case ApiError():
            return error
        case NotFoundError():
            return not_found()
        case PoolFullError():
            return try_again(error.retry_after_s)
        case PoolTimeoutError():
            return unavailable(error.retry_after_s)
        case asyncpg.DataError() if "value out of int" in str(error):
            # asyncpg refuses the number before PostgreSQL sees it.
            return ApiError("invalid_request", "A number is out of range.", status=422)
        case asyncpg.PostgresError():
            return from_postgres(error, vocabulary)
        case asyncpg.InterfaceError() | OSError():
            # A closed connection, a refused one, or (TimeoutError is an OSError) none free in time.
            return unavailable()
        case asyncpg.InternalClientError() if GOODBYE in str(error):
            return unavailable()
    return None


def wants_problem(accept: str) -> bool:
    """Say whether an Accept header asks for application/problem+json at least as much as JSON."""
    if "problem+json" not in accept.lower():
        return False
    weights = {"application/problem+json": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        kind, *params = (piece.strip().lower() for piece in part.split(";"))
        if kind in weights:
            weights[kind] = max(weights[kind], _weight(params))
    problem = weights["application/problem+json"]
    return problem > 0 and problem >= weights["application/json"]


def _weight(params: list[str]) -> float:
    for param in params:
        if param.startswith("q="):
            try:
                return float(param[2:])
            except ValueError:
                return 0.0
    return 1.0


def problem(error: ApiError, *, trace: Trace, path: str) -> bytes:
    """Render an error as RFC 9457 problem details."""
    details = error.details
    known = PROBLEM_TYPES.get(error.code)
    extra = {"violated-policies": details["violated_policies"]} if known else {}
    return orjson.dumps(
        {
            "type": known or f"urn:sofinance:error:{error.code}",
            "title": error.message,
            "status": error.status,
            "detail": error.message,
            "instance": path,
            "code": error.code,
            "details": details,
            "request_id": trace.request_id,
            "trace_id": None if trace.context is None else trace.context.trace_id,
            **extra,
        },
        option=orjson.OPT_NON_STR_KEYS,
    )
