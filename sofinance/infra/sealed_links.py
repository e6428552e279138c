"""Links that prove something without a row in the database: sealed, and over after a while.

For what begins before there is anybody to keep a row for: a stranger who asks stores nothing here.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import TYPE_CHECKING

import orjson

from sofinance.infra.secretbox import SealError

if TYPE_CHECKING:
    from sofinance.infra.secretbox import SecretBox

# Nobody's yet.
ORG_ID = USER_ID = 0
TOKEN_LENGTH_MAX = 1_000


def write(box: SecretBox, text: str, *, purpose: str, minutes: int) -> str:
    """Return a token that proves a text for so long; raises encryption_not_configured (503)."""
    content = orjson.dumps([text, int(time.time()) + minutes * 60])
    sealed = box.seal(content, purpose=purpose, org_id=ORG_ID, user_id=USER_ID)
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def read(box: SecretBox, token: str, *, purpose: str) -> str | None:
    """Return the text that a token proves; None when it is none of ours, or is over."""
    try:
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        content = box.open(sealed, purpose=purpose, org_id=ORG_ID, user_id=USER_ID)
    except (SealError, binascii.Error, ValueError):
        return None
    text, ends_at_s = orjson.loads(content)
    return str(text) if ends_at_s > time.time() else None
