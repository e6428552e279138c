"""Sealing secrets anew after the key was changed: all of them, each once, none lost."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sofinance import queries as q
from sofinance.infra import second_factor, signatures
from sofinance.infra.db import Database
from sofinance.infra.secretbox import SealError, SecretBox
from sofinance.jobs.business import count_business
from sofinance.tools import reseal
from tests.tools.test_orgs import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sofinance.config import Settings
    from tests.support import Org, Psql

    MakeOrg = Callable[..., Awaitable[Org]]

pytestmark = pytest.mark.empty_database

OLD, NEW, LOST = (bytes([n]) * 32 for n in (1, 2, 3))
OF = {"authenticators": second_factor.PURPOSE, "webhook_secrets": signatures.PURPOSE}


def fill(psql: Psql, org: Org, key: bytes, member: str = "CASHIER", slot: int = 1) -> None:
    """Give an organisation an authenticator and an endpoint whose secrets a key sealed."""
    box, user_id = SecretBox(key), org.member(member).id
    endpoint_id = psql(
        "insert into webhook_endpoint (org_id, slot, url, signature, created_by)"
        " values (%s, %s, 'https://example.com/' || %s, 'hmac', %s) returning id",
        [org.id, slot, slot, org.admin.id], org=org,
    )[0][0]  # fmt: skip
    bound = {"org_id": org.id, "user_id": user_id}
    psql(
        "insert into user_totp (org_id, user_id, secret) values (%s, %s, %s)",
        [org.id, user_id, box.seal(b"s" * 20, purpose=second_factor.PURPOSE, **bound)],
        org=org, role="sofinance_owner",
    )  # fmt: skip
    bound["user_id"] = endpoint_id
    psql(
        "insert into webhook_secret (org_id, endpoint_id, sealed) values (%s, %s, %s)",
        [org.id, endpoint_id, box.seal(b"whsec_x" * 5, purpose=signatures.PURPOSE, **bound)],
        org=org,
    )  # fmt: skip


def secrets(psql: Psql, org: Org) -> list[tuple[str, int, bytes]]:
    """Return what is sealed: for what, whose, how."""
    return [
        (second_factor.PURPOSE, *row)
        for row in psql("select user_id, secret from user_totp order by 1", org=org)
    ] + [
        (signatures.PURPOSE, *row)
        for row in psql("select endpoint_id, sealed from webhook_secret order by 1", org=org)
    ]


def opened(psql: Psql, org: Org, key: bytes) -> list[bytes]:
    """Return the secrets that a key opens."""
    found = []
    for purpose, owner_id, sealed in secrets(psql, org):
        try:
            found.append(
                SecretBox(key).open(bytes(sealed), purpose=purpose, org_id=org.id, user_id=owner_id)
            )
        except SealError:
            continue
    return found


@pytest.fixture
def told(
    dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Awaitable[tuple[int, Any]]]:
    """The command, with the new key and the old one: exit code and JSON."""
    monkeypatch.setenv("DATA_ENCRYPTION_KEY", NEW.hex())
    monkeypatch.setenv("DATA_ENCRYPTION_KEY_PREVIOUS", OLD.hex())

    async def command(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = await run(dsn, "keys", "reseal", "--json", *words)
        return code, json.loads(capsys.readouterr().out)

    return command


def counts(authenticators: int, webhook_secrets: int) -> dict[str, int]:
    return {"authenticators": authenticators, "webhook_secrets": webhook_secrets}


async def test_what_the_old_key_sealed_the_new_one_seals_anew(
    new_org: MakeOrg, psql: Psql, told: Callable[..., Awaitable[tuple[int, Any]]]
) -> None:
    orgs = [await new_org(), await new_org()]
    for org in orgs:
        fill(psql, org, OLD)
        fill(psql, org, NEW, "MANAGER", 2)
    assert await told("--check") == (1, {"resealed": counts(0, 0), "left": counts(2, 2)})
    before = [opened(psql, org, OLD) for org in orgs]
    assert await told() == (0, {"resealed": counts(2, 2), "left": counts(0, 0)})
    assert [opened(psql, org, OLD) for org in orgs] == [[], []]
    assert [sorted(set(opened(psql, org, NEW))) for org in orgs] == [
        sorted(found) for found in before
    ]
    same = [secrets(psql, org) for org in orgs]
    assert await told() == (0, {"resealed": counts(0, 0), "left": counts(0, 0)})
    assert [secrets(psql, org) for org in orgs] == same


async def test_what_neither_key_opens_is_left_as_it_is_and_told(
    org: Org, psql: Psql, told: Callable[..., Awaitable[tuple[int, Any]]],
    monkeypatch: pytest.MonkeyPatch, settings: Settings,
) -> None:  # fmt: skip
    monkeypatch.setattr(reseal, "BATCH", 1)
    fill(psql, org, LOST)
    lost = secrets(psql, org)
    fill(psql, org, OLD, "MANAGER", 2)
    database = Database(replace(settings, data_encryption_key=NEW.hex()))
    await database.open()
    await count_business(database)
    async with database.untenanted() as conn:
        figures = {row.name: row.value for row in await q.business.list_figures(conn)}
    await database.close()
    assert figures["secrets_stale"] == 4
    assert await told() == (1, {"resealed": counts(1, 1), "left": counts(1, 1)})
    assert await told() == (1, {"resealed": counts(0, 0), "left": counts(1, 1)})
    assert len(opened(psql, org, LOST)) == 2
    assert [row for row in secrets(psql, org) if row in lost] == lost


async def test_without_a_key_there_is_nothing_to_seal_with(
    dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(dsn, "keys", "reseal") == 2
    assert "DATA_ENCRYPTION_KEY is not set" in capsys.readouterr().err
