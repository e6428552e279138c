"""Encryption at rest: opens for whom and what it was sealed, with the keys that are set."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from dataclasses import replace
from typing import Any

import pytest

from sofinance.config import Settings, encryption_key
from sofinance.infra.errors import ApiError
from sofinance.infra.secretbox import OVERHEAD_BYTES, SealError, SecretBox

OLD, NEW = b"\x01" * 32, b"\x02" * 32
MINE: dict[str, Any] = {"purpose": "totp", "org_id": 3, "user_id": 7}


def test_what_was_sealed_opens_and_does_not_show():
    box = SecretBox(NEW)
    first, second = (box.seal(b"a secret", **MINE) for _ in range(2))
    assert box.open(first, **MINE) == b"a secret"
    assert first != second  # a nonce of its own each time
    assert b"secret" not in first
    assert len(first) == len(b"a secret") + OVERHEAD_BYTES


@pytest.mark.parametrize("other", [{"purpose": "reset"}, {"org_id": 4}, {"user_id": 8}])
def test_it_opens_for_nobody_else(other: dict[str, Any]):
    box = SecretBox(NEW)
    with pytest.raises(SealError):
        box.open(box.seal(b"x", **MINE), **{**MINE, **other})


def test_a_changed_byte_anywhere_is_noticed():
    box = SecretBox(NEW)
    sealed = box.seal(b"a secret", **MINE)
    for index in range(len(sealed)):
        forged = bytearray(sealed)
        forged[index] ^= 1
        with pytest.raises(SealError):
            box.open(bytes(forged), **MINE)
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            box.open(sealed[:length], **MINE)


def test_a_key_is_rotated_in_two_steps():
    sealed = SecretBox(OLD).seal(b"x", **MINE)
    both = SecretBox(NEW, OLD)
    assert both.open(sealed, **MINE) == b"x"
    assert both.is_stale(sealed)
    anew = both.seal(b"x", **MINE)
    assert not both.is_stale(anew)
    assert SecretBox(NEW).open(anew, **MINE) == b"x"
    with pytest.raises(SealError, match="a key that is not set"):
        SecretBox(NEW).open(sealed, **MINE)


def test_without_a_key_nothing_is_sealed():
    settings = replace(Settings.for_tests(database_url="postgresql://x/y"), data_encryption_key="")
    with pytest.raises(ApiError) as caught:
        SecretBox.configured(settings).seal(b"x", **MINE)
    assert (caught.value.status, caught.value.code) == (503, "encryption_not_configured")


def test_the_settings_key_is_hex_or_base64():
    key = bytes(range(224, 256))
    for text in (key.hex(), key.hex().upper(), b64encode(key), urlsafe_b64encode(key)):
        written = text if isinstance(text, str) else text.decode()
        assert encryption_key(written) == key
    for bad in ("", "x" * 64, "00" * 32, key.hex()[:-2], b64encode(key[:-1]).decode(), "é" * 32):
        with pytest.raises(ValueError, match="32 random bytes"):
            encryption_key(bad)
