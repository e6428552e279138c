"""What browsers are told not to do with our answers."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

from sofinance.infra.proxies import Proxies, plain

if TYPE_CHECKING:
    from aiohttp import web

    from sofinance.config import Settings

# An answer is data: nothing in it runs, loads, or is shown inside another page.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}
PROTO = re.compile(r"(?:^|;)[ \t]*proto=\"?(https?)\"?[ \t]*(?:;|$)", re.IGNORECASE)
INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def page_policy(page: str) -> str:
    """Return the policy of a page of ours: its own files, and the inline scripts that it has now.

    Swagger UI styles its elements one by one, which only 'unsafe-inline' allows.
    """
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in INLINE_SCRIPT.findall(page)
    ]
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src 'self'", *hashes)),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


class Hsts:
    """Strict-Transport-Security: said only to who came by https, else an attacker could say it."""

    def __init__(self, settings: Settings) -> None:
        self._value = f"max-age={settings.hsts_max_age_s}" if settings.hsts_max_age_s else None
        self._believes = settings.trust_proxy_headers
        self._proxies = Proxies.configured(settings)

    def dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tell a browser to come by https only, if that is how it came."""
        if self._value is not None and self._is_https(request):
            response.headers["Strict-Transport-Security"] = self._value

    def _is_https(self, request: web.Request) -> bool:
        """Say whether the client's own connection is https: ours, or a trusted proxy's word."""
        if request.secure:
            return True
        if not (self._believes and self._proxies.is_ours(plain(request.remote))):
            return False
        # The nearest proxy, whom we trust, wrote the last element.
        told = [
            header.rpartition(",")[2].strip().lower()
            for header in request.headers.getall("X-Forwarded-Proto", ())[-1:]
        ]
        for header in request.headers.getall("Forwarded", ())[-1:]:
            found = PROTO.search(header.rpartition(",")[2])
            told += [found[1].lower()] if found else []
        return bool(told) and set(told) == {"https"}
