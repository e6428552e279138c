"""Directories for what is restored only to be looked at, and for the PostgreSQL that runs in them.

Whoever makes one holds a lock on it, which ends with the process, however that ends. So what a
process left that was killed, a PostgreSQL that runs on and a copy of the books, is known to be
nobody's: the next one takes it away, and so does a worker that starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sofinance.infra import embedded
from sofinance.infra.command import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "sofinance-drill-"
# Where in it the data directory of a PostgreSQL is.
DATA = "data"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a directory that goes again, and that PostgreSQL's own account may pass through."""
    sweep()
    path, held = _make()
    try:
        yield path
    finally:
        try:
            shutil.rmtree(path)
        finally:
            os.close(held)


def sweep() -> list[Path]:
    """Stop and take away what killed processes of this account left; return what."""
    gone = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        held = _hold(path)
        if held is None:
            continue
        try:
            if (path / DATA).is_dir():
                embedded.Server(path / DATA).stop_left()
        except SetupError:
            continue  # somebody has started it anew, and holds it
        else:
            # What something that is just ending still writes is for the next one.
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path)
        finally:
            os.close(held)
    return gone


def _make() -> tuple[Path, int]:
    """Return a new directory and the handle that holds it."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Between the two somebody may have taken it for one that was left.
        if (held := _hold(path)) is not None:
            path.chmod(0o711)
            return path, held


def _hold(path: Path) -> int | None:
    """Lock a directory of this account's; None if it is none, is held, or has gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(handle).st_uid == os.geteuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                return handle
    except BlockingIOError:
        pass
    os.close(handle)
    return None
