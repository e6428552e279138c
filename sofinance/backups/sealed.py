"""Encrypt a stream of any length: AES-256-GCM in chunks, so that nothing is held in memory.

The head is ``magic (8 bytes), key id (4), salt (32)``. Each file has a key of its own, derived from
BACKUP_ENCRYPTION_KEY and the salt, so that nonces may count. A chunk is a mebibyte and its tag; its
nonce is its number and whether it is the last, so that chunks cannot be swapped, dropped, or the
end cut off unnoticed. The head is authenticated with every chunk. Source: STREAM of Hoang,
Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance" (2015).
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sofinance.infra.secretbox import KEY_ID_BYTES, TAG_BYTES, key_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAGIC = b"SOFBKP1\n"
SALT_BYTES = 32
CHUNK_BYTES = 1 << 20
HEAD_BYTES = len(MAGIC) + KEY_ID_BYTES + SALT_BYTES


class SealedError(Exception):
    """It does not decrypt: another key, damaged, or cut off."""


def seal(chunks: Iterable[bytes], key: bytes) -> Iterator[bytes]:
    """Yield the encrypted stream; the chunks that come in may have any length."""
    head = MAGIC + key_id(key) + os.urandom(SALT_BYTES)
    box = _box(key, head)
    yield head
    number, held = 0, bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) > CHUNK_BYTES:  # the last chunk is not sent before it is known to be it
            yield box.encrypt(_nonce(number, last=False), bytes(held[:CHUNK_BYTES]), head)
            del held[:CHUNK_BYTES]
            number += 1
    yield box.encrypt(_nonce(number, last=True), bytes(held), head)


def unseal(stream: IO[bytes], keys: Sequence[bytes]) -> Iterator[bytes]:
    """Yield what was encrypted; raises SealedError, before anything wrong is yielded."""
    head = stream.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC):
        raise SealedError("it does not begin as one of our encrypted backups")
    names = {key_id(key): key for key in keys}
    name = head[len(MAGIC) : len(MAGIC) + KEY_ID_BYTES]
    if name not in names:
        raise SealedError(
            "it was encrypted with another key" if names else "it is encrypted and no key is set"
        )
    box = _box(names[name], head)
    number, chunk = 0, stream.read(CHUNK_BYTES + TAG_BYTES)
    while True:
        following = stream.read(CHUNK_BYTES + TAG_BYTES)
        try:
            yield box.decrypt(_nonce(number, last=not following), chunk, head)
        except InvalidTag:
            raise SealedError("it is damaged, or its end is missing") from None
        if not following:
            return
        number, chunk = number + 1, following


def is_sealed(path: os.PathLike[str]) -> bool:
    """Say whether a file begins as an encrypted backup does."""
    with open(path, "rb") as file:  # noqa: PTH123 - any path
        return file.read(len(MAGIC)) == MAGIC


def _box(key: bytes, head: bytes) -> AESGCM:
    salt = head[-SALT_BYTES:]
    return AESGCM(HKDF(SHA256(), 32, salt, b"sofinance backup file").derive(key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
