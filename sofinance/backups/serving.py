"""A backup as an answer: read from its place in a thread, a piece at a time."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

from sofinance.backups.places import READ_BYTES, Place, PlaceError
from sofinance.infra.errors import ApiError
from sofinance.infra.files import FileResponse
from sofinance.infra.storage import Reading, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sofinance.config import Settings


class _Piecewise(Reading):
    def __init__(self, stack: ExitStack, file: IO[bytes], size_bytes: int) -> None:
        self._stack, self._file, self.size_bytes = stack, file, size_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await asyncio.to_thread(self._file.read, READ_BYTES):
                yield chunk
        except PlaceError as error:
            raise StorageError(error.message) from None

    async def aclose(self) -> None:
        await asyncio.to_thread(self._stack.close)


async def download(
    settings: Settings, location: str, file_name: str, size_bytes: int
) -> FileResponse:
    """Answer with a file of a backup; backup_elsewhere (409), backup_unreachable (503)."""
    # The commands know where backups are.
    from sofinance.tools.backup import place_of  # noqa: PLC0415

    def opened() -> tuple[ExitStack, IO[bytes]]:
        place: Place = place_of(settings)
        here = {each.location(): each for each in (place, place / "base")}
        if location not in here:
            raise ApiError(
                "backup_elsewhere", "This backup is not where BACKUP_DIR says.", status=409
            )
        stack = ExitStack()
        return stack, stack.enter_context(here[location].reading(file_name))

    try:
        stack, file = await asyncio.to_thread(opened)
    except PlaceError:
        raise ApiError(
            "backup_unreachable", "This backup cannot be read from here right now.", status=503
        ) from None
    reading = _Piecewise(stack, file, size_bytes)
    return FileResponse(reading, filename=file_name, content_type="application/octet-stream")
