"""What is told to others about this process while it runs: traces to a collector, errors to Sentry.

Both are off without their settings, and need the packages of an extra each.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sofinance.infra import error_reports, trace_export

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sofinance.config import Settings


@contextlib.asynccontextmanager
async def observed(settings: Settings) -> AsyncGenerator[None]:
    """Record traces and report errors, where the settings say so, for as long as a block runs."""
    async with trace_export.exporting(settings), error_reports.reporting(settings):
        yield
