"""Passwords: argon2id, off the loop, and no word about who exists."""

from __future__ import annotations

import asyncio

import pytest
from argon2 import PasswordHasher

from sofinance.infra import passwords
from sofinance.infra.errors import ApiError
from sofinance.infra.passwords import generate_password, password_problems, pin_problems

pytestmark = pytest.mark.usefixtures("costly_passwords")


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


async def test_how_a_keyboard_composes_a_letter_does_not_matter() -> None:
    made = await passwords.hash_password("Pa\u0308ss")
    assert await passwords.verify_password("P\u00e4ss", made)


async def test_a_crowd_is_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passwords, "WAITING_COUNT_MAX", 3)
    results = await asyncio.gather(
        *(passwords.hash_password("x") for _ in range(5)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, ApiError)]
    assert [(error.status, error.code) for error in refused] == [(503, "try_again")] * 2
    assert refused[0].headers["Retry-After"]
    assert await passwords.hash_password("x")


@pytest.mark.parametrize(
    ("password", "rules"),
    [
        ("Blue-Kettle-42", []),
        ("Grün 7 Häuser", []),
        ("Ωmega-7x", []),
        ("A7 " + "b" * 125, []),
        ("A7 " + "b" * 126, ["too_long"]),
        ("Bk-42ax", ["too_short"]),
        ("blue-kettle-42", ["no_upper"]),
        ("BLUE-KETTLE-42", ["no_lower"]),
        ("Blue-Kettle-x", ["no_digit"]),
        ("BlueKettle42", ["no_special"]),
        ("Blue-Kettle\t42", ["control_character"]),
        ("Blue-Kettle\x0042", ["control_character"]),
        ("", ["too_short", "no_upper", "no_lower", "no_digit", "no_special", "too_common"]),
    ],
)
def test_a_password_breaks_rules_by_name(password: str, rules: list[str]) -> None:
    problems = password_problems(password)
    assert list(problems) == rules
    assert all(message.endswith(".") for message in problems.values())


@pytest.mark.parametrize(
    "password",
    [
        "Password1!", "P@ssw0rd1!", "!!Welcome2026", "Summer#2026", "Qwerty123!", "Abcd1234!",
        "1Qaz!2Wsx3", "TrustNo1!", "L3tm31n!!", "ChangeMe123!", "TestTest1!", "Aa1!Aa1!"[:4] * 2,
        "S3cr3t!!", "Admin@123", "I love you 1", "SOFinance-2026",
    ],
)  # fmt: skip
def test_a_common_password_is_known_under_its_decoration(password: str) -> None:
    assert "too_common" in password_problems(password)


def test_a_password_does_not_name_its_owner() -> None:
    about = ("grace.hopper@example.com", "Grace", "Hopper", "Li", "")
    for bad in ("My-HOPPER-42x", "Disgrace-42x", "Example-42-Zx"):
        assert list(password_problems(bad, about=about)) == ["about_you"]
    assert password_problems("Delight-42-x", about=about) == {}  # "li" is too short to count


def test_made_up_passwords_keep_the_rules_and_differ() -> None:
    made = {generate_password() for _ in range(200)}
    assert len(made) == 200
    assert all(password_problems(password) == {} for password in made)


@pytest.mark.parametrize("pin", ["8305", "50382", "730518", "91827365"])
def test_a_pin_will_do(pin: str) -> None:
    assert pin_problems(pin) == {}


@pytest.mark.parametrize("pin", ["", "123", "123456789", "12a4", " 8305", "٨٣٠٥", "-830"])
def test_what_is_no_pin_is_refused(pin: str) -> None:
    assert list(pin_problems(pin)) == ["not_a_pin"]


@pytest.mark.parametrize(
    "pin",
    ["0000", "99999999", "1234", "9876", "7890", "2468", "1212", "121212", "83058305", "1987",
     "2026", "4554", "2580", "112233"],
)  # fmt: skip
def test_a_trivial_pin_is_refused(pin: str) -> None:
    assert list(pin_problems(pin)) == ["too_common"]


def test_most_pins_will_do() -> None:
    good = sum(pin_problems(f"{number:04}") == {} for number in range(10_000))
    assert 9_000 < good < 10_000
