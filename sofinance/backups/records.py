"""What is written down of backups and drills in the database that was backed up.

A backup is worth more than its record: where that cannot be written it is told, and no more.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from sofinance import __version__
from sofinance.backups.take import connected
from sofinance.infra.command import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sofinance.backups.places import Place
    from sofinance.backups.store import Backup

FULL, BASE = "FULL", "BASE"
DUMP, POINT_IN_TIME = "DUMP", "POINT_IN_TIME"
# A backup of half a terabyte takes hours; one that is pending for longer has been given up.
LOST_AFTER_HOURS = 24
BEGIN = "select begin_backup(%s, %s)"
FINISH = "select finish_backup(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
FAIL = "select fail_backup(%s, %s)"
REMOVED = "select note_backups_removed(%s, %s)"
VERIFIED = "select note_backup_verified(%s, %s, %s)"
DRILL = "select record_drill(%s, %s, %s, %s, %s, %s::numeric, %s::numeric, %s)"
LOST = "select forget_lost_backups(%s)"


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one database, by a role that may write them."""

    url: str

    @contextlib.contextmanager
    def taking(self, kind: str, place: Place, record: int | None = None) -> Iterator[list[Backup]]:
        """Write down that a backup is taken, and how it ended; the block appends it to the list.

        A number says that it was written down already.
        """
        self._tell(LOST, LOST_AFTER_HOURS)
        if record is None:
            record = self._tell(BEGIN, kind, place.location())
        taken: list[Backup] = []
        try:
            yield taken
        except BaseException as error:
            why = error.message if isinstance(error, SetupError) else str(error).strip()
            self._tell(FAIL, record, why or "it was broken off")
            raise
        backup, manifest = taken[0], taken[0].manifest
        self._tell(
            FINISH, record, backup.place.location(), backup.name, manifest["bytes"],
            manifest["sha256"], backup.is_sealed, manifest.get("rows"), manifest.get("files"),
            backup.taken_at,
        )  # fmt: skip

    def removed(self, place: Place, names: Sequence[str]) -> None:
        """Write down that the files of backups went."""
        self._tell(REMOVED, place.location(), list(names))

    def verified(self, place: Place, name: str, error: str | None) -> None:
        """Write down that a backup was restored elsewhere and verified, or why it was not."""
        self._tell(VERIFIED, place.location(), name, error)

    def drilled(self, kind: str, name: str, began_at: datetime, report: dict[str, Any]) -> None:
        """Write down a drill."""
        self._tell(
            DRILL, kind, name, __version__, began_at, report.get("error"), report.get("rpo_s"),
            report.get("rto_s"), report.get("rows"),
        )  # fmt: skip

    def _tell(self, statement: str, *values: Any) -> Any:
        try:
            with connected(self.url) as conn:
                row = conn.execute(statement.encode(), values).fetchone()
        except psycopg.Error as error:
            why = str(error).strip().splitlines() or [type(error).__name__]
            print(f"sofinance: nothing was written down of this: {why[0]}", file=sys.stderr)  # noqa: T201 - who watches must know
            return None
        return row[0] if row else None
