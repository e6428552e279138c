"""Cross-origin requests: pages of the configured origins may read our answers, no other page.

There are no cookies, so nothing is ever sent along that a page could borrow: credentials are not
allowed, and a page needs a token of its own. An unknown origin sees no header at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterable

# How long a browser remembers a preflight: Chromium's limit is two hours.
MAX_AGE_S = 7_200
REQUEST_HEADERS = (
    "Accept", "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match",
    "X-Branch-Id", "X-Break-Glass-Token", "X-Request-ID", "X-Span-ID", "X-Trace-ID", "traceparent",
    "tracestate",
)  # fmt: skip
EXPOSED_HEADERS = (
    "Allow", "Deprecation", "ETag", "Idempotency-Key-Expires", "Idempotent-Replayed", "Link",
    "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "Sunset", "WWW-Authenticate",
    "X-Request-ID", "X-Span-ID", "X-Trace-ID", "traceparent",
)  # fmt: skip
VARY = "Origin"


class Cors:
    """Which origins may read our answers."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins) - {""}
        self._actual = {"Access-Control-Expose-Headers": ", ".join(EXPOSED_HEADERS)}
        self._preflight = {
            "Access-Control-Allow-Headers": ", ".join(REQUEST_HEADERS),
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }

    def preflight(self, request: web.Request) -> web.Response | None:
        """Answer a browser that asks before it sends; None when this is no such question.

        What an unknown origin asks, or about an unknown path, is answered like any OPTIONS.
        """
        if request.method != "OPTIONS" or not self._allows(request):
            return None
        refused = request.match_info.http_exception
        if "Access-Control-Request-Method" not in request.headers or not isinstance(
            refused, web.HTTPMethodNotAllowed
        ):
            return None
        methods = ", ".join(sorted(refused.allowed_methods))
        headers = {"Access-Control-Allow-Methods": methods, **self._preflight}
        return web.Response(status=204, headers=headers)

    def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the page read the answer, if it is of a known origin."""
        if not self._origins:
            return
        response.headers.add("Vary", VARY)
        if self._allows(request):
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers.update(self._actual)

    def _allows(self, request: web.Request) -> bool:
        return request.headers.get("Origin") in self._origins
