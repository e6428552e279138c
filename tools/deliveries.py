"""`python -m tools.deliveries`: thousands of events, several workers, a receiver that fails.

Real workers (`sofinance worker`) deliver to a real server in a process of its own, which refuses
one message in three after it has read it; one worker is killed (SIGKILL) on the way and another
takes its place. What the receiver saw is then held against what was written: every event arrived,
in the order of its thing, twice only under the same webhook-id, and nothing after a dead one.
Dead letters are replayed until there are none. Exits with 1 where any of that is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from sofinance import queries as q
from sofinance.config import Settings
from sofinance.infra import signatures
from sofinance.infra.db import Database, Mode
from sofinance.infra.secretbox import SecretBox
from tools.generate import migrated_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
KEY = "5a" * 32
NO_PASSWORD = "none"  # noqa: S105 - nobody signs in
WRITERS = 8
CHANGES = 9  # of each thing, after its creation: ten events in one order
POLL_S = 0.2
DEADLINE_S = 900
# Three attempts, so that some die: one in 27.
DELAYS_S = "0,1,1"
REFUSED_ONE_IN = 3


@dataclass
class Outcome:
    """What was seen."""

    events: int
    things: int
    seconds: float = 0.0
    requests: int = 0
    refused: int = 0
    repeated: int = 0
    first_dead: int = 0
    rounds: int = 0
    killed: int = 0
    faults: list[str] = field(default_factory=list)

    def told(self) -> str:
        """Return it in lines."""
        pace = self.events / self.seconds
        lines = [
            f"{self.events} events of {self.things} things in {self.seconds:.1f} s: {pace:.0f}/s",
            f"{self.requests} requests, {self.refused} of them refused by the receiver",
            f"{self.repeated} of what the receiver had taken already, under the same webhook-id",
            f"{self.killed} workers killed",
            f"{self.first_dead} dead letters; none after {self.rounds} rounds of replay",
            *(f"WRONG: {fault}" for fault in self.faults[:20]),
            "as promised" if not self.faults else f"{len(self.faults)} promises broken",
        ]
        return "\n".join(lines)


# -- the receiver, in a process of its own ---------------------------------------------------------


def receive(args: argparse.Namespace) -> None:
    """Take messages, refuse some, and write each down: webhook-id, thing, answer."""
    chance = random.Random(args.seed)  # noqa: S311 - repeatable on purpose
    verifier = Webhook(os.environ["WEBHOOK_SECRET"])
    journal = Path(args.journal)

    async def take(request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            body = verifier.verify(raw, dict(request.headers))
        except WebhookVerificationError:
            status = 401
            body = {"data": {"id": 0}}
        else:
            status = 500 if chance.randrange(REFUSED_ONE_IN) == 0 else 200
        line = [request.headers["webhook-id"], body["data"]["id"], status]
        note(journal, line)
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/hook", take)
    web.run_app(app, host="127.0.0.1", port=args.port, print=None)


def note(journal: Path, line: list[Any]) -> None:
    """Write a line down, whole."""
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


# -- the organisation and what happens in it -------------------------------------------------------


async def found(database: Database, url: str) -> tuple[int, str]:
    """Make an organisation with an endpoint; returns its number and the secret."""
    async with database.untenanted(mode=Mode.WRITE) as conn:
        made = await q.orgs.create_organisation(
            conn, name="Deliveries", base_currency="USD", time_zone="UTC",
            prices_include_tax=False, standard_tax_percent=Decimal(0),
            default_credit_limit=Decimal(0), admin_email=f"{os.urandom(8).hex()}@example.com",
            admin_password_hash=NO_PASSWORD, admin_first_name="Ada", admin_last_name="Admin",
        )  # fmt: skip
    secret = signatures.make_secret("hmac")
    async with database.tenant(made.org_id, user_id=made.admin_id) as conn:
        endpoint = await q.webhooks.create_endpoint(
            conn, org_id=made.org_id, user_id=made.admin_id, url=url, description="",
            event_types=["product.created", "product.changed"], signature="hmac",
        )  # fmt: skip
        sealed = SecretBox(bytes.fromhex(KEY)).seal(
            secret.encode(),
            purpose=signatures.PURPOSE,
            org_id=made.org_id,
            user_id=endpoint.id,
        )
        await q.webhooks.add_secret(
            conn, org_id=made.org_id, endpoint_id=endpoint.id, sealed=sealed, public_key=None
        )
    return made.org_id, secret


async def happen(database: Database, org_id: int, things: int) -> None:
    """Create things and change each nine times, by writers side by side: many events at once."""
    waiting = list(range(things))

    async def write() -> None:
        while waiting:
            number = waiting.pop()
            what: dict[str, Any] = {
                "org_id": org_id, "sku": f"T{number}", "barcode": None, "description": None,
                "category_id": None, "tax_code_id": None, "cost": Decimal(0),
                "price": Decimal(1), "is_active": True,
            }  # fmt: skip
            async with database.tenant(org_id) as conn:
                made = await q.catalog.create_product(conn, name="Thing 0", **what)
            for change in range(CHANGES):
                async with database.tenant(org_id) as conn:
                    await q.catalog.change_product(
                        conn, id=made.id, name=f"Thing {change + 1}", **what
                    )

    await asyncio.gather(*(write() for _ in range(WRITERS)))


# -- the run ---------------------------------------------------------------------------------------


@asynccontextmanager
async def running(command: Sequence[str], **environ: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a program of ours for as long as a block runs."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environ})  # noqa: ASYNC220
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 60)


async def prove(
    settings: Settings, *, events: int, workers: int, kills: int, seed: int, port: int
) -> Outcome:
    """Do all of it on a migrated database."""
    things = events // (CHANGES + 1)
    outcome = Outcome(events=things * (CHANGES + 1), things=things)
    database = Database(replace(settings, database_pool_size=WRITERS + 2))
    await database.open()
    journal = Path(tempfile.mkdtemp(prefix="sofinance-deliveries-")) / "received.jsonl"
    journal.touch()
    try:
        org_id, secret = await found(database, f"http://127.0.0.1:{port}/hook")
        receiver = [
            sys.executable, "-m", "tools.deliveries", "--receive", "--port", str(port),
            "--journal", str(journal), "--seed", str(seed),
        ]  # fmt: skip
        worker = [sys.executable, "-m", "sofinance", "worker"]
        environ = {
            "DATABASE_URL": settings.database_url, "JWT_SECRET": settings.jwt_secret,
            "DATABASE_PREPARED_STATEMENTS": str(settings.database_prepared_statements),
            "DATA_ENCRYPTION_KEY": KEY, "EXPORT_MODE": "webhook", "EXPORT_ALLOW_HTTP": "true",
            "EXPORT_ALLOWED_NETWORKS": "127.0.0.1", "EXPORT_RETRY_DELAYS_S": DELAYS_S,
            "EXPORT_TIMEOUT_S": "5", "EXPORT_CIRCUIT_FAILURES": "1000", "LOG_LEVEL": "error",
        }  # fmt: skip
        started_s = time.monotonic()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(receiver, WEBHOOK_SECRET=secret))
            runners = [
                await stack.enter_async_context(running(worker, **environ)) for _ in range(workers)
            ]
            happening = asyncio.create_task(happen(database, org_id, things))
            for number in range(kills):
                await until_received(journal, outcome.events * (number + 1) // (kills + 2))
                runners[number].kill()
                outcome.killed += 1
                await stack.enter_async_context(running(worker, **environ))
            await happening
            await until_quiet(database)
            outcome.first_dead = await after_dead_ones(database, org_id, journal, outcome)
            while await replay(database, org_id):
                outcome.rounds += 1
                await until_quiet(database)
            outcome.seconds = time.monotonic() - started_s
        await judge(database, org_id, journal, outcome)
    finally:
        await database.close()
    return outcome


async def until_received(journal: Path, count: int) -> None:
    """Wait until so many messages came."""
    deadline_s = time.monotonic() + DEADLINE_S
    while len(read(journal)) < count:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{len(read(journal))} of {count} messages came")
        await asyncio.sleep(POLL_S)


async def until_quiet(database: Database) -> None:
    """Wait until nothing is due: all has arrived, is dead, or waits behind a dead one."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        async with database.untenanted() as conn:
            left = await q.outbox.read_outbox(conn)
        if not left.new_count + left.pending_count + left.retry_count:
            return
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{left}")
        await asyncio.sleep(POLL_S)


