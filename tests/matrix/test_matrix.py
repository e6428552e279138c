"""Every endpoint, two organisations, two branches, five roles and a key: nothing crosses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.matrix import cells
from tests.matrix.samples import SAMPLES
from tests.matrix.world import endpoints, name_of

if TYPE_CHECKING:
    from tests.matrix.world import World


def test_every_endpoint_has_its_sample() -> None:
    assert sorted(SAMPLES) == sorted(name_of(endpoint) for endpoint in endpoints())


async def test_another_organisation_changes_no_answer(world: World) -> None:
    # All that can be read was read before the other one had anything, and after.
    assert not world.interference, "\n".join(world.interference)


async def test_another_organisations_rows_are_like_none(world: World) -> None:
    wrong = [
        f"{name_of(e)}: {told}" for e in endpoints() for told in await cells.organisations(world, e)
    ]
    assert not wrong, "\n".join(wrong)


async def test_another_branchs_rows_are_like_none(world: World) -> None:
    wrong = [
        f"{name_of(e)}: {told}" for e in endpoints() for told in await cells.branches(world, e)
    ]
    assert not wrong, "\n".join(wrong)


async def test_who_lacks_the_permission_is_refused_and_nobody_else(world: World) -> None:
    allowed = cells.permissions(world)
    wrong = [
        f"{name_of(e)}: {told}"
        for e in endpoints()
        for told in await cells.roles(world, e, allowed)
    ]
    assert not wrong, "\n".join(wrong)
