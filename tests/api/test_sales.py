"""Sales: one transaction that posts its own books."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.api.conftest import Shop


async def test_a_sale_posts_its_own_books(shop: Shop) -> None:
    answer = await shop.sell(
        shop.item(0, "2"), shop.item(1, "1.5", discount="0.49"), paid="29.70"
    )
    assert answer.status == 201
    sale = answer.data
    # 20.00 + round(7.485) - 0.49 = 27.00, tax 2.00 + 0.70
    assert (sale["subtotal"], sale["discount"], sale["tax"], sale["total"]) == (
        "27.49", "0.49", "2.70", "29.70",
    )  # fmt: skip