async def replay(database: Database, org_id: int) -> int:
    """Send all dead letters again; returns how many."""
    async with database.tenant(org_id) as conn:
        dead = await q.deliveries.list_dead_letters(
            conn, org_id=org_id, endpoint_id=None, limit=100_000, offset=0
        )
        return await q.deliveries.replay_deliveries(
            conn, ids=[row.id for row in dead], user_id=None, attempts=0
        )


def read(journal: Path) -> list[tuple[str, int, int]]:
    """Return what the receiver has written down, whole lines only."""
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]


# -- what was promised -----------------------------------------------------------------------------


async def after_dead_ones(database: Database, org_id: int, journal: Path, outcome: Outcome) -> int:
    """Find what was sent although an earlier event of its thing is dead; returns the dead ones."""
    events = await written(database, org_id)
    async with database.tenant(org_id, mode=Mode.READ) as conn:
        dead = await q.deliveries.list_dead_letters(
            conn, org_id=org_id, endpoint_id=None, limit=100_000, offset=0
        )
    died_at = {row.aggregate_id: row.event_id for row in dead}
    sent = {message for message, _, _ in read(journal)}
    for message, (event_id, thing) in events.items():
        if message in sent and event_id > died_at.get(thing, event_id):
            outcome.faults.append(f"{message} was sent after a dead one of thing {thing}")
    outcome.faults += [
        f"{row.message_id} is dead and was never sent" for row in dead if row.message_id not in sent
    ]
    return len(dead)


