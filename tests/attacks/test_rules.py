"""Each rule, attacked by hand as the application's role; what refuses it is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sofinance.infra.sql import Row
from sofinance.tools.verify import verify
from tests.attacks import rules
from tests.attacks.forgery import NO_EFFECT, unless
from tests.attacks.scene import refusal

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
