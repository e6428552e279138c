"""A small shop, made through the API, for tests of what a shop does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support import Answer, Api, Org, User


@dataclass(frozen=True)
class Shop:
    """A branch with a till, three products at 10.00, 4.99 and 100.00, and stock of each."""

    api: Api
    org: Org
    branch_id: int
    till_id: int
    product_ids: list[int]

    def sale(self, *items: dict[str, Any], paid: str | None = None, **changes: Any) -> Any:
        """Return the body of a sale; without items, one of the first product, paid in cash."""
        body: dict[str, Any] = {
            "branch_id": self.branch_id,
            "items": list(items) or [self.item()],
            "payments": [] if paid is None else [{"amount": paid}],
        }
        return {**body, **changes}

    def item(self, product: int = 0, quantity: str = "1", **changes: Any) -> dict[str, Any]:
        """Return a line of a sale, of the first, second or third product."""
        return {"product_id": self.product_ids[product], "quantity": quantity, **changes}

    async def sell(
        self, *items: dict[str, Any], who: User | None = None, key: str | None = None, **body: Any
    ) -> Answer:
        """Post a sale."""
        sale = self.sale(*items, **body)
        return await self.api.post("/sales", who or self.org.admin, sale, key=key)

    async def stock(self, product: int = 0) -> tuple[str, str]:
        """Return quantity and value of a product's stock."""
        path = f"/inventory/stock-levels?branch_id={self.branch_id}"
        answer = await self.api.get(f"{path}&product_id={self.product_ids[product]}", self.org)
        (level,) = answer.data["items"]
        return level["quantity"], level["value"]

    async def balances(self) -> dict[str, str]:
        """Return the trial balance: debits less credits by account code, without zeros."""
        answer = await self.api.get("/journal/trial-balance", self.org)
        assert answer.data["is_balanced"]
        return {
            line["account_code"]: line["debit_balance"]
            if line["credit_balance"].strip("0.") == ""
            else "-" + line["credit_balance"]
            for line in answer.data["lines"]
            if (line["debit_balance"] + line["credit_balance"]).strip("0.") != ""
        }

    async def customer(self, **changes: Any) -> int:
        """Create a customer; returns the id."""
        answer = await self.api.post("/customers", self.org, {"name": "Carla", **changes})
        return int(answer.data["id"])


PRODUCTS = [("10.00", "6.00"), ("4.99", "2.50"), ("100.00", "70.00")]


async def open_shop(api: Api, org: Org, quantity: str = "100") -> Shop:
    """Make a branch, the three products and opening stock, all through the API."""
    branch = (await api.post("/branches", org, {"name": "Main Street"})).data
    product_ids = []
    for number, (price, cost) in enumerate(PRODUCTS, 1):
        product = {"sku": f"P{number}", "name": f"Product {number}", "price": price, "cost": cost}
        product_ids.append((await api.post("/products", org, product)).data["id"])
    receipt = {
        "branch_id": branch["id"],
        "kind": "OPENING",
        "lines": [
            {"product_id": product_id, "quantity": quantity, "unit_cost": cost}
            for product_id, (_, cost) in zip(product_ids, PRODUCTS, strict=True)
        ],
    }
    assert (await api.post("/inventory/receipts", org, receipt)).status == 201
    return Shop(api, org, branch["id"], branch["till_id"], product_ids)


@pytest.fixture
async def shop(api: Api, org: Org) -> Shop:
    """A shop with 100 of each product; tax is 10 % on top of prices."""
    return await open_shop(api, org)
