"""One scene for all attacks of a worker: a refused attack leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from sofinance.config import Settings
from sofinance.infra.sql import Row
from tests.attacks.scene import Scene, furnish, furnish_jobs
from tests.support import Org, found, role_url

if TYPE_CHECKING:
    from tests.support import Api, Psql


async def make_org(superuser_url: str, name: str, **changes: object) -> Org:
    """Create an organisation whose people have tokens but no passwords."""
    settings = Settings.for_tests(database_url=role_url(superuser_url, "sofinance_app"))
    conn = await asyncpg.connect(settings.database_url, record_class=Row)
    org = await found(conn, settings, "none", "", name=name, **changes)
    await conn.close()
    return org


async def set_scene(api: Api, psql: Psql) -> Scene:
    """Make both organisations; ids of the other one are called other_*."""
    org = await make_org(psql.superuser_url, "Under attack")
    other = await make_org(psql.superuser_url, "Other")
    ids = await furnish(api, org, psql)
    other_ids = await furnish(api, other, psql)
    furnish_jobs(psql, org)
    return Scene(api, org, other, ids | {f"other_{name}": id_ for name, id_ in other_ids.items()})


@pytest.fixture(scope="session")
async def scene(_worker_api: Api, _worker_psql: Psql) -> Scene:
    """Two organisations with one of everything."""
    made = await set_scene(_worker_api, _worker_psql)
    for org in (made.org, made.other):
        for function in ("mark_roll_up", "roll_up_balances"):
            _worker_psql(f"select {function}()", org=org)
    return made
