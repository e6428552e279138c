"""The owner can switch every guard off: verify finds what was done, and names it."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sofinance import cli
from sofinance.config import Settings
from sofinance.infra.sql import Row
from sofinance.tools.verify import (
    CHECKS,
    Release,
    verify,
    verify_guards,
    verify_organisation,
)
from tests.attacks import corruptions
from tests.attacks.conftest import set_scene
from tests.conftest import _clone, _serving
from tests.support import Psql, role_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.attacks.corruptions import Corruption
    from tests.attacks.scene import Scene


@pytest.fixture(scope="module")
async def crime_scene(template: str) -> AsyncIterator[tuple[Scene, str]]:
    """A database with the scene in it, of which every corruption gets a copy of its own."""
    name = f"sofinance_scene_{uuid.uuid4().hex[:12]}"
    with _clone(template, name) as url:
        psql = Psql(url)
        settings = Settings.for_tests(database_url=role_url(url, "sofinance_app"))
        async with _serving(settings) as api:
            scene = await set_scene(api, psql)
        psql.close()
        yield scene, name


@pytest.fixture
async def culprit(crime_scene: tuple[Scene, str]) -> AsyncIterator[Any]:
    """A superuser's connection to the scene itself."""
    superuser = role_url(os.environ["TEST_SERVER"], "superuser", crime_scene[1])
    conn: Any = await asyncpg.connect(superuser, record_class=Row)
    yield conn
    await conn.close()


@contextmanager
def copied(crime_scene: tuple[Scene, str]) -> Iterator[tuple[Scene, Psql]]:
    """Yield the scene in a database that may be ruined."""
    scene, name = crime_scene
    with _clone(name, f"sofinance_ruin_{uuid.uuid4().hex[:12]}") as url:
        psql = Psql(url)
        yield scene, psql
        psql.close()


async def broken(psql: Psql, org_id: int | None = None) -> dict[str, dict[str, Any]]:
    """Return what verify finds as the application's role: the first broken record by check."""
    conn: Any = await asyncpg.connect(
        role_url(psql.superuser_url, "sofinance_app"), record_class=Row
    )
    findings = await verify(conn, org_id=org_id)
    await conn.close()
    return {f.check: f.first or {} for f in findings if f.broken}


@pytest.mark.parametrize(
    "corruption",
    [
        pytest.param(corruption, id=corruption.what)
        for corruption in (*corruptions.ROWS, *corruptions.GUARD_NAMES)
    ],
)
async def test_what_the_owner_did_is_found_and_named(
    crime_scene: tuple[Scene, str], culprit: Any, corruption: Corruption
) -> None:
    scene, _ = crime_scene
    # Found by the application's role, in the culprit's own transaction, which is then undone: so
    # all of them share one scene.
    release = Release.load()
    transaction = culprit.transaction()
    await transaction.start()
    if corruption.role != "superuser":
        await culprit.execute(f"set local role {corruption.role}")
    await culprit.execute(f"select set_config('app.org_id', '{scene.org.id}', true)")
    await culprit.execute(scene.render(corruption.sql))
    await culprit.execute("reset role; set local role sofinance_app")
    findings = [
        await verify_guards(culprit, release),
        *await verify_organisation(culprit, scene.org.id, release),
        *await verify_organisation(culprit, scene.other.id, release),
    ]
    await transaction.rollback()
    found = {f.check: f.first or {} for f in findings if f.broken}
    assert {f.organisation_id for f in findings if f.broken} <= {None, scene.org.id}
    assert set(found) == set(corruption.found_by)
    first = found[corruption.found_by[0]]
    for key, expected in corruption.names.items():
        value = expected[1:] if expected.startswith("=") else str(scene.ids[expected])
        assert str(first[key]) == value


@pytest.mark.parametrize("attribute", ["bypassrls", "superuser", "createrole"])
async def test_a_role_that_may_more_is_found(
    crime_scene: tuple[Scene, str], attribute: str
) -> None:
    # Roles belong to the whole server, so the transaction that looks is the one that undoes it.
    with copied(crime_scene) as (_, psql):
        conn: Any = await asyncpg.connect(psql.superuser_url, record_class=Row)
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute(f"alter role sofinance_readonly {attribute}")
        rows = await conn.fetch(_guards_sql())
        await transaction.rollback()
        await conn.close()
    (role,) = [row for row in rows if (row.kind, row.name) == ("role", "sofinance_readonly")]
    assert attribute.upper() in role.definition


def _guards_sql() -> str:
    from sofinance import queries as q  # noqa: PLC0415 - beside its only use

    return q.integrity.list_guards.sql


async def test_books_that_nobody_touched_are_clean_for_every_role(
    crime_scene: tuple[Scene, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with copied(crime_scene) as (scene, psql):
        for org in (scene.org, scene.other):
            psql("select mark_roll_up()", org=org)
            psql("select roll_up_balances()", org=org)
        assert await broken(psql) == {}
        assert await broken(psql, scene.other.id) == {}
        for role in ("sofinance_app", "sofinance_readonly", "sofinance_owner", "superuser"):
            findings = await _verify_as(psql, role)
            assert not any(f.broken for f in findings), role
            assert {f.organisation_id for f in findings} == {None, scene.org.id, scene.other.id}
            # Each looked at something, or its silence would prove nothing.
            assert [f.check for f in findings if not f.checked] == []
    assert capsys.readouterr().out == ""


async def _verify_as(psql: Psql, role: str) -> list[Any]:
    conn: Any = await asyncpg.connect(role_url(psql.superuser_url, role), record_class=Row)
    findings = await verify(conn)
    await conn.close()
    return findings


async def test_an_organisation_cannot_be_hidden(crime_scene: tuple[Scene, str]) -> None:
    with copied(crime_scene) as (scene, psql):
        psql("delete from sign_in_address", role="sofinance_owner")
        psql(
            scene.render(corruptions.HUSH + "delete from journal_line where entry_id = :entry;"),
            role="superuser",
        )
        assert set(await broken(psql)) == {"entries_balance", "users_sign_in_where_they_belong"}


def test_the_command_says_so_with_its_exit_code(
    crime_scene: tuple[Scene, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with copied(crime_scene) as (scene, psql):
        url = role_url(psql.superuser_url, "sofinance_app")
        assert cli.main(["verify", "--database-url", url]) == 0
        printed = capsys.readouterr().out
        assert "2 organisations" in printed
        assert "all is well" in printed
        assert printed.count("✓") == len(CHECKS) + 3

        psql(
            scene.render(corruptions.HUSH + "delete from journal_line where entry_id = :entry;"),
            role="superuser",
        )
        assert cli.main(["verify", "--database-url", url]) == 1
        printed = capsys.readouterr().out
        assert "✗ entries_balance" in printed
        assert f'"entry_id": {scene.ids["entry"]}' in printed

        assert cli.main(["verify", "--json", "--database-url", url]) == 1
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] is False
        (bad,) = [check for check in document["checks"] if check["broken"]]
        assert bad["check"] == "entries_balance"
        assert bad["first"]["entry_id"] == scene.ids["entry"]
        assert bad["organisation_id"] == scene.org.id

        # The other one's books are clean all the same.
        other = ["--org", str(scene.other.id)]
        assert cli.main(["verify", *other, "--database-url", url]) == 0
        assert cli.main(["verify", "--org", "999999", "--database-url", url]) == 3
        assert "no organisation 999999" in capsys.readouterr().err
