"""One scene for all attacks of a worker: a refused attack leaves nothing behind."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import asyncpg
import pytest

from sofinance import queries as q
from sofinance.config import Settings
from sofinance.infra.guard import Guard
from sofinance.infra.sql import Row
from tests.attacks.scene import Scene, furnish
from tests.support import Org, User, role_url

if TYPE_CHECKING:
    from tests.support import Api, Psql


async def make_org(superuser_url: str, name: str, **changes: object) -> Org:
    """Create an organisation whose administrator has a token but no password."""
    settings = Settings.for_tests(database_url=role_url(superuser_url, "sofinance_app"))
    guard = Guard(
        secret=settings.jwt_secret,
        algorithm=settings.jwt_algorithm,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        token_minutes=settings.access_token_minutes,
    )

    def issue_token(user: User) -> str:
        now = datetime.now(UTC)
        return guard.issue_token(user_id=user.id, org_id=user.org_id, role=user.role, now=now)[0]

    asked = {
        "name": name,
        "base_currency": "USD",
        "time_zone": "UTC",
        "prices_include_tax": False,
        "standard_tax_percent": Decimal(10),
        "default_credit_limit": Decimal(1000),
        "admin_email": f"{uuid.uuid4().hex}@example.com",
        "admin_first_name": "Ada",
        "admin_last_name": "Admin",
        "admin_password_hash": "none",
        **changes,
    }
    conn = await asyncpg.connect(settings.database_url, record_class=Row)
    made = await q.orgs.create_organisation(conn, **asked)
    await conn.close()
    admin = User(made.org_id, made.admin_id, "ADMIN", str(asked["admin_email"]), "", token="")
    admin = replace(admin, token=issue_token(admin))
    return Org(made.org_id, name, str(asked["base_currency"]), admin, issue_token)


async def set_scene(api: Api, psql: Psql) -> Scene:
    """Make both organisations; ids of the other one are called other_*."""
    org = await make_org(psql.superuser_url, "Under attack")
    other = await make_org(psql.superuser_url, "Other")
    ids = await furnish(api, org, psql)
    other_ids = await furnish(api, other, psql)
    return Scene(api, org, other, ids | {f"other_{name}": id_ for name, id_ in other_ids.items()})


@pytest.fixture(scope="session")
async def scene(_worker_api: Api, _worker_psql: Psql) -> Scene:
    """Two organisations with one of everything."""
    made = await set_scene(_worker_api, _worker_psql)
    for org in (made.org, made.other):
        for function in ("mark_roll_up", "roll_up_balances"):
            _worker_psql(f"select {function}()", org=org)
    return made
