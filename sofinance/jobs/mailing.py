"""Reserving mails of every organisation, and delivering what is reserved.

A mail is claimed for one attempt under a lease, then handed over while no transaction is open: at
least once, since a worker may die between the server's yes and ours. A mail server that does not
answer opens a circuit, and until it closes nothing is claimed: an outage uses up no attempts.
"""

from __future__ import annotations

import logging
from email.errors import MessageError
from typing import TYPE_CHECKING

import aiosmtplib
import asyncpg

from sofinance import queries as q
from sofinance.api.mail import reserve, unsubscribe_url
from sofinance.infra import mail
from sofinance.infra.circuit import CLOSED, OPEN, Circuit, CircuitOpenError
from sofinance.infra.secretbox import SecretBox
from sofinance.jobs import JobFailedError
from sofinance.jobs.organisations import whose

if TYPE_CHECKING:
    from typing import Any

    from sofinance.infra.db import Database

log = logging.getLogger(__name__)

BATCH = 10
BATCH_COUNT_MAX = 20
# Longer than a batch can take: each message has SMTP_TIMEOUT_S, at most 300 seconds.
LEASE_SLACK_S = 60
AWAY = (OSError, aiosmtplib.SMTPException)
# Of this process: a worker delivers for everybody through one server.
CIRCUIT = Circuit("mail", failure_count_max=5, window_s=60, recovery_s=30, counts=AWAY)


class Postman:
    """Delivers claimed mails, one after the other, through a circuit."""

    def __init__(self, database: Database, *, circuit: Circuit | None = None) -> None:
        settings = database.settings
        self._db, self._circuit = database, circuit or CIRCUIT
        self._deliver = mail.delivery(settings)
        self._sender = settings.mail_from or mail.FALLBACK_SENDER
        self._box = SecretBox.configured(settings)
        self._lease_s = BATCH * settings.smtp_timeout_s + LEASE_SLACK_S
        self.sent_count = self.failed_count = 0

    @property
    def may_try(self) -> bool:
        """Whether there is a way to send, and it is not known to be closed."""
        return self._deliver is not None and self._circuit.state != OPEN

    async def deliver(self, org_id: int) -> None:
        """Deliver what is due of an organisation, in batches."""
        for _ in range(BATCH_COUNT_MAX):
            # Half open, one mail is enough to find out.
            limit = BATCH if self._circuit.state == CLOSED else 1
            if not self.may_try:
                return
            async with self._db.tenant(org_id) as conn:
                claimed = await q.mail.claim_mails(
                    conn, org_id=org_id, limit=limit, lease_s=self._lease_s
                )
            for place, message in enumerate(claimed):
                if self._circuit.state == OPEN:
                    async with self._db.tenant(org_id) as conn:
                        rest = [left.id for left in claimed[place:]]
                        await q.mail.release_mails(conn, org_id=org_id, ids=rest)
                    return
                await self._hand_over(org_id, message)
            if len(claimed) < limit:
                return

    async def _hand_over(self, org_id: int, claimed: Any) -> None:
        """Try once, and write down what came of it."""
        refusal, is_final = None, False
        try:
            message = mail.compose(
                sender=self._sender, to=claimed.recipient, subject=claimed.subject,
                text=claimed.body,
                unsubscribe=unsubscribe_url(
                    self._db.settings, self._box, org_id, claimed.recipient
                ),
            )  # fmt: skip
            async with self._circuit:
                await self._send(message)
        except CircuitOpenError:
            refusal = "the mail server is left alone for a while"
        except mail.UndeliverableError as error:
            refusal, is_final = f"refused: {error}", True
        except (ValueError, MessageError):
            refusal, is_final = "the address is none", True
        except AWAY as error:
            refusal = mail.kind_of(error)
        async with self._db.tenant(org_id) as conn:
            key = {"org_id": org_id, "id": claimed.id}
            if refusal is None:
                self.sent_count += await q.mail.mark_sent(conn, **key)
                return
            self.failed_count += 1
            await q.mail.mark_failed(conn, **key, is_final=is_final, last_error=refusal[:200])
            if is_final:
                await q.mail.block_address(
                    conn, org_id=org_id, address=claimed.recipient, reason="invalid"
                )

    async def _send(self, message: Any) -> None:
        if self._deliver is None:
            raise mail.UndeliverableError("there is no way to send mail")
        await self._deliver(message)


async def deliver_mails(database: Database) -> str:
    """Deliver what is due in every organisation; fails while the mail server is left alone."""
    postman = Postman(database)
    for org_id in await whose(database):
        if postman.may_try:
            await postman.deliver(org_id)
    told = f"sent {postman.sent_count} mails, {postman.failed_count} attempts failed"
    if CIRCUIT.state == OPEN:
        raise JobFailedError(f"{told}; the mail server does not answer")
    return told


async def scan_mails(database: Database) -> str:
    """Reserve reminders and digests in every organisation, each in a transaction of its own.

    What an organisation's data refuse keeps nobody else's mail back; the job fails in the end.
    """
    reserved, refused = 0, []
    for org_id in await whose(database):
        try:
            async with database.tenant(org_id) as conn:
                reserved += (await reserve(conn, database.settings, org_id))[0]
        except asyncpg.IntegrityConstraintViolationError:
            log.exception("no mails were reserved", extra={"metadata": {"org_id": org_id}})
            refused.append(org_id)
    if refused:
        raise JobFailedError(f"reserved {reserved} mails, none in {len(refused)} organisations")
    return f"reserved {reserved} mails"
