"""The import of real till data: what becomes of its lines, and that posting it again is safe."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from tests.support import Api, Org


async def test_a_sale_sent_again_without_its_key_is_taken_even_when_its_goods_are_gone(
    api: Api, org: Org
) -> None:
    shop = await open_shop(api, org, quantity="1")
    client_sale_id = str(uuid.uuid4())
    posted = await shop.sell(client_sale_id=client_sale_id, paid="11.00", key="once")
    again = await shop.sell(client_sale_id=client_sale_id, paid="11.00")
    assert again.refused == (409, "sale_client_sale_taken")
    assert again.details == {"sale_id": posted.data["id"]}
