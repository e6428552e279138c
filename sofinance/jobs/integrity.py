"""The nightly verification: what it finds is an event, from the first time to the last."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sofinance import queries as q
from sofinance.infra.db import Mode
from sofinance.jobs import JobFailedError
from sofinance.tools import verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sofinance.infra.db import Database
    from sofinance.tools.verify import Check, Finding

log = logging.getLogger(__name__)

ERROR, WARNING = "ERROR", "WARNING"
# What only the newer release can judge that migrated the database.
KNOWN = "guards_are_known"
LEVELS = {ERROR: logging.ERROR, WARNING: logging.WARNING}
# What may be right and should be looked at: it fails no job and wakes nobody.
SUSPICIONS: tuple[Check, ...] = (
    q.integrity_events.manual_entries_are_not_twice,
    q.integrity_events.keys_are_answered,
)


async def verify_books(database: Database) -> str:
    """Recompute everything from the rows; fails when anything is broken."""
    async with database.pool.lend() as conn:
        findings = await verify.verify(conn)
        suspicions = await suspect(conn)
    suspicions += [
        replace(one, check=KNOWN, broken=one.unknown, first=one.first_unknown) for one in findings
    ]
    await record(database, findings, suspicions)
    broken = [finding for finding in findings if finding.broken]
    if broken:
        first = broken[0]
        whose = first.organisation_id
        where = "" if whose is None else f" of organisation {whose}"
        raise JobFailedError(
            f"{len(broken)} of {len(findings)} checks failed: {first.check}{where}, "
            f"{first.broken} broken; run `sofinance verify`"
        )
    return f"{len(findings)} checks over {sum(finding.checked for finding in findings)} rows"


async def suspect(conn: Any) -> list[Finding]:
    """Return what looks odd in each organisation."""
    found = []
    for row in await q.orgs.list_organisation_ids(conn):
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await q.integrity.set_audit(conn, org_id=row.org_id)
            found += [await verify.ask(conn, check, row.org_id) for check in SUSPICIONS]
    return found


async def record(
    database: Database, findings: Sequence[Finding], suspicions: Sequence[Finding]
) -> None:
    """Write down what was found, and what is not found any more; log both."""
    found = [(ERROR, one) for one in findings if one.broken]
    found += [(WARNING, one) for one in suspicions if one.broken]
    async with database.untenanted(mode=Mode.WRITE) as conn:
        changes = await q.integrity_events.record_integrity(
            conn,
            org_ids=[one.organisation_id or 0 for _, one in found],
            checks=[one.check for _, one in found],
            severities=[severity for severity, _ in found],
            broken_counts=[one.broken for _, one in found],
            first_broken=[json.dumps(one.first) for _, one in found],
        )
    for change in changes:
        told = {
            "check": change.check_name,
            "organisation_id": change.org_id or None,
            "broken": change.broken_count,
            "first_broken": change.first_broken,
        }
        if change.is_open:
            log.log(LEVELS[change.severity], "integrity broken", extra={"metadata": told})
        else:
            log.info("integrity restored", extra={"metadata": told})
