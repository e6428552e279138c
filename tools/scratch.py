"""Temporary files in memory, where there is room: databases that nobody keeps need no disk.

A test's database is a copy of 13 MB; on a disk that is busy it takes ten times as long.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it are made by mkdtemp
# Twice what a run of everything takes at once.
FREE_BYTES_MIN = 4 * 2**30
NAMED = re.compile(r"sofinance-scratch-(\d+)-")


@contextmanager
def in_memory() -> Iterator[None]:
    """Have temporary files in memory for as long as a block runs, those of its processes too."""
    if not _has_room():
        yield
        return
    _forget_the_dead()
    before = os.environ.get("TMPDIR")
    folder = Path(tempfile.mkdtemp(prefix=f"sofinance-scratch-{os.getpid()}-", dir=MEMORY))
    folder.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _has_room() -> bool:
    """Say whether there is a file system in memory, with room and the right to run programs."""
    try:
        flags = os.statvfs(MEMORY).f_flag
        return not flags & os.ST_NOEXEC and shutil.disk_usage(MEMORY).free >= FREE_BYTES_MIN
    except OSError:
        return False


def _forget_the_dead() -> None:
    """Remove what runs left that were killed."""
    for folder in MEMORY.iterdir():
        named = NAMED.match(folder.name)
        if named is not None and not Path(f"/proc/{named[1]}").exists():
            shutil.rmtree(folder, ignore_errors=True)
