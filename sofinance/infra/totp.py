"""Codes of an authenticator app (RFC 6238), and recovery codes for who lost theirs.

Pure functions: the caller keeps the secret (sealed, see secretbox.py), the last step that was used
and the recovery codes' digests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

STEP_S = 30
DIGITS = 6
# Clocks of phones drift: the step before and the one after are good, too.
STEPS_AROUND = 1
# As long as the output of SHA-1, as RFC 4226, section 4, recommends.
SECRET_BYTES = 20

RECOVERY_CODE_COUNT = 10
# 80 random bits need no slow hash: a digest of them cannot be searched.
RECOVERY_CHARACTERS = 16
RECOVERY_GROUP = 4
# Crockford's base 32: no I, L, O, U, which are misread or make words.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
MISREAD = str.maketrans({"I": "1", "L": "1", "O": "0", "-": None, " ": None})


def new_secret() -> bytes:
    """Make a secret for a new authenticator."""
    return secrets.token_bytes(SECRET_BYTES)


def written(secret: bytes) -> str:
    """Write a secret as apps take it from a keyboard: base 32, no padding."""
    return base64.b32encode(secret).rstrip(b"=").decode()


def provisioning_uri(secret: bytes, *, issuer: str, account: str) -> str:
    """Return the otpauth: address that a QR code carries to the app."""
    label = f"{quote(issuer.replace(':', ' '), safe='')}:{quote(account, safe='@')}"
    asked = {
        "secret": written(secret), "issuer": issuer.replace(":", " "),
        "algorithm": "SHA1", "digits": str(DIGITS), "period": str(STEP_S),
    }  # fmt: skip
    return f"otpauth://totp/{label}?{urlencode(asked, quote_via=quote)}"


def step_at(now: datetime) -> int:
    """Return the number of the 30 seconds that a time is in."""
    return int(now.timestamp()) // STEP_S


def code_at(secret: bytes, step: int, *, digits: int = DIGITS) -> str:
    """Return the code of a step: RFC 4226's truncation of an HMAC over its number."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**digits).zfill(digits)


def accept(secret: bytes, code: str, *, last_step: int | None, now: datetime) -> int | None:
    """Return the step whose code this is, to be stored as the last one; None if it is not good.

    A code of the last step, or of one before it, was used already and is refused. Two requests
    with one code race: store the step with a condition on the old one, and refuse the loser.
    """
    given = "".join(code.split())
    good = len(given) == DIGITS and given.isascii() and given.isdecimal()
    found = None
    current = step_at(now)
    for step in range(current - STEPS_AROUND, current + STEPS_AROUND + 1):
        # All are compared, whichever fits, so that time tells nothing.
        fits = hmac.compare_digest(code_at(secret, step), given if good else "x" * DIGITS)
        if fits and found is None and (last_step is None or step > last_step):
            found = step
    return found


def new_recovery_codes() -> list[str]:
    """Make recovery codes, to be shown once: ``K3TD-9QXV-0B7M-W2ZP``."""
    return [_recovery_code() for _ in range(RECOVERY_CODE_COUNT)]


def recovery_digest(code: str) -> bytes | None:
    """Return what is stored of a recovery code, however it was typed; None if it is none."""
    letters = code.strip().upper().translate(MISREAD)
    if len(letters) != RECOVERY_CHARACTERS or not set(letters) <= set(ALPHABET):
        return None
    return hashlib.sha256(letters.encode()).digest()


def is_recovery_code(code: str, digests: Iterable[bytes]) -> bool:
    """Say whether a code is one of those that these digests are of; the caller uses it up."""
    digest = recovery_digest(code) or b""
    return any([hmac.compare_digest(digest, stored) for stored in digests])  # noqa: C419 - all of them


def _recovery_code() -> str:
    letters = "".join(secrets.choice(ALPHABET) for _ in range(RECOVERY_CHARACTERS))
    groups = range(0, RECOVERY_CHARACTERS, RECOVERY_GROUP)
    return "-".join(letters[start : start + RECOVERY_GROUP] for start in groups)
