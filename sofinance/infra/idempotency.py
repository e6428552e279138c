"""Idempotency keys: the same request is done once, however often it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

from sofinance.infra import errors
from sofinance.infra.errors import ApiError
from sofinance.infra.parse import BRANCH_HEADER
from sofinance.infra.times import http_date

if TYPE_CHECKING:
    from datetime import datetime

    from aiohttp import web

    from sofinance.infra.guard import Principal

KEY_LENGTH_MAX = 255
HOUR_S = 3_600


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key and what was asked under it, as digests, and how long it is kept."""

    key_hash: bytes
    fingerprint: bytes
    expires_at_s: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What was answered under a key the first time."""

    status: int
    body: bytes
    etag: str | None
    expires_at: datetime


def read_key(
    request: web.Request,
    sent: Any,
    principal: Principal,
    *,
    required: bool,
    expires_at_s: int,
) -> Key | None:
    """Return the key that a request came under; None when it came without.

    Raises idempotency_key_required and idempotency_key_invalid (400).
    """
    header = request.headers.get("Idempotency-Key")
    if header is None:
        if required:
            raise ApiError("idempotency_key_required", "This needs an Idempotency-Key.", status=400)
        return None
    # The draft standard quotes the key, the world does not: both name the same key.
    name = header[1:-1] if len(header) > 1 and header[0] == header[-1] == '"' else header
    if not (0 < len(name) <= KEY_LENGTH_MAX and name.isascii() and name.isprintable()):
        raise ApiError(
            "idempotency_key_invalid",
            f"An Idempotency-Key has 1 to {KEY_LENGTH_MAX} printable ASCII characters.",
            status=400,
        )
    # What was asked and by whom, whatever the order of the keys or the spaces between them. An
    # answer is for who asked, with the branches they had: another's request is another request.
    parts = (
        f"{request.method} {request.raw_path}",
        str(principal.user_id),
        "" if principal.branch_ids is None else str(sorted(principal.branch_ids)),
        request.headers.get(BRANCH_HEADER, ""),
        request.headers.get("If-Match", ""),
        "",
    )
    asked = "\n".join(parts).encode("utf-8", "surrogateescape")
    asked += orjson.dumps(sent, option=orjson.OPT_SORT_KEYS)
    return Key(sha256(name.encode()).digest(), sha256(asked).digest(), expires_at_s)


def expiry_headers(expires_at: float | datetime) -> dict[str, str]:
    """Say until when a key's answer is kept."""
    return {"Idempotency-Key-Expires": http_date(expires_at)}


def in_use() -> ApiError:
    """Say that another request with this key is still running."""
    return ApiError(
        "idempotency_key_in_use",
        "A request with this Idempotency-Key is still running.",
        status=409,
        headers={"Retry-After": str(errors.RETRY_AFTER_S)},
    )


def reused() -> ApiError:
    """Say that the key belongs to another request, or to another user's."""
    return ApiError(
        "idempotency_key_reused",
        "This Idempotency-Key was used for another request.",
        status=422,
    )
