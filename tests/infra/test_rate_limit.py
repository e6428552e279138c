"""Limits: one algorithm in Redis and in memory, all or nothing, no wait for a Redis that is ill."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sofinance.config import Settings
from sofinance.infra import metrics, throttle
from sofinance.infra.buckets import Buckets, Charge, Policy
from sofinance.infra.errors import ApiError
from sofinance.infra.rate_limit import SCRIPT, Limiter, network_of
from sofinance.infra.redis_line import LineBrokenError, RedisLine, RedisLink
from tests.ports import free_port
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SECOND_US = 1_000_000
ORG_IDS = itertools.count(1_000)
PATIENT = {"redis_timeout_ms": 1_000}  # for what is not about time, on a busy machine
SMALL = {
    "rate_limit_per_minute": 1,
    "rate_limit_burst": 5,
    "rate_limit_org_per_minute": 1,
    "rate_limit_org_burst": 8,
    "rate_limit_sign_in_per_minute": 1,
    "rate_limit_sign_in_burst": 3,
    "rate_limit_report_per_minute": 1,
    "rate_limit_report_burst": 2,
}


@asynccontextmanager
async def limiting(redis_url: str = "", **changes: Any) -> AsyncIterator[Limiter]:
    given_settings = Settings.for_tests(
        database_url="",
        redis_url=redis_url,
        **{"rate_limit_enabled": True, **PATIENT, **SMALL, **changes},
    )
    limiter = Limiter(given_settings)
    await limiter.open()
    try:
        yield limiter
    finally:
        await limiter.close()


async def refused(judged: Awaitable[Any]) -> ApiError | None:
    try:
        await judged
    except ApiError as error:
        return (
            error
            if (error.status, error.code) == (429, "rate_limited")
            else pytest.fail(str(error))
        )
    return None


async def count_allowed(ask: Callable[[], Awaitable[Any]], count: int) -> int:
    return [await refused(ask()) for _ in range(count)].count(None)


async def until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to tell it
            await asyncio.sleep(0.02)


def show(line: str) -> None:
    """Print what was measured; pytest -s shows it, and no assertion rests on it."""
    sys.stdout.write(f"{line}\n")


# -- the algorithm -----------------------------------------------------------------------------

POLICIES = [Policy("slow", 10 * SECOND_US, 3), Policy("fast", 333_333, 10), Policy("one", 7, 1)]
KEYS = ["{t}:a", "{t}:b", "{t}:c"]
CALLS = st.lists(
    st.tuples(
        st.integers(0, 40 * SECOND_US),  # how much later
        st.lists(
            st.tuples(st.sampled_from(KEYS), st.sampled_from(POLICIES), st.integers(-4, 4)),
            min_size=1, max_size=3, unique_by=lambda charge: charge[0],
        ),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=60)
@given(calls=CALLS)
def test_redis_and_memory_decide_alike(shared_redis: RedisServer, calls: list[Any]) -> None:
    """Number for number, with the clock and the expiry in our hands."""
    frozen = SCRIPT.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")
    frozen = frozen.replace("math.ceil(debt_us / 1000)", "3600000")
    assert frozen.count("ARGV[#ARGV]") == frozen.count("3600000") == 1
    clock_us = 1_700_000_000 * SECOND_US
    buckets = Buckets(clock=lambda: clock_us)
    with shared_redis.client() as client:
        client.delete(*KEYS)
        for later_us, wanted in calls:
            clock_us += later_us
            charges = [Charge(*charge) for charge in wanted]
            numbers = [n for c in charges for n in (c.policy.interval_us, c.policy.size, c.cost)]
            now = divmod(clock_us, SECOND_US)
            keys = [charge.key for charge in charges]
            is_allowed, *debts_us = client.eval(frozen, len(keys), *keys, *numbers, *now)
            assert buckets.take(charges) == (bool(is_allowed), debts_us)


def test_a_bucket_gives_its_size_at_once_and_then_one_each_interval() -> None:
    clock_us = 0
    buckets = Buckets(clock=lambda: clock_us)
    charge = [Charge("key", Policy.per_minute("p", 60, 3))]
    assert [buckets.take(charge)[0] for _ in range(5)] == [True, True, True, False, False]
    clock_us += SECOND_US - 1
    assert buckets.take(charge) == (False, [2 * SECOND_US + 1])
    clock_us += 1
    assert [buckets.take(charge)[0] for _ in range(2)] == [True, False]
    clock_us += 3_600 * SECOND_US
    assert [buckets.take(charge)[0] for _ in range(5)].count(True) == 3


def test_a_clock_that_goes_back_makes_nobody_wait_longer_than_a_bucket_takes_to_fill() -> None:
    clock_us = 1_000 * SECOND_US
    buckets = Buckets(clock=lambda: clock_us)
    policy = Policy.per_minute("p", 60, 3)
    buckets.take([Charge("key", policy)])
    clock_us = 0
    assert buckets.take([Charge("key", policy)]) == (False, [3 * SECOND_US])


def test_memory_is_bounded_and_the_one_used_least_recently_goes() -> None:
    buckets = Buckets(count_max=3, clock=lambda: 0)
    policy = Policy.per_minute("p", 1, 1)
    for key in ("a", "b", "c"):
        assert buckets.take([Charge(key, policy)])[0]
    assert not buckets.take([Charge("a", policy)])[0]
    assert buckets.take([Charge("d", policy)])[0]
    assert len(buckets) == 3
    assert buckets.take([Charge("a", policy, cost=0)])[1] == [0]  # it was the oldest


# -- requests ----------------------------------------------------------------------------------


@pytest.fixture(params=["redis", "memory"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """Once with Redis, once without."""
    if request.param == "memory":
        return ""
    server: RedisServer = request.getfixturevalue("shared_redis")
    return server.url


async def test_burst_and_not_one_more(redis_url: str) -> None:
    async with limiting(redis_url) as limiter:
        assert limiter.is_shared is bool(redis_url)
        org_id = next(ORG_IDS)
        headers = [await limiter.admit_caller(org_id, "user:1") for _ in range(5)]
        assert headers[0] == {
            "RateLimit-Policy": '"user";q=5;w=300, "organisation";q=8;w=480',
            "RateLimit": '"user";r=4;t=60',
        }
        assert headers[4]["RateLimit"].startswith('"user";r=0;t=')
        error = await refused(limiter.admit_caller(org_id, "user:1"))
        assert error is not None
        assert error.details["violated_policies"] == ["user"]
        assert 50 <= int(error.headers["Retry-After"]) <= 60
        assert error.details["retry_after_s"] == int(error.headers["Retry-After"])
        assert error.headers["RateLimit-Policy"] == headers[0]["RateLimit-Policy"]
        assert error.headers["RateLimit"].startswith('"user";r=0;t=')


async def test_all_or_nothing(redis_url: str) -> None:
    async with limiting(redis_url) as limiter:
        org_id = next(ORG_IDS)
        assert await count_allowed(lambda: limiter.admit_caller(org_id, "user:1"), 9) == 5
        # The organisation has 3 left; the refusals above took nothing from it.
        assert await count_allowed(lambda: limiter.admit_caller(org_id, "user:2"), 9) == 3
        error = await refused(limiter.admit_caller(org_id, "user:2"))
        assert error is not None
        assert error.details["violated_policies"] == ["organisation"]
        _, debts = await limiter.take(
            [Charge(f"{{sf:{org_id}}}:user:2", Policy.per_minute("user", 1, 5), cost=0)]
        )
        assert Policy.per_minute("user", 1, 5).left(debts[0]) == 2


async def test_users_keys_organisations_and_addresses_have_buckets_of_their_own(
    redis_url: str,
) -> None:
    async with limiting(redis_url, rate_limit_burst=1) as limiter:
        one, other = next(ORG_IDS), next(ORG_IDS)
        for org_id, subject in [
            (one, "user:1"),
            (one, "key:1"),
            (one, "user:2"),
            (other, "user:1"),
        ]:
            assert await refused(limiter.admit_caller(org_id, subject)) is None
        for ip in (f"10.{one % 256}.0.1", f"10.{one % 256}.0.2", f"2001:db8:{one:x}::1", None):
            assert await refused(limiter.admit_address(ip)) is None or ip is None
        assert await refused(limiter.admit_address(f"10.{one % 256}.0.1")) is not None
        # One customer has a whole /64.
        assert await refused(limiter.admit_address(f"2001:db8:{one:x}::ffff")) is not None


@pytest.mark.parametrize(("kind", "count"), [("sign_in", 3), ("report", 2)])
async def test_costly_things_have_less(redis_url: str, kind: str, count: int) -> None:
    async with limiting(redis_url) as limiter:
        org_id = next(ORG_IDS)
        ask = lambda: limiter.admit_caller(org_id, "user:1", kind)  # noqa: E731
        assert await count_allowed(ask, 4) == count
        ip = f"2001:db8:0:{org_id:x}::1"
        assert await count_allowed(lambda: limiter.admit_address(ip, kind), 4) == count
        assert await refused(limiter.admit_address(ip)) is None


async def test_many_at_once_get_no_more_than_the_burst(redis_url: str) -> None:
    async with limiting(redis_url) as limiter:
        org_id = next(ORG_IDS)
        judged = [refused(limiter.admit_caller(org_id, "user:1")) for _ in range(100)]
        assert (await asyncio.gather(*judged)).count(None) == 5


async def test_limits_can_be_switched_off(shared_redis: RedisServer) -> None:
    async with limiting(shared_redis.url, rate_limit_enabled=False) as limiter:
        assert await limiter.admit_caller(next(ORG_IDS), "user:1") == {}
        assert await count_allowed(lambda: limiter.admit_address("192.0.2.77"), 20) == 20
        for _ in range(20):
            await (await throttle.attempt(limiter, "ada@example.com", None)).succeeded()


def test_an_ipv6_client_is_its_network() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::2:3") == "2001:db8::/64"
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of(None) == "none"


# -- Redis -------------------------------------------------------------------------------------


async def test_workers_share_in_redis(shared_redis: RedisServer) -> None:
    org_id = next(ORG_IDS)
    async with limiting(shared_redis.url) as one, limiting(shared_redis.url) as other:
        judged = [
            refused(limiter.admit_caller(org_id, "user:1"))
            for limiter in [one, other, one, other, one, other]
        ]
        assert (await asyncio.gather(*judged)).count(None) == 5


async def test_every_key_expires_when_its_bucket_is_full(shared_redis: RedisServer) -> None:
    org_id = next(ORG_IDS)
    async with limiting(shared_redis.url) as limiter:
        await limiter.admit_caller(org_id, "user:1", "report")
        await limiter.admit_caller(org_id, "user:1")
    with shared_redis.client() as client:
        left_ms = {key: client.pttl(key) for key in client.scan_iter(f"{{sf:{org_id}}}:*")}
    assert sorted(left_ms) == [
        f"{{sf:{org_id}}}:{name}" for name in ("org", "report:user:1", "user:1")
    ]
    expected_ms = {"org": 120_000, "report:user:1": 60_000, "user:1": 120_000}
    for key, ms in left_ms.items():
        whole = expected_ms[key.partition(":")[2].partition(":")[2]]
        assert whole - 30_000 < ms <= whole


async def test_a_bucket_that_is_given_back_whole_leaves_no_key(shared_redis: RedisServer) -> None:
    key = f"{{sf:{next(ORG_IDS)}}}:mine"
    policy = Policy.per_minute("p", 1, 5)
    async with limiting(shared_redis.url) as limiter:
        await limiter.take([Charge(key, policy, cost=3)])
        assert shared_redis("EXISTS", key) == 1
        assert await limiter.take([Charge(key, policy, cost=-5)]) == (True, [0])
        assert shared_redis("EXISTS", key) == 0


async def test_all_keys_of_a_call_live_in_one_slot_of_a_cluster() -> None:
    """A cluster of one node refuses keys of two slots just as one of many does."""
    # The usual port of the bus, 10,000 above, may be more than there is.
    server = RedisServer("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    server.start()
    try:
        server("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await until(lambda: "cluster_state:ok" in server("CLUSTER", "INFO"))
        async with limiting(server.url) as limiter:
            assert limiter.is_shared
            for org_id, kind in itertools.product(range(1, 20), (None, "sign_in", "report")):
                await limiter.admit_caller(org_id, "user:1", kind)
                await limiter.admit_address(f"192.0.2.{org_id}", kind)
                await limiter.admit_address(f"2001:db8:0:{org_id}::", kind)
            tried = await throttle.attempt(limiter, "ada@example.com", "192.0.2.1")
            await tried.succeeded()
            assert limiter.is_shared
    finally:
        server.close()


async def test_a_flushed_redis_is_asked_on(own_redis: RedisServer) -> None:
    own_redis.start()
    async with limiting(own_redis.url) as limiter:
        assert await count_allowed(lambda: limiter.admit_caller(1, "user:1"), 6) == 5
        own_redis("SCRIPT", "FLUSH")
        own_redis("FLUSHALL")
        assert await count_allowed(lambda: limiter.admit_caller(1, "user:1"), 6) == 5
        assert limiter.is_shared


async def test_a_value_that_is_not_ours_is_an_untouched_bucket(shared_redis: RedisServer) -> None:
    org_id = next(ORG_IDS)
    shared_redis("SET", f"{{sf:{org_id}}}:user:1", "rubbish")
    shared_redis("HSET", f"{{sf:{org_id}}}:org", "a", "b")
    async with limiting(shared_redis.url) as limiter:
        assert await count_allowed(lambda: limiter.admit_caller(org_id, "user:1"), 6) == 5


async def test_without_redis_at_the_start_it_is_joined_later(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisLink, "RETRY_S", 0.1)
    async with limiting(own_redis.url) as limiter:
        assert not limiter.is_shared
        assert metrics.RATE_LIMIT_CIRCUIT_OPEN._value.get() == 1  # noqa: SLF001
        assert await count_allowed(lambda: limiter.admit_caller(1, "user:1"), 6) == 5
        own_redis.start()
        await until(lambda: limiter.is_shared)
        assert metrics.RATE_LIMIT_CIRCUIT_OPEN._value.get() == 0  # noqa: SLF001
        assert await count_allowed(lambda: limiter.admit_caller(1, "user:1"), 6) == 5


async def test_a_redis_that_refuses_is_done_without(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisLink, "RETRY_S", 0.1)
    own_redis.start()
    async with limiting(own_redis.url) as limiter:
        own_redis("REPLICAOF", "127.0.0.1", "1")  # it reads, and refuses to write
        assert await count_allowed(lambda: limiter.admit_caller(1, "user:1"), 6) == 5
        assert not limiter.is_shared
        await asyncio.sleep(0.5)
        assert not limiter.is_shared  # a probe that only looked would take it for well
        own_redis("REPLICAOF", "NO", "ONE")
        await until(lambda: limiter.is_shared)


async def test_a_frozen_redis_holds_up_nobody_twice(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was waiting waits once, and shortly; everybody after that does not wait at all."""
    monkeypatch.setattr(RedisLink, "RETRY_S", 0.2)
    own_redis.start()
    asked: list[float] = []
    real = RedisLine.ask

    async def ask(self: RedisLine, *command: Any) -> Any:
        began_s = time.perf_counter()
        try:
            return await real(self, *command)
        finally:
            asked.append(time.perf_counter() - began_s)

    async with limiting(own_redis.url, redis_timeout_ms=40, rate_limit_burst=1_000) as limiter:
        await limiter.admit_caller(1, "user:1")
        own_redis.freeze()
        monkeypatch.setattr(RedisLine, "ask", ask)
        first = [refused(limiter.admit_caller(1, f"user:{n}")) for n in range(4)]
        assert (await asyncio.gather(*first)) == [None] * 4
        waited = len(asked)
        assert waited == 4
        assert not limiter.is_shared
        before = metrics.RATE_LIMIT_FALLBACKS._value.get()  # noqa: SLF001
        # The organisation's 8 are this worker's own now: 4 went above.
        assert await count_allowed(lambda: limiter.admit_caller(1, "user:9"), 50) == 4
        assert metrics.RATE_LIMIT_FALLBACKS._value.get() == before + 50  # noqa: SLF001
        await asyncio.sleep(0.5)  # probes wait in vain, requests do not
        assert await count_allowed(lambda: limiter.admit_caller(1, "user:9"), 5) == 0
        assert len(asked) == waited
        own_redis.thaw()
        await until(lambda: limiter.is_shared)
        assert await refused(limiter.admit_caller(2, "user:1")) is None
    show(f"waited for a frozen Redis: {max(asked[:4]) * 1000:.0f} ms at most")


