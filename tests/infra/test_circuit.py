"""The circuit breaker, by a clock of the test's own."""

from __future__ import annotations

import asyncio
import logging

import pytest

from sofinance.infra import metrics
from sofinance.infra.circuit import CLOSED, HALF_OPEN, OPEN, Circuit, CircuitOpenError, publish


class Clock:
    """A clock that stands until it is told."""

    now_s = 1_000.0

    def __call__(self) -> float:
        """Return its time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(
        "test", failure_count_max=3, window_s=60, recovery_s=20, counts=(OSError,), clock=clock
    )


async def fail(circuit: Circuit, error: BaseException) -> None:
    with pytest.raises(type(error)):
        async with circuit:
            raise error


async def test_it_opens_after_so_many_failures_in_a_row(circuit):
    for _ in range(2):
        await fail(circuit, OSError())
        assert circuit.state == CLOSED
    await fail(circuit, OSError())
    assert circuit.state == OPEN
    with pytest.raises(CircuitOpenError):
        await circuit.__aenter__()
    assert circuit.retry_after_s == 20


async def test_an_answer_between_failures_keeps_it_closed(circuit):
    for _ in range(5):
        await fail(circuit, OSError())
        await fail(circuit, OSError())
        async with circuit:
            pass
    assert circuit.state == CLOSED


async def test_a_refusal_is_an_answer(circuit):
    await fail(circuit, OSError())
    await fail(circuit, OSError())
    await fail(circuit, KeyError())
    await fail(circuit, OSError())
    assert circuit.state == CLOSED


async def test_failures_far_apart_do_not_open_it(circuit, clock):
    for _ in range(5):
        await fail(circuit, OSError())
        clock.now_s += 31
    assert circuit.state == CLOSED


async def test_one_call_tries_when_it_is_half_open(circuit, clock):
    for _ in range(3):
        await fail(circuit, OSError())
    clock.now_s += 20
    assert circuit.state == HALF_OPEN
    async with circuit:
        with pytest.raises(CircuitOpenError):
            await circuit.__aenter__()
    assert circuit.state == CLOSED


async def test_a_trial_that_fails_opens_it_again(circuit, clock):
    for _ in range(3):
        await fail(circuit, OSError())
    clock.now_s += 20
    await fail(circuit, OSError())
    assert circuit.state == OPEN
    clock.now_s += 19
    assert circuit.state == OPEN


async def test_a_trial_that_is_cancelled_decides_nothing(circuit, clock):
    for _ in range(3):
        await fail(circuit, OSError())
    clock.now_s += 20
    await fail(circuit, asyncio.CancelledError())
    assert circuit.state == HALF_OPEN


async def test_the_log_says_why_once_and_when_it_is_over(circuit, clock, caplog):
    caplog.set_level(logging.INFO, "sofinance.infra.circuit")
    for _ in range(3):
        await fail(circuit, ConnectionResetError())
    clock.now_s += 20
    await fail(circuit, OSError())
    clock.now_s += 20
    async with circuit:
        pass
    async with circuit:
        pass
    assert [(record.message, record.metadata) for record in caplog.records] == [
        ("circuit opened", {"circuit": "test", "why": "ConnectionResetError"}),
        ("circuit closed", {"circuit": "test"}),
    ]


async def test_one_that_nobody_calls_any_more_is_not_told_as_open_for_ever(clock):
    circuit = Circuit(
        "left", failure_count_max=3, window_s=60, recovery_s=20, counts=(OSError,), clock=clock
    )

    def told() -> float:
        return float(metrics.CIRCUIT_STATE.labels("left")._value.get())  # noqa: SLF001 - there is no other way

    for _ in range(3):
        await fail(circuit, OSError())
    assert told() == OPEN
    clock.now_s += 20
    assert told() == OPEN
    publish()
    assert told() == HALF_OPEN


async def test_two_calls_try_when_two_must_succeed(clock):
    circuit = Circuit(
        "test", failure_count_max=1, window_s=60, recovery_s=20, counts=(OSError,), clock=clock,
        probe_count=2,
    )  # fmt: skip
    await fail(circuit, OSError())
    clock.now_s += 20
    running, go = asyncio.Event(), asyncio.Event()

    async def probe() -> None:
        async with circuit:
            running.set()
            await go.wait()

    other = asyncio.create_task(probe())
    await running.wait()
    async with circuit:
        with pytest.raises(CircuitOpenError):
            await asyncio.create_task(probe())
    assert circuit.state == HALF_OPEN
    go.set()
    await other
    assert circuit.state == CLOSED
    await fail(circuit, OSError())
    clock.now_s += 20
    async with circuit:
        pass
    await fail(circuit, OSError())
    assert circuit.state == OPEN
