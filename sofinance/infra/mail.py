"""Mail: put aside in memory while a request is answered, sent afterwards, bounded everywhere.

Nobody waits for a mail server, so how long an answer takes does not tell whether there was anybody
to write to. What is lost when a process dies can be asked for again: mail that must arrive belongs
in the database. Neither addresses nor texts are logged; mail carries links that sign people in.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid, parseaddr
from pathlib import Path
from typing import TYPE_CHECKING

import aiosmtplib

from sofinance.infra import metrics
from sofinance.infra.command import SetupError
from sofinance.infra.mail_sendgrid import Refused, SendGrid

if TYPE_CHECKING:
    from email.policy import Policy

    from sofinance.config import Settings

log = logging.getLogger(__name__)

Deliver = Callable[[EmailMessage], Awaitable[None]]

WAITING_COUNT_MAX = 1_000
SENDER_COUNT = 2
ATTEMPT_COUNT_MAX = 3
# Before another attempt, times the number of attempts so far.
PAUSE_S = 2.0
# How long a process that stops goes on sending.
GRACE_S = 5.0
TEXT_LENGTH_MAX = 100_000
FALLBACK_SENDER = "sofinance@localhost"
SENT, FAILED, DROPPED = "sent", "failed", "dropped"


class UndeliverableError(Exception):
    """It will never be taken: another attempt would not help."""


class WholeHeader(UnstructuredHeader, BaseHeader):
    """A header of one long word, such as a URL, on one line.

    Python would fold a word above 78 characters into encoded words, which no program takes for a
    URL. RFC 5322 (2.1.1) allows 998.
    """

    max_count = 1

    def fold(self, *, policy: Policy) -> str:
        """Return its line."""
        return f"{self.name}: {self}{policy.linesep}"


HEADERS = HeaderRegistry()
HEADERS.map_to_type("list-unsubscribe", WholeHeader)
POLICY = SMTP.clone(header_factory=HEADERS)


class Mailer:
    """A bounded queue of messages and the tasks that send them."""

    def __init__(self, deliver: Deliver | None, *, sender: str, pause_s: float = PAUSE_S) -> None:
        """Take the way to deliver; None drops, and counts, what there is no way for."""
        self._deliver, self._sender, self._pause_s = deliver, sender, pause_s
        self._waiting: asyncio.Queue[EmailMessage] = asyncio.Queue(WAITING_COUNT_MAX)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def configured(cls, settings: Settings) -> Mailer:
        """Return the mailer of the settings: by SMTP, into a folder, or into nothing."""
        return cls(delivery(settings), sender=settings.mail_from or FALLBACK_SENDER)

    def send(self, *, to: str, subject: str, text: str) -> None:
        """Put a message aside for sending; never waits and never fails, but counts."""
        try:
            message = compose(sender=self._sender, to=to, subject=subject, text=text)
        except (ValueError, MessageError):
            log.warning("a message was not sent: its address or subject is none")
            metrics.MAILS.labels(FAILED).inc()
            return
        if self._deliver is None or self._waiting.full():
            log.warning("a message was dropped: there is no way to send it, or too many wait")
            metrics.MAILS.labels(DROPPED).inc()
            return
        self._waiting.put_nowait(message)
        metrics.MAILS_WAITING.set(self._waiting.qsize())

    def start(self) -> None:
        """Begin to send, in the running loop."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(SENDER_COUNT)]

    async def stop(self, *, grace_s: float = GRACE_S) -> None:
        """Send what waits, for a few seconds; then count the rest as dropped."""
        try:
            async with asyncio.timeout(grace_s):
                await self._waiting.join()
        except TimeoutError:
            log.warning("messages were dropped: the process ends")
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        unsent = sum(isinstance(end, _CutShort) for end in ended) + self._waiting.qsize()
        metrics.MAILS.labels(DROPPED).inc(unsent)
        self._tasks = []

    async def _work(self) -> None:
        while True:
            message = await self._waiting.get()
            metrics.MAILS_WAITING.set(self._waiting.qsize())
            try:
                metrics.MAILS.labels(await self._try(message)).inc()
            except asyncio.CancelledError:
                raise _CutShort from None
            finally:
                self._waiting.task_done()

    async def _try(self, message: EmailMessage) -> str:
        """Deliver a message, in a few attempts; returns what became of it."""
        if self._deliver is None:
            return DROPPED
        for attempt in range(1, ATTEMPT_COUNT_MAX + 1):
            try:
                await self._deliver(message)
            except UndeliverableError as error:
                log.warning("a message was refused: %s", error)
                return FAILED
            except (OSError, aiosmtplib.SMTPException, ValueError) as error:
                # Its kind only: what servers answer quotes addresses.
                log.warning("attempt %d to send a message failed: %s", attempt, kind_of(error))
                if attempt < ATTEMPT_COUNT_MAX:
                    await asyncio.sleep(self._pause_s * attempt)
            else:
                return SENT
        return FAILED


