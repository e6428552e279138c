"""Stripe: what it is asked over its API, through a circuit, and whether a webhook is from it.

Never called inside a database transaction. Source: https://docs.stripe.com/api (errors, idempotent
requests) and https://docs.stripe.com/webhooks ("Verify webhook signatures manually").
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import orjson

from sofinance.infra import metrics, outgoing
from sofinance.infra.circuit import Circuit, CircuitOpenError
from sofinance.infra.errors import ApiError
from sofinance.infra.pool import PoolFullError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from datetime import datetime

    from sofinance.config import Settings
    from sofinance.infra.parse import Received

log = logging.getLogger(__name__)

API_VERSION = "2024-06-20"
ANSWER_BYTES_MAX = 1 << 20
TOLERANCE_S = 300
SIGNATURE = "Stripe-Signature"
SIGNATURE_COUNT_MAX = 10
TIMESTAMP_DIGITS_MAX = 15
ID_LENGTH_MAX = 254
TYPE_LENGTH_MAX = 100
CONFLICT, TOO_MANY = 409, 429
# What makes our own part of a webhook fail; whatever the sender did wrong does not.
FAILURES = (
    asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError,
    PoolFullError,
)  # fmt: skip


class StripeAwayError(ConnectionError):
    """Stripe did not answer, or not as a server does that works."""


@dataclass(frozen=True, slots=True)
class Event:
    """A webhook that Stripe signed."""

    id: str
    type: str
    thing: Any  # the object that it is about, as it came
    payload_sha256: bytes


@dataclass(slots=True)
class Taken:
    """What comes of a webhook; whoever takes it says so."""

    outcome: str = "failed"


class Stripe:
    """One account at Stripe; without a key nothing is asked, without a secret nothing believed."""

    def __init__(self, settings: Settings) -> None:
        self._key, self._url = settings.stripe_secret_key, settings.stripe_api_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=settings.stripe_timeout_s)
        self._secrets = [
            secret.encode()
            for secret in (settings.stripe_webhook_secret, settings.stripe_webhook_secret_previous)
            if secret
        ]
        self._org_ids = frozenset(
            int(part) for part in settings.stripe_org_ids.split(",") if part.strip()
        )
        limits: dict[str, Any] = {
            "failure_count_max": settings.stripe_circuit_failures,
            "window_s": settings.stripe_circuit_window_s,
            "recovery_s": settings.stripe_circuit_recovery_s,
            "probe_count": settings.stripe_circuit_probes,
        }
        self._circuit = self._webhook_circuit = None
        if self._key:
            self._circuit = Circuit("stripe", counts=(StripeAwayError,), **limits)
        if self._secrets:
            self._webhook_circuit = Circuit("stripe_webhook", counts=FAILURES, **limits)

    def serves(self, org_id: int) -> bool:
        """Say whether this account takes an organisation's money."""
        return not self._org_ids or org_id in self._org_ids

    def demand(self, org_id: int, *pages: str) -> None:
        """Go on only where there is an account, the pages that it leads back to, for them.

        Raises card_payments_off (409).
        """
        if self._circuit is None or not all(pages) or not self.serves(org_id):
            raise ApiError(
                "card_payments_off", "Card payments are not set up here: docs/billing.md.",
                status=409,
            )  # fmt: skip

    async def post(
        self,
        path: str,
        form: Mapping[str, str],
        *,
        key: str,
        refused: tuple[str, str] = ("stripe_refused", "Stripe refused this."),
    ) -> dict[str, Any]:
        """Ask Stripe to do something, once for each key; returns the object that it answers.

        Raises stripe_unavailable (503) where it does not answer or is left alone for a while, and
        `refused` (409, with Stripe's `code` and `param`) where it says no.
        """
        if self._circuit is None:
            raise RuntimeError("demand() comes first")
        try:
            async with self._circuit:
                status, answer = await self._send(path, form, key)
        except (CircuitOpenError, StripeAwayError) as error:
            if isinstance(error, StripeAwayError):
                log.warning("Stripe did not answer: %s", error)
            raise _unavailable(self._circuit.retry_after_s) from None
        if status < 400:
            return answer
        told = answer.get("error")
        told = told if isinstance(told, dict) else {}
        log.warning("Stripe answered %d: %s", status, told.get("code") or told.get("type"))
        if status in {CONFLICT, TOO_MANY}:  # the same key is under way, or we ask too often
            raise _unavailable(1)
        code, message = refused
        raise ApiError(
            code, message, status=409, stripe_status=status, stripe_code=_short(told.get("code")),
            stripe_param=_short(told.get("param")),
        )  # fmt: skip

    async def _send(
        self, path: str, form: Mapping[str, str], key: str
    ) -> tuple[int, dict[str, Any]]:
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Idempotency-Key": key,
            "Stripe-Version": API_VERSION,
        }
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=self._timeout, trace_configs=[outgoing.traced()]
                ) as session,
                # Whoever can redirect us would be given the key.
                session.post(
                    self._url + path, data=dict(form), headers=headers, allow_redirects=False
                ) as response,
            ):
                answer, status = b"", response.status
                async for part in response.content.iter_chunked(ANSWER_BYTES_MAX):
                    answer += part
                    if len(answer) > ANSWER_BYTES_MAX:
                        break  # and so no JSON
            found = orjson.loads(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise StripeAwayError(type(error).__name__) from None
        if status >= 500 or 300 <= status < 400 or not isinstance(found, dict):
            raise StripeAwayError(f"status {status}")
        return status, found

    def opened(self, received: Received, now: datetime) -> Event | None:
        """Read a webhook; None where Stripe did not sign it, or not within five minutes.

        Raises stripe_not_set_up and stripe_busy (503), stripe_event_malformed (400).
        """
        circuit = self._webhook_circuit
        if circuit is None:
            metrics.STRIPE_EVENTS.labels("not_set_up").inc()
            raise ApiError(
                "stripe_not_set_up", "STRIPE_WEBHOOK_SECRET is not set here.", status=503
            )
        header = received.headers.get(SIGNATURE, "")
        if not is_signed(received.body, header, self._secrets, now_s=now.timestamp()):
            metrics.STRIPE_EVENTS.labels("bad_signature").inc()
            return None
        try:
            found = orjson.loads(received.body)
        except ValueError:
            found = None
        event = _event(found, received.body)
        if event is None:
            metrics.STRIPE_EVENTS.labels("malformed").inc()
            raise ApiError(
                "stripe_event_malformed", "This is no event of Stripe's: it needs an id, a type "
                "and data.object.", status=400,
            )  # fmt: skip
        return event

    @contextlib.asynccontextmanager
    async def taking(self) -> AsyncGenerator[Taken]:
        """Count what comes of an event; after too many failures of ours none is taken for a while.

        Raises stripe_busy (503): Stripe sends it again.
        """
        circuit, taken = self._webhook_circuit, Taken()
        if circuit is None:
            raise RuntimeError("opened() comes first")
        try:
            async with circuit:
                yield taken
        except CircuitOpenError:
            taken.outcome = "circuit_open"
            metrics.STRIPE_CIRCUIT_OPEN.inc()
            raise ApiError(
                "stripe_busy", "Too much failed here lately. Send it again.", status=503,
                headers={"Retry-After": str(circuit.retry_after_s)},
            ) from None  # fmt: skip
        finally:
            metrics.STRIPE_EVENTS.labels(taken.outcome).inc()


def is_signed(body: bytes, header: str, secrets: list[bytes], *, now_s: float) -> bool:
    """Say whether one of the header's v1 signatures is one of ours, and five minutes old at most.

    All are compared, in a time that says nothing of which fits.
    """
    timestamp, signatures = "", []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            timestamp = value
        elif name == "v1":
            signatures.append(value)
    is_number = timestamp.isascii() and timestamp.isdecimal()
    if not is_number or len(timestamp) > TIMESTAMP_DIGITS_MAX:
        return False
    if not 0 < len(signatures) <= SIGNATURE_COUNT_MAX:
        return False
    content, is_ours = timestamp.encode() + b"." + body, False
    for secret in secrets:
        expected = hmac.digest(secret, content, "sha256").hex().encode()
        for signature in signatures:
            is_ours |= hmac.compare_digest(expected, signature.encode("utf-8", "replace"))
    return is_ours and abs(now_s - int(timestamp)) <= TOLERANCE_S


def _event(found: Any, body: bytes) -> Event | None:
    if not isinstance(found, dict):
        return None
    event_id, kind, data = found.get("id"), found.get("type"), found.get("data")
    if not isinstance(event_id, str) or not 0 < len(event_id) <= ID_LENGTH_MAX:
        return None
    if not isinstance(kind, str) or not 0 < len(kind) <= TYPE_LENGTH_MAX:
        return None
    if not isinstance(data, dict) or "object" not in data:
        return None
    return Event(event_id, kind, data["object"], hashlib.sha256(body).digest())


def _short(text: Any) -> str | None:
    return text[:100] if isinstance(text, str) else None


def _unavailable(retry_after_s: int) -> ApiError:
    return ApiError(
        "stripe_unavailable", "Stripe does not answer just now. Send it again.", status=503,
        headers={"Retry-After": str(retry_after_s)},
    )  # fmt: skip
