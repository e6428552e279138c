"""Links that let anybody do one thing for a while: HMAC-SHA256 over what, whose and until when.

The key is derived from DATA_ENCRYPTION_KEY; the one before it still verifies.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from sofinance.infra.errors import ApiError

if TYPE_CHECKING:
    from sofinance.infra.secretbox import SecretBox

TOKEN_LENGTH_MAX = 500
NUMBER_BYTES = 16
DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Grant:
    """What a link lets one do."""

    org_id: int
    of_id: int
    expires_at_s: int
    is_one_time: bool
    number: bytes


def write(
    box: SecretBox,
    *,
    purpose: str,
    org_id: int,
    of_id: int,
    expires_at_s: int,
    is_one_time: bool,
) -> str:
    """Return the token of a link; raises encryption_not_configured (503) without a key."""
    number = os.urandom(NUMBER_BYTES)
    said = orjson.dumps([org_id, of_id, expires_at_s, is_one_time, number.hex()])
    return base64.urlsafe_b64encode(box.sign(said, purpose=purpose) + said).rstrip(b"=").decode()


def read(box: SecretBox, token: str, *, purpose: str, now_s: float) -> Grant:
    """Return what a token lets one do; raises signed_url_invalid and signed_url_expired (401)."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    digest, said = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
    if not any(hmac.compare_digest(digest, own) for own in box.signatures(said, purpose=purpose)):
        raise ApiError("signed_url_invalid", "This link is none of ours.", status=401)
    org_id, of_id, expires_at_s, is_one_time, number = orjson.loads(said)
    if expires_at_s <= now_s:
        raise ApiError("signed_url_expired", "This link is over. Ask for another one.", status=401)
    return Grant(org_id, of_id, expires_at_s, is_one_time, bytes.fromhex(number))


def used() -> ApiError:
    """Say that a link was good once."""
    return ApiError("signed_url_used", "This link was good for one download.", status=410)