class _CutShort(Exception):  # noqa: N818 - it is told to nobody
    """A task ended while it had a message in hand."""


def compose(
    *, sender: str, to: str, subject: str, text: str, unsubscribe: str = ""
) -> EmailMessage:
    """Return a message; a ValueError says that an address or a subject is none.

    The headers are built by the email package, which refuses line breaks in them. `unsubscribe` is
    the URL at which a POST keeps further ones away (RFC 8058).
    """
    name, address = parseaddr(sender)
    # Python 3.11 falls over an empty one.
    if not to or not to.isprintable() or len(text) > TEXT_LENGTH_MAX:
        raise ValueError("not an address, or too long a text")
    message = EmailMessage(policy=POLICY)
    message["From"] = Address(name, addr_spec=address)
    message["To"] = Address(addr_spec=to)
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=address.rpartition("@")[2])
    # So that no holiday reply comes back.
    message["Auto-Submitted"] = "auto-generated"
    if unsubscribe:
        message["List-Unsubscribe"] = f"<{unsubscribe}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        text = f"{text.rstrip()}\n\n-- \nNo more mails like this one:\n{unsubscribe}\n"
    message.set_content(text)
    return message


# -- the ways to deliver ---------------------------------------------------------------------------


def delivery(settings: Settings) -> Deliver | None:
    """Return how the settings want mail delivered; None when they say nothing about it."""
    mode = settings.email_mode
    if mode == "off":
        return None
    if mode == "sendgrid":
        return by_sendgrid(settings)
    if settings.smtp_host and mode in {"auto", "smtp"}:
        return by_smtp(settings)
    if settings.mail_folder:
        return into_folder(Path(settings.mail_folder))
    if settings.environment == "development":
        return into_folder(Path(tempfile.gettempdir()) / f"sofinance-mail-{os.getuid()}")
    return None


def by_smtp(settings: Settings) -> Deliver:
    """Deliver to a mail server, within its time limit, encrypted unless it is told not to be."""

    async def deliver(message: EmailMessage) -> None:
        try:
            # aiosmtplib's timeout is per command: a server may drip for as long as it likes.
            async with asyncio.timeout(settings.smtp_timeout_s):
                await aiosmtplib.send(
                    message,
                    hostname=settings.smtp_host,
                    port=settings.smtp_port,
                    username=settings.smtp_user or None,
                    password=settings.smtp_password or None,
                    use_tls=settings.smtp_tls == "tls",
                    start_tls=settings.smtp_tls == "starttls",
                    timeout=settings.smtp_timeout_s,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [refusal.code for refusal in error.recipients]
            if all(code >= 500 for code in codes):
                raise UndeliverableError(f"SMTP {max(codes)}") from None
            raise
        except aiosmtplib.SMTPAuthenticationError:
            raise  # a server that restarts may say so; the next attempt knows
        except aiosmtplib.SMTPResponseException as error:
            if error.code >= 500:
                raise UndeliverableError(f"SMTP {error.code}") from None
            raise

    return deliver


def by_sendgrid(settings: Settings) -> Deliver:
    """Deliver by SendGrid's API."""
    account = SendGrid(
        key=settings.sendgrid_api_key, url=settings.sendgrid_url, timeout_s=settings.smtp_timeout_s
    )

    async def deliver(message: EmailMessage) -> None:
        try:
            await account.send(message)
        except Refused as error:
            raise UndeliverableError(str(error)) from None

    return deliver


def into_folder(folder: Path) -> Deliver:
    """Deliver into a folder, as one .eml file per message that only its owner can read."""

    async def deliver(message: EmailMessage) -> None:
        await asyncio.to_thread(_write, folder, message)

    return deliver


def _write(folder: Path, message: EmailMessage) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        # In /tmp anybody may have made it first, to read what comes.
        raise UndeliverableError("the mail folder is somebody else's")
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}Z-{uuid.uuid4().hex[:12]}.eml"
    partial, path = folder / f".{name}", folder / name
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(message.as_bytes())
    partial.rename(path)


def kind_of(error: BaseException) -> str:
    """Name an error without what it says."""
    code = getattr(error, "code", None)
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"


def check(settings: Settings) -> None:
    """Refuse settings under which no mail would ever be sent; raises SetupError."""
    if delivery(settings) is None:
        raise SetupError("Neither SMTP_HOST nor MAIL_FOLDER is set: no mail will be sent.")
