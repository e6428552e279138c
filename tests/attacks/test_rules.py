"""Each rule, attacked by hand as the application's role; what refuses it is named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest

from sofinance.infra.sql import Row
from sofinance.tools.verify import verify
from tests.attacks import rules
from tests.attacks.forgery import NO_EFFECT, unless
from tests.attacks.scene import name_of, refusal

if TYPE_CHECKING:
    from tests.attacks.forgery import Attack
    from tests.attacks.scene import Scene
    from tests.support import Psql

ATTACKS = [
    pytest.param(attack, id=f"{attack.what} [{attack.refused_by}]")
    for attacks in rules.BY_SLICE.values()
    for attack in attacks
]


@pytest.mark.parametrize("sql", rules.VALID.values(), ids=rules.VALID.keys())
def test_what_the_attacks_begin_with_is_valid(scene: Scene, psql: Psql, sql: str) -> None:
    fired = "set constraints all immediate;\n"
    assert refusal(psql, scene.render(sql + fired + unless("true")), org=scene.org) == NO_EFFECT


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_by_name(scene: Scene, psql: Psql, attack: Attack) -> None:
    refused = refusal(psql, scene.render(attack.sql), role=attack.role, org=scene.org)
    assert refused == attack.refused_by


async def test_after_all_of_them_the_books_verify(scene: Scene, dsn: str) -> None:
    conn: Any = await asyncpg.connect(dsn, record_class=Row)
    for org in (scene.org, scene.other):
        findings = await verify(conn, org_id=org.id)
        assert [finding for finding in findings if finding.broken] == []
    await conn.close()


def test_of_twenty_administrators_who_are_disabled_at_once_one_stays(psql: Psql, dsn: str) -> None:
    """With the rule at work in twenty transactions, in the isolation that sees the least too."""
    for isolation in ("read committed", "repeatable read"):
        org_id = psql(
            "select org_id from create_organisation('Race', 'USD', 'UTC', false, 0, 0,"
            " gen_random_uuid() || '@example.com', 'x', 'A', 'B')"
        )[0][0]
        psql(
            "insert into app_user (org_id, email, password_hash, first_name, last_name, role,"
            " all_branches) select current_setting('app.org_id')::bigint,"
            " gen_random_uuid() || '@example.com', 'x', 'A', 'B', 'ADMIN', true"
            " from generate_series(1, 19)",
            role="sofinance_owner", org=org_id,
        )  # fmt: skip
        ids = [row[0] for row in psql("select id from app_user", org=org_id)]
        ready = Barrier(len(ids))

        def disable(
            user_id: int, ready: Barrier = ready, org_id: int = org_id, isolation: str = isolation
        ) -> str:
            with psycopg.connect(dsn) as conn:
                conn.execute(f"set transaction isolation level {isolation}")
                conn.execute("select set_config('app.org_id', %s, true)", [str(org_id)])
                conn.execute("select count(*) from app_user")
                ready.wait()
                try:
                    conn.execute("update app_user set is_active = false where id = %s", [user_id])
                    conn.commit()
                except psycopg.Error as error:
                    return name_of(error)
            return ""

        with ThreadPoolExecutor(len(ids)) as pool:
            refused = [name for name in pool.map(disable, ids) if name]
        left = psql("select count(*) from app_user where is_active", org=org_id)[0][0]
        assert left == len(refused) >= 1
        expected = {"app_user_keeps_an_admin"}
        assert set(refused) <= (expected if isolation == "read committed" else {*expected, "40001"})
        assert isolation != "read committed" or left == 1
