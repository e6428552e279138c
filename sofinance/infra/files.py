"""Between requests and the store: keep an upload, and answer with a file."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from sofinance.infra.security import SECURITY_HEADERS
from sofinance.infra.sniff import saved_as
from sofinance.infra.storage import ObjectMissingError, StorageError, unavailable

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from sofinance.infra.http import Call
    from sofinance.infra.storage import Reading, Stored
    from sofinance.infra.upload import Upload

FILE_HEADERS = {
    **SECURITY_HEADERS,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Whatever it is: nothing in it runs, and it is in nobody's frame.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
}
# What a quoted name may have; the real one is written behind it.
PLAIN = re.compile(r"[^ !#-\[\]-~]")
# How much later than the last moment of an upload its object is forgotten.
MARGIN_S = 120


def new_key(call: Call, kind: str) -> str:
    """Return the key of a new object of the caller's organisation."""
    return f"org/{call.org_id}/{kind}/{uuid.uuid4().hex}"


def kept_s(call: Call) -> int:
    """Return how long an object may wait for its row."""
    return call.settings.upload_timeout_s + MARGIN_S


async def keep(call: Call, key: str, upload: Upload) -> Stored:
    """Put an upload into the store; raises storage_unavailable (503) and what the upload does."""
    try:
        async with asyncio.timeout(call.settings.upload_timeout_s):
            return await call.storage.put(key, upload, content_type=upload.content_type)
    except (StorageError, TimeoutError):
        raise unavailable() from None


async def fetch(call: Call, key: str) -> Reading:
    """Open an object; raises storage_unavailable (503), also for one that has gone missing."""
    try:
        return await call.storage.read(key)
    except (StorageError, ObjectMissingError):
        raise unavailable() from None


class FileResponse(web.StreamResponse):
    """An answer that is a file to be saved, as it comes from the store."""

    def __init__(self, reading: Reading, *, filename: str, content_type: str) -> None:
        headers = {
            **FILE_HEADERS,
            "Content-Type": content_type,
            "Content-Disposition": disposition(saved_as(filename, content_type)),
        }
        super().__init__(headers=headers)
        self.content_length = reading.size_bytes
        self._reading = reading
        self._is_wanted = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head."""
        self._is_wanted = request.method != "HEAD"
        try:
            return await super().prepare(request)
        except BaseException:
            await self._reading.aclose()
            raise

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the file; a store that breaks off breaks off the answer, which says its length."""
        try:
            if self._is_wanted:
                async for chunk in self._reading:
                    await self.write(chunk)
        finally:
            await self._reading.aclose()
        await super().write_eof(data)


def disposition(filename: str) -> str:
    """Return the header that has a file saved under its name (RFC 6266)."""
    plain = PLAIN.sub("_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
