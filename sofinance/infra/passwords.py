"""Passwords and PINs: which ones will do, and argon2id in threads of their own.

An unknown user takes as long as a known one. The rules are pure: each broken one has a name and a
sentence for the person who chooses.
"""

from __future__ import annotations

import asyncio
import functools
import re
import secrets
import string
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from sofinance.infra.errors import RETRY_AFTER_S, ApiError, invalid_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Result = TypeVar("Result")

LENGTH_MIN = 8
LENGTH_MAX = 128
PIN_LENGTH_MIN = 4
PIN_LENGTH_MAX = 8
# A shorter part of a name is in many words by chance.
PART_LENGTH_MIN = 4
GENERATED_LENGTH = 20
# Nothing in it is mistaken for another sign when it is read aloud or typed from paper.
GENERATED_FROM = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789-_.+"
# What people type instead of a letter.
LEET = str.maketrans("@4310$57!|", "aaeiosstil")
# The words that people make passwords of when asked for four kinds of characters: a password is
# one of them if nothing but digits and signs is around it. Chosen by hand: what leaks of passwords
# show over and over, days, months and seasons, rows of the keyboard, and the words of this trade.
COMMON_WORDS = (
    "aaaa abc abcd abcde abcdef abcdefg abcdefgh access account adam admin administrator "
    "alexander amanda amazon andrea andrew angel angela anthony apple april arsenal asdf asdfg "
    "asdfgh asdfghjk asdfghjkl ashley august austin autumn azerty bailey barcelona baseball "
    "basketball batman bitcoin boston branch brandon bubbles buster butterfly cashier changeme "
    "changepassword changethis charlie cheese chelsea chicken chocolate chris company computer "
    "cookie dallas daniel david december default demo diamond dolphin donald dragon eminem enter "
    "facebook falcon february ferrari fishing flower football forever formula freedom friday "
    "gandalf george ginger google guest hannah happy harley hello hockey hunter iceman iloveyou "
    "internet jackson january jasmine jennifer jessica jesus jonathan jordan joshua july june "
    "justin killer lakers letmein letmeinnow linkedin liverpool login london love lovely lovers "
    "maggie manager march marina martin master matrix matthew maverick melissa mercedes michael "
    "michelle mickey monday monkey morgan mother mustang naruto nicole ninja november oakland "
    "october office oliver orange pass passw passwd password passwords patrick pepper phoenix "
    "pokemon princess purple qazwsx qazwsxedc qwer qwert qwerty qwertyu qwertyui qwertyuiop "
    "qwertz qwertzuiop rachel rainbow ranger robert root samantha samsung saturday scooter secret "
    "secure security september shadow shop soccer sofinance spring starwars steelers store "
    "success summer sunday sunshine superman superuser support system taylor temp temporary "
    "temppass test tester testing thomas thunder thursday tigers till trustno tuesday user "
    "vanessa victoria warrior wednesday welcome welcomeback whatever william winter wizard xxxx "
    "yankees yellow zaq zaqwsx zxcv zxcvb zxcvbn zxcvbnm "
)
COMMON = frozenset(COMMON_WORDS.split())
# PINs that are tried first: from published lists, beside what the rules find by themselves.
COMMON_PINS = frozenset({
    "1004", "1122", "1313", "2001", "2468", "2580", "0852", "4711", "0007", "0070", "1379", "1397",
    "9731", "7410", "0147", "1590", "0951", "7531", "1357", "8520", "9630", "0369", "5683", "7777",
    "1010", "6969", "4321", "2222", "112233", "123123", "147258", "159753", "246810", "258000",
})  # fmt: skip

# Each hash takes 64 MiB and some 50 ms of a core: two at a time per worker leave room for sales.
THREAD_COUNT_MAX = 2
# Whoever comes when this many wait is sent away: the wait is some two seconds by then.
WAITING_COUNT_MAX = 64

_hasher = PasswordHasher()  # argon2id with the parameters of RFC 9106, low memory
_threads = ThreadPoolExecutor(THREAD_COUNT_MAX, thread_name_prefix="argon2")
_waiting = 0


# -- hashing ---------------------------------------------------------------------------------------


async def hash_password(password: str) -> str:
    """Hash a password or a PIN for storing, without blocking the loop.

    Raises try_again (503) when too many wait already.
    """
    return await _in_thread(lambda: _hasher.hash(_normal(password)))


async def verify_password(password: str, password_hash: str | None) -> bool:
    """Say whether the password fits; None for a user who does not exist takes just as long.

    Raises try_again (503) when too many wait already.
    """
    return await _in_thread(lambda: _verify(_normal(password), password_hash))


