"""Connections are shared, bounded, never lost, and never used by two."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import asyncpg
import pytest

from sofinance.infra import metrics
from sofinance.infra.pool import (
    RETRY_AFTER_S_MAX,
    Appointments,
    Pool,
    PoolClosedError,
    PoolFullError,
    StaleConnectionError,
)


class Conn:
    """What the pool knows of a connection."""

    def __init__(self) -> None:
        self.closed = False
        self.busy = False

    def is_closed(self) -> bool:
        """Say whether it is closed."""
        return self.closed

    def terminate(self) -> None:
        """Cut it."""
        self.closed = True

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109, ARG002 - asyncpg's own
        """Close it."""
        await asyncio.sleep(0)
        self.closed = True


class Server:
    """Where connections come from."""

    def __init__(self) -> None:
        self.made: list[Conn] = []
        self.tidied = 0
        self.is_down = False
        self.is_rude = False

    async def connect(self) -> Conn:
        """Make a connection."""
        await asyncio.sleep(0)
        if self.is_down:
            raise ConnectionRefusedError
        self.made.append(Conn())
        return self.made[-1]

    async def tidy(self, _conn: Any) -> None:
        """Clean up after a loan."""
        self.tidied += 1
        if self.is_rude:
            raise RuntimeError("cannot roll back")


def make_pool(
    size_max: int = 2, timeout_s: float = 5.0, waiting_max: int = 100
) -> tuple[Pool, Server]:
    server = Server()
    pool = Pool(
        server.connect,
        server.tidy,
        size_max=size_max,
        waiting_max=waiting_max,
        timeout_s=timeout_s,
    )
    return pool, server


async def test_the_one_used_last_is_used_next() -> None:
    pool, server = make_pool()
    first, second = await pool.take(), await pool.take()
    assert (pool.open_count, pool.in_use_count) == (2, 2)
    pool.give_back(first)
    pool.give_back(second)
    assert (pool.open_count, pool.in_use_count) == (2, 0)
    async with pool.lend() as conn:
        assert conn is second
    assert server.tidied == 1
    assert len(server.made) == 2


async def test_who_waits_longest_is_served_first() -> None:
    pool, _ = make_pool(size_max=1)
    conn = await pool.take()
    served: list[int] = []

    async def wait(number: int) -> None:
        async with pool.lend():
            served.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert pool.waiting_count == 5
    pool.give_back(conn)
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]
    assert (pool.open_count, pool.in_use_count, pool.waiting_count) == (1, 0, 0)


async def test_nobody_waits_for_ever() -> None:
    pool, _ = make_pool(size_max=1, timeout_s=0.01)
    conn = await pool.take()
    with pytest.raises(TimeoutError):
        await pool.take()
    assert pool.waiting_count == 0
    pool.give_back(conn)
    assert await pool.take() is conn


def test_who_is_sent_away_comes_back_one_after_the_other() -> None:
    book = Appointments(10.0, clock=lambda: 0.0)
    told = [book.make(ahead_count=20) for _ in range(100)]
    assert told == sorted(told)
    # Twenty wait before the first of them; a hundred more are served in ten seconds.
    assert (told[0], told[-1]) == (3, 12)
    assert max(Counter(told).values()) <= 11  # to a rounding


def test_nobody_is_told_to_stay_away_for_long_nor_all_as_long() -> None:
    book = Appointments(1.0, clock=lambda: 0.0)
    told = [book.make(ahead_count=0) for _ in range(1_000)]
    assert min(told) >= 1
    assert max(told) == RETRY_AFTER_S_MAX
    assert len(set(told[100:])) > RETRY_AFTER_S_MAX / 4


def test_appointments_are_made_as_fast_as_others_are_served() -> None:
    now_s = 0.0
    book = Appointments(1.0, clock=lambda: now_s)
    for _ in range(20):  # a hundred are served in each second
        now_s += 0.5
        for _ in range(50):
            book.count()
        book.make(ahead_count=0)
    now_s += 3_600  # a quiet hour says nothing of how fast it is
    told = Counter(book.make(ahead_count=500) for _ in range(100))
    assert told.keys() == {6, 7}
    assert told[6] > 80


async def test_a_crowd_waits_in_a_bounded_queue() -> None:
    pool, _ = make_pool(size_max=1, waiting_max=3)
    refusals = metrics.POOL_REFUSALS._value.get()  # noqa: SLF001 - nothing public tells
    conn = await pool.take()
    waiting = [asyncio.create_task(pool.take()) for _ in range(3)]
    await asyncio.sleep(0)
    for _ in range(5):
        with pytest.raises(PoolFullError):
            await pool.take()
    # Whoever is prepared for a database that is away, as what watches it, is prepared for this.
    assert issubclass(PoolFullError, OSError)
    assert pool.waiting_count == 3
    assert metrics.POOL_REFUSALS._value.get() == refusals + 5  # noqa: SLF001
    for task in waiting:
        pool.give_back(conn)
        assert await task is conn
    pool.give_back(conn)
    assert await pool.take() is conn, "and all is as it was"


@pytest.mark.parametrize("error", [StaleConnectionError(), asyncpg.ReadOnlySQLTransactionError()])
async def test_a_server_that_is_gone_takes_its_idle_connections_along(error: Exception) -> None:
    pool, server = make_pool(size_max=3)
    conns = [await pool.take() for _ in range(3)]
    for conn in conns[:2]:
        pool.give_back(conn)
    with pytest.raises(type(error)):
        async with pool.lend():
            raise error
    assert [conn.closed for conn in conns] == [True, True, False]
    assert pool.open_count == 1
    assert await pool.take() is server.made[3]


async def test_nobody_waits_for_a_server_that_is_given_up() -> None:
    pool, _ = make_pool(size_max=1)
    conn = await pool.take()
    waiting = [asyncio.create_task(pool.take()) for _ in range(3)]
    await asyncio.sleep(0)
    pool.give_up(StaleConnectionError("it is away"))
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in told} == {StaleConnectionError}
    pool.give_back(conn)
    assert (pool.open_count, pool.in_use_count, pool.waiting_count) == (1, 0, 0)


async def test_a_closed_connection_makes_room_for_another() -> None:
    pool, server = make_pool(size_max=1)
    conn = await pool.take()
    waiter = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    conn.terminate()
    pool.give_back(conn)
    fresh = await waiter
    assert fresh is not conn
    pool.give_back(fresh)
    fresh.terminate()  # while it was idle
    assert await pool.take() not in (conn, fresh)
    assert len(server.made) == 3
    assert pool.open_count == 1


async def test_a_server_that_is_away_costs_no_room() -> None:
    pool, server = make_pool(size_max=1)
    server.is_down = True
    answers = await asyncio.gather(*(pool.take() for _ in range(5)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {ConnectionRefusedError}
    assert (pool.open_count, pool.waiting_count) == (0, 0)
    server.is_down = False
    assert await pool.take()


async def test_a_cancelled_use_closes_the_connection() -> None:
    pool, server = make_pool(size_max=1)

    async def use() -> None:
        async with pool.lend():
            await asyncio.sleep(60)

    task = asyncio.create_task(use())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.made[0].closed
    assert (pool.open_count, pool.in_use_count) == (0, 0)


async def test_an_error_in_use_gives_the_connection_back() -> None:
    pool, server = make_pool()
    with pytest.raises(KeyError):
        async with pool.lend():
            raise KeyError
    assert (pool.open_count, pool.in_use_count, server.tidied) == (1, 0, 1)
    server.is_rude = True
    with pytest.raises(RuntimeError):
        async with pool.lend():
            pass
    assert (pool.open_count, pool.in_use_count) == (0, 0)


async def test_closing_waits_for_what_is_lent_and_lends_no_more() -> None:
    pool, server = make_pool()
    conn = await pool.take()
    closing = asyncio.create_task(pool.close(5.0))
    await asyncio.sleep(0)
    with pytest.raises(PoolClosedError):
        await pool.take()
    assert not closing.done()
    pool.give_back(conn)
    await closing
    assert all(made.closed for made in server.made)
    assert pool.open_count == 0


async def test_closing_does_not_wait_for_ever() -> None:
    pool, _ = make_pool(size_max=1)
    conn = await pool.take()
    waiter = asyncio.create_task(pool.take())
    await asyncio.sleep(0)
    await pool.close(0.01)
    with pytest.raises(PoolClosedError):
        await waiter
    pool.give_back(conn)  # late
    assert conn.closed
    assert pool.open_count == 0


async def test_nothing_is_lost_in_a_crowd() -> None:
    pool, server = make_pool(size_max=3, timeout_s=0.02)
    chance = random.Random(7)  # noqa: S311 - for repeating, not for secrets
    done = 0

    async def visit() -> None:
        nonlocal done
        async with pool.lend() as conn:
            assert not conn.busy
            conn.busy = True
            try:
                await asyncio.sleep(chance.random() * 0.004)
                if chance.random() < 0.1:
                    conn.terminate()
                done += 1
            finally:
                conn.busy = False

    async def impatient() -> None:
        try:
            async with asyncio.timeout(chance.random() * 0.01):
                await visit()
        except TimeoutError:
            return

    rounds = 0
    while rounds < 5 or done <= 20:  # a busy machine needs more of them
        rounds += 1
        assert rounds < 500
        server.is_down = not server.is_down
        tasks = [impatient() if n % 2 else visit() for n in range(60)]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (pool.in_use_count, pool.waiting_count) == (0, 0)
        assert 0 <= pool.open_count <= 3
