"""What users are told that no request of theirs brings about: low stock, and jobs that fail."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.fields import plain
from sofinance.infra.flags import Flags
from sofinance.infra.notify import tell_allowed
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from sofinance.infra.db import Database

# Of an organisation at a time: the latest movements that are looked at, and how many products are
# told; what is left comes with the next run, as long as it is among the latest.
MOVEMENT_COUNT = 5_000
LOW_COUNT_MAX = 500
TOLD_COUNT_MAX = 20
KEY_COUNT_MAX = 5_000
LOW_STOCK, JOB_FAILED = "low_stock", "job_failed"


async def tell_low_stock(database: Database) -> str:
    """Tell of each product that has become low, once a day, where the flag is on."""
    flags = Flags(database)
    told = 0
    for org_id in await whose(database):
        told += await _tell_low_stock_of(database, flags, org_id)
    await flags.flush()
    return f"told of {told} products"


async def _tell_low_stock_of(database: Database, flags: Flags, org_id: int) -> int:
    today = datetime.now(UTC).date()
    told = 0
    async with database.tenant(org_id) as conn:
        low = await q.notifications.list_low_stock(
            conn, org_id=org_id, movement_count=MOVEMENT_COUNT, limit=LOW_COUNT_MAX
        )
        if not low:
            return 0
        before = await q.notifications.list_told_today(
            conn, org_id=org_id, type=LOW_STOCK, limit=KEY_COUNT_MAX
        )
        keys = {row.dedupe_key for row in before}
        for row in low:
            key = f"{LOW_STOCK}/{row.branch_id}/{row.product_id}/{today}"
            if key in keys or not await flags.is_on(
                "low_stock_notices", org_id=org_id, branch_id=row.branch_id, conn=conn
            ):
                continue
            quantity, level = plain(row.quantity), plain(row.reorder_level)
            await tell_allowed(
                conn, org_id=org_id, permission="inventory:write", branch_id=row.branch_id,
                type=LOW_STOCK, title=f"{row.product_name} is low in {row.branch_name}",
                message=f"{row.sku}: {quantity} left, to be ordered at {level}.",
                data={
                    "branch_id": row.branch_id, "product_id": row.product_id,
                    "quantity": quantity, "reorder_level": level,
                },
                dedupe_key=key,
            )  # fmt: skip
            told += 1
            if told == TOLD_COUNT_MAX:
                break
    return told


async def tell_of_failure(database: Database, operator_org_id: int, *, job: str, why: str) -> None:
    """Tell the administrators of the operator's organisation of a job that failed, once a day.

    Without OPERATOR_ORG_ID that is the only organisation of the server; where there are several,
    nobody is: one's failures are not the others' business.
    """
    org_id = operator_org_id
    if not org_id:
        async with database.untenanted() as conn:
            found = await q.orgs.list_organisation_ids(conn)
        if len(found) != 1:
            return
        org_id = found[0].org_id
    async with database.tenant(org_id) as conn:
        await tell_allowed(
            conn, org_id=org_id, permission="system:manage", type=JOB_FAILED,
            title=f"The job {job} failed", message=why, data={"job": job},
            dedupe_key=f"{JOB_FAILED}/{job}/{datetime.now(UTC).date()}",
        )  # fmt: skip
