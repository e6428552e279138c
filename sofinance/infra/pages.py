"""Pages of our own for people who follow a link in a mail: a form, no scripts, nothing kept."""

from __future__ import annotations

from aiohttp import web

from sofinance.infra.security import SECURITY_HEADERS

HEADERS = {
    **SECURITY_HEADERS,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
}


def page(html: str) -> web.Response:
    """Return a page."""
    return web.Response(text=html, content_type="text/html", headers=HEADERS)
