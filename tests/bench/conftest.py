"""A shop, for what a sale costs; the one of the API's own tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.conftest import Shop, open_shop

if TYPE_CHECKING:
    from tests.support import Api, Org


@pytest.fixture
async def shop(api: Api, org: Org) -> Shop:
    """A shop with 100 of each product."""
    return await open_shop(api, org)
