"""`sofinance keys reseal`: seal anew what an earlier DATA_ENCRYPTION_KEY sealed.

Each batch is a transaction of one organisation, and a secret that is sealed anew is not found
again: whoever breaks this off runs it once more.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from sofinance import queries as q
from sofinance.infra import second_factor, signatures
from sofinance.infra.command import EXIT_FAILED, EXIT_GOOD, EXIT_USAGE, SetupError, database_options
from sofinance.infra.db import Mode
from sofinance.infra.secretbox import SealError, SecretBox
from sofinance.tools.orgs import all_organisations, connected

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from sofinance.infra.db import Database

# Secrets of one transaction: a statement each.
BATCH = 100


class Sealed(NamedTuple):
    """A kind of secrets: how those of another key are found and replaced, and what they are for."""

    list_stale: Callable[..., Awaitable[Any]]
    count_stale: Callable[..., Awaitable[int]]
    reseal: Callable[..., Awaitable[int]]
    purpose: str


# Every column that holds what secretbox sealed; links that are sealed are in no table.
KINDS = {
    "authenticators": Sealed(
        q.second_factor.list_stale_secrets,
        q.second_factor.count_stale_secrets,
        q.second_factor.reseal_secret,
        second_factor.PURPOSE,
    ),
    "webhook_secrets": Sealed(
        q.webhooks.list_stale_secrets,
        q.webhooks.count_stale_secrets,
        q.webhooks.reseal_secret,
        signatures.PURPOSE,
    ),
}


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the action of `sofinance keys`."""
    parser = actions.add_parser(
        "reseal",
        help="seal anew what an earlier DATA_ENCRYPTION_KEY sealed",
        description="Opens secrets of authenticators and webhooks with "
        "DATA_ENCRYPTION_KEY_PREVIOUS and seals them with DATA_ENCRYPTION_KEY, some at a time, "
        "beside the service. May be broken off and run again. Exit code 1 while secrets are left.",
    )
    parser.add_argument("--check", action="store_true", help="only count what is to be done")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    database_options(parser)
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Seal anew, or count; tell how many there were, and how many are left."""
    done: Counter[str] = Counter()
    left: Counter[str] = Counter()
    async with connected(args) as database:
        box = SecretBox.configured(database.settings)
        if not box.key_id:
            raise SetupError("DATA_ENCRYPTION_KEY is not set.", exit_code=EXIT_USAGE)
        org_ids = await all_organisations(database, None)
        for place, org_id in enumerate(org_ids, 1):
            for name, kind in KINDS.items():
                if not args.check:
                    done[name] += await reseal(database, box, org_id, kind)
                async with database.tenant(org_id, mode=Mode.READ) as conn:
                    left[name] += await kind.count_stale(conn, org_id=org_id, key_id=box.key_id)
            if sys.stderr.isatty() and not args.json:
                line = f"organisation {place} of {len(org_ids)}: {sum(done.values())} sealed anew"
                print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
    if args.json:
        told = {"resealed": {name: done[name] for name in KINDS}, "left": dict(left)}
        print(orjson.dumps(told).decode())
    else:
        for name in KINDS:
            words = name.replace("_", " ")
            print(f"{words:<16} {done[name]:>8} sealed anew {left[name]:>8} left")
        if sum(left.values()) and not args.check:
            print("Those left are of a key that is not set: as DATA_ENCRYPTION_KEY_PREVIOUS it is.")
    return EXIT_FAILED if sum(left.values()) else EXIT_GOOD


async def reseal(database: Database, box: SecretBox, org_id: int, kind: Sealed) -> int:
    """Seal anew the secrets of one kind of an organisation; returns how many.

    Those that do not open are passed by, and stay as they are.
    """
    done, after_id, count = 0, 0, BATCH
    while count == BATCH:
        async with database.tenant(org_id) as conn:
            found = await kind.list_stale(
                conn, org_id=org_id, key_id=box.key_id, after_id=after_id, limit=BATCH
            )
            for row in found:
                bound = {"purpose": kind.purpose, "org_id": org_id, "user_id": row.owner_id}
                try:
                    secret = box.open(row.sealed, **bound)
                except SealError:
                    continue
                done += await kind.reseal(
                    conn, org_id=org_id, id=row.id, sealed=box.seal(secret, **bound)
                )
        count = len(found)
        after_id = found[-1].id if found else after_id
    return done
