"""A database of the matrix's own, since it is mutilated here and there."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sofinance.config import Settings
from tests.conftest import _clone, _serving
from tests.matrix.world import World, make_world
from tests.support import role_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PORTAL = "https://shop.example.com/account"


@asynccontextmanager
async def furnished(template: str) -> AsyncIterator[World]:
    """Yield two furnished organisations in a database of their own."""
    with _clone(template, f"sofinance_matrix_{uuid.uuid4().hex[:12]}") as superuser_url:
        url = role_url(superuser_url, "sofinance_app")
        async with (
            _serving(Settings.for_tests(database_url=url, portal_url=PORTAL)) as api,
            make_world(api, superuser_url) as made,
        ):
            yield made


@pytest.fixture(scope="module")
async def world(template: str) -> AsyncIterator[World]:
    """Two furnished organisations, for all tests that leave them whole."""
    async with furnished(template) as made:
        yield made


@pytest.fixture
async def doomed_world(template: str) -> AsyncIterator[World]:
    """Two furnished organisations for one test, which lets the one write into the other."""
    async with furnished(template) as made:
        yield made
