"""Receiving one file as multipart/form-data: streamed, bounded in size and time, and looked at."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from typing import TYPE_CHECKING, TypeVar

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from sofinance.infra import sniff
from sofinance.infra.errors import ApiError, invalid_request, try_again

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from aiohttp.multipart import MultipartReader

    from sofinance.config import Settings

Got = TypeVar("Got")

# How aiohttp's reader says that a body is not what it says.
MALFORMED = (ValueError, HttpProcessingError, web.RequestPayloadError)
FORM_DATA = "multipart/form-data"
FIELD = "file"
CHUNK_BYTES = 1 << 16
NAME_LENGTH_MAX = 200
# Besides what no name has: bytes that are no UTF-8, which came in as surrogates, and what turns the
# direction of writing, so that a name looks as if it ended otherwise.
UNWANTED = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Upload:
    """The file in a request's body; `begin` reads its head, then it is iterated over once."""

    def __init__(self, request: web.Request, settings: Settings) -> None:
        self._request = request
        self._size_bytes_max = settings.upload_max_bytes
        self._timeout_s = settings.upload_timeout_s
        self._part: BodyPartReader | None = None
        self._reader: MultipartReader | None = None
        self._head = b""
        self._is_read = False
        self._ends_at_s = 0.0
        self.filename = ""
        self.content_type = ""

    async def begin(self) -> None:
        """Read as much as it takes to see what it is.

        Raises unsupported_media_type and content_type_not_allowed (415), payload_too_large (413),
        malformed_multipart (400), request_timeout (408), invalid_request (422).
        """
        if self._is_read:
            raise try_again()  # a transaction after it was, and the bytes are gone
        if self._part is not None:
            return
        self._ends_at_s = asyncio.get_running_loop().time() + self._timeout_s
        if self._request.content_type != FORM_DATA:
            raise ApiError(
                "unsupported_media_type", f"Send the file as {FORM_DATA}.", status=415,
                headers={"Accept": FORM_DATA},
            )  # fmt: skip
        # More than a file with its frame can be: it need not be read to be refused.
        if (self._request.content_length or 0) > self._size_bytes_max + CHUNK_BYTES:
            raise self._too_large()
        self._reader = await self._bounded(self._request.multipart())
        part = await self._bounded(self._reader.next())
        try:
            is_file = isinstance(part, BodyPartReader) and part.name == FIELD
            filename = part.filename if is_file and isinstance(part, BodyPartReader) else None
        except ValueError:
            raise malformed() from None  # aiohttp reads them only now
        if not isinstance(part, BodyPartReader) or not filename:
            raise invalid_request({FIELD: ["Send one file, in a part of this name."]})
        self._part, self.filename = part, tidied(filename)
        while len(self._head) < sniff.HEAD_BYTES and (chunk := await self._next()):
            self._head += chunk
        if not self._head:
            raise invalid_request({FIELD: ["This file is empty."]})
        found = sniff.content_type(self._head, self.filename)
        if found is None:
            raise not_allowed()
        self.content_type = found

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the file; raises what `begin` does, once that much of it has come."""
        text = sniff.TextCheck() if self.content_type in {sniff.TEXT, sniff.CSV} else None
        size_bytes, chunk, self._is_read = 0, self._head, True
        while chunk:
            size_bytes += len(chunk)
            if size_bytes > self._size_bytes_max:
                raise self._too_large()
            if text is not None and not text.accepts(chunk):
                raise not_allowed()
            yield chunk
            chunk = await self._next()
        if text is not None and not text.accepts(b"", is_last=True):
            raise not_allowed()
        await self._end()

    async def _next(self) -> bytes:
        """Return the next part of the file, empty at its end."""
        if self._part is None:
            raise RuntimeError("begin() comes first")
        return await self._bounded(self._part.read_chunk(CHUNK_BYTES))

    async def _end(self) -> None:
        """Hold that nothing comes after the file."""
        if self._reader is None:
            raise RuntimeError("begin() comes first")
        more = await self._bounded(self._reader.next())
        if more is not None:
            raise invalid_request({FIELD: ["Send one file, and nothing else."]})

    async def _bounded(self, reading: Awaitable[Got]) -> Got:
        """Wait for some more of the body, until its time is over."""
        try:
            async with asyncio.timeout_at(self._ends_at_s):
                return await reading
        except TimeoutError:
            raise too_slow() from None
        except MALFORMED:
            raise malformed() from None

    def _too_large(self) -> ApiError:
        return ApiError(
            "payload_too_large", "The file is larger than this service takes.", status=413,
            max_bytes=self._size_bytes_max,
        )  # fmt: skip


def tidied(name: str) -> str:
    """Return the name of a file without a path and without what has no place in a name."""
    plain = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    return UNWANTED.sub("", plain).strip()[:NAME_LENGTH_MAX] or FIELD


def malformed() -> ApiError:
    """Say that a body is no multipart, or ended in the middle."""
    return ApiError(
        "malformed_multipart", f"The body is no {FORM_DATA}, or did not arrive whole.", status=400
    )


def too_slow() -> ApiError:
    """Say that a body took too long."""
    return ApiError("request_timeout", "The body took too long to arrive.", status=408)


def not_allowed() -> ApiError:
    """Say that a file is nothing that may be attached."""
    return ApiError(
        "content_type_not_allowed",
        "By its content this is no file of a kind that may be attached.",
        status=415,
        allowed=list(sniff.ALLOWED),
    )
