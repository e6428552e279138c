"""Encrypt what must be read again: AES-256-GCM, the key named inside, bound to whose it is.

A sealed secret is ``version (1 byte), key id (4), nonce (12), ciphertext, tag (16)``. What it is
for and whose it is are authenticated with it, so that a row which is copied to another user does
not open. DATA_ENCRYPTION_KEY seals; DATA_ENCRYPTION_KEY_PREVIOUS still opens, until all is sealed
anew.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sofinance.config import encryption_key
from sofinance.infra.errors import ApiError

if TYPE_CHECKING:
    from sofinance.config import Settings

VERSION = b"\x01"
KEY_ID_BYTES = 4
NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = len(VERSION) + KEY_ID_BYTES + NONCE_BYTES + TAG_BYTES


class SealError(Exception):
    """It does not open: tampered with, another's, or sealed with a key we do not have."""


class SecretBox:
    """Seals and opens with the keys of the settings; the first one seals."""

    def __init__(self, *keys: bytes) -> None:
        self._boxes = {key_id(key): AESGCM(key) for key in keys}
        self._signing = [hmac.digest(key, b"sofinance signing key", "sha256") for key in keys]
        self._current = key_id(keys[0]) if keys else b""

    @classmethod
    def configured(cls, settings: Settings) -> SecretBox:
        """Return the box of the settings; without DATA_ENCRYPTION_KEY it refuses to seal."""
        texts = (settings.data_encryption_key, settings.data_encryption_key_previous)
        return cls(*(encryption_key(text) for text in texts if text))

    def seal(self, secret: bytes, *, purpose: str, org_id: int, user_id: int) -> bytes:
        """Encrypt a secret of somebody; raises encryption_not_configured (503) without a key."""
        self._demand_key()
        head = VERSION + self._current
        nonce = os.urandom(NONCE_BYTES)
        bound = _bound(head, purpose, org_id, user_id)
        return head + nonce + self._boxes[self._current].encrypt(nonce, secret, bound)

    def open(self, sealed: bytes, *, purpose: str, org_id: int, user_id: int) -> bytes:
        """Decrypt what was sealed for the same purpose and person; raises SealError else."""
        head, rest = sealed[: 1 + KEY_ID_BYTES], sealed[1 + KEY_ID_BYTES :]
        if len(sealed) < OVERHEAD_BYTES or not head.startswith(VERSION):
            raise SealError("this was not sealed by us")
        box = self._boxes.get(head[1:])
        if box is None:
            raise SealError("this was sealed with a key that is not set")
        nonce, ciphertext = rest[:NONCE_BYTES], rest[NONCE_BYTES:]
        try:
            return box.decrypt(nonce, ciphertext, _bound(head, purpose, org_id, user_id))
        except InvalidTag:
            raise SealError("this was changed, or is somebody else's") from None

    def sign(self, said: bytes, *, purpose: str) -> bytes:
        """Return the HMAC-SHA256 of what is said for a purpose; raises like `seal`."""
        self._demand_key()
        return self.signatures(said, purpose=purpose)[0]

    def signatures(self, said: bytes, *, purpose: str) -> list[bytes]:
        """Return the good signatures of what is said: one for each key."""
        text = purpose.encode() + b"|" + said
        return [hmac.digest(key, text, "sha256") for key in self._signing]

    def _demand_key(self) -> None:
        if not self._current:
            raise ApiError(
                "encryption_not_configured",
                "This service has no key to encrypt secrets with; its operator sets "
                "DATA_ENCRYPTION_KEY.",
                status=503,
            )

    @property
    def key_id(self) -> bytes:
        """What names the key that seals, in what it sealed; empty without one."""
        return self._current

    def is_stale(self, sealed: bytes) -> bool:
        """Say whether the previous key sealed it, so that it ought to be sealed anew."""
        return sealed[1 : 1 + KEY_ID_BYTES] != self._current


def key_id(key: bytes) -> bytes:
    """Return what names a key in what it sealed, without giving it away."""
    return hmac.digest(key, b"sofinance data encryption key id", "sha256")[:KEY_ID_BYTES]


def _bound(head: bytes, purpose: str, org_id: int, user_id: int) -> bytes:
    return head + f"|{purpose}|{org_id}|{user_id}".encode()
