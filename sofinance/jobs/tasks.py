"""Every job of this release: what the worker runs, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.db import Mode
from sofinance.jobs import (
    DAY_S,
    HOUR_S,
    Job,
    archiving,
    backups,
    balances,
    business,
    dead_letters,
    forgetting,
    integrity,
    janitor,
    mailing,
    maintaining,
    notices,
    retaining,
)

if TYPE_CHECKING:
    from sofinance.infra.db import Database

FIGURES_EVERY_S = 300
BATCH = 1_000


async def forget_runs(database: Database) -> str:
    """Forget runs of jobs that nobody asks for any more."""
    total, days = 0, database.settings.retention_job_run_days
    while True:
        async with database.untenanted(mode=Mode.WRITE) as conn:
            gone = await q.jobs.forget_job_runs(conn, keep_days=days, limit=BATCH)
        total += gone
        if gone < BATCH:
            return f"forgot {total} runs"


JOBS = (
    Job(
        "balances-roll-up",
        "Adds the day's entries to the snapshots that reports start from.",
        balances.roll_up_all,
        every_s=DAY_S,
        offset_s=HOUR_S // 2,
    ),
    Job(
        "verify-books",
        "Recomputes every organisation's books from the rows.",
        integrity.verify_books,
        every_s=DAY_S,
        offset_s=2 * HOUR_S,
    ),
    Job(
        "storage-janitor",
        "Removes files whose row is gone, and uploads that came to nothing.",
        janitor.clean_storage,
        every_s=30,
    ),
    Job(
        "storage-orphans",
        "Finds files in the store that no row names, older than RETENTION_ORPHAN_DAYS.",
        janitor.find_orphans,
        every_s=DAY_S,
        offset_s=5 * HOUR_S,
    ),
    Job(
        "business-figures",
        "Counts sales, voids, users and empty shelves of the last hours, for /metrics.",
        business.count_business,
        every_s=FIGURES_EVERY_S,
    ),
    Job(
        "mail-scan",
        "Reserves reminders of overdue debts, and digests of low stock.",
        mailing.scan_mails,
        every_s=HOUR_S,
        offset_s=HOUR_S // 4,
    ),
    Job(
        "mail-delivery",
        "Delivers mails that are reserved.",
        mailing.deliver_mails,
        every_s=10,
    ),
    Job(
        "low-stock-notices",
        "Tells whoever receives goods what has become low, where low_stock_notices is on.",
        notices.tell_low_stock,
        every_s=HOUR_S // 12,
    ),
    Job(
        "forget-expired",
        "Forgets idempotency keys, sessions, used links and notifications that were kept enough.",
        forgetting.forget_everywhere,
        every_s=HOUR_S,
    ),
    Job(
        "retention",
        "Forgets mail and events that were kept long enough, and customers who asked for it.",
        retaining.apply_everywhere,
        every_s=DAY_S,
        offset_s=3 * HOUR_S,
    ),
    Job(
        "audit-archive",
        "Moves months of the audit log older than RETENTION_AUDIT_DAYS into the store of files.",
        archiving.archive_everywhere,
        every_s=DAY_S,
        offset_s=6 * HOUR_S,
    ),
    Job(
        "maintenance",
        "Vacuums tables and rebuilds bloated indexes, on the first Sunday of a month.",
        maintaining.maintain_in_window,
        every_s=DAY_S,
        offset_s=2 * HOUR_S,
    ),
    Job(
        "forget-job-runs",
        "Forgets runs of jobs that ended RETENTION_JOB_RUN_DAYS ago.",
        forget_runs,
        every_s=DAY_S,
        offset_s=4 * HOUR_S,
    ),
    Job(
        "replay-dead-letters",
        "Sends dead letters of the organisations in EXPORT_REPLAY_ORG_IDS again, a few at a time.",
        dead_letters.replay_some,
        every_s=HOUR_S // 4,
    ),
    Job(
        "backup",
        "Takes a backup of all organisations, and removes old ones.",
        backups.back_up,
        every_s=DAY_S,
        offset_s=2 * HOUR_S,
    ),
    # Days are counted from a Thursday: these are Sundays.
    Job(
        "backup-base",
        "Copies the server's files, to go back to any moment since, and removes old copies.",
        backups.back_up_base,
        every_s=7 * DAY_S,
        offset_s=3 * DAY_S + 3 * HOUR_S,
    ),
    Job(
        "backup-verify",
        "Restores the newest backup elsewhere, compares every table and verifies the books.",
        backups.verify_newest,
        every_s=7 * DAY_S,
        offset_s=3 * DAY_S + 4 * HOUR_S,
    ),
    Job(
        "backup-tasks",
        "Takes, verifies, restores and removes backups as operators ask.",
        backups.do_tasks,
        every_s=HOUR_S,
    ),
)
