"""How much there is: of one's own organisation, and for the operator of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sofinance.api import system_stats
from tests.api.conftest import open_shop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import Api, Org, Psql

    MakeApi = Callable[..., Awaitable[Api]]

pytestmark = pytest.mark.empty_database


async def test_an_administrator_counts_their_own_and_no_further_than_a_bound(
    api_with: MakeApi, org: Org, other_org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await api_with(operator_org_id=org.id)
    shop = await open_shop(api, other_org)
    customer_id = await shop.customer()
    for number in range(3):
        await shop.sell(shop.item(number), customer_id=customer_id)
    answer = await api.get("/system/stats", other_org)
    assert answer.status == 200
    assert answer.data["server"] is None, "they do not run it"
    counts = answer.data["counts"]
    assert (counts["sales"], counts["customers"], counts["products"]) == (3, 1, 3)
    assert counts["users"] == len(other_org.members)
    assert (counts["webhooks"], counts["attachments"], counts["attachment_bytes"]) == (0, 0, 0)
    assert counts["journal_entries"] >= 3
    assert (await api.get("/system/stats", org)).data["counts"]["sales"] == 0
    monkeypatch.setattr(system_stats, "COUNT_MAX", 2)
    bounded = (await api.get("/system/stats", other_org)).data
    assert (bounded["counts"]["sales"], bounded["count_max"]) == (2, 2)
    refused = await api.get("/system/stats", other_org.member("MANAGER"))
    assert refused.refused == (403, "forbidden")


async def test_the_operator_sees_how_the_server_is(api_with: MakeApi, org: Org, psql: Psql) -> None:
    api = await api_with(operator_org_id=org.id)
    for name in ("one", "two", "three"):
        psql(f"select declare_job('{name}', 'Naps.', 86400, 0, 60)")
    psql("select steer_job('one', 'pause'); select beat_runner('worker', '1')")
    psql("select steer_job('two', 'run')")
    psql("select claim_job('worker', '{two}')")
    psql("select finish_job('two', 1, 'failed', 'no')")
    server = (await api.get("/system/stats", org)).data["server"]
    size = server.pop("database_size_bytes")
    assert size > 1_000_000
    assert server == {
        "workers": 1, "jobs": 3, "jobs_paused": 1, "jobs_failing": 1, "backups": 0,
        "last_backup_at": None, "last_verified_at": None,
    }  # fmt: skip
