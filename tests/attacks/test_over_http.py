"""The attacks that can be sent to the API: refused by the same names, leaving nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.attacks.over_http import REQUESTS, Request

if TYPE_CHECKING:
    from tests.attacks.scene import Scene
    from tests.support import Psql


def filled(scene: Scene, body: Any) -> Any:
    """Put the ids in the place of their `:names`."""
    if isinstance(body, dict):
        return {key: filled(scene, value) for key, value in body.items()}
    if isinstance(body, list):
        return [filled(scene, value) for value in body]
    if isinstance(body, str) and body.startswith(":"):
        return scene.ids[body[1:]]
    return body


@pytest.mark.parametrize("attack", [pytest.param(attack, id=attack.what) for attack in REQUESTS])
async def test_an_attack_over_http_is_refused_by_name(
    scene: Scene, psql: Psql, attack: Request
) -> None:
    def books() -> list[Any]:
        return psql(
            "select (select count(*) from journal_entry), (select count(*) from stock_movement),"
            " (select sum(receipt_count) from till), (select sum(outstanding) from receivable),"
            " (select count(*) from audit_log where severity = 'INFO')",
            org=scene.org,
        )

    before = books()
    who = scene.org.member(attack.role)
    path = scene.render(attack.path)
    answer = await scene.api.call(attack.method, path, who, filled(scene, attack.body))
    assert answer.refused == attack.refused
    assert books() == before


async def test_another_organisations_key_is_not_replayed(scene: Scene) -> None:
    body = {"name": "Key"}
    mine = await scene.api.post("/categories", scene.org, body, key="shared")
    theirs = await scene.api.post("/categories", scene.other, body, key="shared")
    assert (mine.status, theirs.status) == (201, 201)
    assert mine.data["id"] != theirs.data["id"]
    assert "Idempotent-Replayed" not in theirs.headers
