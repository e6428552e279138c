"""Whose turn it is: the organisations that a job goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance.infra.flags import Flags

if TYPE_CHECKING:
    from sofinance.infra.db import Database


async def whose(database: Database) -> list[int]:
    """Return the organisations, but for those whose jobs are paused (the flag pause_jobs)."""
    flags = Flags(database)
    is_paused = await flags.list_organisations("pause_jobs")
    await flags.flush()
    return [org_id for org_id, paused in is_paused.items() if not paused]
