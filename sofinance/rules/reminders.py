"""What mails say: reminders of debts, and what is low in a branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
# Products that one digest names, and how long they make it; the rest is counted. The rule
# mail_text_not_long leaves room for the line that counts.
PRODUCT_COUNT_MAX = 100
PRODUCTS_LENGTH_MAX = 19_000


@dataclass(frozen=True, slots=True)
class Reminder:
    """A mail to be reserved, once for each key."""

    dedupe_key: str
    kind: str
    recipient: str
    subject: str
    body: str


def receivable(row: Any, organisation: str) -> Reminder:
    """Remind a customer of what is open of a sale; again for each multiple of its age."""
    open_amount = f"{row.outstanding.normalize():f} {row.currency}"
    return Reminder(
        dedupe_key=f"receivable:{row.sale_id}:{row.step}",
        kind="receivable_reminder",
        recipient=row.email,
        subject=one_line(f"{organisation}: sale {row.sale_id} is not paid yet"),
        body=(
            f"Dear {row.customer_name},\n\nof sale {row.sale_id} of {row.sold_on}, {open_amount} "
            f"are still open. If you have paid meanwhile, please forget this mail.\n\n"
            f"{organisation}\n"
        ),
    )


def low_stock(rows: Sequence[Any], manager: Any, organisation: str, today: Any) -> Reminder:
    """Tell a manager what is low in a branch, once a day."""
    lines: list[str] = []
    length = 0
    for row in rows[:PRODUCT_COUNT_MAX]:
        line = (
            f"{row.sku}  {row.product_name}: {row.quantity.normalize():f} "
            f"(reorder at {row.reorder_level.normalize():f})"
        )
        length += len(line) + 1
        if length > PRODUCTS_LENGTH_MAX:
            break
        lines.append(line)
    if len(rows) > len(lines):
        lines.append(f"... and {len(rows) - len(lines)} more")
    first = rows[0]
    return Reminder(
        dedupe_key=f"low-stock:{first.branch_id}:{manager.id}:{today}",
        kind="low_stock",
        recipient=manager.email,
        subject=one_line(f"{organisation}: low stock at {first.branch_name}"),
        body="\n".join([f"At {first.branch_name} these are low:", "", *lines, ""]),
    )


def one_line(text: str) -> str:
    """Return a subject: one line, of 200 characters at most."""
    return " ".join(text.split())[:200]
