"""Passwords: argon2id, off the loop, and no word about who exists."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher

from sofinance.infra import passwords


async def test_a_password_fits_its_own_hash_only() -> None:
    first, second = await asyncio.gather(*(passwords.hash_password("päss wörd") for _ in "ab"))
    assert first.startswith("$argon2id$")
    assert first != second
    assert await passwords.verify_password("päss wörd", first)
    assert not await passwords.verify_password("pass word", first)


async def test_nobody_and_nonsense_fit_nothing() -> None:
    assert not await passwords.verify_password("nobody has this password", None)
    assert not await passwords.verify_password("x", "")
    assert not await passwords.verify_password("x", "not a hash")


async def test_an_unknown_user_costs_a_whole_verification() -> None:
    seen: list[str] = []
    real = passwords._hasher  # noqa: SLF001 - what is asked of it is the point

    class Watched:
        def verify(self, password_hash: str, password: str) -> bool:
            seen.append(password_hash)
            return real.verify(password_hash, password)

        def hash(self, password: str) -> str:
            return real.hash(password)

    passwords._hasher = Watched()  # type: ignore[assignment]  # noqa: SLF001
    try:
        assert not await passwords.verify_password("x", None)
    finally:
        passwords._hasher = real  # noqa: SLF001
    assert seen[0].split("$")[:4] == (await passwords.hash_password("x")).split("$")[:4]


async def test_the_loop_goes_on_while_a_password_is_hashed() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await passwords.hash_password("x")
    ticking.cancel()
    assert ticks > 10


def test_a_weaker_hash_is_due_for_another() -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=1_024).hash("x")
    assert passwords.needs_rehash(weak)
    assert not passwords.needs_rehash(PasswordHasher().hash("x"))
