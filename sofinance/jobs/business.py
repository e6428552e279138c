"""The figures of the business that /metrics tells, counted here: a scrape counts nothing."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from sofinance import queries as q
from sofinance.infra.db import Mode
from sofinance.infra.secretbox import SecretBox
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from sofinance.infra.db import Database

NOW, HOUR, DAY = "now", "1h", "24h"
# By figure and period, and by currency where it has one.
Figures = dict[tuple[str, str, str], Decimal]


async def count_business(database: Database) -> str:
    """Count what happened lately, an organisation at a time, and write down the sums."""
    org_ids = await whose(database)
    now = datetime.now(UTC)
    figures: Figures = defaultdict(Decimal)
    figures["organisations", NOW, ""] = Decimal(len(org_ids))
    for org_id in org_ids:
        await add_organisation(database, figures, org_id, now)
    keys = list(figures)
    async with database.untenanted(mode=Mode.WRITE) as conn:
        await q.business.write_figures(
            conn,
            names=[name for name, _, _ in keys],
            periods=[period for _, period, _ in keys],
            currencies=[currency for _, _, currency in keys],
            amounts=[figures[key] for key in keys],
        )
    return f"{len(keys)} figures of {len(org_ids)} organisations"


async def add_organisation(
    database: Database, figures: Figures, org_id: int, now: datetime
) -> None:
    """Add an organisation's figures to the sums."""
    key_id = SecretBox.configured(database.settings).key_id
    async with database.tenant(org_id, mode=Mode.READ) as conn:
        sales = await q.business.count_sales(conn, org_id=org_id, now=now)
        people = await q.business.count_people_and_stock(conn, org_id=org_id, now=now)
        if key_id:
            figures["secrets_stale", NOW, ""] += await q.second_factor.count_stale_secrets(
                conn, org_id=org_id, key_id=key_id
            ) + await q.webhooks.count_stale_secrets(conn, org_id=org_id, key_id=key_id)
        figures["mails_dead", NOW, ""] += await q.mail.count_dead(conn, org_id=org_id)
        figures["card_payments_unposted", NOW, ""] += await q.billing.count_unposted(
            conn, org_id=org_id, now=now
        )
        mails = await q.mail.count_mails(conn, org_id=org_id, now=now)
        figures["objects_given_up", NOW, ""] += await q.attachments.count_given_up(
            conn, org_id=org_id
        )
    for row in sales:
        for name, period, value in (
            ("sales", DAY, row.sale_count),
            ("sales_amount", DAY, row.sale_amount),
            ("voids", DAY, row.void_count),
            ("voids_amount", DAY, row.void_amount),
            ("sales", HOUR, row.hour_sale_count),
            ("sales_amount", HOUR, row.hour_sale_amount),
            ("voids", HOUR, row.hour_void_count),
            ("voids_amount", HOUR, row.hour_void_amount),
        ):
            figures[name, period, row.currency] += value
    for name, period, value in (
        ("mails_pending", NOW, mails.pending_count),
        ("mails_sent", DAY, mails.sent_count),
        ("mails_sent", HOUR, mails.hour_sent_count),
        ("active_sessions", NOW, people.active_sessions),
        ("active_users", DAY, people.active_users),
        ("active_users", HOUR, people.hour_active_users),
        ("stock_outs", NOW, people.stock_outs),
        ("sign_ups", DAY, int(people.is_new)),
        ("sign_ups", HOUR, int(people.is_new_in_hour)),
    ):
        figures[name, period, ""] += value
