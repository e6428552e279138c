"""Basic authentication for what calls from cron and knows nothing else: its password is an API key.

So there is no other secret to keep, to limit, to revoke and to hold apart by permission. Off unless
LEGACY_BASIC_AUTH_ENABLED, and only below /v1/admin/: browsers repeat Basic credentials by
themselves, and we never ask for them.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

    from sofinance.config import Settings
    from sofinance.infra.http import Endpoint

PATHS = "/v1/admin/"
LENGTH_MAX = 1_000


def authorization_of(request: web.Request, endpoint: Endpoint, settings: Settings) -> str | None:
    """Return the Authorization header; Basic credentials as the API key that they carry."""
    given = request.headers.get("Authorization")
    if (
        given is None
        or not settings.legacy_basic_auth_enabled
        or not endpoint.path.startswith(PATHS)
        or len(given) > LENGTH_MAX
    ):
        return given
    scheme, _, encoded = given.partition(" ")
    if scheme.lower() != "basic":
        return given
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return given
    return f"Bearer {pair.partition(':')[2]}"
