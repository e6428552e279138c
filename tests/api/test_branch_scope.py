"""Who has some branches sees and does nothing in the others, and nothing that is about all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.api.conftest import Shop
    from tests.support import Psql

ORG_WIDE = (
    ("GET", "/journal/entries"), ("GET", "/journal/trial-balance"), ("GET", "/accounts"),
    ("GET", "/sales/ar/summary"), ("GET", "/sales/ar/aging"),
)  # fmt: skip


@pytest.fixture
async def elsewhere(shop: Shop, psql: Psql) -> dict[str, Any]:
    """A manager who has another branch than the one that sold, and what was sold."""
    manager = shop.org.member("MANAGER")
    other = (await shop.api.post("/branches", shop.org, {"name": "Elsewhere"})).data
    customer_id = await shop.customer(credit_limit="900.00")
    sale = (await shop.sell(paid="1.00", customer_id=customer_id)).data
    psql(
        f"update app_user set all_branches = false where id = {manager.id};"
        f"insert into user_branch values ({shop.org.id}, {manager.id}, {other['id']})",
        org=shop.org,
        role="sofinance_owner",
    )
    return {"who": manager, "sale": sale, "own": other, "customer_id": customer_id}


async def test_another_branch_s_sale_is_not_there(shop: Shop, elsewhere: dict[str, Any]) -> None:
    who, sale = elsewhere["who"], elsewhere["sale"]
    for there in (sale["id"], 999_999_999):
        path = f"/sales/{there}"
        for method, rest, body in (
            ("GET", "", None), ("GET", "/receipt", None), ("GET", "/payments", None),
            ("POST", "/payments", {"amount": "1.00"}), ("POST", "/void", {"reason": "mine"}),
        ):  # fmt: skip
            answer = await shop.api.call(method, path + rest, who, body)
            assert answer.refused == (404, "not_found"), (method, rest)
    assert (await shop.api.get("/sales", who)).data["items"] == []
    assert (await shop.api.get(f"/sales/{sale['id']}", shop.org)).status == 200


async def test_nothing_is_sold_or_received_in_another_branch(
    shop: Shop, elsewhere: dict[str, Any]
) -> None:
    who = elsewhere["who"]
    line = {"product_id": shop.product_ids[0], "quantity": "1", "unit_cost": "1.00"}
    sold, received = set(), set()
    for there in (shop.branch_id, 999_999_999):
        sale = {"branch_id": there, "items": [shop.item(0)], "payments": []}
        sold.add((await shop.api.post("/sales", who, sale)).refused)
        receipt = {"branch_id": there, "kind": "PURCHASE", "lines": [line]}
        received.add((await shop.api.post("/inventory/receipts", who, receipt)).refused)
    # The same as for a branch that there is not.
    assert len(sold) == len(received) == 1
    tills = await shop.api.get(f"/branches/{shop.branch_id}/tills", who)
    assert tills.refused == (404, "not_found")
    till = await shop.api.post(f"/branches/{shop.branch_id}/tills", who, {"name": "Mine"})
    assert till.status == 404
    assert (await shop.api.get(f"/branches/{elsewhere['own']['id']}/tills", who)).status == 200


@pytest.mark.parametrize(("method", "path"), ORG_WIDE)
async def test_what_is_about_all_branches_needs_all(
    shop: Shop, elsewhere: dict[str, Any], method: str, path: str
) -> None:
    refused = (403, "all_branches_required")
    assert (await shop.api.call(method, path, elsewhere["who"])).refused == refused
    assert (await shop.api.call(method, path, shop.org)).status == 200