async def written(database: Database, org_id: int) -> dict[str, tuple[int, int]]:
    """Return every event by its webhook-id: its number, which tells the order, and its thing."""
    events: dict[str, tuple[int, int]] = {}
    after_id = 0
    async with database.tenant(org_id, mode=Mode.READ) as conn:
        while page := await q.deliveries.list_events(
            conn, org_id=org_id, after_id=after_id, type=None, aggregate="product",
            aggregate_id=None, limit=1_000,
        ):  # fmt: skip
            events |= {row.message_id: (row.id, row.aggregate_id) for row in page}
            after_id = page[-1].id
    return events


async def judge(database: Database, org_id: int, journal: Path, outcome: Outcome) -> None:
    """Hold what the receiver saw against what was written."""
    events = await written(database, org_id)
    async with database.untenanted() as conn:
        left = await q.outbox.read_outbox(conn)
    received = read(journal)
    outcome.requests = len(received)
    outcome.refused = sum(status != HTTPStatus.OK for *_, status in received)
    taken: set[str] = set()
    latest: dict[int, int] = defaultdict(int)
    for message, thing, status in received:
        if status == HTTPStatus.UNAUTHORIZED or events.get(message, (0, 0))[1] != thing:
            outcome.faults.append(f"{message} is not what was written")
            continue
        event_id = events[message][0]
        if event_id < latest[thing]:
            outcome.faults.append(f"thing {thing}: {event_id} came after {latest[thing]}")
        latest[thing] = event_id
        if status == HTTPStatus.OK:
            outcome.repeated += message in taken
            taken.add(message)
    if len(events) != outcome.events:
        outcome.faults.append(f"{len(events)} events were written, not {outcome.events}")
    outcome.faults += [f"{message} never arrived" for message in events.keys() - taken]
    if any((left.new_count, left.pending_count, left.retry_count, left.dead_count)):
        outcome.faults.append(f"something is left: {left}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 0 where all promises are kept."""
    parser = argparse.ArgumentParser(prog="python -m tools.deliveries", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=1, help="workers that are killed on the way")
    parser.add_argument("--seed", type=int, default=20_261_121)
    parser.add_argument("--port", type=int, default=8799)
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--journal", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.receive:
        receive(args)
        return 0
    print(f"seed {args.seed}", flush=True)
    with migrated_database() as urls:
        settings = Settings.for_tests(database_url=urls.app)
        outcome = asyncio.run(
            prove(
                settings, events=args.events, workers=args.workers, kills=args.kills,
                seed=args.seed, port=args.port,
            )
        )  # fmt: skip
    print(outcome.told())
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
