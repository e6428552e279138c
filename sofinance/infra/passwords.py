"""Passwords: argon2id, in threads of their own; an unknown user takes as long as a known one."""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# Each hash takes 64 MiB and some 50 ms of a core: two at a time per worker leave room for sales.
THREAD_COUNT_MAX = 2

_hasher = PasswordHasher()  # argon2id with the parameters of RFC 9106, low memory
_threads = ThreadPoolExecutor(THREAD_COUNT_MAX, thread_name_prefix="argon2")


async def hash_password(password: str) -> str:
    """Hash a password for storing, without blocking the loop."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


async def verify_password(password: str, password_hash: str | None) -> bool:
    """Say whether the password fits; None for a user who does not exist takes just as long."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads, _verify, password, password_hash)


def needs_rehash(password_hash: str) -> bool:
    """Say whether a hash was made with weaker parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


@functools.cache
def _dummy_hash() -> str:
    return _hasher.hash("nobody has this password")


def _verify(password: str, password_hash: str | None) -> bool:
    try:
        _hasher.verify(password_hash or _dummy_hash(), password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None
