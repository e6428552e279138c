"""What is going to be retired: said on every answer of it, and counted, so that one knows by whom.

`Deprecation` is RFC 9745 (since when), `Sunset` RFC 8594 (until when), the link says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sofinance.infra import metrics
from sofinance.infra.logs import TRACE
from sofinance.infra.times import http_date

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from aiohttp import web

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Deprecation:
    """Since when an endpoint is deprecated, when it will be gone, and where that is explained."""

    since: datetime
    sunset: datetime | None = None
    link: str | None = None

    def __post_init__(self) -> None:
        """Refuse dates without a zone, and an end before its announcement."""
        moments = [moment for moment in (self.since, self.sunset) if moment is not None]
        if any(moment.tzinfo is None for moment in moments):
            raise ValueError("say the offset from UTC")
        if moments != sorted(moments):
            raise ValueError("nothing is gone before it is deprecated")

    def headers(self) -> dict[str, str]:
        """Return what each answer says of it."""
        headers = {"Deprecation": f"@{int(self.since.timestamp())}"}
        if self.sunset is not None:
            headers["Sunset"] = http_date(self.sunset)
        if self.link is not None:
            links = [f'<{self.link}>; rel="deprecation"; type="text/html"']
            if self.sunset is not None:
                links.append(f'<{self.link}>; rel="sunset"; type="text/html"')
            headers["Link"] = ", ".join(links)
        return headers


def announced(answer: Answer, deprecated: Deprecation | None, method: str, path: str) -> Answer:
    """Return the answer of an endpoint, with a note on each if it is deprecated."""
    if deprecated is None:
        return answer
    headers = deprecated.headers()
    calls = metrics.DEPRECATED_CALLS.labels(method, path)

    async def announce(request: web.Request) -> web.StreamResponse:
        calls.inc()
        trace = TRACE.get()
        if trace is not None:
            trace.announced = headers
        return await answer(request)

    return announce
