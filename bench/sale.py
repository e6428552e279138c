"""The sale: over HTTP against pgbench on the same statements, its evenness, what Python takes."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import urllib.request
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from bench import pgbench
from bench.measure import Effort, Result, median, percentile, ratio, take_turns
from bench.world import BRANCH_COUNT, PRICE, ROOT, TAX_PERCENT
from sofinance import queries as q

if TYPE_CHECKING:
    from bench.world import Service, Shop, World

ITEM_COUNT = 3
CLIENT_COUNT = 8
EVEN_CLIENT_COUNT = 16
# Baskets that each client has ready; it posts them over and over, each time as a new sale.
BASKET_COUNT = 200
PATH = "/api/v1/sales"
PARAMETER = re.compile(r"\$([0-9]+)")
WARM_UP_S = 1.0


def paid() -> Decimal:
    """Return what a sale of ITEM_COUNT single units costs, tax included."""
    tax = (PRICE * TAX_PERCENT / 100).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return ITEM_COUNT * (PRICE + tax)


def baskets(shop: Shop, till: int, count: int = BASKET_COUNT) -> list[str]:
    """Return sales as JSON, of products drawn at random, paid in cash."""
    branch_id, till_id = shop.place(till)
    draw = random.Random(till)  # noqa: S311 - the same baskets in every run
    return [
        json.dumps({
            "branch_id": branch_id,
            "till_id": till_id,
            "items": [
                {"product_id": product_id, "quantity": "1"}
                for product_id in draw.sample(shop.product_ids, ITEM_COUNT)
            ],
            "payments": [{"amount": str(paid())}],
        })
        for _ in range(count)
    ]  # fmt: skip


def post(world: World, service: Service, *, clients: int, seconds: float) -> dict[str, Any]:
    """Post sales from so many tills at once; return what the load generator saw."""
    job = {
        "host": "127.0.0.1",
        "port": service.port,
        "path": PATH,
        "token": world.token(),
        "seconds": seconds,
        "bodies": [baskets(world.shop, till) for till in range(clients)],
    }
    cpu_began_s = service.cpu_s()
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        cwd=ROOT, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    seen: dict[str, Any] = json.loads(done.stdout)
    seen["service_cpu_s"] = service.cpu_s() - cpu_began_s
    seen["rate"] = seen["count"] / seen["elapsed_s"]
    return seen


def sample(world: World, service: Service) -> bytes:
    """Post one sale and return the answer, byte for byte."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}{PATH}",
        data=baskets(world.shop, 0, 1)[0].encode(),
        headers={"Authorization": f"Bearer {world.token()}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - the same
        body: bytes = answer.read()
    return body


def script(world: World, answer: bytes) -> str:
    """Return the sale for pgbench: the statements that the service sends, in three round trips.

    They are the named queries themselves. pgbench prepares all of them; the service sends the
    first and the last message as text, which PostgreSQL has to parse each time.
    """
    shop = world.shop
    key = b"\x00" * 32
    drawn = "sha256(int8send(:key::bigint))"
    after = json.dumps(json.loads(answer)["data"]).encode()
    third = len(shop.product_ids) // ITEM_COUNT
    first = shop.product_ids[0]
    products = [
        f"\\set p{n} random({first + third * n}, {first + third * (n + 1) - 1})"
        for n in range(ITEM_COUNT)
    ]
    return "\n".join([
        f"\\set branch :client_id % {BRANCH_COUNT} + {shop.branch_ids[0]}",
        f"\\set till :client_id + {shop.till_ids[0]}",
        *products,
        "\\set key random(1, 9000000000000000000)",
        pgbench.pipelined(
            "begin",
            set_tenant(world),
            q.request.reserve_key.literal(
                org_id=shop.org_id, key_hash=key, fingerprint=key, expires_at_s=2**33
            ).replace(f"'\\x{key.hex()}'", drawn),
        ),
        f"{post_sale(world)} \\gset sale_",
        pgbench.pipelined(
            q.request.write_audit.literal(
                org_id=shop.org_id, user_id=shop.user_id, session_id=shop.session_id,
                api_key_id=None, action=b"sales.post_sale",
                entity_type=b"sales", entity_id=0, before=None, after=after,
                request_id=b"0" * 32, ip=b"127.0.0.1", user_agent=b"till",
                severity=b"INFO",
            ).replace("    0,\n    null,", "    :sale_id,\n    null,"),
            q.request.store_answer.literal(
                org_id=shop.org_id, key_hash=key, status=201, body=answer, etag=None
            ).replace(f"'\\x{key.hex()}'", drawn),
            "commit",
        ),
    ])  # fmt: skip


def set_tenant(world: World) -> str:
    """Return the statement that names the tenant, as the service sends it."""
    return q.request.set_tenant.literal(
        org_id=world.shop.org_id,
        user_id=world.shop.user_id,
        branch_ids=b"all",
        statement_timeout_ms=world.settings().database_statement_timeout_ms,
        lock_timeout_ms=3_000,
    )


def post_sale(world: World) -> str:
    """Return q.sales.post_sale with pgbench's variables and our constants in it."""
    values = {
        "org_id": f"{world.shop.org_id}",
        "user_id": f"{world.shop.user_id}",
        "branch_id": ":branch",
        "till_id": ":till",
        "discount": "0",
        "may_override": "false",
        "product_ids": f"array[{', '.join(f':p{n}' for n in range(ITEM_COUNT))}]::bigint[]",
        "quantities": f"array[{', '.join('1' * ITEM_COUNT)}]::numeric[]",
        "unit_prices": f"array[{', '.join(['null'] * ITEM_COUNT)}]::numeric[]",
        "discounts": f"array[{', '.join('0' * ITEM_COUNT)}]::numeric[]",
        "methods": "array['CASH']::text[]",
        "currencies": "array[null]::text[]",
        "account_ids": "array[null]::bigint[]",
        "amounts": f"array[{paid()}]::numeric[]",
        "references": "array[null]::text[]",
    }
    query = q.sales.post_sale
    return PARAMETER.sub(
        lambda found: values.get(query.params[int(found[1]) - 1], "null"), query.sql
    )


def against_pgbench(world: World, service: Service, effort: Effort) -> list[Result]:
    """Compare sales over HTTP with pgbench running the very same statements."""
    pgbench_script = script(world, sample(world, service))
    post(world, service, clients=CLIENT_COUNT, seconds=WARM_UP_S)
    seen: list[dict[str, Any]] = []

    def over_http() -> float:
        seen.append(post(world, service, clients=CLIENT_COUNT, seconds=effort.seconds))
        return float(seen[-1]["rate"])

    def by_pgbench() -> float:
        return pgbench.run(world, pgbench_script, clients=CLIENT_COUNT, seconds=effort.seconds)

    rates = take_turns({"http": over_http, "pgbench": by_pgbench}, effort.rounds)
    service_us = median(one["service_cpu_s"] / one["count"] * 1e6 for one in seen)
    client_us = median(one["cpu_s"] / one["count"] * 1e6 for one in seen)
    return [
        Result(
            "sale over HTTP against pgbench on the same statements",
            ratio(rates["http"], rates["pgbench"]),
            goal=0.60,
            figures={
                "HTTP/s": median(rates["http"]), "pgbench/s": median(rates["pgbench"]),
                "clients": CLIENT_COUNT, "load generator us": client_us,
            },
        ),
        Result(
            "Python's processor time per sale", service_us, "us", goal=230, at_most=True,
            figures={"clients": CLIENT_COUNT},
        ),
    ]  # fmt: skip


def evenness(world: World, service: Service, effort: Effort) -> list[Result]:
    """Compare the slowest hundredth of sales with the usual one."""
    shares, halves, worst = [], [], []
    for _ in range(effort.rounds):
        durations_s = post(world, service, clients=EVEN_CLIENT_COUNT, seconds=effort.seconds)[
            "durations_s"
        ]
        halves.append(percentile(durations_s, 0.5) * 1000)
        worst.append(percentile(durations_s, 0.99) * 1000)
        shares.append(worst[-1] / halves[-1])
    return [
        Result(
            "p99 / p50 of the sale at 16 connections", median(shares), goal=2, at_most=True,
            figures={"p50 ms": median(halves), "p99 ms": median(worst)},
        )
    ]  # fmt: skip