async def test_a_killed_redis_is_noticed_at_once(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisLink, "RETRY_S", 0.1)
    own_redis.start()
    async with limiting(own_redis.url) as limiter:
        await limiter.admit_caller(1, "user:1")
        own_redis.kill()
        assert await count_allowed(lambda: limiter.admit_caller(1, "user:1"), 9) == 5
        await until(lambda: not limiter.is_shared)
        own_redis.start()
        await until(lambda: limiter.is_shared)
        assert await count_allowed(lambda: limiter.admit_caller(1, "user:1"), 9) == 5


async def test_so_many_wait_for_redis_and_no_more(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sofinance.infra.redis_line.WAITING_COUNT_MAX", 2)
    own_redis.start()
    line = await RedisLine.connect(own_redis.url, timeout_s=30)
    own_redis.freeze()
    waiting = [asyncio.create_task(line.ask("PING")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(LineBrokenError, match="too many"):
        await line.ask("PING")
    own_redis.thaw()
    assert await asyncio.gather(*waiting) == [b"PONG", b"PONG"]
    await line.close()


async def test_a_line_that_nobody_uses_stays(shared_redis: RedisServer) -> None:
    # redis-py's own limit on reading, five seconds by default, made short.
    line = await RedisLine.connect(f"{shared_redis.url}?socket_timeout=0.05", timeout_s=30)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(line.broken.wait(), 0.5)
    assert await line.ask("PING") == b"PONG"
    await line.close()


async def test_who_gives_up_takes_nobody_elses_answer(shared_redis: RedisServer) -> None:
    line = await RedisLine.connect(shared_redis.url, timeout_s=30)
    first = asyncio.create_task(line.ask("ECHO", "first"))
    second = asyncio.create_task(line.ask("ECHO", "second"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"second"
    assert await line.ask("ECHO", "third") == b"third"
    await line.close()
    with pytest.raises(LineBrokenError, match="closed"):
        await line.ask("PING")


# -- guesses -----------------------------------------------------------------------------------


def somebody() -> str:
    return f"somebody-{next(ORG_IDS)}@example.com"


def somewhere() -> str:
    return f"2001:db8:5:{next(ORG_IDS):x}::1"


async def test_twenty_wrong_guesses_are_too_many(redis_url: str) -> None:
    async with limiting(redis_url) as limiter:
        account, ip = somebody(), somewhere()
        assert await count_allowed(lambda: throttle.attempt(limiter, account, ip), 20) == 10
        error = await refused(throttle.attempt(limiter, f" {account.upper()} ", ip))
        assert error is not None
        assert error.details["violated_policies"] == ["account_and_address"]
        assert 0 < error.details["retry_after_s"] <= 60
        # The address goes on to others' accounts, the account is open from elsewhere.
        assert await refused(throttle.attempt(limiter, somebody(), ip)) is None
        assert await refused(throttle.attempt(limiter, account, somewhere())) is None


async def test_guesses_at_once_are_counted_too(redis_url: str) -> None:
    async with limiting(redis_url) as limiter:
        account, ip = somebody(), somewhere()
        judged = [refused(throttle.attempt(limiter, account, ip)) for _ in range(20)]
        assert (await asyncio.gather(*judged)).count(None) == 10


async def test_a_success_clears_the_account_there(redis_url: str) -> None:
    async with limiting(redis_url) as limiter:
        account, ip = somebody(), somewhere()
        for _ in range(5):
            assert await count_allowed(lambda: throttle.attempt(limiter, account, ip), 9) == 9
            await (await throttle.attempt(limiter, account, ip)).succeeded()
        # The account everywhere and the address pay for the failures all the same, and only those.
        _, *others = (await throttle.attempt(limiter, account, ip)).charges
        looks = [Charge(charge.key, charge.policy, cost=0) for charge in others]
        _, debts = await limiter.take(looks)
        left = [c.policy.left(debt_us) for c, debt_us in zip(looks, debts, strict=True)]
        assert 4 <= left[0] < 10
        assert 54 <= left[1] < 70


async def test_a_victim_is_let_in_where_they_are_known(redis_url: str) -> None:
    """However many guess from elsewhere; and nobody else is."""
    async with limiting(redis_url) as limiter:
        account, home = somebody(), somewhere()
        await (await throttle.attempt(limiter, account, home)).succeeded()
        crowd = [refused(throttle.attempt(limiter, account, somewhere())) for _ in range(60)]
        assert (await asyncio.gather(*crowd)).count(None) == 50
        error = await refused(throttle.attempt(limiter, account, somewhere()))
        assert error is not None
        assert error.details["violated_policies"] == ["account"]
        await (await throttle.attempt(limiter, account, home)).succeeded()
        await (await throttle.attempt(limiter, account, home)).succeeded()
        # At home, too, only so many wrong ones.
        assert await count_allowed(lambda: throttle.attempt(limiter, account, home), 20) == 10


async def test_an_address_cannot_try_one_password_on_everybody(redis_url: str) -> None:
    async with limiting(redis_url) as limiter:
        ip = somewhere()
        tried = [refused(throttle.attempt(limiter, somebody(), ip)) for _ in range(120)]
        assert (await asyncio.gather(*tried)).count(None) == 100
        error = await refused(throttle.attempt(limiter, somebody(), ip))
        assert error is not None
        assert error.details["violated_policies"] == ["address_failures"]


async def test_sign_in_stays_strict_when_redis_goes(own_redis: RedisServer) -> None:
    """What a worker let pass before counts after: an outage gives nobody another ten guesses."""
    own_redis.start()
    async with limiting(own_redis.url) as limiter:
        account, ip = somebody(), somewhere()
        assert await count_allowed(lambda: throttle.attempt(limiter, account, ip), 10) == 10
        assert await count_allowed(lambda: limiter.admit_address(ip, "sign_in"), 3) == 3
        own_redis.kill()
        assert await count_allowed(lambda: throttle.attempt(limiter, account, ip), 10) == 0
        assert await count_allowed(lambda: limiter.admit_address(ip, "sign_in"), 3) == 0
        assert await refused(limiter.admit_address(ip)) is None
