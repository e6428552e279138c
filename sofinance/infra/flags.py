"""Flags at work: what is set is remembered for seconds, and what is asked for is counted.

A change is seen by every process within AGE_MAX_S. Counts are kept in memory and written once a
minute, one statement for all flags, so asking costs no write.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.flags import FLAGS, Flag
from sofinance.infra import metrics
from sofinance.infra.db import Mode
from sofinance.rules.rollout import KILLED, Decision, decide, subject_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sofinance.infra.db import Database
    from sofinance.infra.sql import Connection

AGE_MAX_S = 5.0
# Who is remembered at once: a user in a branch each.
KNOWN_COUNT_MAX = 10_000
FLUSH_INTERVAL_S = 60.0
# Above four levels of as many flags as a release can have.
SETTING_COUNT_MAX = 1_000

Settings = dict[str, dict[str, int]]
Who = tuple[int, int | None, int | None]


class Flags:
    """The flags of one process."""

    def __init__(self, db: Database, declared: Iterable[Flag] = FLAGS) -> None:
        self._db = db
        self._declared = {flag.name: flag for flag in declared}
        self._known: OrderedDict[Who, tuple[float, Settings]] = OrderedDict()
        self._counts: Counter[str] = Counter(dict.fromkeys(self._declared, 0))
        self._flushed_at_s = time.monotonic()
        self.hits = self.misses = 0  # of what is remembered

    @property
    def declared(self) -> tuple[Flag, ...]:
        """The flags of this release, by name."""
        return tuple(self._declared[name] for name in sorted(self._declared))

    def find(self, name: str) -> Flag | None:
        """Return a flag of this release."""
        return self._declared.get(name)

    async def is_on(
        self,
        name: str,
        *,
        org_id: int = 0,
        branch_id: int | None = None,
        user_id: int | None = None,
        conn: Connection | None = None,
    ) -> bool:
        """Say whether a flag is on for somebody; without an organisation, for the server."""
        decided = await self.decide(
            name, org_id=org_id, branch_id=branch_id, user_id=user_id, conn=conn
        )
        return decided.is_on

    async def decide(
        self,
        name: str,
        *,
        org_id: int = 0,
        branch_id: int | None = None,
        user_id: int | None = None,
        conn: Connection | None = None,
    ) -> Decision:
        """Decide whether a flag is on, at which level, and in which variant; and count that.

        `conn` is in a transaction of the organisation; without one, one is opened if need be.
        Raises KeyError for a flag that is not declared: that is a mistake in the program.
        """
        flag = self._declared[name]
        settings = await self._settings((org_id, branch_id, user_id), conn)
        decided = decide(
            name, settings.get(name, {}), subject_of(org_id, branch_id, user_id),
            default=flag.default, variants=flag.variants,
        )  # fmt: skip
        self._counts[name] += 1
        metrics.FLAG_EVALUATIONS.labels(name, "on" if decided.is_on else "off").inc()
        return decided

    async def list_organisations(self, name: str) -> dict[int, bool]:
        """Return every organisation and whether a flag is on for it; counted like `decide`."""
        flag = self._declared[name]
        async with self._db.untenanted() as conn:
            rows = await q.flags.list_organisations(conn, flag=name)
        is_on = {}
        for row in rows:
            settings = {"organisation": row.percent, "global": row.global_percent}
            if row.is_killed:
                settings[KILLED] = 0
            decided = decide(
                name, {level: share for level, share in settings.items() if share is not None},
                subject_of(row.org_id, None, None), default=flag.default, variants=flag.variants,
            )  # fmt: skip
            is_on[row.org_id] = decided.is_on
            self._counts[name] += 1
            metrics.FLAG_EVALUATIONS.labels(name, "on" if decided.is_on else "off").inc()
        return is_on

    def forget(self) -> None:
        """Read anew what is set, from here on: this process has just changed it."""
        self._known.clear()

    async def flush(self) -> None:
        """Write down what was asked for since the last time; the first time, what there is."""
        counts, self._counts = self._counts, Counter()
        self._flushed_at_s = time.monotonic()
        if not counts:
            return
        names = sorted(counts)
        try:
            async with self._db.untenanted(mode=Mode.WRITE) as conn:
                await q.flags.note_flags(conn, names=names, counts=[counts[name] for name in names])
        except BaseException:
            self._counts.update(counts)
            raise

    async def flush_when_due(self) -> None:
        """Write down what was asked for, once a minute."""
        if time.monotonic() - self._flushed_at_s >= FLUSH_INTERVAL_S:
            await self.flush()

    async def _settings(self, who: Who, conn: Connection | None) -> Settings:
        now_s = time.monotonic()
        known = self._known.get(who)
        if known is not None and now_s - known[0] < AGE_MAX_S:
            self.hits += 1
            return known[1]
        self.misses += 1
        settings = await self._read(who, conn)
        self._known[who] = now_s, settings
        self._known.move_to_end(who)
        if len(self._known) > KNOWN_COUNT_MAX:
            self._known.popitem(last=False)
        return settings

    async def _read(self, who: Who, conn: Connection | None) -> Settings:
        org_id, branch_id, user_id = who
        if conn is None:
            async with self._db.tenant(org_id, mode=Mode.READ) as own:
                return await self._read(who, own)
        rows = await q.flags.list_settings(
            conn, org_id=org_id, branch_id=branch_id, user_id=user_id, limit=SETTING_COUNT_MAX
        )
        settings: Settings = {}
        for row in rows:
            settings.setdefault(row.flag, {})[row.scope] = row.percent
        return settings
