"""Paging by `Link` headers (RFC 8288): a client follows them and builds no query itself.

The targets are relative to the request's own address, with its query as it was but for the page:
whatever scheme, host and prefix the client knows us by, they lead to the same place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

FIRST_PAGE = 1


def paging(request: web.Request, data: dict[str, Any]) -> str | None:
    """Return the links of a page: by number, first, prev, next and last; by cursor, next.

    None when the data is no page, or the last one of a list that is read by cursor.
    """
    if "pagination" in data:
        return page_links(request, data["pagination"])
    cursor = data.get("next_cursor")
    return None if cursor is None else link(request, "next", cursor=cursor)


def page_links(request: web.Request, pagination: dict[str, Any]) -> str:
    """Return the links from a numbered page."""
    page, page_count = pagination["page"], max(pagination["total_pages"], FIRST_PAGE)
    pages = {"first": FIRST_PAGE, "last": page_count}
    if page > FIRST_PAGE:
        pages["prev"] = min(page - 1, page_count)
    if page < page_count:
        pages["next"] = page + 1
    return ", ".join(link(request, rel, page=number) for rel, number in pages.items())


def link(request: web.Request, rel: str, **changed: object) -> str:
    """Return one link to this address with something else in its query."""
    target = request.rel_url.update_query({name: str(value) for name, value in changed.items()})
    return f'<{target}>; rel="{rel}"'