def needs_rehash(password_hash: str) -> bool:
    """Say whether a hash was made with weaker parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


async def _in_thread(work: Callable[[], Result]) -> Result:
    global _waiting  # noqa: PLW0603 - it counts what waits for the module's threads
    if _waiting >= WAITING_COUNT_MAX:
        raise ApiError(
            "try_again",
            "Too many are signing in right now. Send it again.",
            status=503,
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, work)
    finally:
        _waiting -= 1


@functools.cache
def _dummy_hash() -> str:
    return _hasher.hash("nobody has this password")


def _verify(password: str, password_hash: str | None) -> bool:
    try:
        _hasher.verify(password_hash or _dummy_hash(), password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def _normal(password: str) -> str:
    """Return the same characters for the same keys: keyboards differ in how they compose."""
    return unicodedata.normalize("NFKC", password)


# -- which ones will do ----------------------------------------------------------------------------


def password_problems(password: str, *, about: Iterable[str] = ()) -> dict[str, str]:
    """Return what is wrong with a password, as rule -> sentence; nothing if it will do.

    `about` is what others know of the person: their address and their names.
    """
    text = _normal(password)
    broken = {
        "too_short": (
            len(text) < LENGTH_MIN, f"A password has {LENGTH_MIN} characters or more."
        ),
        "too_long": (len(text) > LENGTH_MAX, f"A password has at most {LENGTH_MAX} characters."),
        "no_upper": (not any(c.isupper() for c in text), "It needs a capital letter."),
        "no_lower": (not any(c.islower() for c in text), "It needs a small letter."),
        "no_digit": (not any(c.isdigit() for c in text), "It needs a digit."),
        "no_special": (all(c.isalnum() for c in text), "It needs a sign: a space, - or ! will do."),
        "control_character": (
            any(unicodedata.category(c) == "Cc" for c in text), "It has a character nobody types."
        ),
        "about_you": (_is_about(text, about), "It contains a part of your name or address."),
        "too_common": (_is_common(text), "It is one of the first that anybody would try."),
    }  # fmt: skip
    return {rule: message for rule, (is_broken, message) in broken.items() if is_broken}


def demand_good(password: str, *, field: str, about: Iterable[str]) -> None:
    """Raise invalid_request (422), which says what is wrong with the password in a field."""
    problems = password_problems(password, about=about)
    if problems:
        raise invalid_request({field: list(problems.values())})


def pin_problems(pin: str) -> dict[str, str]:
    """Return what is wrong with a PIN, as rule -> sentence; nothing if it will do."""
    if not (pin.isascii() and pin.isdecimal() and PIN_LENGTH_MIN <= len(pin) <= PIN_LENGTH_MAX):
        return {
            "not_a_pin": f"A PIN has {PIN_LENGTH_MIN} to {PIN_LENGTH_MAX} digits, nothing else."
        }
    return {"too_common": "It is one of the first that anybody would try."} if _is_easy(pin) else {}


def generate_password() -> str:
    """Make up a password that keeps the rules: 20 characters, some 118 bits."""
    while True:
        made = "".join(secrets.choice(GENERATED_FROM) for _ in range(GENERATED_LENGTH))
        if not password_problems(made) and made[0] not in string.punctuation:
            return made


def _is_about(text: str, about: Iterable[str]) -> bool:
    folded = text.casefold()
    parts = {part for known in about for part in re.split(r"[\W_]+", _normal(known).casefold())}
    return any(len(part) >= PART_LENGTH_MIN and part in folded for part in parts)


def _is_common(text: str) -> bool:
    folded = text.casefold()
    bare = folded.strip(string.digits + string.punctuation + " ")
    stems = {bare, bare.translate(LEET), folded.translate(LEET).strip(string.punctuation + " ")}
    words = {re.sub(r"[\W\d_]+", "", stem) for stem in stems}
    few = len(set(folded)) <= 3
    return few or not COMMON.isdisjoint(words) or any(_is_half_of_itself(w) for w in words)


def _is_half_of_itself(word: str) -> bool:
    half, odd = divmod(len(word), 2)
    return not odd and half > 1 and word[:half] == word[half:] and word[:half] in COMMON


def _is_easy(pin: str) -> bool:
    steps = {(int(after) - int(before)) % 10 for before, after in pairwise(pin)}
    repeats = any(
        pin == pin[:size] * (len(pin) // size)
        for size in range(1, len(pin) // 2 + 1)
        if len(pin) % size == 0
    )
    is_year = len(pin) == PIN_LENGTH_MIN and pin[:2] in {"19", "20"}
    # One step over and over: 1111, 1234, 9876, 2468, 7890.
    return len(steps) == 1 or repeats or is_year or pin == pin[::-1] or pin in COMMON_PINS
