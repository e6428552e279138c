"""What RFC 6749 wants at the token endpoint: errors under its own names, and no envelope.

Its errors are few, so ours stand beside them as `code`, with what is known in `details`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from marshmallow import Schema, fields

if TYPE_CHECKING:
    from sofinance.infra.errors import ApiError

# Source: RFC 6749, 5.2: a grant that is not good is a 400, whoever it was.
INVALID_GRANT = frozenset({
    "invalid_credentials", "second_factor_required", "invalid_code", "invalid_refresh_token",
    "refresh_token_reused", "unauthorized",
})  # fmt: skip
UNSUPPORTED = "unsupported_grant_type"
# Its tools know these statuses without being told about them.
KEPT = frozenset({408, 413, 415, 429, 500, 503})
# Source: RFC 6749, 5.1, beside Cache-Control: no-store, which all answers have.
HEADERS = {"Pragma": "no-cache"}


class OAuthRefusal(Schema):
    """What was refused, as RFC 6749 says it; `code` and `details` are ours."""

    error = fields.String(required=True, metadata={"example": "invalid_grant"})
    error_description = fields.String(required=True)
    code = fields.String(required=True)
    details = fields.Dict(keys=fields.String(), required=True)


def status_of(error: ApiError) -> int:
    """Return the status of an error at the token endpoint."""
    return error.status if error.status in KEPT else 400


def refusal(error: ApiError) -> bytes:
    """Render an error as RFC 6749 wants it."""
    if error.code in INVALID_GRANT:
        name = "invalid_grant"
    elif error.code == UNSUPPORTED:
        name = UNSUPPORTED
    elif error.status in {429, 503}:
        name = "temporarily_unavailable"
    else:
        name = "server_error" if error.status >= 500 else "invalid_request"
    described = {
        "error": name,
        "error_description": "".join(
            c for c in error.message if " " <= c <= "~" and c not in '"\\'
        ),
        "code": error.code,
        "details": error.details,
    }
    return orjson.dumps(described, option=orjson.OPT_NON_STR_KEYS)
