"""Signatures of webhooks as Standard Webhooks has them: what is sent, when, by whom.

Signed is ``<webhook-id>.<webhook-timestamp>.<body>``: with HMAC-SHA256 (``v1,``), where both sides
know the secret (``whsec_``), or with Ed25519 (``v1a,``), where the receiver knows the public key
only (``whpk_``) and can prove to others who signed. While a secret is replaced both sign, and the
header has two signatures.

Source: https://github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["hmac", "ed25519"]
KINDS: tuple[Kind, ...] = ("hmac", "ed25519")
HMAC_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX = "whsec_", "whsk_", "whpk_"
# The specification wants 24 to 64 for HMAC; of Ed25519 it is the seed.
SECRET_BYTES = 32
# What a secret is sealed for.
PURPOSE = "webhook secret"


def make_secret(kind: Kind) -> str:
    """Return a new secret: whsec_... or whsk_..."""
    prefix = HMAC_PREFIX if kind == "hmac" else PRIVATE_PREFIX
    return prefix + b64encode(os.urandom(SECRET_BYTES)).decode()


def public_key(secret: str) -> str | None:
    """Return what verifies what a secret signs: whpk_...; None where the secret itself does."""
    if not secret.startswith(PRIVATE_PREFIX):
        return None
    return PUBLIC_PREFIX + b64encode(_private(secret).public_key().public_bytes_raw()).decode()


def headers(
    message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[str]
) -> dict[str, str]:
    """Return the three headers of a message, signed with every secret, the newest first."""
    content = f"{message_id}.{timestamp_s}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(sign(content, secret) for secret in secrets),
    }


def sign(content: bytes, secret: str) -> str:
    """Return one signature with its version: v1,... or v1a,..."""
    if secret.startswith(PRIVATE_PREFIX):
        return "v1a," + b64encode(_private(secret).sign(content)).decode()
    key = b64decode(secret.removeprefix(HMAC_PREFIX))
    return "v1," + b64encode(hmac.digest(key, content, "sha256")).decode()


def _private(secret: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b64decode(secret.removeprefix(PRIVATE_PREFIX)))
