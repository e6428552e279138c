"""8: clocks differ: the services' by five minutes either way, a till's by a day."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.journal import DONE, Order
from chaos.writers import PREFIX, UNIT
from sofinance.infra.passwords import hash_password

if TYPE_CHECKING:
    from chaos.stage import Stage

SKEWS_S = (0, 299, -299)
LIBRARIES = "/usr/lib/*/faketime/libfaketime.so.1"
PASSWORD = "correct horse battery staple"  # noqa: S105 - of somebody made up
WAIT_S = 30
TRUTH = """
select sold_on = (now() at time zone 'utc')::date, abs(extract(epoch from now() - sold_at)) < 60,
    till_at
from sale where org_id = %s and notes = %s
"""


async def skew_clocks(stage: Stage) -> str:
    """Serve with three clocks; whoever signed in at one is let in at all, and PostgreSQL dates."""
    for skew_s in SKEWS_S:
        await stage.serve(**_faked(skew_s))
    tokens = await _sign_in(stage)
    stage.begin()
    await stage.heal()
    for token in tokens:
        for url in stage.crowd.urls:
            async with stage.crowd.session.get(
                f"{url}{PREFIX}/auth/me", headers={"Authorization": f"Bearer {token}"}
            ) as answer:
                stage.demand(f"a token is refused: {answer.status}", holds=answer.status == 200)
    for number, ahead in enumerate((timedelta(days=1), timedelta(days=-1))):
        key = f"{stage.seed}-till-{number}"
        branch_id, till_id = stage.shop.place(number)
        till_at = datetime.now(UTC).replace(microsecond=0) + ahead
        order = Order(key, "sale", "/sales", {
            "branch_id": branch_id, "till_id": till_id, "notes": key,
            "till_at": till_at.isoformat(),
            "items": [{"product_id": stage.shop.product_ids[0], "quantity": "1"}],
            "payments": [{"amount": str(UNIT)}],
        })  # fmt: skip
        stage.crowd.journal.begin(order)
        attempt = await stage.crowd.insist(order, WAIT_S)
        stage.demand("not sold", holds=attempt is not None and attempt.outcome == DONE)
        with stage.postgres.superuser() as conn:
            found = conn.execute(TRUTH, [stage.shop.org_id, key]).fetchone()
        stage.demand(f"it is dated {found}", holds=found == (True, True, till_at))
    await stage.pause(2, 3)
    stage.demand(f"somebody noticed: {stage.crowd.codes}", holds=set(stage.crowd.codes) == {""})
    return "services five minutes ahead and behind, tills a day ahead and behind"


def _faked(skew_s: int) -> dict[str, str]:
    """Return what gives a process another clock; monotonic time stays."""
    if not skew_s:
        return {}
    libraries = [str(path) for path in Path("/").glob(LIBRARIES.lstrip("/"))]
    if not libraries or shutil.which("faketime") is None:
        raise RuntimeError("libfaketime is not installed; on Debian: apt-get install faketime")
    return {
        "LD_PRELOAD": libraries[0], "FAKETIME": f"{skew_s:+}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


async def _sign_in(stage: Stage) -> list[str]:
    """Return an access token from each service, so with each clock."""
    with stage.postgres.superuser() as conn:
        conn.execute("select set_config('app.org_id', %s, false)", [str(stage.shop.org_id)])
        conn.execute(
            "update app_user set password_hash = %s, must_change_password = false"
            " where org_id = %s and id = %s",
            [await hash_password(PASSWORD), stage.shop.org_id, stage.shop.user_id],
        )
        (email,) = conn.execute(
            "select email from app_user where id = %s", [stage.shop.user_id]
        ).fetchall()[0]
    tokens = []
    for url in stage.crowd.urls:
        async with stage.crowd.session.post(
            f"{url}{PREFIX}/auth/login", json={"email": email, "password": PASSWORD}
        ) as answer:
            tokens.append((await answer.json())["data"]["access_token"])
    return tokens
