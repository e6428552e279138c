"""Handing mail to SendGrid over HTTPS; retries are its callers'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from sofinance.infra import outgoing

if TYPE_CHECKING:
    from email.message import EmailMessage

# Of a message's own headers, those that it does not write itself.
KEPT_HEADERS = ("Auto-Submitted", "List-Unsubscribe", "List-Unsubscribe-Post")
# What it says when another attempt may help.
AGAIN = frozenset({401, 403, 408, 429})


class Refused(Exception):  # noqa: N818 - it is told as another
    """It will never take this; its status says why."""


class SendGrid:
    """An account at SendGrid."""

    def __init__(self, *, key: str, url: str, timeout_s: float) -> None:
        self._key, self._url = key, url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def send(self, message: EmailMessage) -> None:
        """Hand a message over; raises Refused, or an OSError when another attempt may help."""
        (sender,) = message["From"].addresses
        (recipient,) = message["To"].addresses
        body = {
            "personalizations": [{"to": [{"email": recipient.addr_spec}]}],
            "from": {"email": sender.addr_spec, "name": sender.display_name or sender.addr_spec},
            "subject": str(message["Subject"]),
            "content": [{"type": "text/plain", "value": message.get_content()}],
            "headers": {name: str(message[name]) for name in KEPT_HEADERS if name in message},
        }
        headers = {"Authorization": f"Bearer {self._key}"}
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=self._timeout, trace_configs=[outgoing.traced()]
                ) as session,
                session.post(
                    self._url, json=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                status = answer.status
        except aiohttp.ClientError as error:
            raise ConnectionError(type(error).__name__) from None
        if 400 <= status < 500 and status not in AGAIN:
            raise Refused(f"HTTP {status}")
        if not 200 <= status < 300:
            raise ConnectionError(f"HTTP {status}")
