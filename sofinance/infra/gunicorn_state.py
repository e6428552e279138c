"""What gunicorn's arbiter and its workers share: the settings, and whether all of it stops."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

from sofinance import config

if TYPE_CHECKING:
    from sofinance.config import Settings

# One byte in memory that stays shared after the fork.
_STOPPING = mmap.mmap(-1, 1)
_KEPT: dict[str, Settings] = {}


def settings() -> Settings:
    """Return the settings that the arbiter read last; without one, read them."""
    return _KEPT.get("settings") or read()


def read() -> Settings:
    """Read the settings; raises SettingsError, and those that were good are kept."""
    _KEPT["settings"] = found = config.load(os.environ)
    return found


def has_read() -> bool:
    """Say whether this is a reload."""
    return "settings" in _KEPT


def is_stopping() -> bool:
    """Say whether gunicorn as a whole stops, not only this worker."""
    return _STOPPING[0] == 1


def notice_stop(arbiter: Any) -> None:
    """Have the workers know that gunicorn stops before it tells them to.

    It has no hook for that, and tells a worker that is replaced in the same way.
    """
    stop = arbiter.stop

    def noticed(graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - gunicorn's own signature
        _STOPPING[0] = 1
        stop(graceful)

    arbiter.stop = noticed
