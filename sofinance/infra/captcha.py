"""Captchas: ask Turnstile whether a person sent this; whatever is not a clear yes is a no.

Called before any transaction begins, since it waits for somebody else's server.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import aiohttp
import orjson

from sofinance.infra import metrics, outgoing
from sofinance.infra.command import EXIT_USAGE, SetupError
from sofinance.infra.errors import ApiError

if TYPE_CHECKING:
    from sofinance.config import Settings

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
# Turnstile's own limit.
TOKEN_LENGTH_MAX = 2_048
ANSWER_BYTES_MAX = 16_384


class Captcha:
    """Checks tokens with a provider, or lets everybody pass where it is off."""

    def __init__(
        self, *, secret: str | None, url: str, hostname: str, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Take the provider's secret; None switches the check off."""
        self._secret, self._url, self._hostname = secret, url, hostname
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    @classmethod
    def configured(cls, settings: Settings, *, timeout_s: float = TIMEOUT_S) -> Captcha:
        """Return the check of the settings; raises SetupError where it could never say yes."""
        if settings.captcha_mode == "off":
            return cls(secret=None, url="", hostname="")
        if not settings.turnstile_secret_key:
            raise SetupError(
                "CAPTCHA_MODE is turnstile and TURNSTILE_SECRET_KEY is missing.",
                exit_code=EXIT_USAGE,
            )
        return cls(
            secret=settings.turnstile_secret_key,
            url=settings.turnstile_verify_url,
            hostname=settings.turnstile_hostname,
            timeout_s=timeout_s,
        )

    @property
    def is_on(self) -> bool:
        """Whether a token is asked for."""
        return self._secret is not None

    async def check(self, token: str | None, *, ip: str | None = None) -> None:
        """Let a person pass; raises captcha_required (400) or captcha_failed (403)."""
        if self._secret is None:
            return
        if not token:
            metrics.CAPTCHAS.labels("missing").inc()
            raise ApiError("captcha_required", "This needs a solved captcha.", status=400)
        passed = len(token) <= TOKEN_LENGTH_MAX and await self._ask(self._secret, token, ip)
        metrics.CAPTCHAS.labels("passed" if passed else "failed").inc()
        if not passed:
            raise ApiError(
                "captcha_failed", "The captcha was not solved. Try another one.", status=403
            )

    async def _ask(self, secret: str, token: str, ip: str | None) -> bool:
        form = {"secret": secret, "response": token} | ({"remoteip": ip} if ip else {})
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=self._timeout, trace_configs=[outgoing.traced()]
                ) as session,
                # Somebody who can redirect us would answer in the provider's place.
                session.post(self._url, data=form, allow_redirects=False) as response,
            ):
                answer = b""
                async for part in response.content.iter_chunked(ANSWER_BYTES_MAX):
                    answer += part
                    if len(answer) > ANSWER_BYTES_MAX:
                        log.warning("the captcha's provider answered too much")
                        return False
                if response.status != 200:
                    log.warning("the captcha's provider answered %d", response.status)
                    return False
            found = orjson.loads(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.warning("the captcha's provider did not answer: %s", type(error).__name__)
            return False
        if not isinstance(found, dict) or found.get("success") is not True:
            return False
        if self._hostname and found.get("hostname") != self._hostname:
            log.warning("a captcha was solved for another host")
            return False
        return True
