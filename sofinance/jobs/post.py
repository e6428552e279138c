"""One attempt to deliver a message: the network, outside of any transaction."""

from __future__ import annotations

import contextlib
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

from sofinance import __version__
from sofinance.infra import outgoing, signatures
from sofinance.infra.targets import CheckedResolver, TargetRefusedError, Targets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# Why a certificate is refused, by OpenSSL's numbers (X509_V_ERR_*); any other is "untrusted".
CERTIFICATE_ERRORS = {10: "expired", 18: "self_signed", 62: "name", 64: "name"}
# What an endpoint may ask us to wait, at most.
RETRY_AFTER_MAX_S = 86_400
HEADER_BYTES_MAX = 8_190


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message that this courier has claimed."""

    org_id: int
    endpoint_id: int
    delivery_id: int
    claim_no: int
    begin_by_s: float  # by the monotonic clock: later, somebody else may send it
    attempts: int
    url: str
    message_id: str
    body: bytes
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one attempt: a status where there was an answer, else a code."""

    parcel: Parcel
    status: int | None = None
    error: str | None = None
    is_down: bool = False
    retry_after_s: int = 0

    @property
    def is_delivered(self) -> bool:
        """Whether the endpoint took it."""
        return self.error is None

    @property
    def is_gone(self) -> bool:
        """Whether the endpoint wants no more messages, ever."""
        return self.status == HTTPStatus.GONE


class Post:
    """Sends to what the settings let it send to."""

    def __init__(
        self,
        targets: Targets,
        *,
        timeout_s: float,
        in_flight_max: int,
    ) -> None:
        self._targets = targets
        self._timeout_s = timeout_s
        self._in_flight_max = in_flight_max
        self._tls = ssl.create_default_context()
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Open connections for as long as a block runs: no cookies, no proxy, no redirects."""
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._targets), use_dns_cache=False, ssl=self._tls,
            limit=self._in_flight_max,
        )  # fmt: skip
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            auto_decompress=False,
            trust_env=False,
            trace_configs=[outgoing.traced()],
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            headers={"User-Agent": f"SOFinance/{__version__}", "Content-Type": "application/json"},
        ) as session:
            yield session

    async def send(self, session: aiohttp.ClientSession, parcel: Parcel) -> Result | None:
        """Make one attempt; None where the claim may have run out before it could begin."""
        if time.monotonic() > parcel.begin_by_s:
            return None
        if not parcel.secrets:
            return Result(parcel, error="secret_does_not_open")
        try:
            return await self._post(session, parcel)
        except TargetRefusedError as error:
            return Result(parcel, error=f"invalid_export_target:{error}")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            return Result(parcel, error=code_of(error), is_down=True)

    async def _post(self, session: aiohttp.ClientSession, parcel: Parcel) -> Result:
        self._targets.check_url(parcel.url)
        headers = signatures.headers(
            parcel.message_id, int(time.time()), parcel.body, parcel.secrets
        )
        async with session.post(
            parcel.url, data=parcel.body, headers=headers, allow_redirects=False
        ) as response:
            # What it says is not read: leaving here closes a connection that is still talking.
            return judge(parcel, response.status, response.headers)


def judge(parcel: Parcel, status: int, headers: Mapping[str, str]) -> Result:
    """Say what an answer means; whoever answers is not down, unless it says so."""
    if 200 <= status < 300:
        return Result(parcel, status=status)
    is_busy = status == HTTPStatus.TOO_MANY_REQUESTS
    wait = headers.get("Retry-After", "")
    return Result(
        parcel,
        status=status,
        error=f"http_{status}",
        is_down=is_busy or status >= HTTPStatus.INTERNAL_SERVER_ERROR,
        retry_after_s=min(int(wait[:9]), RETRY_AFTER_MAX_S) if wait.isdecimal() else 0,
    )


def code_of(error: Exception) -> str:
    """Name what kept a message from arriving, without what the network says in its own words."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        number = getattr(error.certificate_error, "verify_code", 0)
        return f"tls:{CERTIFICATE_ERRORS.get(number, 'untrusted')}"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls"
    return f"connection:{type(error).__name__}"
