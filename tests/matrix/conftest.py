"""A database of the matrix's own, since it is mutilated here and there."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest

from sofinance.config import Settings
from tests.conftest import _clone, _serving
from tests.matrix.world import World, make_world
from tests.support import role_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(scope="module")
async def world(template: str) -> AsyncIterator[World]:
    """Two furnished organisations in a database of their own."""
    assert "TEST_SERVER" in os.environ
    with _clone(template, f"sofinance_matrix_{uuid.uuid4().hex[:12]}") as superuser_url:
        url = role_url(superuser_url, "sofinance_app")
        async with (
            _serving(Settings.for_tests(database_url=url)) as api,
            make_world(api, superuser_url) as made,
        ):
            yield made
